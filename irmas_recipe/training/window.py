"""Fit a model and its feature extractor to the recipe's window, show what a fixed length costs, and try the window once."""

import json
import logging

import torch
from torch import nn
from transformers import ASTConfig, PreTrainedModel
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from irmas_dataset.errors import UserError
from irmas_recipe.models.ast.adaptation import crop_to_frames
from irmas_recipe.models.ast.features import frames_in
from irmas_recipe.training.checkpoint import first_sentence
from irmas_recipe.training.features import device_features, fills_up, longest_seconds

logger = logging.getLogger(__name__)

FRAMES_PER_POSITION = 2  # Whisper's second convolution has a stride of 2
WASTE = 1.5  # how many times the cost of the window alone is worth a word


def fit_window(model: PreTrainedModel, extractor: SequenceFeatureExtractor, window_seconds: float) -> None:
    """Make a model and its feature extractor take exactly the window where they can; most models take any length.

    AST's input becomes as long as the window. Whisper and CLAP fill every window up to a fixed length, and a warning says
    what that costs; Whisper's becomes shorter if the recipe sets its feature extractor's `chunk_length`.

    Raises:
        UserError: the window is longer than what the model can hear, or shorter than a patch.
    """
    if isinstance(model.config, ASTConfig):
        frames = frames_in(window_seconds, extractor.sampling_rate)
        if frames != model.config.max_length:
            try:
                crop_to_frames(model, frames)
            except ValueError as error:
                raise UserError(f"--window_seconds {window_seconds:g}: {error}; choose another window.") from error
        extractor.max_length = frames
        return
    for encoder in (module for module in model.modules() if isinstance(module, WhisperEncoder)):
        crop_whisper(encoder, extractor)
    if longest := longest_seconds(extractor):
        check_length(model.config.model_type, longest, window_seconds)
    if longest and fills_up(extractor):
        show_waste(model.config.model_type, longest, window_seconds, hasattr(extractor, "chunk_length"))


def crop_whisper(encoder: WhisperEncoder, extractor: SequenceFeatureExtractor) -> None:
    """Give Whisper's encoder as many positions, in place, as its feature extractor's `chunk_length` has; they are sinusoids.

    Raises:
        UserError: that is longer than the model's own 30 s.
    """
    extractor.n_samples = round(extractor.chunk_length * extractor.sampling_rate)
    extractor.nb_max_frames = extractor.n_samples // extractor.hop_length
    positions = extractor.nb_max_frames // FRAMES_PER_POSITION
    if not 1 <= positions <= encoder.config.max_source_positions:
        longest = encoder.config.max_source_positions * FRAMES_PER_POSITION * extractor.hop_length
        raise UserError(
            f"--feature_extractor_config chunk_length {extractor.chunk_length}: this whisper hears 1 to "
            f"{longest // extractor.sampling_rate} s."
        )
    encoder.config.max_source_positions = encoder.max_source_positions = positions
    table = encoder.embed_positions
    encoder.embed_positions = nn.Embedding.from_pretrained(table.weight.data[:positions].clone(), freeze=True)


def check_length(name: str, longest: float, window_seconds: float) -> None:
    """Raise UserError where the window is longer than the model's input, whose end it would not hear."""
    if window_seconds > longest:
        raise UserError(
            f"--window_seconds {window_seconds:g}: {name} hears {longest:.4g} s at a time; shorten the window."
        )


def show_waste(name: str, longest: float, window_seconds: float, can_be_shortened: bool) -> None:
    """Show what a model of fixed length wastes on a shorter window."""
    if longest >= WASTE * window_seconds:
        shorter = json.dumps({"chunk_length": max(1, -int(-window_seconds // 1))})
        way_out = f" --feature_extractor_config '{shorter}' shortens its input." if can_be_shortened else ""
        logger.warning(
            "%s fills every window up to %g s: one of %g s costs %.3g times what it would alone.%s",
            name, longest, window_seconds, longest / window_seconds, way_out,
        )  # fmt: skip


def try_window(
    model: PreTrainedModel, extractor: SequenceFeatureExtractor, seconds: float, drops_patches: bool
) -> None:
    """Run one silent window through the model, so that what it cannot take is refused before any work starts.

    Args:
        drops_patches: run the model as in training, which may leave no patch.

    Raises:
        UserError: the window is too long or too short, or patchout leaves nothing of it.
    """
    silence = torch.zeros(1, round(seconds * extractor.sampling_rate))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            model.train(drops_patches)(device_features(extractor)(silence))
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"{model.config.model_type} cannot take windows of {seconds:g} s: {first_sentence(error)} "
            "(--window_seconds, --patchout_*)."
        ) from error
