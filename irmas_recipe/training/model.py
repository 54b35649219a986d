"""From a recipe to its model and feature extractor: load or make them, fit the window, start the head, freeze."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from datasets import DatasetDict
from torch import nn
from transformers import ASTConfig, AutoFeatureExtractor, PreTrainedConfig, PreTrainedModel
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor

from irmas_dataset.errors import UserError
from irmas_dataset.labels import readable_name
from irmas_recipe.models import ARCHITECTURES, ENCODER, OF_TRANSFORMERS, classes_of
from irmas_recipe.models.ast.adaptation import (
    add_head_dropout,
    add_patchout,
    compute_only_what_is_pooled,
    initialize_tokens,
)
from irmas_recipe.models.ast.features import frames_in
from irmas_recipe.models.encoder import EncoderConfig
from irmas_recipe.training.checkpoint import (
    FETCH_AGAIN,
    first_sentence,
    load_checkpoint,
    strictly_from_pretrained,
    unreachable,
)
from irmas_recipe.training.encoder import is_classifier, start_head_by_text
from irmas_recipe.training.fields import ModelArguments
from irmas_recipe.training.head import add_sub_networks, missing_labels, probe_parameters, start_head
from irmas_recipe.training.layers import LAYER_DROP
from irmas_recipe.training.recipe import Recipe
from irmas_recipe.training.run_folder import is_finished
from irmas_recipe.training.window import fit_window, try_window

PATCHOUT_FIELDS = ("patchout_time", "patchout_frequency", "patchout_tokens")
REGULARIZATION = {
    "layerdrop": LAYER_DROP,
    "drop_path_rate": ("drop_path_rate",),
    "head_dropout": ("head_dropout", "classifier_dropout"),
}
"""Field of a recipe -> what the architectures' configurations call it."""


def build_model(recipe: Recipe, splits: DatasetDict) -> tuple[PreTrainedModel, SequenceFeatureExtractor]:
    """Return the recipe's model with one output per class, and its feature extractor."""
    classes, training = splits["train"].features["instruments"].feature.names, recipe.training
    model, extractor = load_model(recipe.model, classes, recipe.data.window_seconds, training.num_train_epochs > 0)
    if training.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise UserError(
            f"{model.config.model_type} cannot recompute its activations: remove --activation_checkpointing, and lower "
            "--per_device_train_batch_size with more --gradient_accumulation_steps if the memory is short."
        )
    check_soup(recipe, model, extractor)
    return model, extractor


def check_soup(recipe: Recipe, model: PreTrainedModel, extractor: SequenceFeatureExtractor) -> None:
    """Refuse a run whose weights cannot be averaged with the model's.

    Raises:
        UserError: it is not finished, or has another network, other classes, or hears something else.
    """
    data, labels = recipe.data, list(model.config.id2label.values())
    here = {
        "network": model.config.model_type, "classes": labels, "window": data.window_seconds,
        "separation": data.separation, "feature extractor": fields_of(extractor),
    }  # fmt: skip
    for run in recipe.model.soup or []:
        if not is_finished(Path(run)) or not (Path(run) / "config.json").is_file():
            raise UserError(f"--soup {run} is not a finished run of a network: name the folder of one.")
        config = json.loads((Path(run) / "config.json").read_text(encoding="utf-8"))
        there = {
            "network": config.get("model_type"), "classes": list(config.get("id2label", {}).values()),
            "window": config.get("window_seconds"), "separation": config.get("separation"),
            "feature extractor": fields_of(AutoFeatureExtractor.from_pretrained(run)),
        }  # fmt: skip
        if other := [name for name in here if here[name] != there[name]]:
            raise UserError(
                f"--soup {run} differs from this run in its {' and '.join(other)}: name a run of {model.config.model_type} "
                f"with the classes {', '.join(labels)}, windows of {data.window_seconds:g} s and separation {data.separation}."
            )
        try:
            strictly_from_pretrained(type(model), run, model.config)
        except UserError as error:
            raise UserError(f"--soup {run} has a network of other sizes, or is damaged: name another run.") from error


def fields_of(extractor: SequenceFeatureExtractor) -> dict:
    """Return what a feature extractor computes with, as its file has it: all but who may load it."""
    fields = json.loads(extractor.to_json_string())
    return {name: value for name, value in fields.items() if name not in ("auto_map", "processor_class")}


