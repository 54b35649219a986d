"""A trained model as one ONNX graph, features included: waveforms in, logits out, on machines without torch.

torch's exporter traces the feature extractor and the model together. It lacks a few operators that features need, and
ONNX Runtime's Fourier transform is slow; `translations` gives both as products with a matrix of cosines and sines.
"""

import importlib.util
import json
import logging
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import ASTFeatureExtractor, PreTrainedModel
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor

from irmas_dataset.errors import UserError
from irmas_recipe.training.checkpoint import first_sentence
from irmas_recipe.training.model import device_features

NEEDED = ("onnx", "onnxruntime", "onnxscript")
OPSET = 20  # the first with GELU
TOLERANCE = 1e-4  # of the graph's logits, relative to the largest where that is above 1
CHECKED_BATCH_SIZES = (1, 3)
LINEAR = ("MatMul", "Gemm")  # the operators that linear layers become


class WholeBatch(TorchFunctionMode):
    """Let `split` give one piece: features are computed a few clips at a time for a CPU's cache, a graph takes any number."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.split:
            return (args[0],)
        return function(*args, **(kwargs or {}))


class Features(nn.Module):
    """Waveforms (batch, samples) in [-1, 1] -> features; a module of its own, so that the graph's nodes tell it apart."""

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
        if not (hasattr(extractor, "extract") or isinstance(extractor, ASTFeatureExtractor)):
            raise UserError(f"{type(extractor).__name__} cannot be put into a graph: export a model of this project.")
        self.sampling_rate = extractor.sampling_rate
        self.features = Features(extractor)
        self.model = model

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        return self.model(self.features(waveforms)).logits


