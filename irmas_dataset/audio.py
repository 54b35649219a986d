"""Decoding, resampling with soxr, and the prepared dataset: 16-bit waveforms in a memory-mapped table.

Nothing here needs torchcodec, a network, or for wav, flac, ogg and mp3 the ffmpeg program.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import soxr
from datasets import Dataset, Features, List, Value
from datasets.fingerprint import Hasher
from filelock import FileLock

from irmas_dataset.cores import usable_cores
from irmas_dataset.decoding import mean_of_channels, read_frames, to_int16
from irmas_dataset.errors import UserError
from irmas_dataset.files import from_text, to_text

PREPARED_VERSION = 2
"""Increased whenever `prepare` writes different waveforms than before, so that older caches are not read."""

_ROWS_PER_BATCH = 16  # an Arrow batch of List has at most 2**31 samples: 16 rows of 50 minutes each at 44.1 kHz


def decode(path: str | Path) -> tuple[np.ndarray, int]:
    """Read an audio file; return the mean of its channels and its sampling rate.

    The waveform is float32 (samples,); full scale is 1, which floating-point files may exceed.

    Raises UserError for a file that is missing, unreadable or empty.
    """
    path = from_text(str(path))
    if not os.path.exists(path):
        raise UserError(f"There is no file {to_text(path)}.")
    try:
        return read_mono(path)
    except ValueError as error:
        raise UserError(f"{to_text(path)} {error}: replace or remove it.") from None


def read_mono(source: str | bytes) -> tuple[np.ndarray, int]:
    """Return the mean of the channels of a file, or of a file's bytes, float32 (samples,), and its sampling rate.

    Raises ValueError with a reason that continues the file's name to a sentence.
    """
    rate, blocks = read_frames(source)
    means = [mean_of_channels(block) for block in blocks]
    return means[0] if len(means) == 1 else np.concatenate(means), rate


def resample(waveform: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resample a waveform (samples,) from one rate in Hz to another with soxr at high quality."""
    if from_rate == to_rate:
        return waveform
    return soxr.resample(waveform, from_rate, to_rate, quality="HQ")