def load_model(
    arguments: ModelArguments, classes: list[str], window_seconds: float, trained: bool = True
) -> tuple[PreTrainedModel, SequenceFeatureExtractor]:
    """Return a model with one output per class that takes windows of this length, and its feature extractor.

    Args:
        arguments: the recipe's `model` part.
        classes: the dataset's class codes, in the order of its ClassLabel.
        window_seconds: length of the model's input.
        trained: whether training follows; if not, the checkpoint must know every class, and keeps its head.

    Raises:
        UserError: the checkpoint cannot be loaded or does not know the classes, or a field does not suit the model.
    """
    labels = [readable_name(code) for code in classes]
    if arguments.model_name_or_path:
        model, extractor = from_checkpoint(arguments, trained)
    else:
        model, extractor = from_scratch(arguments, labels, window_seconds)
    refuse_what_flags_set(arguments, model.config)
    refuse_unknown_labels((arguments.model_config or {}).get("label_filters") or {}, labels)
    by_text = arguments.head_initialization == "text" and isinstance(model.config, EncoderConfig)
    if not trained and not by_text and (unknown := missing_labels(model, labels)):
        raise UserError(
            f"{arguments.model_name_or_path} has no class for {', '.join(unknown)}, and nothing is trained here: name a "
            "checkpoint or data of the same classes, or train it first."
        )
    fit_window(model, extractor, window_seconds)
    if arguments.freeze == "known_labels" and trained:
        model = add_sub_networks(model, labels)
    elif arguments.model_name_or_path:
        start_head(model, labels, arguments.head_initialization if trained or by_text else "labels")
    if by_text:
        start_head_by_text(
            model, arguments.model_name_or_path, labels, arguments.text_prompt, revision=arguments.model_revision
        )
    apply_patchout(model, arguments)
    if isinstance(model.config, ASTConfig):
        compute_only_what_is_pooled(model)
        if arguments.head_dropout:
            add_head_dropout(model, arguments.head_dropout)
    drops_patches = any(getattr(model.config, name, 0) for name in PATCHOUT_FIELDS)
    try_window(model, extractor, window_seconds, drops_patches)
    freeze(model, arguments.freeze)
    model.config.problem_type = "multi_label_classification"
    model.accepts_loss_kwargs = False  # otherwise the Trainer expects the loss to divide by the accumulation steps
    return model, extractor


def from_checkpoint(arguments: ModelArguments, trained: bool) -> tuple[PreTrainedModel, SequenceFeatureExtractor]:
    """Load the recipe's checkpoint with the recipe's changes to its configuration and feature extractor.

    trained: whether training follows; then a checkpoint without a classifier's head gets a fresh one.
    """

    def adapt(config: PreTrainedConfig, extractor: SequenceFeatureExtractor) -> SequenceFeatureExtractor:
        refuse_other_architecture(arguments, config)
        if hasattr(config, "trainable_labels"):
            config.trainable_labels = None  # of the run that made the checkpoint; this recipe freezes what it says
        check_fields(config, arguments.model_config or {}, "model_config")
        for name, value in (arguments.model_config or {}).items():
            setattr(config, name, value)
        set_regularization(config, arguments)
        return rebuilt(extractor, arguments.feature_extractor_config or {})

    by_text = arguments.head_initialization == "text"
    try:
        return load_checkpoint(
            arguments.model_name_or_path,
            revision=arguments.model_revision,
            trust_remote_code=arguments.trust_remote_code,
            adapt=adapt,
            fresh_head=trained or by_text,
            encoder="projection" if by_text else "layers" if arguments.architecture == ENCODER else None,
        )
    except UserError as error:
        said, is_about_weights, _ = str(error).partition(FETCH_AGAIN)
        if not arguments.model_config or not is_about_weights:
            raise
        raise UserError(
            f"{said}, with --model_config {json.dumps(arguments.model_config)}: remove from it what the weights do not have."
        ) from error


