"""Checking the labels of clips with scores from trained models, or else from classical features out of fold."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from irmas_dataset.audit.clips import Clips
from irmas_dataset.audit.label_errors import doubt_labels, missing_labels, out_of_fold_scores, split_figures

DOUBT_COLUMNS = ["row", "path", "split", "instruments", "suggested", "suspicion", "flagged", "scored_by"]
MISSING_COLUMNS = ["row", "path", "split", "instruments", "missing", "strength", "scored_by"]
CLASSICAL, PREDICTIONS = "classical features", "predictions"
"""What scored a clip: the column `scored_by`."""


@dataclass
class Doubts:
    """Labels that are probably wrong (DOUBT_COLUMNS) or missing (MISSING_COLUMNS), and the figures of a leaky split."""

    doubts: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=DOUBT_COLUMNS))
    missing: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=MISSING_COLUMNS))
    leaky_split: dict[str, dict[str, float]] | None = None


def find_doubts(clips: Clips, groups: np.ndarray, given: np.ndarray, seed: int) -> Doubts:
    """Check the labels of all clips that have scores.

    groups: (clips,), the group of each clip, never split between training and scoring.
    given: (clips, classes), scores from models, NaN for clips without; training clips among them get classical scores.
    """
    table = clips.table
    labels = np.array([[code in own for code in clips.classes] for own in table["instruments"]], dtype=int)
    known = np.array([[code not in own for code in clips.classes] for own in table["unknown"]], dtype=bool)
    usable = clips.is_training.to_numpy() & ~(table["silent"] | table["cancelled"]).to_numpy() & labels.any(axis=1)
    rows = np.flatnonzero(usable)
    by_recording = by_clip = leaky_split = None
    if len(rows) > 1:
        by_recording = out_of_fold_scores(clips.timbres[rows], labels[rows], groups[rows], seed, known[rows])
        by_clip = out_of_fold_scores(clips.timbres[rows], labels[rows], None, seed, known[rows])
    if by_recording is not None and by_clip is not None:
        leaky_split = {
            "by recording": split_figures(by_recording, labels[rows], known[rows]),
            "by clip": split_figures(by_clip, labels[rows], known[rows]),
        }
    is_given = ~np.isnan(given).any(axis=1)
    parts = [
        (PREDICTIONS, np.flatnonzero(is_given & usable)),
        (PREDICTIONS, np.flatnonzero(is_given & (table["split"] == "test"))),
    ]
    scores = given.copy()
    # What nobody has judged is not doubtful: its score agrees with the 0 that stands for it.
    if by_recording is not None:
        classical = rows[~is_given[rows]]
        scores[classical] = by_recording[~is_given[rows]]
        parts.insert(0, (CLASSICAL, classical))
    scores = np.where(known | np.isnan(scores), scores, 0.0)
    found = [_doubts_of_part(clips, labels, known, scores, part, scored_by) for scored_by, part in parts]
    return Doubts(
        _joined([doubts for doubts, _ in found], DOUBT_COLUMNS, "suspicion"),
        _joined([missing for _, missing in found], MISSING_COLUMNS, "strength"),
        leaky_split,
    )


def _doubts_of_part(
    clips: Clips, labels: np.ndarray, known: np.ndarray, scores: np.ndarray, part: np.ndarray, scored_by: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Check the labels of some rows, all scored by the same classifier; return doubts and missing labels."""
    doubts = doubt_labels(scores[part], labels[part], clips.classes, known[part])
    missing = missing_labels(scores[part], labels[part], doubts["flagged"].to_numpy(dtype=bool), known[part])
    missing["missing"] = [clips.classes[label] for label in missing["label"]]
    doubts["row"], missing["row"] = part, part[missing["row"].to_numpy(dtype=int)]
    for rows in (doubts, missing):
        rows["scored_by"] = scored_by
        for name in ("path", "split", "instruments"):
            rows[name] = clips.table[name].to_numpy()[rows["row"].to_numpy(dtype=int)]
    return doubts, missing


def _joined(tables: list[pd.DataFrame], columns: list[str], order: str) -> pd.DataFrame:
    tables = [table[columns] for table in tables if len(table)]
    if not tables:
        return pd.DataFrame(columns=columns)
    return pd.concat(tables).sort_values(order, ascending=False, kind="stable", ignore_index=True)
