"""Every parameter of a run, and how a recipe (one YAML) and the command line set them."""

import dataclasses
import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import yaml
from transformers import HfArgumentParser

from irmas_dataset.errors import UserError
from irmas_dataset.whole_file import whole_file
from irmas_recipe.home import shipped
from irmas_recipe.training.fields import (
    VALIDATION_FIGURES,
    AugmentationArguments,
    DataArguments,
    IrmasTrainingArguments,
    ModelArguments,
)
from irmas_recipe.training.limits import check_numbers


@dataclass
class Recipe:
    """The resolved parameters of a run; `given` holds the Trainer's fields that were set by the YAML or on the shell."""

    model: ModelArguments
    data: DataArguments
    augmentation: AugmentationArguments
    training: IrmasTrainingArguments
    given: dict

    def values(self) -> dict:
        """Return every field of ours and every Trainer field that was set, as one flat mapping that can be run again."""
        values = {}
        for part in (self.model, self.data, self.augmentation):
            values |= dataclasses.asdict(part)
        values |= self.given
        return {name: value for name, value in values.items() if value is not None}

    def save(self, path: Path) -> None:
        """Write the resolved recipe as YAML, so that a reader never sees half a file."""
        with whole_file(path) as unfinished:
            unfinished.write_text(yaml.safe_dump(self.values(), sort_keys=False, allow_unicode=True), encoding="utf-8")


class RecipeParser(HfArgumentParser):
    """transformers' parser of dataclasses, whose errors are one sentence."""

    def error(self, message: str) -> None:
        message = " ".join(message.split())
        raise UserError(
            f"{message[0].upper()}{message[1:]} (`python run_irmas.py RECIPE.yaml --help` lists every field)."
        )


PARTS = (ModelArguments, DataArguments, AugmentationArguments, IrmasTrainingArguments)

# Fields that say how this start is to go, not what the run is.
START_FIELDS = {"resume_from_checkpoint", "overwrite_output_dir", "hub_token", "local_rank"}


def parse_recipe(arguments: list[str]) -> Recipe:
    """Read `RECIPE.yaml [--field value ...]`: the YAML's values become defaults, the command line wins.

    Args:
        arguments: the command line without the program's name. Without a recipe it is `recipes/ast/finetune.yaml`.
    Raises:
        UserError: a missing or unreadable recipe, an unknown key (the nearest known one is named), a wrong value.
    """
    path = Path("recipes/ast/finetune.yaml")
    if arguments and not arguments[0].startswith("--"):
        path, arguments = Path(arguments[0]), arguments[1:]
    elif not {"--help", "-h"} & set(arguments):
        path = shipped(str(path))
    parser = RecipeParser(
        PARTS, prog="run_irmas.py RECIPE.yaml", description="Train, evaluate and report one recipe.", allow_abbrev=False
    )
    known = {action.dest: action for action in parser._actions}
    from_recipe = [] if {"--help", "-h"} & set(arguments) else recipe_as_arguments(path, known)
    for item in arguments:
        if (
            item.startswith("--")
            and (name := item[2:].split("=")[0].replace("-", "_").removeprefix("no_")) not in known
        ):
            raise UserError(f"--{name} is no field of a recipe{nearest(name, known)}")
    default_output = ["--output_dir", str(Path("runs", run_name(path)))]
    untouched = vars(parser.parse_args([]))
    namespace = vars(parser.parse_args([*default_output, *from_recipe, *arguments]))
    model, data, augmentation, training = (part_of(part, namespace) for part in PARTS)
    given = {
        item.name: namespace[item.name]
        for item in dataclasses.fields(training)
        if item.init and item.name not in START_FIELDS and namespace[item.name] != untouched[item.name]
    }
    for part, name in ((model, "model_config"), (model, "feature_extractor_config"), (augmentation, "audiomentations")):
        setattr(part, name, from_json(name, getattr(part, name)))
    recipe = Recipe(model, data, augmentation, training, given)
    check(recipe)
    return recipe


