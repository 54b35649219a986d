"""Read and resample any audio as mono float32 blocks, so that a file of hours takes little memory."""

import math
import os
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torchaudio

from .decoding import BLOCK_FRAMES, Mono, checked, checked_rate, read_frames, to_int16

try:
    import soxr
except ImportError:  # optional: without it torchaudio resamples
    soxr = None

MAX_KERNEL_SIZE = 50_000_000  # values of the filter that torchaudio builds for two rates without a common divisor


def read_blocks(audio: Any, sampling_rate: int | None = None) -> tuple[int, Mono]:
    """Return an input's sampling rate in Hz and an iterable over its mono float32 blocks (samples,).

    Args:
        audio: any input of the pipeline: a path, bytes, an array, a decoder, a dictionary with one of them, or a function
            that fetches one.
        sampling_rate: of a bare array, in Hz.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the audio cannot be read; while the blocks are read, too.
    """
    name = name_of(audio)
    if callable(audio):
        audio = audio()
    if isinstance(audio, dict):
        sampling_rate = audio.get("sampling_rate", sampling_rate)
        present = [key for key in ("array", "raw", "bytes", "path") if audio.get(key) is not None]
        if not present:
            raise ValueError(
                "A dictionary of audio needs `array` or `raw` with `sampling_rate`, or `path`, or `bytes`."
            )
        audio = audio[present[0]]
    if hasattr(audio, "get_all_samples"):  # torchcodec's AudioDecoder, which `datasets` gives for an Audio column
        audio = audio.get_all_samples()
    if hasattr(audio, "data") and hasattr(audio, "sample_rate"):  # its AudioSamples, (channels, samples)
        audio, sampling_rate = audio.data.T, audio.sample_rate
    if isinstance(audio, (str, os.PathLike)) and not os.path.exists(audio):
        raise FileNotFoundError(f"There is no file {name}.")
    is_file = isinstance(audio, (str, os.PathLike, bytes, bytearray))
    remedy = ": export it again, or convert it" if is_file else ""
    try:
        rate, blocks = read_frames(audio) if is_file else array_frames(audio, sampling_rate)
    except ValueError as error:
        raise ValueError(f"{name} {error}{remedy}.") from error
    return rate, Mono(in_sentences(blocks, name, remedy))


def name_of(audio: Any) -> str:
    """Return an input's path, or `The audio` if it has none."""
    if isinstance(audio, dict):
        audio = audio.get("path")
    return os.fspath(audio) if isinstance(audio, (str, os.PathLike)) else "The audio"


def in_sentences(blocks: Iterable[np.ndarray], name: str, remedy: str) -> Iterator[np.ndarray]:
    """Yield the blocks; the reason why one cannot be read is raised in a sentence."""
    try:
        yield from blocks
    except ValueError as error:
        raise ValueError(f"{name} {error}{remedy}.") from error


def array_frames(array: np.ndarray | torch.Tensor, sampling_rate: int | None) -> tuple[int, Iterator[np.ndarray]]:
    """Return the rate of an array and its float32 blocks (samples, channels); raises ValueError as `read_frames` does."""
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()  # numpy has no bfloat16
    if not isinstance(array, np.ndarray):
        raise ValueError(f"must be a path, bytes, an array, a decoder or a dictionary, not {type(array).__name__}")
    if not sampling_rate or sampling_rate <= 0:
        raise ValueError("is an array and needs its `sampling_rate` in Hz")
    if array.ndim not in (1, 2):
        raise ValueError(f"must be an array of one or two dimensions, not {array.ndim}")
    if array.dtype.kind not in "iuf":
        raise ValueError(f"must be an array of integers or floating-point numbers, not {array.dtype}")
    frames = array[:, None] if array.ndim == 1 else array.T if array.shape[0] < array.shape[1] else array
    frames = frames if frames.size else frames[:0]
    silence, full_scale = scale_of(frames)
    starts = range(0, len(frames), BLOCK_FRAMES)
    blocks = (((frames[start : start + BLOCK_FRAMES] - silence) / full_scale).astype(np.float32) for start in starts)
    return checked_rate(int(sampling_rate)), checked(blocks)


