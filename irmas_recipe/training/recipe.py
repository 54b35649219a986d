"""Every parameter of a run, and how a recipe (one YAML) and the command line set them."""

import argparse
import dataclasses
import os
import re
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from irmas_dataset.errors import UserError
from irmas_dataset.forms.flags import Columns
from irmas_dataset.whole_file import whole_file
from irmas_recipe.training.fields import (
    UNUSABLE,
    VALIDATION_FIGURES,
    AugmentationArguments,
    DataArguments,
    ModelArguments,
    TrainingFields,
)
from irmas_recipe.training.recipe_file import asks_for_help, find_recipe, show_help

if TYPE_CHECKING:
    from irmas_recipe.training.training_arguments import IrmasTrainingArguments

DIVIDING_THE_MODEL = (
    "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM", "ACCELERATE_USE_PARALLELISM_CONFIG",
)  # fmt: skip
SCHEDULES_WITHOUT_WARMUP = ("constant", "reduce_lr_on_plateau", "greedy")

# Fields that say how to start, not what the run is.
START_FIELDS = {"resume_from_checkpoint", "overwrite_output_dir", "hub_token", "local_rank"}


class ResolvedRecipe:
    """The parameters of a run in parts, each a dataclass; the subclass is a dataclass of them."""

    def values(self) -> dict[str, Any]:
        """Return every field that is set as one flat mapping that can be run again."""
        values: dict[str, Any] = {}
        for item in dataclasses.fields(self):
            part = getattr(self, item.name)
            values |= dataclasses.asdict(part) if dataclasses.is_dataclass(part) else part
        return {name: value for name, value in values.items() if value is not None}

    def save(self, path: Path) -> None:
        """Write the resolved recipe, without what was for one start alone, as YAML that a reader finds whole or not at all."""
        values = {name: value for name, value in self.values().items() if name not in START_FIELDS}
        with whole_file(path) as unfinished:
            unfinished.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")


@dataclass
class Recipe(ResolvedRecipe):
    """A network's parameters; `given` holds the Trainer's fields that the YAML or the shell set."""

    model: ModelArguments
    data: DataArguments
    augmentation: AugmentationArguments
    training: "IrmasTrainingArguments"
    given: dict[str, Any]

    def values(self) -> dict[str, Any]:
        """Return every field of ours that is not None, and every Trainer field that was set, to None too."""
        ours = {}
        for part in (self.model, self.data, self.augmentation):
            ours |= dataclasses.asdict(part)
        ours = {name: value for name, value in ours.items() if value is not None}
        return {name: plain(value) for name, value in (ours | self.given).items()}


