"""Finished runs of one test set: their results and the scores behind them."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from irmas_dataset.errors import UserError
from irmas_metric.figures import ranking_figures
from irmas_recipe.report.results import Results

TEST_FILE = "predictions.parquet"
VALIDATION_FILE = "validation_predictions.parquet"


@dataclass(frozen=True)
class ScoredClips:
    """The clips of one predictions file, in its order; labels (1, 0, or -1: not known) and scores are (clips, classes)."""

    clips: list[str]
    songs: list[str | None]
    labels: np.ndarray
    scores: np.ndarray

    def in_order_of(self, other: "ScoredClips") -> "ScoredClips | None":
        """Return the same clips in the other's order, or None where the clips or their labels are not the same."""
        row_of = {clip: row for row, clip in enumerate(numbered(self.clips))}
        order = numbered(other.clips)
        if row_of.keys() != set(order):
            return None
        rows = [row_of[clip] for clip in order]
        if not np.array_equal(self.labels[rows], other.labels):
            return None
        return self.of_rows(rows)

    def common_with(self, other: "ScoredClips") -> "ScoredClips":
        """Return the clips that the other has too, in the order of the shorter of the two (this one, if equally long)."""
        first, second = sorted((self, other), key=lambda clips: len(clips.clips))
        there = set(numbered(second.clips))
        wanted = [clip for clip in numbered(first.clips) if clip in there]
        row_of = {clip: row for row, clip in enumerate(numbered(self.clips))}
        return self.of_rows([row_of[clip] for clip in wanted])

    def of_rows(self, rows: list[int]) -> "ScoredClips":
        """Return some of the clips, in the order of `rows`."""
        return ScoredClips(
            [self.clips[row] for row in rows], [self.songs[row] for row in rows], self.labels[rows], self.scores[rows]
        )


def numbered(clips: list[str]) -> list[tuple[str, int]]:
    """Return each clip with how often it stood before: a validation mixture can occur twice."""
    seen: Counter[str] = Counter()
    keys = []
    for clip in clips:
        keys.append((clip, seen[clip]))
        seen[clip] += 1
    return keys


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, a name that no other run of the table has, its results and its test scores."""

    folder: Path
    name: str
    results: Results
    test: ScoredClips


def read_runs(folders: list[Path], allow_halves: bool = False) -> list[Run]:
    """Read run folders that were measured on one test set; their test clips are in the first run's order.

    allow_halves: accept a run of half of the test set beside runs of all of it; it keeps its own clips.
    Raises:
        UserError: a folder that is no finished run, scores that do not match its results, a different test set.
    """
    runs = [read_run(folder, name) for folder, name in zip(folders, distinct_names(folders), strict=True)]
    aligned = runs[:1]
    for run in runs[1:]:
        test = run.test.in_order_of(runs[0].test) if run.results.classes == runs[0].results.classes else None
        if test is None and allow_halves and is_half_and_whole(run, runs[0]):
            test = run.test
        if test is None:
            raise UserError(
                f"{run.folder} and {runs[0].folder} were measured on different test sets ({summary(run)}; "
                f"{summary(runs[0])}): name only runs of one test set."
            )
        aligned.append(replace(run, test=test))
    return aligned


def is_half_and_whole(run: Run, other: Run) -> bool:
    """Return whether one run's test set is a half of the other's, with the same labels."""
    if run.results.classes != other.results.classes or run.results.is_of_half == other.results.is_of_half:
        return False
    common, of_other = run.test.common_with(other.test), other.test.common_with(run.test)
    half = run.test if run.results.is_of_half else other.test
    return len(common.clips) == len(half.clips) and np.array_equal(common.labels, of_other.labels)


def read_run(folder: Path, name: str) -> Run:
    """Read one run folder; see `read_runs`."""
    results = Results.read(folder)
    test = read_scored_clips(folder / TEST_FILE, results.classes)
    measured = ranking_figures(test.labels, test.scores)
    if abs(measured["lrap"] - results.test["lrap"]) > 1e-6 or abs(measured["map"] - results.test["map"]) > 1e-6:
        raise UserError(
            f"{folder / TEST_FILE} does not give the figures in {folder / 'results.json'}: they are of different "
            f"runs; train or evaluate {folder} again."
        )
    return Run(folder, name, results, test)


def read_scored_clips(path: Path, classes: list[str]) -> ScoredClips:
    """Read a predictions file; UserError where it is missing or lacks a column."""
    if not path.is_file():
        raise UserError(f"{path} is missing: run the recipe or `evaluate` again, which write it.")
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable Parquet file: train the run again.") from error
    missing = [column for column in ("clip", "song", "instruments", *classes) if column not in table]
    if missing:
        raise UserError(f"{path} has no column `{missing[0]}`: this project did not write it; train the run again.")
    labels = np.array([[code in clip for code in classes] for clip in table["instruments"]], dtype=int)
    if "unknown" in table:
        labels[np.array([[code in clip for code in classes] for clip in table["unknown"]])] = -1
    songs = [song or None for song in table["song"]]
    return ScoredClips(list(table["clip"]), songs, labels, table[list(classes)].to_numpy(dtype=float))


def summary(run: Run) -> str:
    """Return the test set in a few words."""
    return f"{run.results.dataset['name']}, {len(run.test.clips):,} clips"


def distinct_names(folders: list[Path]) -> list[str]:
    """Name each run after its folder, or by its whole path where two folders are called alike."""
    names = [folder.resolve().name for folder in folders]
    if len({folder.resolve() for folder in folders}) < len(folders):
        twice = next(folder for folder in folders if [f.resolve() for f in folders].count(folder.resolve()) > 1)
        raise UserError(f"{twice} is named twice: name every run once.")
    return [str(folder) if names.count(name) > 1 else name for folder, name in zip(folders, names, strict=True)]