def prepare(
    dataset: Dataset,
    sampling_rate: int,
    *,
    segment_seconds: float | None = None,
    num_proc: int | None = None,
    transform: Callable[[np.ndarray, int], np.ndarray] | None = None,
) -> Dataset:
    """Add the column `waveform`: every clip decoded, mono, at `sampling_rate` Hz, int16 (samples,); cached on disk.

    segment_seconds: cut longer clips into consecutive segments of this length, one row each with the clip's labels; a
        remainder shorter than half a segment is dropped. Shorter clips stay whole. None cuts nothing.
    num_proc: number of processes that decode (default: one per core, fewer for small datasets); where they are fewer
        than the cores, each decodes in several threads.
    transform: a pure, picklable function (waveform float32 (samples,), rate) -> waveform at the same rate, applied
        after resampling; it is part of the cache's fingerprint.
    Several processes may call this at once: the first one fills the cache, the others wait and load it.
    Raises UserError for a file that cannot be read.
    """
    features = Features(dataset.features | {"waveform": List(Value("int16"))})
    if len(dataset) == 0:  # `map` would not add the column
        empty = Dataset.from_dict({name: [] for name in features}, features=features, split=dataset.split)
        empty.info.description = dataset.info.description
        return empty
    if num_proc is None:
        num_proc = min(usable_cores(), max(1, len(dataset) // (64 if transform else 1024)))
    fingerprint = Hasher.hash([dataset._fingerprint, sampling_rate, segment_seconds, transform, PREPARED_VERSION])
    threads = min(usable_cores() // num_proc, len(dataset) // _ROWS_PER_BATCH, _ROWS_PER_BATCH)  # few files may be long
    preparation = _Preparation(sampling_rate, segment_seconds, transform, max(1, threads))
    with cache_lock(dataset, fingerprint):
        return dataset.map(
            preparation,
            batched=True,
            batch_size=_ROWS_PER_BATCH,
            writer_batch_size=_ROWS_PER_BATCH,
            features=features,
            num_proc=num_proc if num_proc > 1 else None,
            new_fingerprint=fingerprint,
            desc=f"Decoding audio at {sampling_rate} Hz",
        )


def cache_lock(dataset: Dataset, fingerprint: str) -> AbstractContextManager:
    """Return the lock of what is made of a dataset under this fingerprint and cached beside it."""
    if not dataset.cache_files:  # a dataset in memory is not cached
        return nullcontext()
    return FileLock(Path(dataset.cache_files[0]["filename"]).parent / f"prepare-{fingerprint}.lock")


@dataclass
class _Preparation:
    """What a process of `prepare` does with a batch of rows; it is called for one batch after another."""

    sampling_rate: int
    segment_seconds: float | None
    transform: Callable | None
    threads: int

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        """Threads that stay: libsndfile and soxr run side by side, and what a clip took in memory is used again."""
        return ThreadPoolExecutor(self.threads)

    def waveforms(self, paths: list[str]) -> Iterator[np.ndarray]:
        """Yield the waveform of each file; an error waits for the threads, which may have taken the error stream."""
        try:
            yield from map(self.load, paths) if self.transform else self.pool.map(self.load, paths)
        except BaseException:
            self.pool.shutdown()
            raise

    def load(self, path: str) -> np.ndarray:
        """Return the whole waveform of a file, int16 (samples,)."""
        waveform = resample(*decode(path), self.sampling_rate)
        return to_int16(self.transform(waveform, self.sampling_rate) if self.transform else waveform)

    def __call__(self, batch: dict[str, list]) -> dict[str, list]:
        """Return the rows of a batch with their waveforms."""
        rows: dict[str, list] = {name: [] for name in [*batch, "waveform"]}
        for position, waveform in enumerate(self.waveforms(batch["path"])):
            segments = cut(waveform, self.segment_seconds, self.sampling_rate)
            for segment in segments:
                for name, values in batch.items():
                    rows[name].append(values[position])
                if len(segments) > 1 and "duration" in rows:
                    rows["duration"][-1] = len(segment) / self.sampling_rate
                rows["waveform"].append(segment)
        return rows


def cut(waveform: np.ndarray, segment_seconds: float | None, sampling_rate: int) -> list[np.ndarray]:
    """Cut a waveform (samples,) into consecutive segments of exactly `segment_seconds`.

    A remainder of at least half a segment becomes one more segment, aligned to the end of the clip. A waveform that is
    not longer than a segment stays whole.
    """
    if segment_seconds is None:
        return [waveform]
    length = round(segment_seconds * sampling_rate)
    if len(waveform) <= length:
        return [waveform]
    segments = [waveform[start : start + length] for start in range(0, len(waveform) - length + 1, length)]
    if 2 * (len(waveform) % length) >= length:
        segments.append(waveform[-length:])
    return segments


class WaveformColumn:
    """The prepared dataset's waveforms as int16 arrays (samples,), read from the memory-mapped table without a copy.

    `WaveformColumn(dataset)[i]` equals `dataset[i]["waveform"]` and is about a hundred times faster; the arrays are
    read-only.
    """

    def __init__(self, dataset: Dataset, column: str = "waveform") -> None:
        self.dataset, self.column = dataset, column
        self.rows = None if dataset._indices is None else dataset._indices.column(0).to_numpy()
        chunks = dataset.data.table.column(column).chunks
        self.samples = [chunk.values.to_numpy(zero_copy_only=True) for chunk in chunks]
        self.offsets = [chunk.offsets.to_numpy() for chunk in chunks]
        self.first_rows = np.cumsum([0] + [len(chunk) for chunk in chunks])

    def __reduce__(self) -> tuple:  # a worker process maps the file again instead of receiving its contents
        return WaveformColumn, (self.dataset, self.column)

    def __len__(self) -> int:
        return int(self.first_rows[-1]) if self.rows is None else len(self.rows)

    def __getitem__(self, i: int) -> np.ndarray:
        if not -len(self) <= i < len(self):
            raise IndexError(f"row {i} of {len(self)}")
        row = range(len(self))[i] if self.rows is None else int(self.rows[i])
        chunk = int(np.searchsorted(self.first_rows, row, side="right")) - 1
        start, stop = self.offsets[chunk][row - self.first_rows[chunk] :][:2]
        return self.samples[chunk][start:stop]
