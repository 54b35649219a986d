"""Load a trained model, from a run folder or the Hub, as the windowed pipeline."""

import logging
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.utils import logging as transformers_logging

from irmas_dataset.errors import UserError
from irmas_dataset.separation import SEPARATIONS, Separation
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline, check_protocol
from irmas_recipe.training.checkpoint import load_checkpoint
from irmas_recipe.training.released import find_released, is_released
from irmas_recipe.training.released_answers import answer_with

logger = logging.getLogger(__name__)


def load_recogniser(
    model: str,
    *,
    device: str | None = None,
    batch_size: int | None = None,
    trust_remote_code: bool = False,
    classes: str = "irmas",
    **options: Any,
) -> InstrumentRecognitionPipeline:
    """Return the pipeline of a run folder, a model on the Hub or a released checkpoint.

    Args:
        device: a torch device; by default the first GPU, otherwise the CPU.
        batch_size: how many windows the model sees at once; by default 32 on a GPU, 8 on a CPU.
        trust_remote_code: run code that comes with the model; a run of this repository needs none.
        classes: of a released checkpoint, see `answer_with`; any other model answers with its own.
        options: those of a call of the pipeline (`aggregation`, `thresholds`, ...).

    Raises:
        UserError: the model cannot be loaded or used, or there is no such device.
    """
    transformers_logging.disable_progress_bar()
    usable = usable_device(device)
    network, extractor = load_checkpoint(model, trust_remote_code=trust_remote_code)
    if is_released(model):
        answer_with(network, find_released(model), classes)
    check_stored_protocol(model, network.config)
    warn_of_thresholds(network.config, options.get("aggregation"), options.get("thresholds"))
    separation = getattr(network.config, "separation", "none")
    try:
        return InstrumentRecognitionPipeline(
            model=network,
            separate=Separation(separation) if separation in SEPARATIONS else None,
            feature_extractor=extractor,
            device=usable,
            batch_size=batch_size or (32 if usable.type == "cuda" else 8),
            **options,
        )
    except ValueError as error:
        raise UserError(f"{model}: {error}") from error


def warn_of_thresholds(config: PreTrainedConfig, aggregation: str | None, thresholds: Any) -> None:
    """Warn where the model's thresholds judge scores of another aggregation than that for which they were tuned."""
    own = getattr(config, "aggregation", "mean")
    if aggregation not in (None, own) and thresholds is None and getattr(config, "thresholds", None):
        logger.warning(
            "The model's thresholds were tuned for --aggregation %s; with %s, give your own --threshold.",
            own,
            aggregation,
        )


def usable_device(device: str | None) -> torch.device:
    """Return a torch device that works on this machine: the one given, else the first GPU, else the CPU."""
    try:
        usable = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=usable)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device} cannot be used on this machine: try --device cpu.") from error
    return usable


def check_stored_protocol(model: str, config: PreTrainedConfig) -> None:
    """Raise UserError if what a run stored in its configuration about thresholds and windows is impossible."""
    try:
        check_protocol(config)
    except ValueError as error:
        raise UserError(f"{model}/config.json cannot be used: {error}") from error
