"""Whether a table that an earlier run left may be resumed with this model and these settings."""

import argparse
import os
from pathlib import Path

import numpy as np
from scipy.special import logit

from irmas_dataset.errors import UserError
from irmas_dataset.files import to_text
from irmas_recipe.commands.predict.rows import ASKED, scores_in, seconds_in
from irmas_recipe.commands.predict.table import ResultTable
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline

SAME_SCORE, SAME_LOGIT = 0.01, 0.1  # scores this close are of the same model: batches and devices round differently
SMALLEST_SCORE = 1e-4  # below it a table's six decimals say little of a logit
SAME_THRESHOLD = 1e-4  # a score this close to its threshold may fall on either side
SAME_SECONDS = 1e-3  # tables round durations to this


def check_is_of_this_model(
    table: ResultTable,
    recognise: InstrumentRecognitionPipeline,
    files: list[Path],
    args: argparse.Namespace,
    heading: dict,
) -> None:
    """Compare every row with the settings, then listen to one of the files again.

    heading: what a JSON file says before its files: the settings and the thresholds of both rules.

    Raises:
        UserError: a row is of another model, or of other thresholds or windows.
    """
    for row in table.kept:
        check_settings(table, row, args, heading)
    by_path = {to_text(file): file for file in files}
    if not (rows := [row for row in table.kept if row["path"] in by_path]):
        return
    before = telling(rows, heading["settings"]["window_seconds"])
    (result,) = recognise([os.fspath(by_path[before["path"]])], **ASKED)
    if "error" in result:
        return  # it is not read again, and its row stays
    scores = scores_in(before)
    for entry in result["instruments"]:
        label, now = entry["label"], entry["score"]
        if label in scores and not is_same_score(scores[label], now):
            raise changed(table, before, f"{label}: {scores[label]:.2f} there, {now:.2f} now")


def is_same_score(one: float, other: float) -> bool:
    """Tell whether two scores may be of the same model: close as they are, and as logits, for thresholds may be tiny."""
    logits = logit(np.clip([one, other], SMALLEST_SCORE, 1 - SMALLEST_SCORE))
    return abs(one - other) <= SAME_SCORE and bool(abs(logits[0] - logits[1]) <= SAME_LOGIT)


def check_settings(table: ResultTable, row: dict, args: argparse.Namespace, heading: dict) -> None:
    """Raise UserError where a row's rule or instruments do not follow from its scores and these settings."""
    longest, duration = heading["settings"]["longest_clip_seconds"], duration_of(row)
    rule = "clip" if args.aggregation or duration <= longest else "timeline"
    if row["rule"] != rule and (args.aggregation or abs(duration - longest) > SAME_SECONDS):
        raise changed(table, row, f"the rule {row['rule']} there, {rule} now")
    heard, scores, thresholds = seconds_in(row), scores_in(row), heading["thresholds"][rule]
    if scores.keys() != thresholds.keys():
        raise changed(table, row, f"scores of {', '.join(scores)} there, of {', '.join(thresholds)} now")
    if args.top_k is not None:
        if len(heard) != (count := min(args.top_k, len(scores))):
            raise changed(table, row, f"{len(heard)} instruments there, {count} now")
        return
    for label, score in scores.items():
        threshold = thresholds[label]
        if (label in heard) != (score >= threshold) and abs(score - threshold) > SAME_THRESHOLD:
            raise changed(table, row, f"{label}: a score of {score:.3f} and now a threshold of {threshold:.3f}")


def telling(rows: list[dict], window_seconds: float) -> dict:
    """Return the row of the shortest file that has several windows, else of the longest: one window tells nothing of hops."""
    several = [row for row in rows if duration_of(row) > 2 * window_seconds]
    return min(several, key=duration_of) if several else max(rows, key=duration_of)


def duration_of(row: dict) -> float:
    """Return the length of a row's file in seconds, which a CSV file has as text."""
    return float(row["duration_seconds"])


def changed(table: ResultTable, row: dict, how: str) -> UserError:
    """Return the error that says what a row and this run disagree about."""
    return UserError(
        f"{table.file} has rows of another model, or of other thresholds or windows ({row['path']}, {how}); resume with "
        "the same, or name another --output."
    )