def from_scratch(
    arguments: ModelArguments, labels: list[str], window_seconds: float
) -> tuple[PreTrainedModel, SequenceFeatureExtractor]:
    """Return a randomly initialised model of one of the project's architectures, and its feature extractor."""
    config_class, extractor_class, model_class = known_classes(arguments.architecture)
    fields = dict(arguments.model_config or {})
    extractor_fields = dict(arguments.feature_extractor_config or {})
    if arguments.architecture == "ast":
        fields["max_length"] = extractor_fields["max_length"] = frames_in(window_seconds)
    check_fields(config_class(), fields, "model_config")
    check_fields(extractor_class(), extractor_fields, "feature_extractor_config")
    with naming("model_config", arguments.architecture):
        config = config_class(**fields, id2label=dict(enumerate(labels)), label2id={n: i for i, n in enumerate(labels)})
    if config.num_labels != len(labels):
        raise UserError(f"--model_config num_labels is how many classes the data has, {len(labels)}: remove it.")
    set_regularization(config, arguments)
    if arguments.architecture == "ast" and config.max_length < config.patch_size:
        raise UserError(f"--window_seconds {window_seconds:g} is shorter than a patch of AST: choose a longer window.")
    with naming("model_config", arguments.architecture):
        model = model_class(config)
    with naming("feature_extractor_config", arguments.architecture):
        extractor = extractor_class(**extractor_fields)
    check_taken(config, fields, "model_config")
    check_taken(extractor, extractor_fields, "feature_extractor_config")
    if arguments.architecture == "ast":
        initialize_tokens(model)
    if arguments.backbone_name_or_path:
        load_backbone(model, arguments.backbone_name_or_path)
    return model, extractor


@contextlib.contextmanager
def naming(flag: str, architecture: str) -> Iterator[None]:
    """Turn whatever a constructor raises about the fields of a flag into a UserError of one sentence."""
    try:
        yield
    except Exception as error:
        raise UserError(f"--{flag} is impossible for {architecture}: {first_sentence(error)}.") from error


def known_classes(architecture: str) -> tuple[type, type, type]:
    """Return what `classes_of` does; UserError for an architecture that is not known."""
    if architecture == ENCODER:
        raise UserError(f"--architecture {ENCODER} needs a checkpoint: name one with --model_name_or_path.")
    try:
        return classes_of(architecture)
    except KeyError as error:
        known = ", ".join(sorted({*ARCHITECTURES, *OF_TRANSFORMERS}))
        raise UserError(f"--architecture {architecture} is not one of {known}.") from error


def refuse_other_architecture(arguments: ModelArguments, config: PreTrainedConfig) -> None:
    """Raise UserError where a recipe names another architecture than its checkpoint has; `ast` is also the default."""
    name = arguments.architecture
    if name not in ("ast", ENCODER) and known_classes(name)[0].model_type != config.model_type:
        raise UserError(
            f"--model_name_or_path {arguments.model_name_or_path} has the architecture {config.model_type}, not {name}: remove "
            f"--architecture to start from it, or --model_name_or_path to train {name} from scratch."
        )


def refuse_what_flags_set(arguments: ModelArguments, config: PreTrainedConfig) -> None:
    """Raise UserError for a field of a configuration or feature extractor that a flag of its own would overwrite."""
    flags = {name: name for name in PATCHOUT_FIELDS}
    if isinstance(config, ASTConfig):
        flags["max_length"] = "window_seconds"
    for given in ("model_config", "feature_extractor_config"):
        for name in getattr(arguments, given) or {}:
            if name in flags:
                raise UserError(f"--{given} {name} follows --{flags[name]}: set that instead.")


def refuse_unknown_labels(label_filters: dict, labels: list[str]) -> None:
    """Raise UserError where sizes are given for a class that the data does not have (mfcc)."""
    if unknown := sorted(set(label_filters) - set(labels)):
        raise UserError(
            f"--model_config label_filters: the data has no class {unknown[0]}; its classes are {', '.join(labels)}."
        )


def load_backbone(model: PreTrainedModel, checkpoint: str) -> None:
    """Start the part of a new model that has an ImageNet checkpoint (Swin) from it.

    Raises:
        UserError: the model has no such part, or the checkpoint does not exist or does not fit.
    """
    if not hasattr(model, "load_swin"):
        raise UserError(
            f"--backbone_name_or_path: {model.config.model_type} has no part that starts from ImageNet: remove it, or set "
            '--architecture crnn with --model_config \'{"network": "swin"}\'.'
        )
    try:
        model.load_swin(checkpoint)
    except OSError as error:
        raise UserError(f"--backbone_name_or_path: {unreachable(checkpoint, error)}") from error
    except ValueError as error:
        raise UserError(f"--backbone_name_or_path: {first_sentence(error)}.") from error


def check_fields(target: PreTrainedConfig | SequenceFeatureExtractor, fields: dict, flag: str) -> None:
    """Raise UserError for a field that a configuration does not have, or text for one that holds something else.

    transformers would silently accept both.
    """
    for name, value in fields.items():
        if not hasattr(target, name):
            raise UserError(f"--{flag}: {type(target).__name__} has no field `{name}`.")
        default = getattr(target, name)
        if isinstance(value, str) and isinstance(default, (int, float, list, tuple, dict)):
            raise UserError(f"--{flag} {name} must be a value such as {default}, not the text '{value}'.")


