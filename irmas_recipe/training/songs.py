"""Validation songs: bands of validation clips that take turns, on which what a timeline needs is tuned.

A clip's thresholds judge the mean over a clip that plays the same instruments throughout; a timeline judges moments, and
windows in which the players change. So its thresholds are tuned on songs that are made for it.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset

from irmas_dataset import WaveformColumn
from irmas_recipe.models.pipeline.windows import TimelineRules, moments
from irmas_recipe.training.clips import Mixtures, WindowedClips, classes_to_mix, multi_hot, united
from irmas_recipe.training.data import processes, separation
from irmas_recipe.training.fields import DataArguments
from irmas_recipe.training.separated import separated
from irmas_recipe.training.thresholds import LABELS_PER_TEST_CLIP, fit_slopes, tune_thresholds, validation_mixtures

SECTION_SECONDS = 12.0  # at least; a window, where that is longer
SECTIONS = 5  # of a song
BANDS = (0, 1, 1, 1)  # as many of two players as of three and of four
MOST_SONGS = 100  # enough to tune on, however many validation clips there are
MOMENTS_FILE = "validation_moments.parquet"


class Lengthened(Sequence):
    """Longer clips: each goes on with the other clips of its recording up to `samples`, and then begins again."""

    def __init__(
        self,
        clips: Sequence[np.ndarray],
        recordings: Sequence,
        classes: Sequence[set[int]],
        samples: int,
        repeat: bool = True,
    ) -> None:
        """`recordings` and `classes` are those of each clip of int16 (samples,); a recording may be None, unknown.

        Without `repeat`, a clip ends where its recording does, if that is before `samples`.
        """
        self.clips, self.samples, self.repeat = clips, samples, repeat
        alike = defaultdict(list)
        for clip, (recording, of_clip) in enumerate(zip(recordings, classes, strict=True)):
            alike[clip if recording is None else (recording, frozenset(of_clip))].append(clip)
        self.goes_on = {}
        for same in alike.values():
            for place, clip in enumerate(same):
                self.goes_on[clip] = same[place:] + same[:place]

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> np.ndarray:
        parts, missing = [], self.samples
        for clip in self.goes_on[index]:
            if missing > 0:
                parts.append(self.clips[clip][:missing])
                missing -= len(parts[-1])
        together = np.concatenate(parts)
        if not self.repeat:
            return together
        return np.resize(together, self.samples) if len(together) else np.zeros(self.samples, np.int16)


class Songs(Sequence):
    """Songs of several sections, each section one clip; as int16 (samples,)."""

    def __init__(self, sections: Sequence[np.ndarray], songs: list[list[int]]) -> None:
        self.sections, self.songs = sections, songs

    def __len__(self) -> int:
        return len(self.songs)

    def __getitem__(self, index: int) -> np.ndarray:
        return np.concatenate([self.sections[section] for section in self.songs[index]])


@dataclass(frozen=True)
class Moments:
    """A song cut into moments: their edges (moments + 1,) in seconds, labels and scores (moments, classes)."""

    edges: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class ValidationSongs:
    """Songs as the model sees them, and which classes play in each of their sections."""

    windows: WindowedClips
    labels: list[np.ndarray]  # of each song: multi-hot (sections, classes)
    section_samples: int
    sampling_rate: int

    def moments(self, logits: np.ndarray, aggregation: str) -> list[Moments]:
        """Return each song's moments, from the logits (windows, classes) of `windows`."""
        found, first = [], 0
        energies = self.windows.energies(len(logits)) if aggregation == "energy" else np.zeros(len(logits))
        for song, count in enumerate(self.windows.windows_per_clip):
            starts = [start for _, start in self.windows.windows[first : first + count]]
            spans = [
                {"start": start, "stop": start + self.windows.window_samples, "energy": energy}
                for start, energy in zip(starts, energies[first : first + count], strict=True)
            ]
            edges, scores = moments(spans, torch.from_numpy(logits[first : first + count]), aggregation)
            middles = (edges[:-1] + edges[1:]) / 2
            section = np.minimum((middles / self.section_samples).astype(int), len(self.labels[song]) - 1)
            found.append(Moments(edges / self.sampling_rate, self.labels[song][section], scores))
            first += count
        return found