def scale_of(array: np.ndarray) -> tuple[float, float]:
    """Return which value of an array is silence, and how far from it full scale is.

    Wide integers may hold 16-bit samples, as an array made of a list does: that is what they are where 16 bits hold them
    all. Other 32-bit integers fill their 32 bits, and so do 24-bit samples in them: those are multiples of 256.

    Raises ValueError for integers that could have several scales.
    """
    kind, bits = array.dtype.kind, 8 * array.dtype.itemsize
    if kind == "f" or not array.size:
        return 0.0, 1.0
    if bits <= 16:  # unsigned ones are as in 8-bit wav files, where 128 is silence
        return 2.0 ** (bits - 1) * (kind == "u"), 2.0 ** (bits - 1)
    if kind == "i" and array.min() >= -(2**15) and array.max() < 2**15:
        is_24_bit = bits == 32 and not np.bitwise_or.reduce(array, axis=None) & 0xFF
        return 0.0, 2.0**31 if is_24_bit else 2.0**15
    if kind == "i" and bits == 32:
        return 0.0, 2.0**31
    raise ValueError(f"is an array of {array.dtype}, whose full scale is not known: divide it by its full scale")


def rounded_to_16_bits(waveform: np.ndarray) -> np.ndarray:
    """Return a waveform (samples,) as training and evaluation hear it: rounded to 16 bits, and clipped at full scale."""
    return to_int16(waveform).astype(np.float32) / 2**15


def resample_blocks(blocks: Iterable[np.ndarray], rate: int, new_rate: int) -> Iterator[np.ndarray]:
    """Yield mono blocks (samples,) at `new_rate`, the same as if they were resampled at once.

    soxr resamples if it is installed, otherwise torchaudio. Both are band-limited; they differ by less than 1 % of the
    signal's level.

    Raises:
        ValueError: torchaudio would need too large a filter for these rates.
    """
    if rate == new_rate:
        yield from blocks
    elif soxr is None:
        yield from _resample_with_torchaudio(blocks, rate, new_rate)
    else:
        stream = soxr.ResampleStream(rate, new_rate, 1, dtype="float32")
        for block in blocks:
            yield stream.resample_chunk(block)
        yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _resample_with_torchaudio(blocks: Iterable[np.ndarray], rate: int, new_rate: int) -> Iterator[np.ndarray]:
    divisor = math.gcd(rate, new_rate)
    step, new_step = rate // divisor, new_rate // divisor  # `step` samples in give `new_step` samples out
    reach = math.ceil(6 * step / (min(step, new_step) * 0.99))  # of torchaudio's filter, to either side
    if (2 * reach + step) * new_step > MAX_KERNEL_SIZE:
        raise ValueError(f"Resampling {rate} Hz to {new_rate} Hz needs soxr: run `pip install soxr`.")
    resample = torchaudio.transforms.Resample(rate, new_rate)
    margin = math.ceil((reach + step) / step) * step
    steps_at_once = max(1, BLOCK_FRAMES // step) * step
    buffer, read, written = np.zeros(margin, np.float32), 0, 0

    def resampled(usable: int) -> np.ndarray:
        around = torch.from_numpy(buffer[: 2 * margin + usable])
        return resample(around)[margin // step * new_step :][: usable // step * new_step].numpy()

    for block in blocks:
        buffer, read = np.concatenate([buffer, block]), read + len(block)
        while len(buffer) >= 2 * margin + steps_at_once:
            yield resampled(steps_at_once)
            buffer, written = buffer[steps_at_once:], written + steps_at_once // step * new_step
    rest = math.ceil((len(buffer) - margin) / step) * step  # what is left after the margin kept from before
    buffer = np.pad(buffer, (0, rest + 2 * margin - len(buffer)))
    if rest > 0:
        yield resampled(rest)[: math.ceil(read * new_step / step) - written]


def read_ahead(items: Iterable, depth: int) -> Iterator:
    """Yield the items while a thread fetches up to `depth` more; its errors are raised here, in their place."""
    fetched, abandoned = queue.Queue(maxsize=depth), threading.Event()

    def put(kind: str, value: Any = None) -> None:
        while not abandoned.is_set():
            try:
                return fetched.put((kind, value), timeout=0.1)
            except queue.Full:
                continue

    def fetch() -> None:
        try:
            for item in items:
                put("item", item)
                if abandoned.is_set():
                    return
            put("end")
        except BaseException as error:
            put("error", error)

    threading.Thread(target=fetch, daemon=True).start()
    try:
        while True:
            kind, value = fetched.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        abandoned.set()
