"""From a recipe to a model and its feature extractor: load strictly, fit the window, start the head, freeze."""

import logging

import torch
from datasets import DatasetDict
from torch import nn
from transformers import (
    PreTrainedModel,
)
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor

from irmas_dataset.errors import UserError
from irmas_dataset.labels import readable_name
from irmas_recipe.models import ARCHITECTURES
from irmas_recipe.models.ast import ast
from irmas_recipe.training.checkpoint import (
    AST_TYPE,
    check_fields,
    first_sentence,
    load_backbone,
    load_pretrained,
    set_regularization,
)
from irmas_recipe.training.fields import ModelArguments
from irmas_recipe.training.head import add_sub_networks, missing_labels, output_layer, start_head
from irmas_recipe.training.recipe import Recipe

logger = logging.getLogger(__name__)

PATCHOUT_FIELDS = ("patchout_time", "patchout_frequency", "patchout_tokens")


def build_model(recipe: Recipe, splits: DatasetDict) -> tuple[PreTrainedModel, SequenceFeatureExtractor]:
    """Return the recipe's model with one output per class, and its feature extractor."""
    classes = splits["train"].features["instruments"].feature.names
    return load_model(recipe.model, classes, recipe.data.window_seconds, trained=recipe.training.num_train_epochs > 0)


def load_model(
    arguments: ModelArguments, classes: list[str], window_seconds: float, trained: bool = True
) -> tuple[PreTrainedModel, SequenceFeatureExtractor]:
    """Return the recipe's model, with one output a class and the window's length, and its feature extractor.

    Args:
        classes: the dataset's class codes, in the order of its ClassLabel.
        window_seconds: length of the model's input.
        trained: whether training follows; if not, the checkpoint must know every class, and its head stays as it is.
    Raises:
        UserError: a checkpoint that is not there, incomplete, or does not know the instruments it should start from.
    """
    labels = [readable_name(code) for code in classes]
    if arguments.model_name_or_path:
        model, extractor = load_pretrained(arguments)
        unknown = missing_labels(model, labels)
        if unknown and not trained:
            raise UserError(
                f"{arguments.model_name_or_path} has no class for {', '.join(unknown)} and the recipe trains nothing: name a "
                "checkpoint that knows them, or set --num_train_epochs."
            )
    else:
        model, extractor = from_scratch(arguments, labels, window_seconds)
    fit_window(model, extractor, window_seconds)
    if arguments.freeze == "known_labels" and trained:
        model = add_sub_networks(model, labels)
    start_head(model, labels, arguments.head_initialization if trained else "labels")
    apply_patchout(model, arguments)
    if model.config.model_type == AST_TYPE:
        ast.compute_only_what_is_pooled(model)
        if arguments.head_dropout:
            ast.add_head_dropout(model, arguments.head_dropout)
    try_window(model, extractor, window_seconds)
    if arguments.freeze == "backbone":
        freeze_backbone(model)
    elif arguments.freeze == "batch_norm":
        freeze_batch_norm(model)
    model.config.problem_type = "multi_label_classification"
    model.accepts_loss_kwargs = False  # else the Trainer leaves dividing by accumulation steps to a loss that does not
    return model, extractor


def from_scratch(
    arguments: ModelArguments, labels: list[str], window_seconds: float
) -> tuple[PreTrainedModel, SequenceFeatureExtractor]:
    """Return a randomly initialised model of one of the project's architectures."""
    if arguments.architecture not in ARCHITECTURES:
        raise UserError(f"--architecture {arguments.architecture} is not one of {', '.join(sorted(ARCHITECTURES))}.")
    config_class, extractor_class, model_class = ARCHITECTURES[arguments.architecture]
    fields = dict(arguments.model_config or {})
    extractor_fields = dict(arguments.feature_extractor_config or {})
    if arguments.architecture == "ast":
        fields["max_length"] = extractor_fields["max_length"] = ast.frames_in(window_seconds)
    check_fields(fields, config_class(), "model_config")
    check_fields(extractor_fields, extractor_class(), "feature_extractor_config")
    try:
        config = config_class(**fields, id2label=dict(enumerate(labels)), label2id={n: i for i, n in enumerate(labels)})
        set_regularization(config, arguments)
        model = model_class(config)
        if arguments.architecture == "ast":
            ast.initialize_tokens(model)
        if arguments.backbone_name_or_path:
            load_backbone(model, arguments.backbone_name_or_path)
        return model, extractor_class(**extractor_fields)
    except ValueError as error:
        raise UserError(f"--model_config is not possible for {arguments.architecture}: {error}") from error


def fit_window(model: PreTrainedModel, extractor: SequenceFeatureExtractor, window_seconds: float) -> None:
    """Make model and feature extractor take exactly the window. Only AST has a fixed length; the others take any."""
    if model.config.model_type != AST_TYPE:
        return
    frames = ast.frames_in(window_seconds, extractor.sampling_rate)
    if frames != model.config.max_length:
        ast.crop_to_frames(model, frames)
    extractor.max_length = frames


def apply_patchout(model: PreTrainedModel, arguments: ModelArguments) -> None:
    """Switch on patchout: AST by a hook, a model of ours by its own configuration."""
    counts = {name: getattr(arguments, name) for name in PATCHOUT_FIELDS}
    if not any(counts.values()):
        return
    if model.config.model_type == AST_TYPE:
        ast.add_patchout(model, *counts.values())
    elif all(hasattr(model.config, name) for name in PATCHOUT_FIELDS):
        for name, count in counts.items():
            setattr(model.config, name, count)
    else:
        raise UserError(f"{model.config.model_type} has no patches to drop: remove patchout_* from the recipe.")


def try_window(model: PreTrainedModel, extractor: SequenceFeatureExtractor, window_seconds: float) -> None:
    """Run one silent window through the model, so that what it cannot take is refused before any work.

    Raises:
        UserError: the window is too long or too short, or patchout leaves nothing of it.
    """
    silence = torch.zeros(1, round(window_seconds * extractor.sampling_rate))
    drops_patches = any(getattr(model.config, name, 0) for name in PATCHOUT_FIELDS)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            model.train(drops_patches)(device_features(extractor)(silence))
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"{model.config.model_type} cannot take windows of {window_seconds:g} s: {first_sentence(error)} "
            "(--window_seconds, --patchout_*)."
        ) from error


def freeze_backbone(model: PreTrainedModel) -> None:
    """Leave only the last linear layer trainable."""
    model.requires_grad_(False)
    output_layer(model)[1].requires_grad_(True)


def freeze_batch_norm(model: PreTrainedModel) -> None:
    """Train neither the scale and shift of batch normalisation nor, since the Trainer keeps frozen modules in evaluation
    mode, its statistics.

    Raises:
        UserError: the model has none.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        raise UserError(f"{model.config.model_type} has no batch normalisation: set --freeze none.")
    for norm in norms:
        norm.requires_grad_(False)


def device_features(extractor: SequenceFeatureExtractor):
    """Return a function from waveforms (batch, samples) in [-1, 1] to features, batched, on the waveforms' device.

    It gives what the saved feature extractor gives (tested to 1e-3).
    """
    if hasattr(extractor, "extract"):
        return extractor.extract
    return ast.AstFeatures(extractor)