def validation_songs(
    validation: Dataset, data: DataArguments, window: int, hop: int, sampling_rate: int, batch_size: int = 1
) -> ValidationSongs:
    """Return songs of the prepared validation clips: a band of 2 to 4 each, of which one or several play in a section.

    As many play at once as instruments in IRMAS's test clips, or one where the recipe's `validation_clips` says `single`.

    window, hop: in samples.
    """
    clips, labels, recordings = WaveformColumn(validation), multi_hot(validation), validation["recording"][:]
    classes = classes_to_mix(clips, labels)
    most = (
        MOST_SONGS if separation(data) is None else max(1, len(clips) // SECTIONS)
    )  # to separate a section takes long
    bands = validation_mixtures(classes, recordings, data.split_seed, BANDS)[: min(most, MOST_SONGS)]
    members = sections_of(bands, data.split_seed, LABELS_PER_TEST_CLIP if data.validation_clips == "mixtures" else (1,))
    samples = max(window, round(SECTION_SECONDS * sampling_rate))
    sections = Mixtures(Lengthened(clips, recordings, classes, samples), members)
    sections = separated(sections, validation, separation(data), sampling_rate, processes(data))
    songs = [list(range(first, first + SECTIONS)) for first in range(0, len(members), SECTIONS)]
    of_section = united(labels, members)
    windows = WindowedClips(Songs(sections, songs), united(of_section, songs), window, hop, batch_size)
    return ValidationSongs(windows, [of_section[song] for song in songs], samples, sampling_rate)


def sections_of(bands: list[tuple[int, ...]], seed: int, proportions: Sequence[int]) -> list[tuple[int, ...]]:
    """Return who plays in each band's SECTIONS sections, one after another: 1, 2, ... of it in the given proportions."""
    random, shares = np.random.default_rng(seed), np.array(proportions) / np.sum(proportions)
    sections = []
    for band in bands:
        for playing in 1 + random.choice(len(shares), size=SECTIONS, p=shares):
            sections.append(tuple(random.permutation(band)[:playing].tolist()))
    return sections


def tune_timeline(songs: list[Moments]) -> dict[str, np.ndarray]:
    """Return `window_thresholds` (classes,) and `window_confidence_slopes` (classes, 2), by the answers about the songs.

    A song's answer names what it plays for long enough by the rules of a timeline, and counts once, however many moments it
    has: those of a section are alike, and would make a threshold look surer than it is.
    """
    rules = TimelineRules()
    labels = np.stack([labels_of(song, rules) for song in songs])
    scores = np.array([[rules.sustained_score(song.edges, column) for column in song.scores.T] for song in songs])
    thresholds = tune_thresholds(labels, scores)
    return {"window_thresholds": thresholds, "window_confidence_slopes": fit_slopes(labels, scores, thresholds)}


def labels_of(song: Moments, rules: TimelineRules) -> np.ndarray:
    """Return whether a song plays each class for long enough, (classes,): 1 if so, 0 if not, -1 where it is not known."""
    surely, perhaps = (
        np.array([rules.sustained_score(song.edges, column) for column in plays.T])
        for plays in (song.labels == 1, song.labels != 0)
    )
    return np.where(perhaps == surely, surely, -1)


def write_moments(path: Path, songs: list[Moments], classes: list[str]) -> None:
    """Write the moments of songs, from which an ensemble learns: a row each, with a score and a label (1, 0, -1) a class."""
    names = ["song", "start_seconds", "end_seconds", *classes, *(f"label_{name}" for name in classes)]
    parts = [
        np.column_stack([np.full(len(song.scores), number), song.edges[:-1], song.edges[1:], song.scores, song.labels])
        for number, song in enumerate(songs)
    ]
    pd.DataFrame(np.concatenate(parts), columns=names).to_parquet(path, index=False)


def read_moments(path: Path, classes: list[str]) -> list[Moments]:
    """Return what `write_moments` wrote."""
    songs = []
    for _, rows in pd.read_parquet(path).groupby("song"):
        edges = np.append(rows["start_seconds"], rows["end_seconds"].iloc[-1])
        labels = rows[[f"label_{name}" for name in classes]].to_numpy()
        songs.append(Moments(edges, labels, rows[classes].to_numpy()))
    return songs
