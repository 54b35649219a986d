"""The audit as a whole: measure, compare, doubt, write tables and the report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from irmas_dataset.audit.clips import Clips, read_clips
from irmas_dataset.audit.corrections import corrections, label_suggestions
from irmas_dataset.audit.duplicates import find_duplicates, tied_groups
from irmas_dataset.audit.label_errors import (
    doubt_labels,
    missing_labels,
    out_of_fold_scores,
    require_cleanlab,
    split_figures,
)
from irmas_dataset.audit.predictions import read_predictions

DOUBT_COLUMNS = ["row", "path", "split", "instruments", "suggested", "suspicion", "flagged", "scored_by"]
MISSING_COLUMNS = ["row", "path", "split", "instruments", "missing", "strength", "scored_by"]
CLASSICAL, PREDICTIONS = "classical features", "predictions"


@dataclass
class Audit:
    """What the audit found; every table names clips by `path`, and by their row in `clips.table`.

    leaky_split: {"by recording", "by clip": {"accuracy", "map"}} of one classifier, None where it could not be trained.
    """

    clips: Clips
    duplicates: pd.DataFrame
    doubts: pd.DataFrame
    missing: pd.DataFrame
    leaky_split: dict[str, dict[str, float]] | None
    corrections: pd.DataFrame
    suggestions: pd.DataFrame


def audit(
    data_dir: str | Path,
    *,
    predictions: Sequence[Path] = (),
    label_errors: bool = True,
    validation_fraction: float = 0.15,
    seed: int = 0,
    recording_pattern: str | None = None,
    cache_dir: str | Path | None = None,
    num_proc: int | None = None,
) -> Audit:
    """Measure every clip of a data folder, find shared audio, and doubt labels.

    predictions: tables of scores by models that have not heard the clips; training clips that no table holds are
        scored out of fold by a classifier on classical features, test clips that none holds are not doubted.
    label_errors: whether to doubt labels at all, which needs cleanlab.
    Raises UserError for a folder or table that cannot be used, or where cleanlab is missing.
    """
    if label_errors:
        require_cleanlab()
    clips = read_clips(
        data_dir,
        validation_fraction=validation_fraction,
        seed=seed,
        recording_pattern=recording_pattern,
        cache_dir=cache_dir,
        num_proc=num_proc,
    )
    given = (
        read_predictions(predictions, clips) if predictions else np.full((len(clips.table), len(clips.classes)), np.nan)
    )
    duplicates = find_duplicates(clips, num_proc)
    doubts, missing = pd.DataFrame(columns=DOUBT_COLUMNS), pd.DataFrame(columns=MISSING_COLUMNS)
    leaky_split = None
    if label_errors:
        doubts, missing, leaky_split = doubt(clips, tied_groups(clips, duplicates), given, seed)
    return Audit(
        clips,
        duplicates,
        doubts,
        missing,
        leaky_split,
        corrections(clips, duplicates),
        label_suggestions(clips, doubts, missing),
    )


def doubt(
    clips: Clips, groups: np.ndarray, given: np.ndarray, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame, dict | None]:
    """Return doubts about labels, missing labels, and the figures of an honest and a leaky split."""
    table = clips.table
    labels = np.array([[code in own for code in clips.classes] for own in table["instruments"]], dtype=int)
    trained = table["split"].isin(("train", "validation")).to_numpy()
    usable = trained & ~table["silent"].to_numpy() & labels.any(axis=1)
    rows = np.flatnonzero(usable)
    by_recording = by_clip = leaky_split = None
    if len(rows) > 1:
        by_recording = out_of_fold_scores(clips.timbres[rows], labels[rows], groups[rows], seed)
        by_clip = out_of_fold_scores(clips.timbres[rows], labels[rows], None, seed)
    if by_recording is not None and by_clip is not None:
        leaky_split = {
            "by recording": split_figures(by_recording, labels[rows]),
            "by clip": split_figures(by_clip, labels[rows]),
        }
    is_given = ~np.isnan(given).any(axis=1)
    parts = [
        ("predictions", np.flatnonzero(is_given & usable)),
        ("predictions", np.flatnonzero(is_given & (table["split"] == "test"))),
    ]
    scores = given.copy()
    if by_recording is not None:
        classical = rows[~is_given[rows]]
        scores[classical] = by_recording[~is_given[rows]]
        parts.insert(0, (CLASSICAL, classical))
    doubts, missing = [], []
    for scored_by, part in parts:
        found, second = _doubt_part(clips, labels, scores, part)
        doubts.append(found.assign(scored_by=scored_by))
        missing.append(second.assign(scored_by=scored_by))
    return _joined(doubts, DOUBT_COLUMNS, "suspicion"), _joined(missing, MISSING_COLUMNS, "strength"), leaky_split


def _doubt_part(clips: Clips, labels: np.ndarray, scores: np.ndarray, part: np.ndarray) -> tuple:
    """Doubt the labels of some rows, all scored by the same classifier."""
    found = doubt_labels(scores[part], labels[part], clips.classes)
    second = missing_labels(scores[part], labels[part], found["flagged"].to_numpy(dtype=bool))
    second["missing"] = [clips.classes[label] for label in second["label"]]
    found["row"], second["row"] = part, part[second["row"].to_numpy(dtype=int)]
    for rows in (found, second):
        for name in ("path", "split", "instruments"):
            rows[name] = clips.table[name].to_numpy()[rows["row"].to_numpy(dtype=int)]
    return found, second


def _joined(tables: list[pd.DataFrame], columns: list[str], order: str) -> pd.DataFrame:
    tables = [table[columns] for table in tables if len(table)]
    if not tables:
        return pd.DataFrame(columns=columns)
    return pd.concat(tables).sort_values(order, ascending=False, kind="stable", ignore_index=True)


def write_tables(found: Audit, folder: Path) -> list[Path]:
    """Write clips.csv, counts.csv, duplicates.csv, label_errors.csv, missing_labels.csv, leaky_split.csv,
    corrections.csv and label_suggestions.csv; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = found.clips.table["path"].to_numpy()
    pairs = found.duplicates.drop(columns=["first", "second"])
    for column, side in (("other_path", "second"), ("path", "first")):
        pairs.insert(0, column, paths[found.duplicates[side].to_numpy(dtype=int)])
    labels = found.clips.table["instruments"].to_numpy()
    pairs["instruments"] = labels[found.duplicates["first"].to_numpy(dtype=int)]
    pairs["other_instruments"] = labels[found.duplicates["second"].to_numpy(dtype=int)]
    tables = {
        "clips": found.clips.table.drop(columns="same_channels"),
        "counts": counts(found.clips),
        "duplicates": pairs,
        "label_errors": found.doubts.drop(columns="row"),
        "missing_labels": found.missing.drop(columns="row"),
        "leaky_split": pd.DataFrame(found.leaky_split or {}).T.rename_axis("split").reset_index(),
        "corrections": found.corrections,
        "label_suggestions": found.suggestions,
    }
    written = []
    for name, table in tables.items():
        written.append(folder / f"{name}.csv")
        table.map(_cell).to_csv(written[-1], index=False)
    return written


def counts(clips: Clips) -> pd.DataFrame:
    """Return clips, recordings and songs by split and class, genre, drums or number of labels.

    Columns: by, value, split, clips, recordings, songs.
    """
    table = clips.table.assign(labels=clips.table["instruments"].map(len), all="all")
    parts = []
    for by in ("all", "instruments", "genre", "drums", "labels"):
        rows = table.explode("instruments") if by == "instruments" else table
        rows = rows.assign(value=rows[by].fillna("unknown"))
        grouped = rows.groupby(["value", "split"], sort=False)
        part = grouped.agg(clips=("path", "size"), recordings=("recording", "nunique"), songs=("song", "nunique"))
        parts.append(part.reset_index().assign(by="instrument" if by == "instruments" else by))
    return pd.concat(parts)[["by", "value", "split", "clips", "recordings", "songs"]]


def _cell(value):
    """Write a value as people and `--corrections` read it."""
    if isinstance(value, tuple):
        return ";".join(value)
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return round(float(value), 5)
    return value
