"""Mixtures of which only a part is heard: summed first and separated then, as the music of a test clip is.

Separation is no sum: the separated parts of a mixture's clips do not add up to the separated part of the mixture.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from datasets import Dataset, Features, List, Value
from datasets.fingerprint import Hasher

from irmas_dataset import WaveformColumn
from irmas_dataset.audio import cache_lock, usable_cores
from irmas_dataset.decoding import to_int16
from irmas_dataset.separation import Separation
from irmas_recipe.training.clips import Mixtures, classes_to_mix, multi_hot, united
from irmas_recipe.training.data import processes, separation
from irmas_recipe.training.fields import DataArguments

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
        mixtures: at most as many as there are clips.
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
            prepared.select(range(len(mixtures)))
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
    """Return a prepared split of mixtures of whole training clips, separated, in place of the clips.

    `data.separated_mixtures` of them begin with each clip; `probability` is the share that has two clips to `most_clips`.
    """
    clips, labels = WaveformColumn(prepared), multi_hot(prepared)
    members = drawn_members(
        classes_to_mix(clips, labels), data.separated_mixtures, probability, most_clips, data.split_seed
    )
    begins_with = prepared.select([of_one[0] for of_one in members])
    mixtures = separated(Mixtures(clips, members), begins_with, separation(data), sampling_rate, processes(data))
    paths, together = prepared["path"][:], united(labels, members)
    table = mixtures.waveforms.dataset.add_column("path", [" + ".join(paths[clip] for clip in one) for one in members])
    for column, value in (("instruments", 1), ("unknown", -1)):
        if column in prepared.features:
            rows = [np.flatnonzero(row == value).tolist() for row in together]
            table = table.add_column(column, rows, feature=prepared.features[column])
    return table


def drawn_members(
    classes: list[set[int]], draws: int, probability: float, most_clips: int, seed: int
) -> list[tuple[int, ...]]:
    """Return the clips of mixtures: `draws` begin with each clip, and no two clips of one share a class."""
    random, members = np.random.default_rng(seed), []
    has = np.zeros((len(classes), 1 + max(map(max, filter(None, classes)), default=0)), dtype=bool)
    for clip, of_clip in enumerate(classes):
        has[clip, list(of_clip)] = True
    for first in np.repeat(np.arange(len(classes)), draws):
        chosen = [int(first)]
        for _ in range(int(random.integers(1, most_clips)) if random.random() < probability else 0):
            others = np.flatnonzero(~has[:, has[chosen].any(axis=0)].any(axis=1))
            others = others[~np.isin(others, chosen)]
            if len(others):
                chosen.append(int(random.choice(others)))
        members.append(tuple(chosen))
    return members
