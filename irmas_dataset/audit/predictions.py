"""Reading the scores that trained models gave to clips, from the tables that `predict` and a run write."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from irmas_dataset.audit.clips import Clips
from irmas_dataset.errors import UserError
from irmas_dataset.labels import readable_name

MIXED = " + "
"""Between the clips of a mixture, in the name that a run's validation predictions give it."""


def read_predictions(files: Sequence[Path], clips: Clips) -> np.ndarray:
    """Return the mean score of every clip over all tables, (clips, classes); NaN for a clip that no table contains.

    A table (parquet or csv) has a column `clip` or `path`, and for each class a column of scores in [0, 1], named by its
    code or its readable name, with or without `score_` before it. A row without scores is of a file that could not be
    read, and one of a mixture of clips says nothing about any of them. Paths may be absolute or relative, and the data
    folder may have been elsewhere: a clip is found by as many of the last parts of its path as identify it.
    Raises UserError for a file that is not such a table or contains none of the clips.
    """
    sums, counts = np.zeros((len(clips.table), len(clips.classes))), np.zeros(len(clips.table))
    rows = _rows_by_end(clips)
    for file in files:
        paths, scores = _read_table(file, clips.classes)
        found = np.array([_row_of(path, rows) for path in paths], dtype=int)
        if not (found >= 0).any():
            raise UserError(f"--predictions {file} has no clip of {clips.root}; its first path is {paths[0]!r}.")
        np.add.at(sums, found[found >= 0], scores[found >= 0])
        np.add.at(counts, found[found >= 0], 1)
    with np.errstate(invalid="ignore"):
        return sums / counts[:, None]


def _ends(path: str) -> list[str]:
    """Return the path, the path without its first folder, without its first two, ..., and the file name."""
    parts = str(path).replace("\\", "/").strip("/").split("/")
    return ["/".join(parts[first:]) for first in range(len(parts))]


def _rows_by_end(clips: Clips) -> dict[str, int]:
    """Return the row for each end of a clip's path; -1 for an end that several clips share."""
    rows: dict[str, int] = {}
    for row, path in enumerate(clips.table["path"]):
        for end in _ends(path):
            rows[end] = row if end not in rows else -1
    return rows


def _row_of(path: str, rows: dict[str, int]) -> int:
    """Return the row for the longest known end of a path; -1 if there is none, several clips share it, or it is a mixture's."""
    members = path.split(MIXED)
    if len(members) > 1 and all(_row_of(member, rows) >= 0 for member in members):
        return -1
    return next((rows[end] for end in _ends(path) if end in rows), -1)


def _read_table(file: Path, classes: list[str]) -> tuple[list[str], np.ndarray]:
    try:
        table = pd.read_csv(file) if Path(file).suffix == ".csv" else pd.read_parquet(file)
    except (OSError, ValueError) as error:
        raise UserError(f"--predictions {file} cannot be read as a parquet or csv table: {error}.") from None
    paths = next((column for column in ("clip", "path") if column in table), None)
    columns = [
        next((name for name in (code, words, f"score_{words}", f"score_{code}") if name in table), None)
        for code, words in ((code, readable_name(code)) for code in classes)
    ]
    missing = [code for code, column in zip(classes, columns, strict=True) if column is None]
    if paths is None or missing or table.empty:
        lacks = "a row" if table.empty else "the column clip or path" if paths is None else f"the column {missing[0]}"
        raise UserError(f"--predictions {file} lacks {lacks}: give a predictions.parquet or a table from `predict`.")
    table = table.dropna(subset=columns, how="all")
    scores = table[columns].to_numpy(dtype=float)
    if not ((scores >= 0) & (scores <= 1)).all():
        raise UserError(f"--predictions {file} has scores outside 0 to 1.")
    return table[paths].astype(str).tolist(), scores
