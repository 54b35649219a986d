"""Training clips straight from an export's tables: each process reads its own share, and nothing is stored."""

import itertools
import logging
from collections.abc import Callable, Iterator

import numpy as np
import torch
from datasets import Dataset

from irmas_dataset.audio import cut, read_mono, resample
from irmas_dataset.decoding import to_int16
from irmas_dataset.errors import UserError
from irmas_dataset.export.tables import by_row_group, read_audio
from irmas_recipe.training.clips import filled, multi_hot, transformed

logger = logging.getLogger(__name__)

SHUFFLE_BUFFER = 256  # files as they came, in memory; row groups come in random order besides


class StreamedClips(torch.utils.data.IterableDataset):
    """Clips of one fixed length, as `TrainingClips` gives them, in another random order each epoch.

    The clips are divided evenly among the processes in the order in which they are stored, so that a process reads few
    row groups of another's. An epoch has as many whole steps for every process as the smallest share fills; no clip
    comes twice in it, unless a share holds less than a step (or several workers clips of unlike lengths). `len` counts
    one process's clips of an epoch. Of files whose lengths are not known, one random segment each comes in an epoch.
    """

    def __init__(
        self,
        train: Dataset,
        sampling_rate: int,
        clip_samples: int,
        batch_size: int,
        seed: int,
        process_index: int = 0,
        processes: int = 1,
        transform: Callable | None = None,
        batches_per_step: int = 1,
    ) -> None:
        """`train` comes from `load_streamed`; `transform` is as in `TrainingClips`; a step may take several batches."""
        self.sampling_rate, self.clip_samples, self.transform = sampling_rate, clip_samples, transform
        self.batch_size, self.seed, self.process_index = batch_size, seed, process_index
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers that live across epochs see it too
        self.labels = torch.from_numpy(multi_hot(train))
        self.shards, self.groups, self.rows = (train[name][:] for name in ("shard", "row_group", "row"))
        self.audio_column, self.paths = train["audio_column"][0], train["path"][:]
        stored = sorted(range(len(train)), key=lambda i: (self.shards[i], self.groups[i], self.rows[i]))
        shares = np.array_split(stored, processes)
        self.share = shares[process_index]
        durations = train["duration"][:]
        self.has_lengths = None not in durations
        segments = np.ones(len(train), dtype=int)
        if self.has_lengths:
            segments = segments_of(np.rint(np.asarray(durations) * sampling_rate).astype(int), clip_samples)
        fewest = min(int(segments[share].sum()) for share in shares)
        self.batches = max(1, fewest // (batch_size * batches_per_step)) * batches_per_step

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch.fill_(epoch)

    def __iter__(self) -> Iterator[dict]:
        worker = torch.utils.data.get_worker_info()
        index, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        # A DataLoader takes a batch of each worker in turn.
        batches_of_workers = [len(range(first, self.batches, workers)) for first in range(workers)]
        ends = (
            np.cumsum(batches_of_workers) * len(self.share) // self.batches
        )  # as many clips as each has batches to fill
        mine = np.split(self.share, ends[:-1])[index]
        mine = mine if len(mine) else self.share
        rounds = (
            self.one_round(mine, [self.seed, int(self.epoch), self.process_index, index, i]) for i in itertools.count()
        )
        return itertools.islice(itertools.chain.from_iterable(rounds), batches_of_workers[index] * self.batch_size)

    def one_round(self, clips: np.ndarray, seed: list[int]) -> Iterator[dict]:
        """Yield every segment of the clips once, shuffled through a buffer of undecoded files; damaged files are skipped.

        Raises UserError if all are damaged.
        """
        is_any_read = False
        for clip, content in self.shuffled(clips, np.random.default_rng(seed)):
            try:
                segments = list(self.decoded(clip, content, seed))
            except Exception as error:  # whatever a file does to a decoder must cost only that file
                logger.warning("%s is damaged and skipped (%s).", self.paths[clip], error)
                continue
            is_any_read = True
            yield from segments
        if not is_any_read:
            raise UserError(f"None of {len(clips)} training files can be read, for example {self.paths[clips[0]]}.")

    def shuffled(self, clips: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[int, bytes]]:
        """Yield the clips and their files' bytes in random order."""
        buffer: list[tuple[int, bytes]] = []
        for item in self.files(clips, rng):
            buffer.append(item)
            if len(buffer) > SHUFFLE_BUFFER:
                yield buffer.pop(rng.integers(len(buffer)))
        for i in rng.permutation(len(buffer)):
            yield buffer[i]

    def files(self, clips: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[int, bytes]]:
        """Yield the clips and their files' bytes, row group by row group in random order."""
        places = list(by_row_group([self.shards[i] for i in clips], [self.groups[i] for i in clips]).items())
        for number in rng.permutation(len(places)):
            (shard, group), positions = places[number]
            chosen = clips[positions]
            yield from zip(
                chosen, read_audio(shard, group, [self.rows[i] for i in chosen], self.audio_column), strict=True
            )

    def decoded(self, clip: int, content: bytes, seed: list[int]) -> Iterator[dict]:
        """Yield the segments of a file as the Trainer takes them; `seed` differs whenever the file is drawn again."""
        waveform = to_int16(resample(*read_mono(content), self.sampling_rate))
        segments = list(enumerate(cut(waveform, self.clip_samples / self.sampling_rate, self.sampling_rate)))
        if not self.has_lengths:
            segments = [segments[np.random.default_rng([*seed, clip]).integers(len(segments))]]
        for number, segment in segments:
            if self.transform is not None:
                segment = transformed(segment, self.transform, [*seed, clip, number])
            yield filled(segment, self.clip_samples) | {"labels": self.labels[clip]}


def segments_of(clips_samples: np.ndarray, segment_samples: int) -> np.ndarray:
    """Return into how many segments `cut` cuts clips of these lengths."""
    whole, rest = np.divmod(clips_samples, segment_samples)
    return np.where(clips_samples <= segment_samples, 1, whole + (2 * rest >= segment_samples))