def plain(value: Any) -> Any:
    """Return a value as YAML holds it: transformers parses some fields into enumerations."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def parse_recipe(arguments: list[str]) -> Recipe:
    """Read `RECIPE [--field value ...]`: the recipe's values become defaults, the command line wins.

    Raises:
        UserError: a missing or unreadable recipe, an unknown field (the nearest known one is named), a wrong value.
    """
    name, *given = arguments
    if asks_for_help(given):
        show_help(name, (ModelArguments, DataArguments, AugmentationArguments, TrainingFields))
    from irmas_recipe.training.parser import RecipeParser, fill, from_json  # these need torch, which takes seconds
    from irmas_recipe.training.training_arguments import IrmasTrainingArguments

    if "--help_trainer" in given:
        parser = RecipeParser((IrmasTrainingArguments,), prog=f"irmas {name}")
        for action in parser._actions:
            action.help = argparse.SUPPRESS if action.dest in UNUSABLE else action.help
        parser.print_help()
        sys.exit(0)
    check_launcher()
    parts = (ModelArguments, DataArguments, AugmentationArguments, IrmasTrainingArguments)
    (model, data, augmentation, training), chosen = fill(find_recipe(name), given, parts)
    of_trainer = {item.name for item in dataclasses.fields(training) if item.init} - START_FIELDS
    for part, field in (
        (model, "model_config"), (model, "feature_extractor_config"), (augmentation, "audiomentations")
    ):  # fmt: skip
        setattr(part, field, from_json(field, getattr(part, field)))
    recipe = Recipe(
        model, data, augmentation, training, {name: value for name, value in chosen.items() if name in of_trainer}
    )
    check(recipe)
    return recipe


def parse_system(arguments: list[str], parts: tuple[type, ...]) -> list[Any]:
    """Return the dataclasses of a system without a network, the first of which names it as its `system`.

    Raises:
        UserError: as `parse_recipe`; or a field of the data that these systems cannot follow.
    """
    name, *given = arguments
    if asks_for_help(given):
        show_help(name, parts)
    from irmas_recipe.training.parser import fill  # needs torch, which takes seconds

    filled, _ = fill(find_recipe(name), given, parts)
    for part in filled:
        if isinstance(part, DataArguments):
            check_data(part)
            if part.streaming:
                raise UserError(
                    f"--streaming true is for networks: a recipe with `system: {filled[0].system}` needs clips on disk."
                )
            if part.separated_mixtures:
                raise UserError(
                    f"--separated_mixtures is for networks: leave it out of a recipe with `system: {filled[0].system}`."
                )
    return filled


def check(recipe: Recipe) -> None:
    """Refuse contradictions before any work is done.

    Raises:
        UserError: naming the field and the way out.
    """
    model, data, augmentation, training = recipe.model, recipe.data, recipe.augmentation, recipe.training
    check_data(data)
    if data.streaming:
        check_streaming(recipe)
    check_augmentation(augmentation, data.window_seconds)
    check_mixtures(data, augmentation)
    check_model(model)
    check_training(training)


def check_launcher() -> None:
    """Raise UserError where accelerate was told to divide the model: every process trains with a whole one."""
    if dividing := [name for name in DIVIDING_THE_MODEL if os.environ.get(name, "").lower() in ("true", "1")]:
        raise UserError(
            f"accelerate was told to divide the model among processes ({dividing[0]}), which would help only models larger "
            "than any here: start it with --config_file recipes/accelerate/several_gpus.yaml."
        )


def check_data(data: DataArguments) -> None:
    """Read the mappings, and refuse contradictions in the fields of the data, which every recipe has."""
    check_mapping(data, "extra_label_map", "{guitar: gac}")
    check_mapping(data, "extra_columns", "{label_column: instrument}")
    known = [item.name for item in dataclasses.fields(Columns)]
    if wrong := sorted(set(data.extra_columns or {}) - set(known)):
        raise UserError(f"--extra_columns: {wrong[0]} is none of its fields; they are {', '.join(known)}.")
    if data.hop_seconds is not None and not 0 < data.hop_seconds <= data.window_seconds:
        raise UserError(
            f"--hop_seconds must be greater than 0 and at most the window ({data.window_seconds}), not {data.hop_seconds}."
        )
    if data.recording_pattern is not None:
        try:
            re.compile(data.recording_pattern)
        except re.error as error:
            raise UserError(
                f"--recording_pattern {data.recording_pattern!r} is not a regular expression: {error}."
            ) from None


def check_mapping(data: DataArguments, name: str, example: str) -> None:
    """Read a field of `extra_train_dir` that is a mapping."""
    from irmas_recipe.training.parser import from_json  # needs torch, which takes seconds

    value = from_json(name, getattr(data, name))
    setattr(data, name, value)
    if value is not None and not isinstance(value, dict):
        raise UserError(f"--{name} must be a mapping, such as {example}.")
    if value is not None and data.extra_train_dir is None:
        raise UserError(f"--{name} is of no use without --extra_train_dir: name the data set that it is about.")


def check_augmentation(augmentation: AugmentationArguments, window_seconds: float) -> None:
    """Refuse contradictions in the fields of the augmentation."""
    if augmentation.max_time_shift_seconds > window_seconds:
        raise UserError(
            f"--max_time_shift_seconds {augmentation.max_time_shift_seconds} is longer than the window "
            f"({window_seconds} s): make it shorter."
        )
    for masks, longest in (("time_masks", "max_time_mask_frames"), ("frequency_masks", "max_frequency_mask_bins")):
        if getattr(augmentation, masks) and getattr(augmentation, longest) < 2:
            raise UserError(f"--{masks} without --{longest} of 2 or more masks nothing: set both.")
    for low, high in (("min_gain_db", "max_gain_db"), ("min_snr_db", "max_snr_db")):
        if getattr(augmentation, low) > getattr(augmentation, high):
            raise UserError(f"--{low} is greater than --{high}: swap them.")
    if augmentation.audiomentations is not None and not isinstance(augmentation.audiomentations, list):
        raise UserError("--audiomentations must be a list, such as [{PitchShift: {p: 0.5}}].")


def check_model(model: ModelArguments) -> None:
    """Refuse contradictions in the fields of the model."""
    model.soup = [model.soup] if isinstance(model.soup, str) else model.soup
    dropping = ("patchout_time", "patchout_frequency", "patchout_tokens", "layerdrop", "drop_path_rate")
    useless = [name for name in dropping if getattr(model, name)]
    if model.freeze == "backbone" and useless:
        raise UserError(f"--freeze backbone leaves nothing for --{useless[0]} to act on: remove one of the two.")
    if model.initial_weight and (model.model_name_or_path is None or model.head_initialization == "random"):
        raise UserError(
            "--initial_weight mixes in the model from before training, whose head is random here: name a pretrained "
            "checkpoint with --head_initialization labels, or set --initial_weight 0."
        )
    if model.head_initialization in ("regression", "text") and model.model_name_or_path is None:
        raise UserError(
            f"--head_initialization {model.head_initialization} needs a pretrained checkpoint: name one with "
            "--model_name_or_path, or set --head_initialization labels."
        )
    if model.freeze == "known_labels" and model.model_name_or_path is None:
        raise UserError("--freeze known_labels adds classes to a trained model: name its run in --model_name_or_path.")
    if model.backbone_name_or_path and model.model_name_or_path:
        raise UserError(
            "--backbone_name_or_path starts a new model, --model_name_or_path a trained one: name one of them."
        )
    for name, value in (
        ("model_config", model.model_config), ("feature_extractor_config", model.feature_extractor_config)
    ):  # fmt: skip
        if value is not None and not isinstance(value, dict):
            raise UserError(f"--{name} must be a mapping, such as {{hidden_size: 192}}, not {value!r}.")


def check_training(training: "IrmasTrainingArguments") -> None:
    """Refuse contradictions in the fields of the training."""
    if training.max_steps == 0 or (training.max_steps > 0 and training.num_train_epochs == 0):
        raise UserError("--max_steps is a number of steps to train: to train nothing, set --num_train_epochs 0 alone.")
    best = (training.metric_for_best_model or "").removeprefix("eval_")
    if (training.load_best_model_at_end or training.save_strategy == "best") and best not in VALIDATION_FIGURES:
        raise UserError(
            f"--metric_for_best_model {training.metric_for_best_model or 'null'} is not measured: choose one of "
            f"{', '.join(VALIDATION_FIGURES)}."
        )
    if training.load_best_model_at_end and training.greater_is_better != (best != "loss"):
        raise UserError(f"--greater_is_better would keep the worst {best}, not the best: remove it.")
    if training.fp16 and training.device.type == "cpu":
        raise UserError("--fp16 needs a GPU: remove it, or set --bf16 true.")
    if training.one_cycle and set(training.lr_scheduler_kwargs or {}) - {"mode"}:  # which a plateau always has
        raise UserError("--one_cycle true takes no --lr_scheduler_kwargs: remove one of the two.")
    if training.warmup_steps and training.lr_scheduler_type in SCHEDULES_WITHOUT_WARMUP and not training.one_cycle:
        raise UserError(
            f"--lr_scheduler_type {training.lr_scheduler_type.value} does not warm up: set --warmup_steps 0, or choose "
            "constant_with_warmup, linear or cosine."
        )


def check_mixtures(data: DataArguments, augmentation: AugmentationArguments) -> None:
    """Refuse `separated_mixtures` where nothing is separated or nothing is mixed."""
    if data.separated_mixtures and (data.separation == "none" or not augmentation.mix_probability):
        raise UserError(
            f"--separated_mixtures {data.separated_mixtures} needs a --separation and a --mix_probability above 0: set them, or "
            "leave it out."
        )


def check_streaming(recipe: Recipe) -> None:
    """Refuse what needs all training clips at hand."""
    data = recipe.data
    if data.data_dir == "synthetic":
        raise UserError("--streaming true reads an export: run `irmas export` and name its folder in --data_dir.")
    for name, is_set in {
        "balanced_sampling": recipe.augmentation.balanced_sampling,
        "head_initialization regression": recipe.model.head_initialization == "regression",
        "extra_train_dir": data.extra_train_dir,
        "separation": data.separation != "none",
    }.items():
        if is_set:
            raise UserError(f"--{name} needs the training clips on disk: remove it, or set --streaming false.")