def rebuilt(extractor: SequenceFeatureExtractor, fields: dict) -> SequenceFeatureExtractor:
    """Return a feature extractor made anew with other fields, on which what its constructor computes (filters) depends.

    Raises:
        UserError: it has no such field, or computes this one from others.
    """
    check_fields(extractor, fields, "feature_extractor_config")
    with naming("feature_extractor_config", type(extractor).__name__):
        new = type(extractor)(**extractor.to_dict() | fields) if fields else extractor
    check_taken(new, fields, "feature_extractor_config")
    return new


def check_taken(made: PreTrainedConfig | SequenceFeatureExtractor, fields: dict, flag: str) -> None:
    """Raise UserError for a field that a constructor has overwritten."""
    for name, value in fields.items():
        if getattr(made, name) != value:
            raise UserError(f"--{flag}: {type(made).__name__} computes `{name}` from its other fields: set those.")


def set_regularization(config: PreTrainedConfig, arguments: ModelArguments) -> None:
    """Set the recipe's layerdrop, drop_path_rate and head_dropout in a configuration, under the model's own names.

    Raises:
        UserError: the architecture has no such field.
    """
    mixes_layers = getattr(config, "use_weighted_layer_sum", False) or arguments.architecture == ENCODER
    if mixes_layers or not is_classifier(config):
        keep_every_layer(config, arguments.layerdrop)
    for field, names in REGULARIZATION.items():
        value = getattr(arguments, field)
        known = [name for name in names if hasattr(type(config)(), name)]
        if value is not None and known:
            setattr(config, known[0], value)
        elif value is not None and not (field == "head_dropout" and isinstance(config, ASTConfig)):
            raise UserError(f"{config.model_type} has no {field}: remove --{field} from the recipe.")


def keep_every_layer(config: PreTrainedConfig, layerdrop: float | None) -> None:
    """Switch off a checkpoint's layer drop, which would leave a learned mixture of layers with too few of them.

    Raises:
        UserError: the recipe asks for it.
    """
    if layerdrop:
        raise UserError(
            f"--layerdrop {layerdrop:g}: a learned mixture of layers needs every layer: remove it, or the mixture "
            "(use_weighted_layer_sum in --model_config, or --architecture encoder)."
        )
    for name in REGULARIZATION["layerdrop"]:
        if hasattr(config, name):
            setattr(config, name, 0.0)


def apply_patchout(model: PreTrainedModel, arguments: ModelArguments) -> None:
    """Set the recipe's patchout: AST's through hooks, that of our own models in their configuration, whatever it said.

    Raises:
        UserError: the model has no patches, or none would be left.
    """
    counts = {name: getattr(arguments, name) for name in PATCHOUT_FIELDS}
    if all(hasattr(model.config, name) for name in PATCHOUT_FIELDS):
        for name, count in counts.items():
            setattr(model.config, name, count)
    elif any(counts.values()) and isinstance(model.config, ASTConfig):
        try:
            add_patchout(model, *counts.values())
        except ValueError as error:
            flags = ", ".join(f"--{name}" for name in PATCHOUT_FIELDS)
            raise UserError(f"{error}; lower one of {flags}.") from error
    elif any(counts.values()):
        raise UserError(f"{model.config.model_type} has no patches to drop: remove patchout_* from the recipe.")


def freeze(model: PreTrainedModel, what: str) -> None:
    """Freeze what the recipe's `freeze` names: the `backbone`, the `feature_encoder` or `batch_norm`.

    Frozen modules stay in evaluation mode in training, so that the statistics of batch normalisation do not drift.

    Raises:
        UserError: the model has no single output layer, no feature encoder, or no batch normalisation.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if what == "backbone":
        model.requires_grad_(False)
        for parameter in probe_parameters(model):
            parameter.requires_grad_(True)
    elif what == "feature_encoder":
        convolutions = [
            module
            for name, module in model.named_modules()
            if name.endswith("feature_extractor") and hasattr(module, "_freeze_parameters")
        ]
        if not convolutions:
            raise UserError(
                f"{model.config.model_type} has no convolutional feature encoder: set --freeze none or backbone."
            )
        convolutions[0]._freeze_parameters()
        return
    elif what == "batch_norm":
        if not norms:
            raise UserError(f"{model.config.model_type} has no batch normalisation: set --freeze none.")
    else:
        return
    for norm in norms:
        norm.requires_grad_(False)
        norm.is_frozen = True  # which a norm without scale and shift shows in no other way