def require_onnx() -> None:
    """Raise UserError where the optional packages are not installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"onnx needs {' and '.join(missing)}, which this project does not: run `pip install {' '.join(NEEDED)}`.")  # fmt: skip


def export_onnx(classifier: WaveformClassifier, window_samples: int, path: Path) -> float:
    """Write the graph for windows of `window_samples` and batches of any size; return its largest difference from torch.

    Raises UserError where the exporter cannot express the model, or where the logits differ from torch's by more than
    `TOLERANCE`.
    """
    classifier = classifier.eval().to("cpu", torch.float32)
    example = check_waveforms(2, window_samples)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with torch.no_grad(), warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)  # it lists packages that it could use and does not need
        classifier(example)  # what features keep, as mel filters, is then there before anything is traced
        try:
            program = torch.onnx.export(
                classifier,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["waveforms"],
                output_names=["logits"],
                custom_translation_table=translations(),
                optimize=False,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            cause = error.__cause__ or error
            name = classifier.model.config.model_type
            raise UserError(f"{name} cannot be expressed in ONNX by this torch: {first_sentence(cause)}.") from error
        finally:
            logger.setLevel(level)
    fold_constants(program.model)
    program.save(path, external_data=False)
    difference = largest_difference(classifier, path, window_samples)
    if difference > TOLERANCE:
        raise UserError(f"{path} gives other logits than torch, by {difference:.1e}: another onnxruntime may help.")
    return difference


def fold_constants(graph) -> None:
    """Compute in place what does not depend on the input, as transposed weights, which `quantise` can then find.

    torch's own optimisation does this too, but it takes any constant up to 1e-8 for a zero, and a logarithm's offset with it.
    """
    from onnxscript import optimizer

    optimizer.inline(graph)
    optimizer.fold_constants(graph, input_size_limit=2**31, output_size_limit=2**31)
    optimizer.remove_unused_nodes(graph)


def translations() -> dict:
    """Return how to write in ONNX what the exporter cannot, or what ONNX Runtime has only in slow."""
    import onnx
    from onnxscript import opset20 as op

    def constant(values) -> object:
        return op.Constant(value=onnx.numpy_helper.from_array(np.ascontiguousarray(values)))

    def complex_dft(frames, dim, normalization, onesided):
        """Frames (..., samples) -> (..., bins, 2)."""
        cosines, sines = fourier_matrices(frames.shape[dim[0]])
        last = op.Constant(value_ints=[-1])
        parts = [op.Unsqueeze(op.MatMul(frames, constant(matrix)), last) for matrix in (cosines, sines)]
        return op.Concat(*parts, axis=-1)

    def stft(waveforms, n_fft, hop_length=None, win_length=None, window=None, *_, **__):
        """Waveforms (batch, samples) -> (batch, bins, frames, 2), as a convolution with windowed cosines and sines."""
        length = win_length or n_fft
        first = (n_fft - length) // 2  # what the window leaves out of each frame is left out of the products too
        kernels = constant(
            np.concatenate([matrix[first : first + length].T for matrix in fourier_matrices(n_fft)])[:, None]
        )
        if window is not None:
            kernels = op.Mul(kernels, window)
        last = op.Constant(value_ints=[waveforms.shape[1] - (n_fft - length - first)])
        waveforms = op.Slice(waveforms, op.Constant(value_ints=[first]), last, op.Constant(value_ints=[1]))
        spectrum = op.Conv(op.Unsqueeze(waveforms, op.Constant(value_ints=[1])), kernels, strides=[hop_length])
        parts = op.Reshape(spectrum, op.Constant(value_ints=[0, 2, n_fft // 2 + 1, -1]))
        return op.Transpose(parts, perm=[0, 2, 3, 1])

    def hann_window(window_length, periodic=True, **_):
        return constant(torch.hann_window(window_length, periodic=periodic).numpy())

    def hamming_window(window_length, periodic=True, **_):
        return constant(torch.hamming_window(window_length, periodic=periodic).numpy())

    def global_max_pool(maps, output_size):
        if list(output_size) != [1, 1]:
            raise NotImplementedError(f"adaptive_max_pool2d to {output_size}")

        where = op.ArgMax(op.Reshape(maps, op.Constant(value_ints=[0, 0, -1])), axis=2, keepdims=1)

        return op.ReduceMax(maps, op.Constant(value_ints=[2, 3])), op.Unsqueeze(where, op.Constant(value_ints=[3]))

    aten = torch.ops.aten
    return {
        aten._fft_r2c.default: complex_dft,
        aten.stft.default: stft,
        aten.hann_window.default: hann_window,
        aten.hann_window.periodic: hann_window,
        aten.hamming_window.default: hamming_window,
        aten.hamming_window.periodic: hamming_window,
        aten.adaptive_max_pool2d.default: global_max_pool,
    }


def fourier_matrices(samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return cos and -sin of 2 pi n k / samples, each (samples, samples // 2 + 1) and rounded once to float32."""
    turns = np.outer(np.arange(samples), np.arange(samples // 2 + 1)) % samples / samples
    return np.cos(2 * np.pi * turns).astype(np.float32), -np.sin(2 * np.pi * turns).astype(np.float32)


def check_waveforms(clips: int, samples: int) -> torch.Tensor:
    """Return noise that is loud, then quiet, then a tone that stops, then silence: (clips, samples) in [-1, 1]."""
    noise = torch.randn(clips, samples, generator=torch.Generator().manual_seed(0)).clamp(-3, 3) / 3
    tone = torch.sin(torch.arange(samples) / 20) * (torch.arange(samples) < samples // 2)
    kinds = [noise[0], noise[-1] / 1000, tone, torch.zeros(samples)]
    return torch.stack([kinds[clip % len(kinds)] for clip in range(clips)])


def largest_difference(classifier: WaveformClassifier, path: Path, window_samples: int) -> float:
    """Return how far the graph's logits are from torch's at most, relative to the largest logit where that is above 1."""
    session = open_session(path)
    differences = []
    for batch_size in CHECKED_BATCH_SIZES:
        waveforms = check_waveforms(batch_size, window_samples)
        with torch.no_grad():
            expected = classifier(waveforms).numpy()
        difference = np.abs(onnx_logits(session, waveforms.numpy()) - expected).max()
        differences.append(difference / max(1.0, np.abs(expected).max()))
    return float(max(differences))


def open_session(path: Path, threads: int | None = None):
    """Return ONNX Runtime's session of a graph on the CPU, with as many threads as torch has unless told."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def onnx_logits(session, waveforms: np.ndarray) -> np.ndarray:
    """Return logits (batch, classes) of float32 waveforms (batch, samples) in [-1, 1]."""
    return session.run(["logits"], {"waveforms": waveforms})[0]


def quantise(path: Path, int8_path: Path) -> int:
    """Write the graph with the weights of its linear layers in 8 bits; return how many layers that are.

    Dynamic quantisation: the activations are rounded while the model runs, each with the scale that its values have.
    The features stay in float32, and convolutions too (in 8 bits ONNX Runtime computes them more slowly).
    Raises UserError where no linear layer is left to quantise.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(path).graph
    constants = {tensor.name for tensor in graph.initializer}
    linear = [node for node in graph.node if node.op_type in LINEAR and node.input[1] in constants]
    of_features = [node.name for node in linear if is_of_features(node)]
    if len(of_features) == len(linear):
        raise UserError(f"{path} has no linear layers, of which --int8 would make 8-bit ones: leave it out.")
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it recommends a preparation that changes nothing here
    try:
        quantize_dynamic(
            path,
            int8_path,
            op_types_to_quantize=list(LINEAR),
            nodes_to_exclude=[name + suffix for name in of_features for suffix in ("", "_MatMul")],  # Gemm's new name
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
    finally:
        root.setLevel(level)
    return len(linear) - len(of_features)


def is_of_features(node) -> bool:
    """Return whether a node of the graph came from the feature extractor, by the module path that the exporter notes."""
    return any(entry.key == "pkg.torch.onnx.class_hierarchy" and Features.__name__ in entry.value for entry in node.metadata_props)  # fmt: skip


def write_description(path: Path, **entries) -> None:
    """Write the JSON beside the graph: what a program needs to know to use it."""
    path.write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
