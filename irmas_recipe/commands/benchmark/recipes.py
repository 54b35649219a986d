"""The recipe as the benchmark runs it, and whether it can be compared at all, before any work starts."""

import argparse
import json
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import ASTConfig

from irmas_dataset.errors import UserError
from irmas_recipe.commands.benchmark.ours import LOOP_STEPS
from irmas_recipe.training.recipe import Recipe, parse_recipe
from irmas_recipe.training.recipe_file import system_of
from irmas_recipe.training.released import ARCHITECTURES, find_released, is_released

CPU_BATCH = 4  # a larger one hardly changes a CPU's rate, and stock's steps take a minute each
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
LEFT_OUT = {
    "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": "false", "logging_strategy": "no",
    "disable_tqdm": "true", "gradient_accumulation_steps": 1, "streaming": "false",
}  # fmt: skip
"""Fields without what a benchmark does not do: validation, checkpoints, logs, reading from elsewhere."""
PLAIN = LEFT_OUT | {
    "max_steps": -1, "lr_scheduler_type": "constant", "warmup_steps": 0, "layer_decay": 1, "weight_averaging": "none",
    "weight_decay": 0.01, "balanced_sampling": "false", "mix_probability": 0, "min_gain_db": 0, "max_gain_db": 0,
    "noise_probability": 0, "polarity_inversion_probability": 0, "max_time_shift_seconds": 0, "time_masks": 0,
    "frequency_masks": 0,
}  # fmt: skip
"""Fields under which our training differs from the example's only in what makes it fast."""


def benchmark_recipe(arguments: argparse.Namespace, fields: list[str], scratch: str) -> tuple[Recipe, list[str]]:
    """Return the recipe without validation and checkpoints, and notes on what was changed.

    Raises:
        UserError: the recipe is wrong, or cannot be compared as asked for.
    """
    if (system := system_of([arguments.recipe])) != "network":
        raise UserError(
            f"{arguments.recipe} is of another system ({system}), and benchmark measures networks: name a recipe of one."
        )
    recipe = parse_recipe([arguments.recipe, *fields])
    if arguments.against:
        check_is_ast(recipe)
    check_processes(arguments.processes, recipe.training.device)
    device = recipe.training.device.type
    own = LEFT_OUT | {"output_dir": f"{scratch}/run", "max_steps": LOOP_STEPS.get(device, LOOP_STEPS["cpu"])}
    if device == "cpu":
        own["dataloader_num_workers"] = 0  # they would take the cores from the model
    if "--per_device_train_batch_size" not in {field.split("=")[0] for field in fields}:
        batch = recipe.training.per_device_train_batch_size
        own["per_device_train_batch_size"] = min(CPU_BATCH, batch) if device == "cpu" else batch
    recipe = parse_recipe([arguments.recipe, *fields, *(f"--{name}={value}" for name, value in own.items())])
    name = recipe.model.model_name_or_path
    if not name or (not arguments.random_weights and is_at_hand(name, recipe.model.model_revision)):
        return recipe, []
    recipe.model.architecture = architecture_in(name) or "ast"
    recipe.model.model_name_or_path = None
    recipe.model.initial_weight = 0.0
    reason = "was asked for" if arguments.random_weights else f"is used because {name} is not on this machine"
    note = f"Random weights of the shape of {name} ({recipe.model.architecture}'s default), which {reason}"
    return recipe, [f"{note}: speed does not depend on the weights."]


def accuracy_recipe(arguments: argparse.Namespace, fields: list[str], scratch: str) -> Recipe:
    """Return the recipe for --epochs, without what the stock example does not do.

    Raises:
        UserError: the recipe starts from a checkpoint, so that a comparison from random weights would not be fair.
    """
    own = PLAIN | {"output_dir": f"{scratch}/accuracy", "num_train_epochs": arguments.epochs}
    recipe = parse_recipe([arguments.recipe, *fields, *(f"--{name}={value}" for name, value in own.items())])
    if recipe.model.model_name_or_path:
        raise UserError("--epochs compares networks trained from scratch; name a recipe without model_name_or_path.")
    return recipe


def check_is_ast(recipe: Recipe) -> None:
    """Raise UserError unless the recipe's network is AST, the network of the stock example."""
    name = recipe.model.model_name_or_path
    kind = model_type(name, recipe.model.model_revision) if name else recipe.model.architecture
    if kind not in (None, "ast", ASTConfig.model_type):
        raise UserError(
            f"--against stock compares AST, the network of transformers' example, not {kind}; name a recipe of ast/."
        )


def model_type(name: str, revision: str) -> str | None:
    """Return the `model_type` of a checkpoint on this machine; for one that is not, the architecture in its name."""
    file = Path(name, "config.json") if Path(name).is_dir() else cached(name, "config.json", revision)
    try:
        return json.loads(Path(file).read_text(encoding="utf-8"))["model_type"]
    except (TypeError, OSError, ValueError, KeyError):  # not here, or damaged, which loading it reports
        return architecture_in(name)


def architecture_in(name: str) -> str | None:
    """Return the architecture of a released checkpoint, or the one that another name contains."""
    if is_released(name):
        return find_released(name).architecture
    return next((architecture for architecture in ARCHITECTURES if architecture in name), None)


def check_processes(count: int | None, device: torch.device) -> None:
    """Raise UserError where there are fewer GPUs than processes to train in."""
    if count and device.type == "cuda" and count > torch.cuda.device_count():
        raise UserError(f"--processes {count} needs as many GPUs; this machine has {torch.cuda.device_count()}.")


def is_at_hand(name: str, revision: str) -> bool:
    """Return whether a checkpoint is a folder here or in a cache; a benchmark downloads nothing."""
    if is_released(name):
        return find_released(name).is_cached
    return Path(name).is_dir() or any(cached(name, file, revision) for file in WEIGHTS)


def cached(name: str, file: str, revision: str) -> str | None:
    """Return the path of a checkpoint's file in the Hub's local cache, None where it is not there."""
    if Path(name).parent != Path(name.split("/")[0]):  # not a Hub id: user/model
        return None
    path = try_to_load_from_cache(name, file, revision=revision)
    return path if isinstance(path, str) else None
