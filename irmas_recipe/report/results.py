"""A run folder as `compare` and `ensemble` read it: results.json and the scores behind it."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from irmas_dataset.errors import UserError
from irmas_metric.figures import ranking_figures
from irmas_recipe.report.figures import headline_regime, read_results
from irmas_recipe.training.evaluation import THRESHOLDS_FROM

TEST_FILE = "predictions.parquet"
VALIDATION_FILE = "validation_predictions.parquet"


@dataclass(frozen=True)
class ScoredClips:
    """The clips of one predictions file, in its order; labels and scores are (clips, classes)."""

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
    """A finished run: its folder, a name that no other run of the table has, results.json, and its test scores."""

    folder: Path
    name: str
    results: dict
    test: ScoredClips

    @property
    def classes(self) -> list[str]:
        return self.results["dataset"]["classes"]

    @property
    def is_of_half(self) -> bool:
        """Whether the figures are of half of the test set, the thresholds having been tuned on the other half."""
        return self.results["protocol"].get("thresholds_from") == THRESHOLDS_FROM["test_half"]

    @property
    def regime(self) -> str:
        """The threshold regime that stands for the run: tuned, or fixed where nothing could be tuned."""
        return headline_regime(self.results["test"])

    @property
    def thresholds(self) -> np.ndarray:
        """The headline regime's thresholds (classes,)."""
        per_class = self.results["test"][self.regime]["per_class"]
        return np.array([per_class[code]["threshold"] for code in self.classes])


def read_runs(folders: list[Path], allow_halves: bool = False) -> list[Run]:
    """Read run folders that were measured on one test set; their test clips stand in the first run's order.

    allow_halves: a run of half of the test set may stand beside runs of all of it; then it keeps its own clips.
    Raises:
        UserError: a folder that is no finished run, scores that are not those of its results, a different test set.
    """
    runs = [read_run(folder, name) for folder, name in zip(folders, distinct_names(folders), strict=True)]
    aligned = runs[:1]
    for run in runs[1:]:
        test = run.test.in_order_of(runs[0].test) if run.classes == runs[0].classes else None
        if test is None and allow_halves and is_half_and_whole(run, runs[0]):
            test = run.test
        if test is None:
            raise UserError(
                f"{run.folder} and {runs[0].folder} were measured on different test sets ({summary(run)}; "
                f"{summary(runs[0])}): name runs of one test set only."
            )
        aligned.append(replace(run, test=test))
    return aligned


def is_half_and_whole(run: Run, other: Run) -> bool:
    """Return whether one run's test set is a half of the other's, with the same labels."""
    if run.classes != other.classes or run.is_of_half == other.is_of_half:
        return False
    common, of_other = run.test.common_with(other.test), other.test.common_with(run.test)
    half = run.test if run.is_of_half else other.test
    return len(common.clips) == len(half.clips) and np.array_equal(common.labels, of_other.labels)


def read_run(folder: Path, name: str) -> Run:
    """Read one run folder; see `read_runs`."""
    results = {"train": {}, **read_results(folder)}  # `evaluate` trains nothing
    test = read_scored_clips(folder / TEST_FILE, results["dataset"]["classes"])
    measured = ranking_figures(test.labels, test.scores)
    if abs(measured["lrap"] - results["test"]["lrap"]) > 1e-6 or abs(measured["map"] - results["test"]["map"]) > 1e-6:
        raise UserError(
            f"{folder / TEST_FILE} does not give the figures of {folder / 'results.json'}: one of them is of another "
            f"run; train or evaluate {folder} again."
        )
    return Run(folder, name, results, test)


def read_scored_clips(path: Path, classes: list[str]) -> ScoredClips:
    """Read a predictions file; UserError where it is missing or lacks a column."""
    if not path.is_file():
        raise UserError(f"{path} is missing: train the run again with run_irmas.py, which writes it.")
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no readable parquet file: train the run again.") from error
    missing = [column for column in ("clip", "song", "instruments", *classes) if column not in table]
    if missing:
        raise UserError(f"{path} has no column `{missing[0]}`: it was written by something else; train the run again.")
    labels = np.array([[code in clip for code in classes] for clip in table["instruments"]], dtype=int)
    songs = [song or None for song in table["song"]]
    return ScoredClips(list(table["clip"]), songs, labels, table[list(classes)].to_numpy(dtype=float))


def summary(run: Run) -> str:
    """Return the test set in a few words."""
    return f"{run.results['dataset']['name']}, {len(run.test.clips):,} clips"


def distinct_names(folders: list[Path]) -> list[str]:
    """Name each run after its folder, or by its whole path where two folders are called alike."""
    names = [folder.resolve().name for folder in folders]
    if len({folder.resolve() for folder in folders}) < len(folders):
        twice = next(folder for folder in folders if [f.resolve() for f in folders].count(folder.resolve()) > 1)
        raise UserError(f"{twice} is named twice: name every run once.")
    return [str(folder) if names.count(name) > 1 else name for folder, name in zip(folders, names, strict=True)]
