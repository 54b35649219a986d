"""Mixtures of which only a part is heard: summed first and separated then, as the music of a test clip is.

Separation is no sum: the separated parts of a mixture's clips do not add up to the separated part of the mixture.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from datasets import Dataset, Features, List, Value
from datasets.fingerprint import Hasher

from irmas_dataset import WaveformColumn
from irmas_dataset.audio import cache_lock
from irmas_dataset.audit.predictions import MIXED
from irmas_dataset.cores import usable_cores
from irmas_dataset.decoding import to_int16
from irmas_dataset.separation import Separation
from irmas_recipe.training.clips import Mixtures, classes_to_mix, multi_hot, united
from irmas_recipe.training.data import processes, separation
from irmas_recipe.training.fields import DataArguments
from irmas_recipe.training.thresholds import proportions_of, validation_mixtures

VERSION = 1  # increased whenever `separated` gives other waveforms than before
MIXTURES_PER_PROCESS = 64  # at least, or starting one would cost more than it saves
ROWS_PER_BATCH = 16


class SeparatedMixtures(Mixtures):
    """Mixtures with the separated part of each, int16 (samples,), at hand."""

    def __init__(self, mixtures: Mixtures, waveforms: Sequence[np.ndarray]) -> None:
        super().__init__(mixtures.clips, mixtures.members)
        self.waveforms = waveforms

    def __getitem__(self, index: int) -> np.ndarray:
        return self.waveforms[index]


def separated(
    mixtures: Mixtures,
    prepared: Dataset,
    separation: Separation | None,
    sampling_rate: int,
    num_proc: int | None = None,
) -> Mixtures:
    """Return mixtures of prepared clips as `separation` leaves them, cached on disk beside the clips; None leaves all.

    Several processes may call this at once: the first one fills the cache, the others wait and load it.

    Args:
        num_proc: number of processes that separate (default: one per core, fewer for few mixtures).
    """
    if separation is None or not len(mixtures):
        return mixtures
    content = hashlib.blake2b()
    for index in range(len(mixtures)):
        content.update(mixtures[index])
    fingerprint = Hasher.hash([prepared._fingerprint, content.digest(), separation, sampling_rate, VERSION])
    num_proc = num_proc or min(usable_cores(), max(1, len(mixtures) // MIXTURES_PER_PROCESS))
    with cache_lock(prepared, fingerprint):
        table = (
            prepared.select(np.resize(np.arange(len(prepared)), len(mixtures)))  # a row for each
            .select_columns(["path"])
            .map(
                separate_batch,
                with_indices=True,
                batched=True,
                batch_size=ROWS_PER_BATCH,
                writer_batch_size=ROWS_PER_BATCH,
                remove_columns=["path"],
                fn_kwargs={"mixtures": mixtures, "separation": separation, "sampling_rate": sampling_rate},
                features=Features({"waveform": List(Value("int16"))}),
                num_proc=num_proc if num_proc > 1 else None,
                new_fingerprint=fingerprint,
                desc="Separating mixtures",
            )
        )
    return SeparatedMixtures(mixtures, WaveformColumn(table))


def separate_batch(
    batch: dict[str, list], rows: list[int], mixtures: Mixtures, separation: Separation, sampling_rate: int
) -> dict[str, list]:
    """Return the separated waveforms of these mixtures."""
    summed = (mixtures[row].astype(np.float32) / 2**15 for row in rows)
    return {"waveform": [to_int16(separation(waveform, sampling_rate)) for waveform in summed]}


def training_mixtures(
    prepared: Dataset, data: DataArguments, sampling_rate: int, probability: float, most_clips: int
) -> Dataset:
    """Return a prepared split of mixtures of whole training clips, separated, `data.separated_mixtures` for each clip.

    `probability` is the share that has two clips to `most_clips`.
    """
    members = training_members(prepared, data, probability, most_clips)
    mixtures = Mixtures(WaveformColumn(prepared), members)
    mixtures = separated(mixtures, prepared, separation(data), sampling_rate, processes(data))
    return as_split(mixtures.waveforms.dataset, members, prepared)


def training_members(
    prepared: Dataset, data: DataArguments, probability: float, most_clips: int
) -> list[tuple[int, ...]]:
    """Return the clips of each training mixture, chosen as those of validation mixtures are."""
    classes, recordings = classes_to_mix(WaveformColumn(prepared), multi_hot(prepared)), prepared["recording"][:]
    proportions, members = proportions_of(probability, most_clips), []
    for number in range(data.separated_mixtures):
        members += validation_mixtures(classes, recordings, data.split_seed + number, proportions)
    return members


def as_split(waveforms: Dataset, members: list[tuple[int, ...]], prepared: Dataset) -> Dataset:
    """Return a column of mixtures' waveforms as a prepared split, with the paths of their clips and the united labels."""
    paths, labels = prepared["path"][:], united(multi_hot(prepared), members)
    split = waveforms.add_column("path", [MIXED.join(paths[clip] for clip in of_one) for of_one in members])
    for column, value in (("instruments", 1), ("unknown", -1)):
        if column in prepared.features:
            rows = [np.flatnonzero(row == value).tolist() for row in labels]
            split = split.add_column(column, rows, feature=prepared.features[column])
    return split
