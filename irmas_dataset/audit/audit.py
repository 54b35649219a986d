"""The whole audit: measure clips, compare them, and check their labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from irmas_dataset.audit.clips import Clips, read_clips
from irmas_dataset.audit.corrections import corrections, label_suggestions
from irmas_dataset.audit.doubts import Doubts, find_doubts
from irmas_dataset.audit.duplicates import find_duplicates, tied_groups
from irmas_dataset.audit.label_errors import require_cleanlab
from irmas_dataset.audit.predictions import read_predictions
from irmas_dataset.builder import ANY_COLUMNS
from irmas_dataset.forms.flags import Columns


@dataclass
class Audit:
    """The results of an audit; every table names clips by `path`, and by their row in `clips.table`.

    leaky_split: {"by recording", "by clip": {"accuracy", "map"}} of one classifier; None if it could not be trained.
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
    columns: Columns = ANY_COLUMNS,
    cache_dir: str | Path | None = None,
    num_proc: int | None = None,
) -> Audit:
    """Measure every clip of a data folder, find shared audio, and check labels.

    predictions: tables of scores by models that were not trained on the clips. Training clips that are in no table are
        scored out of fold by a classifier on classical features; the labels of such test clips are not checked.
    label_errors: whether to check labels at all, which needs cleanlab.
    The other arguments are those of `load_irmas`; num_proc: number of processes (default: one per core).
    Raises UserError for a folder or table that cannot be used, or if cleanlab is missing.
    """
    if label_errors:
        require_cleanlab()
    clips = read_clips(
        data_dir,
        validation_fraction=validation_fraction,
        seed=seed,
        recording_pattern=recording_pattern,
        columns=columns,
        cache_dir=cache_dir,
        num_proc=num_proc,
    )
    given = np.full((len(clips.table), len(clips.classes)), np.nan)
    if predictions:
        given = read_predictions(predictions, clips)
    duplicates = find_duplicates(clips, num_proc)
    found = find_doubts(clips, tied_groups(clips, duplicates), given, seed) if label_errors else Doubts()
    return Audit(
        clips,
        duplicates,
        found.doubts,
        found.missing,
        found.leaky_split,
        corrections(clips, duplicates),
        label_suggestions(clips, found.doubts, found.missing),
    )
