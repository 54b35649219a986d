"""Whether a table that an earlier run left may be resumed with this model."""

import os
from pathlib import Path

from irmas_dataset.errors import UserError
from irmas_dataset.files import to_text
from irmas_recipe.commands.predict.rows import ASKED, labels_in, scores_in
from irmas_recipe.commands.predict.table import ResultTable
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline

SAME_SCORE = 0.01  # scores closer than this are of the same model: batches and devices round differently
SAME_THRESHOLD = 1e-4  # a score this close to its threshold may fall on either side


def check_is_of_this_model(table: ResultTable, recognise: InstrumentRecognitionPipeline, files: list[Path]) -> None:
    """Listen again to the shortest of the files that the table already had.

    Raises:
        UserError: the answer has changed, so the table is of another model, or of other thresholds or windows.
    """
    by_path = {to_text(file): file for file in files}
    rows = [row for row in table.kept if row["path"] in by_path]
    if not rows:
        return
    before = min(rows, key=lambda row: float(row["duration_seconds"]))
    (result,) = recognise([os.fspath(by_path[before["path"]])], **ASKED)
    if "error" in result:
        return  # it is not read again, and its row stays
    scores, heard = scores_in(before), labels_in(before)
    for entry in result["instruments"]:
        if (label := entry["label"]) not in scores:
            continue
        threshold = result["thresholds"][label]
        other_threshold = (label in heard) != (scores[label] >= threshold) and abs(
            scores[label] - threshold
        ) > SAME_THRESHOLD
        if abs(scores[label] - entry["score"]) > SAME_SCORE or other_threshold or before["rule"] != result["rule"]:
            raise UserError(
                f"{table.file} has rows of another model, or of other thresholds or windows ({before['path']}, {label}: "
                f"{scores[label]:.2f} there, {entry['score']:.2f} now); resume with the same, or name another --output."
            )
