"""Read and resample any audio as mono float32 blocks, so that a file of hours takes little memory."""

import io
import math
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import soundfile
import torch
import torchaudio

try:
    import soxr
except ImportError:  # optional: without it torchaudio resamples
    soxr = None

BLOCK_FRAMES = 1 << 17  # decoded at a time: 3 s at 44.1 kHz
MAX_LEVEL = 100  # of floating-point samples, where 1 is full scale: unscaled integers are louder
MAX_KERNEL_SIZE = 50_000_000  # values of the filter that torchaudio builds for two rates without a common divisor
FFMPEG_RATE = 48_000  # in Hz, of what ffmpeg decodes


def read_blocks(audio: Any, sampling_rate: int | None = None) -> tuple[int, Iterator[np.ndarray]]:
    """Return an input's sampling rate in Hz and an iterator over its mono float32 blocks (samples,).

    Args:
        audio: any input of the pipeline: a path, bytes, an array, or a dictionary with one of them.
        sampling_rate: of a bare array, in Hz.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the audio cannot be read; while the blocks are read, too.
    """
    if isinstance(audio, dict):
        sampling_rate = audio.get("sampling_rate", sampling_rate)
        present = [key for key in ("array", "raw", "bytes", "path") if audio.get(key) is not None]
        if not present:
            raise ValueError(
                "A dictionary of audio needs `array` or `raw` with `sampling_rate`, or `path`, or `bytes`."
            )
        audio = audio[present[0]]
    if isinstance(audio, (str, os.PathLike)):
        rate, blocks = _read_path(os.fspath(audio))
    elif isinstance(audio, (bytes, bytearray)):
        rate, blocks = _read_sound_file(_open_sound_file(io.BytesIO(audio), "the bytes given"), "the bytes given")
    elif isinstance(audio, (np.ndarray, torch.Tensor)):
        if not sampling_rate or sampling_rate <= 0:
            raise ValueError("An array of audio needs its `sampling_rate` in Hz.")
        rate, blocks = sampling_rate, _array_blocks(audio)
    else:
        raise ValueError(f"Audio must be a path, bytes, an array or a dictionary, not {type(audio).__name__}.")
    return int(rate), _finite(blocks, name_of(audio))


def name_of(audio: Any) -> str:
    """Return an input's path, or `the audio` if it has none."""
    if isinstance(audio, dict):
        audio = audio.get("path") or "the audio"
    return os.fspath(audio) if isinstance(audio, (str, os.PathLike)) else "the audio"


def _finite(blocks: Iterable[np.ndarray], name: str) -> Iterator[np.ndarray]:
    for block in blocks:
        if not np.isfinite(block).all():
            raise ValueError(f"{name} contains samples that are not numbers (NaN or infinity): export it again.")
        if len(block) and np.abs(block).max() > MAX_LEVEL:
            raise ValueError(
                f"{name} contains samples above {MAX_LEVEL} times full scale, which is 1: export it again."
            )
        yield block


def _array_blocks(array: np.ndarray | torch.Tensor) -> Iterator[np.ndarray]:
    array = array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else array
    if array.ndim not in (1, 2):
        raise ValueError(f"An array of audio must have one or two dimensions, not {array.ndim}.")
    if array.dtype.kind not in "iuf":
        raise ValueError(f"An array of audio must contain integers or floating-point numbers, not {array.dtype}.")
    if array.size == 0:
        raise ValueError("The array has no samples.")
    if array.ndim == 2 and array.shape[0] < array.shape[1]:
        array = array.T
    for start in range(0, len(array), BLOCK_FRAMES):
        block = array[start : start + BLOCK_FRAMES]
        if block.dtype.kind == "u":  # as 8-bit wav files have it: 128 is silence
            half = 2.0 ** (8 * block.dtype.itemsize - 1)
            block = (block.astype(np.float64) - half) / half
        elif block.dtype.kind == "i":
            block = block / -float(np.iinfo(block.dtype).min)
        block = block.astype(np.float32)
        yield block if block.ndim == 1 else block.mean(axis=1)


def _read_path(path: str) -> tuple[int, Iterator[np.ndarray]]:
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no file {path}.")
    if os.path.isdir(path):
        raise ValueError(f"{path} is a folder: pass the files in it.")
    if os.path.getsize(path) == 0:
        raise ValueError(f"{path} is an empty file.")
    try:
        # As bytes: a name that is not valid UTF-8 cannot be encoded again.
        file = _open_sound_file(os.fsencode(path) if os.name == "posix" else path, path)
    except ValueError:
        if shutil.which("ffmpeg") is None:
            raise
        return FFMPEG_RATE, _ffmpeg_blocks(path, FFMPEG_RATE)
    return _read_sound_file(file, path)


def _open_sound_file(source: Any, name: str) -> soundfile.SoundFile:
    try:
        return soundfile.SoundFile(source)
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: files without a header, such as *.raw
        raise ValueError(
            f"{name} is not a wav, flac, ogg or mp3 file that soundfile can read: install the ffmpeg program, or convert it."
        ) from error


def _read_sound_file(file: soundfile.SoundFile, name: str) -> tuple[int, Iterator[np.ndarray]]:
    def blocks() -> Iterator[np.ndarray]:
        with file:
            while True:
                try:
                    block = file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
                except soundfile.SoundFileError as error:
                    raise ValueError(f"{name} is damaged: {error}") from error
                if not len(block):
                    return
                yield block.mean(axis=1)

    return file.samplerate, blocks()


def _ffmpeg_blocks(path: str, rate: int) -> Iterator[np.ndarray]:
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", path, "-vn", "-ac", "1", "-ar", str(rate), "-f", "f32le", "-"]
    with (
        tempfile.TemporaryFile() as messages,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages) as process,
    ):
        try:
            while data := process.stdout.read(4 * BLOCK_FRAMES):
                yield np.frombuffer(data[: len(data) // 4 * 4], dtype="<f4")
            code = process.wait()
        finally:
            process.kill()  # if the reader stopped early; after ffmpeg's end it does nothing
        if code != 0:
            messages.seek(0)
            first = (messages.read().decode(errors="replace").strip().splitlines() or ["no reason given"])[0]
            said = first.rpartition("] ")[2]  # without the name of the part of ffmpeg that reports it
            raise ValueError(f"{path} cannot be read as audio: ffmpeg says: {said}")


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
