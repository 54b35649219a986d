"""A trained model as one ONNX graph, features included: waveforms in, logits out, on machines without torch.

torch's exporter traces the feature extractor and the model together. It lacks a few operators that features need, and
ONNX Runtime's Fourier transform is slow; operators.py has both as products with a matrix of cosines and sines.
"""

import json
import logging
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor

from irmas_dataset.errors import UserError
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline
from irmas_recipe.training.checkpoint import first_sentence
from irmas_recipe.training.features import BATCHED, device_features

OPSET = 20  # the first with GELU
TOLERANCE = 1e-4  # of the graph's logits, relative to the largest where that is above 1
CHECKED_BATCH_SIZES = (1, 4)  # four: every kind of check_waveforms


class WholeBatch(TorchFunctionMode):
    """Makes `split` return one piece: features are computed a few clips at a time for a CPU's cache, a graph takes any number."""

    def __torch_function__(self, function: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function is torch.Tensor.split:
            return (args[0],)
        return function(*args, **(kwargs or {}))


class Features(nn.Module):
    """Waveforms (batch, samples) in [-1, 1] -> features; a module of its own, so that the graph's nodes can be told apart."""

    def __init__(self, extractor: SequenceFeatureExtractor) -> None:
        super().__init__()
        self.extract = device_features(extractor)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        with WholeBatch():
            return self.extract(waveforms)


class WaveformClassifier(nn.Module):
    """Waveforms (batch, samples) at the model's sampling rate -> logits (batch, classes)."""

    def __init__(self, model: PreTrainedModel, extractor: SequenceFeatureExtractor) -> None:
        super().__init__()
        if not (hasattr(extractor, "extract") or type(extractor) in BATCHED):
            raise UserError(
                f"{type(extractor).__name__} computes features by code of its own, which no graph can hold."
            )
        self.sampling_rate = extractor.sampling_rate
        self.features = Features(extractor)
        self.model = model

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        return self.model(self.features(waveforms)).logits


def require_onnx() -> None:
    """Raise UserError where an optional package is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(
            f"onnx needs {error.name}, which is not installed: run `pip install onnx onnxruntime onnxscript`."
        ) from error


def export_onnx(classifier: WaveformClassifier, window_samples: int, path: Path) -> float:
    """Write the graph for windows of `window_samples` and batches of any size; return its largest difference from torch.

    Raises:
        UserError: the exporter cannot express the model, or its logits differ from torch's by more than `TOLERANCE`.
    """
    classifier = classifier.eval().to("cpu", torch.float32)
    try:
        program = traced(classifier, check_waveforms(2, window_samples))
    except torch.onnx.OnnxExporterError as error:
        name, cause = classifier.model.config.model_type, error.__cause__ or error
        raise UserError(f"{name} cannot be expressed in ONNX by this torch: {first_sentence(cause)}.") from error
    fold_constants(program.model)
    program.save(path, external_data=False)
    difference = largest_difference(classifier, path, window_samples)
    if not difference <= TOLERANCE:  # nor is NaN
        raise UserError(f"The logits of {path} differ from torch's by {difference:.1e}; try another onnxruntime.")
    return difference


def traced(classifier: WaveformClassifier, example: torch.Tensor) -> torch.onnx.ONNXProgram:
    """Return the graph of a classifier, traced quietly with example waveforms (batch, samples)."""
    from irmas_recipe.commands.onnx.operators import TRANSLATIONS

    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with torch.no_grad(), warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)  # it lists packages that it could use and does not need
        classifier(example)  # features keep some tensors, such as mel filters, which must exist before tracing
        try:
            return torch.onnx.export(
                classifier,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["waveforms"],
                output_names=["logits"],
                custom_translation_table=TRANSLATIONS,
                optimize=False,
                verbose=False,
            )
        finally:
            logger.setLevel(level)


def fold_constants(graph: Any) -> None:
    """Compute in place what does not depend on the input, such as transposed weights, which `quantise` can then find.

    torch's own optimisation does this too, but takes any constant up to 1e-8 for zero, a logarithm's offset included.
    """
    from onnxscript import optimizer

    optimizer.inline(graph)
    optimizer.fold_constants(graph, input_size_limit=2**31, output_size_limit=2**31)
    optimizer.remove_unused_nodes(graph)


def check_waveforms(clips: int, samples: int) -> torch.Tensor:
    """Return noise that is loud, then quiet, then a tone that stops, then silence: (clips, samples) in [-1, 1]."""
    noise = torch.randn(clips, samples, generator=torch.Generator().manual_seed(0)).clamp(-3, 3) / 3
    tone = torch.sin(torch.arange(samples) / 20) * (torch.arange(samples) < samples // 2)
    kinds = [noise[0], noise[-1] / 1000, tone, torch.zeros(samples)]
    return torch.stack([kinds[clip % len(kinds)] for clip in range(clips)])


def largest_difference(classifier: WaveformClassifier, path: Path, window_samples: int) -> float:
    """Return the largest difference of the graph's logits from torch's, relative to the largest logit where that exceeds 1."""
    session = open_session(path)
    differences = []
    for batch_size in CHECKED_BATCH_SIZES:
        waveforms = check_waveforms(batch_size, window_samples)
        with torch.no_grad():
            expected = classifier(waveforms).numpy()
        difference = np.abs(onnx_logits(session, waveforms.numpy()) - expected).max()
        differences.append(difference / max(1.0, np.abs(expected).max()))
    return float(np.max(differences))


def open_session(path: Path, threads: int | None = None) -> Any:
    """Return ONNX Runtime's session of a graph on the CPU, by default with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def onnx_logits(session: Any, waveforms: np.ndarray) -> np.ndarray:
    """Return logits (batch, classes) of float32 waveforms (batch, samples) in [-1, 1]."""
    return session.run(["logits"], {"waveforms": waveforms})[0]


def description(recognise: InstrumentRecognitionPipeline, window_seconds: float, hop_seconds: float) -> dict:
    """Return what a program needs beside the graph: labels, thresholds, and how clips become windows and scores."""
    rate = recognise.feature_extractor.sampling_rate
    window_samples, hop_samples = round(window_seconds * rate), max(1, round(hop_seconds * rate))
    return {
        "input": "waveforms: float32 (batch, window_samples), mono, in [-1, 1]",
        "output": "logits: float32 (batch, labels)",
        "sampling_rate": rate,
        "separation": getattr(recognise.model.config, "separation", "none"),
        "window_samples": window_samples,
        "hop_samples": hop_samples,
        "window_seconds": window_samples / rate,
        "hop_seconds": hop_samples / rate,
        "aggregation": getattr(recognise.model.config, "aggregation", None) or "mean",
        "labels": recognise.labels,
        "thresholds": recognise.resolve_thresholds(),
        "confidence_slopes": recognise.slopes(of_moments=False),
        "songs": {
            "longer_than_seconds": recognise.longest_clip_seconds,
            "thresholds": recognise.resolve_thresholds(of_moments=True),
            "confidence_slopes": recognise.slopes(of_moments=True),
        }
        | asdict(recognise.rules),
    }


def write_description(path: Path, **entries: object) -> None:
    """Write the JSON file beside the graph: what a program needs to know to use it."""
    path.write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