def part_of(part: type, namespace: dict):
    """Return one dataclass of the recipe; transformers checks its own fields, each in its own way."""
    try:
        return part(**{item.name: namespace[item.name] for item in dataclasses.fields(part) if item.init})
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"The recipe's fields do not go together, say transformers: {said.rstrip('.')}.") from error


SYSTEMS = ("classical", "wavegan", "ensemble")
"""What a recipe can name as its `system`; run_irmas.py says what each runs."""


def system_of(arguments: list[str]) -> str | None:
    """Return the `system` that the recipe on the command line names, None for a network's recipe."""
    path = Path(arguments[0]) if arguments and not arguments[0].startswith("--") else None
    if path is None or not path.is_file():
        return None
    system = re.search(r"^system:\s*(\S+)", path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    if system and system[1] not in SYSTEMS:
        raise UserError(f"{path}: system {system[1]} is not one of {', '.join(SYSTEMS)}.")
    return system[1] if system else None


def recipe_as_arguments(path: Path, known: dict) -> list[str]:
    """Return a YAML recipe as command-line arguments, so that argparse converts and checks both in the same way."""
    if not path.is_file():
        raise UserError(f"There is no recipe {path}: name one of recipes/**/*.yaml, or a verb such as `predict`.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is no recipe: it must hold `field: value` lines.")
    arguments = []
    for name, value in values.items():
        if name not in known:
            raise UserError(f"{path}: `{name}` is no field of a recipe{nearest(str(name), known)}")
        if isinstance(value, dict) or (isinstance(value, list) and known[name].nargs != "+"):
            arguments.append(f"--{name}={json.dumps(value)}")
        elif isinstance(value, list):
            arguments += [f"--{name}", *map(str, value)]
        elif value is not None:
            arguments.append(f"--{name}={value}")
    return arguments


def nearest(name: str, known: dict) -> str:
    """Return the end of the sentence about an unknown field: the nearest known one, if any is near."""
    matches = difflib.get_close_matches(name, known, n=1)
    return (
        f"; did you mean `{matches[0]}`?" if matches else "; `python run_irmas.py RECIPE.yaml --help` lists them all."
    )


def run_name(recipe: Path) -> str:
    """Return the name of a recipe's run folder: recipes/ast/finetune.yaml -> ast-finetune."""
    folders = recipe.resolve().parts
    inside = folders[folders.index("recipes") + 1 : -1] if "recipes" in folders else ()
    return "-".join([*inside, recipe.stem])


def from_json(name: str, value):
    """Return a mapping or list given as JSON (on the shell) or already parsed (None stays None)."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise UserError(f"--{name} is no valid JSON: {error}") from error


def check(recipe: Recipe) -> None:
    """Refuse contradictions before any work is done.

    Raises:
        UserError: naming the field and the way out.
    """
    model, data, augmentation, training = recipe.model, recipe.data, recipe.augmentation, recipe.training
    for part in (model, data, augmentation, training):
        check_numbers(part)
    check_data(data)
    if data.streaming:
        check_streaming(recipe)
    check_augmentation(augmentation, data.window_seconds)
    check_model(model)
    check_training(training)


def check_data(data: DataArguments) -> None:
    """Refuse what is wrong with the fields of the data, which every kind of recipe has."""
    if data.hop_seconds is not None and not 0 < data.hop_seconds <= data.window_seconds:
        raise UserError(
            f"--hop_seconds must lie between 0 and the window ({data.window_seconds}), not {data.hop_seconds}."
        )
    if not 0 < data.validation_fraction < 1:
        raise UserError(f"--validation_fraction must lie between 0 and 1, not {data.validation_fraction}.")
    if data.recording_pattern is not None:
        try:
            re.compile(data.recording_pattern)
        except re.error as error:
            raise UserError(
                f"--recording_pattern {data.recording_pattern!r} is no regular expression: {error}."
            ) from None


def check_augmentation(augmentation: AugmentationArguments, window_seconds: float) -> None:
    """Refuse what is wrong with the fields of the augmentation."""
    if augmentation.max_time_shift_seconds > window_seconds:
        raise UserError(
            f"--max_time_shift_seconds {augmentation.max_time_shift_seconds} is longer than the window "
            f"({window_seconds} s), which it shifts in a circle: make it shorter."
        )
    if not 2 <= augmentation.mix_max_clips <= 5:
        raise UserError(f"--mix_max_clips must be 2 to 5, not {augmentation.mix_max_clips}.")
    for low, high in (("min_gain_db", "max_gain_db"), ("min_snr_db", "max_snr_db")):
        if getattr(augmentation, low) > getattr(augmentation, high):
            raise UserError(f"--{low} is greater than --{high}: swap them.")
    if augmentation.audiomentations is not None and not isinstance(augmentation.audiomentations, list):
        raise UserError("--audiomentations must be a list, such as [{PitchShift: {p: 0.5}}].")


def check_model(model: ModelArguments) -> None:
    """Refuse what is wrong with the fields of the model."""
    if min(model.patchout_time, model.patchout_frequency, model.patchout_tokens) < 0:
        raise UserError(
            "--patchout_time, --patchout_frequency and --patchout_tokens count patches: none may be negative."
        )
    for name in ("layerdrop", "drop_path_rate", "head_dropout"):
        value = getattr(model, name)
        if value is not None and not 0 <= value < 1:
            raise UserError(f"--{name} is a probability: it must be at least 0 and less than 1, not {value}.")
    dropping = ("patchout_time", "patchout_frequency", "patchout_tokens", "layerdrop", "drop_path_rate")
    useless = [name for name in dropping if getattr(model, name)]
    if model.freeze == "backbone" and useless:
        raise UserError(f"--freeze backbone leaves nothing that --{useless[0]} could act on: remove one of the two.")
    if not 0 <= model.initial_weight <= 1:
        raise UserError(f"--initial_weight must lie between 0 and 1, not {model.initial_weight}.")
    if model.initial_weight and (model.model_name_or_path is None or model.head_initialization == "random"):
        raise UserError(
            "--initial_weight keeps some of the model as it was before training, but that one has a random head: name a "
            "pretrained checkpoint with --head_initialization labels, or set --initial_weight 0."
        )
    if model.head_initialization == "regression" and model.model_name_or_path is None:
        raise UserError(
            "--head_initialization regression needs a pretrained checkpoint: name one with --model_name_or_path, or set "
            "--head_initialization labels."
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


def check_training(training: IrmasTrainingArguments) -> None:
    """Refuse what is wrong with the fields of the training."""
    if not 0 < training.layer_decay <= 1:
        raise UserError(f"--layer_decay must lie above 0 and at most at 1, not {training.layer_decay}.")
    if training.weight_averaging != "none" and training.fsdp:
        raise UserError("--weight_averaging ema keeps a whole copy of the weights and cannot run under FSDP: use none.")
    if training.remove_unused_columns:
        raise UserError("--remove_unused_columns true would drop the waveforms: leave it out.")
    best = (training.metric_for_best_model or "").removeprefix("eval_")
    if training.load_best_model_at_end and best not in VALIDATION_FIGURES:
        raise UserError(
            f"--metric_for_best_model {training.metric_for_best_model} is not measured: choose one of "
            f"{', '.join(VALIDATION_FIGURES)}."
        )


def check_streaming(recipe: Recipe) -> None:
    """Refuse what needs all training clips at hand."""
    data = recipe.data
    if data.data_dir == "synthetic":
        raise UserError(
            "--streaming true reads an export: run `python run_irmas.py export` and name its folder in --data_dir."
        )
    for name, is_set in {
        "balanced_sampling": recipe.augmentation.balanced_sampling,
        "head_initialization regression": recipe.model.head_initialization == "regression",
        "extra_train_dir": data.extra_train_dir,
        "separation": data.separation != "none",
    }.items():
        if is_set:
            raise UserError(f"--{name} needs the training clips on disk: remove it, or set --streaming false.")
