"""How to write in ONNX what torch's exporter cannot, or what ONNX Runtime computes slowly.

Each function builds part of a graph, as the exporter's `custom_translation_table` wants it: it takes the arguments of a
torch operator, tensors as values of the graph, and returns such values.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnxscript import opset20 as op


def constant(values: np.ndarray) -> Any:
    """Return an array as a constant of the graph."""
    return op.Constant(value=onnx.numpy_helper.from_array(np.ascontiguousarray(values)))


def integers(*values: int) -> Any:
    """Return a list of integers as a constant of the graph."""
    return op.Constant(value_ints=list(values))


def fourier_matrices(samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return cos and -sin of 2 pi n k / samples, each (samples, samples // 2 + 1) and rounded once to float32."""
    turns = np.outer(np.arange(samples), np.arange(samples // 2 + 1)) % samples / samples
    return np.cos(2 * np.pi * turns).astype(np.float32), -np.sin(2 * np.pi * turns).astype(np.float32)


def real_fft(frames: Any, dim: Sequence[int], normalization: int, onesided: bool) -> Any:
    """Frames (..., samples) -> (..., bins, 2), as products with cosines and sines."""
    matrices = fourier_matrices(frames.shape[dim[0]])
    parts = [op.Unsqueeze(op.MatMul(frames, constant(matrix)), integers(-1)) for matrix in matrices]
    return op.Concat(*parts, axis=-1)


def stft(
    waveforms: Any, n_fft: int, hop_length: int | None = None, win_length: int | None = None, window: Any = None, *_: Any, **__: Any
) -> Any:  # fmt: skip
    """Waveforms (batch, samples) -> (batch, bins, frames, 2), as a convolution with windowed cosines and sines."""
    length = win_length or n_fft
    first = (n_fft - length) // 2  # what lies outside the window in each frame stays out of the products too
    kernels = constant(
        np.concatenate([matrix[first : first + length].T for matrix in fourier_matrices(n_fft)])[:, None]
    )
    if window is not None:
        kernels = op.Mul(kernels, window)
    last = waveforms.shape[1] - (n_fft - length - first)
    waveforms = op.Slice(waveforms, integers(first), integers(last), integers(1))
    spectrum = op.Conv(op.Unsqueeze(waveforms, integers(1)), kernels, strides=[hop_length])
    parts = op.Reshape(spectrum, integers(0, 2, n_fft // 2 + 1, -1))
    return op.Transpose(parts, perm=[0, 2, 3, 1])


def hann_window(window_length: int, periodic: bool = True, **_: Any) -> Any:
    """Return torch's window (samples,) as a constant."""
    return constant(torch.hann_window(window_length, periodic=periodic).numpy())


def hamming_window(window_length: int, periodic: bool = True, **_: Any) -> Any:
    """Return torch's window (samples,) as a constant."""
    return constant(torch.hamming_window(window_length, periodic=periodic).numpy())


def global_max_pool(maps: Any, output_size: Sequence[int]) -> tuple[Any, Any]:
    """Maps (batch, channels, height, width) -> their maxima (batch, channels, 1, 1) and where these are."""
    if list(output_size) != [1, 1]:
        raise NotImplementedError(f"adaptive_max_pool2d to {output_size}")
    where = op.ArgMax(op.Reshape(maps, integers(0, 0, -1)), axis=2, keepdims=1)
    return op.ReduceMax(maps, integers(2, 3)), op.Unsqueeze(where, integers(3))


TRANSLATIONS: dict[Callable, Callable] = {
    torch.ops.aten._fft_r2c.default: real_fft,
    torch.ops.aten.stft.default: stft,
    torch.ops.aten.hann_window.default: hann_window,
    torch.ops.aten.hann_window.periodic: hann_window,
    torch.ops.aten.hamming_window.default: hamming_window,
    torch.ops.aten.hamming_window.periodic: hamming_window,
    torch.ops.aten.adaptive_max_pool2d.default: global_max_pool,
}
"""torch's operator -> what writes it in ONNX."""
