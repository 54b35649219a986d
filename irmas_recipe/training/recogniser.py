"""Load a trained model, from a run folder or the Hub, as the windowed pipeline."""

import hashlib
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import logging as transformers_logging

from irmas_dataset.demucs import SOURCES
from irmas_dataset.errors import UserError
from irmas_dataset.separation import SEPARATIONS, Separation
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline, check_protocol
from irmas_recipe.training.checkpoint import load_checkpoint
from irmas_recipe.training.features import batched_features
from irmas_recipe.training.machine import windows_at_once
from irmas_recipe.training.released import find_released, is_released
from irmas_recipe.training.released_answers import answer_with

logger = logging.getLogger(__name__)


class WithoutNetwork(torch.nn.Module):
    """What the pipeline asks of a model, for a system that has no network and runs on the CPU."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(
        self, config: dict[str, Any], made_of: bytes, logits: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> None:
        """Make a model of what its configuration says and its function from features to logits.

        made_of: what stands for its weights; the state has their digest, so that two systems can be told apart.
        logits: (windows, columns) -> (windows, classes); None where the pipeline needs none.
        """
        super().__init__()
        self.register_buffer("made_of", torch.tensor(list(hashlib.sha256(made_of).digest()), dtype=torch.uint8))
        self.config = PreTrainedConfig(problem_type="multi_label_classification", **config)
        self.logits = logits

    def forward(self, input_values: torch.Tensor) -> SequenceClassifierOutput:
        """Return the `logits`, as a network of transformers does."""
        return SequenceClassifierOutput(logits=torch.from_numpy(self.logits(input_values.numpy())))


def load_recogniser(
    model: str,
    *,
    device: str | None = None,
    batch_size: int | None = None,
    trust_remote_code: bool = False,
    kind: type[InstrumentRecognitionPipeline] = InstrumentRecognitionPipeline,
    classes: str = "irmas",
    **options: Any,
) -> InstrumentRecognitionPipeline:
    """Return the pipeline of a run folder, a model on the Hub or a released checkpoint.

    Args:
        device: a torch device; by default the first GPU, otherwise the CPU.
        batch_size: how many windows the model sees at once; by default 32 on a GPU, 8 on a CPU.
        trust_remote_code: run code that comes with the model; a run of this repository needs none.
        kind: the pipeline's class, for answers of another form.
        classes: of a released checkpoint, see `answer_with`; any other model answers with its own.
        options: those of a call of the pipeline (`aggregation`, `thresholds`, ...).

    Raises:
        UserError: the model cannot be loaded or used, or there is no such device.
    """
    transformers_logging.disable_progress_bar()
    usable_device(device)  # said before the model is loaded, which may take a while
    network, extractor = load_checkpoint(model, trust_remote_code=trust_remote_code)
    if is_released(model):
        answer_with(network, find_released(model), classes)
    check_stored_protocol(model, network.config)
    return build_recogniser(model, network, extractor, kind=kind, device=device, batch_size=batch_size, **options)


def build_recogniser(
    name: str,
    model: PreTrainedModel | WithoutNetwork,
    extractor: Any,
    *,
    kind: Callable[..., InstrumentRecognitionPipeline] = InstrumentRecognitionPipeline,
    device: str | None = None,
    batch_size: int | None = None,
    **options: Any,
) -> InstrumentRecognitionPipeline:
    """Return the pipeline of a model, whose configuration says how it is used, and its feature extractor.

    Args:
        name: the model's, for messages.
        kind: makes the pipeline: its class.
        device, batch_size, options: as of `load_recogniser`.

    Raises:
        UserError: the model cannot be used, or there is no such device.
    """
    usable = usable_device(device)
    if isinstance(model, WithoutNetwork):
        usable = model.device
    warn_of_thresholds(model.config, options.get("aggregation"), options.get("thresholds"))
    separation = getattr(model.config, "separation", "none")
    try:
        recognise = kind(
            model=model,
            separate=Separation(separation) if separation in (*SEPARATIONS, *SOURCES) else None,
            feature_extractor=extractor,
            features=batched_features(extractor),
            device=usable,
            batch_size=batch_size or windows_at_once(usable),
            **options,
        )
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error
    if options.get("window_seconds") and not isinstance(model, WithoutNetwork):
        check_window(name, recognise, options["window_seconds"])
    return recognise


def check_window(name: str, recognise: InstrumentRecognitionPipeline, window_seconds: float) -> None:
    """Raise UserError if a network cannot hear windows of this length: below a frame, or below its convolutions' reach."""
    samples = max(1, round(window_seconds * recognise.feature_extractor.sampling_rate))
    try:
        recognise.forward({"waveforms": np.zeros((1, samples), np.float32)})
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(f"--window_seconds {window_seconds} is too short for {name}: give a longer one.") from error


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
