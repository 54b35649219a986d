"""Writing the results of an audit as CSV tables."""

from pathlib import Path

import numpy as np
import pandas as pd

from irmas_dataset.audit.audit import Audit
from irmas_dataset.audit.clips import Clips
from irmas_dataset.label_text import join_labels


def write_tables(found: Audit, folder: Path) -> list[Path]:
    """Write all tables into a folder and return their paths.

    They are clips.csv, counts.csv, duplicates.csv, label_errors.csv, missing_labels.csv, leaky_split.csv,
    corrections.csv and label_suggestions.csv.
    """
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
    """Return the number of clips, recordings and songs by split and by class, genre, drums or number of labels.

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


def _cell(value: object) -> object:
    """Return a value in the form that people and `--corrections` read."""
    if isinstance(value, tuple):
        return join_labels(value)
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return round(float(value), 5)
    return value
