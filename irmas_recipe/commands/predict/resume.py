"""Whether a table that an earlier run left may be resumed with this model."""

import os
from pathlib import Path

from irmas_dataset.errors import UserError
from irmas_dataset.files import to_text
from irmas_dataset.label_text import split_labels
from irmas_recipe.commands.predict.rows import ASKED, result_row
from irmas_recipe.commands.predict.table import ResultTable
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline

SAME_SCORE = 0.01  # scores closer than this are of the same model: batches and devices round differently
SAME_THRESHOLD = 1e-4  # a score this close to its threshold may fall on either side


def check_is_of_this_model(
    table: ResultTable, recognise: InstrumentRecognitionPipeline, files: list[Path], thresholds: dict[str, float]
) -> None:
    """Listen again to the shortest of the files that the table already had.

    Raises:
        UserError: the answer has changed, so the table is of another model, or of other thresholds or windows.
    """
    by_path = {to_text(file): file for file in files}
    rows = [row for row in table.kept if row["path"] in by_path]
    if not rows:
        return
    before = min(rows, key=lambda row: float(row["duration_seconds"]))
    file = by_path[before["path"]]
    (result,) = recognise([os.fspath(file)], **ASKED)
    if "error" in result:
        return  # it is not read again, and its row stays
    now, heard = result_row(file, result, thresholds), labels_of(before["instruments"])
    for label, threshold in thresholds.items():
        score = float(before[label])
        other_threshold = (label in heard) != (score >= threshold) and abs(score - threshold) > SAME_THRESHOLD
        if abs(score - now[label]) > SAME_SCORE or other_threshold:
            raise UserError(
                f"{table.file} has rows of another model, or of other thresholds or windows ({before['path']}, {label}: "
                f"{score:.2f} there, {now[label]:.2f} now); resume with the same, or name another --output."
            )


def labels_of(field: str | list[str]) -> list[str]:
    """Return the labels in a row's field `instruments`, which CSV keeps as one string."""
    return split_labels(field) if isinstance(field, str) else field
