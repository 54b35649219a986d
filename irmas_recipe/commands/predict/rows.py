"""What the model is asked about each file, and how its answer becomes the rows of a table."""

import os
from pathlib import Path

from irmas_dataset.files import to_text

TIMELINE_COLUMNS = ["path", "label", "start_seconds", "end_seconds", "score"]
VIEW_COLUMNS = ["path", "view"]
ASKED = {"all_labels": True, "return_timeline": True, "return_activity": True, "skip_unreadable": True}
"""Options of a call of the pipeline: scores and timeline, or the `error` that kept a file from being read."""
ERRORS_SHOWN = 10  # lines, at most


def result_columns(labels: list[str]) -> list[str]:
    """Return the columns of the table of results."""
    return ["path", "duration_seconds", "instruments", *labels]


def result_row(file: Path, result: dict, thresholds: dict[str, float]) -> dict:
    """Return `path`, `duration_seconds`, `instruments` (best first) and one score per label, in the order of `thresholds`."""
    scores = {entry["label"]: entry["score"] for entry in result["instruments"]}
    return {
        "path": to_text(file),
        "duration_seconds": round(result["duration_seconds"], 3),
        "instruments": [label for label, score in scores.items() if score >= thresholds[label]],
        **{label: round(scores[label], 6) for label in thresholds},
    }


def timeline_row(file: Path, segment: dict) -> dict:
    """Return one row of the table of timelines."""
    return {
        "path": to_text(file),
        "label": segment["label"],
        "start_seconds": round(segment["start_seconds"], 3),
        "end_seconds": round(segment["end_seconds"], 3),
        "score": round(segment["score"], 6),
    }


def errors_in_words(errors: list[tuple[str, str]], files: int) -> str:
    """Return what to print about files that could not be read: (path, error) of each, out of `files`.

    Errors that differ in nothing but the file share a line, and there are ERRORS_SHOWN lines at most.
    """
    by_reason: dict[str, list[str]] = {}
    for path, error in errors:
        reason = error.replace(path, "").replace(os.path.basename(path), "")
        by_reason.setdefault(reason, []).append(error)
    lines = [same[0] + (f" ({len(same) - 1} more like it)" if len(same) > 1 else "") for same in by_reason.values()]
    if len(lines) > ERRORS_SHOWN:
        hidden = sum(len(same) for same in list(by_reason.values())[ERRORS_SHOWN - 1 :])
        lines = [*lines[: ERRORS_SHOWN - 1], f"and {hidden} more"]
    return "\n  ".join([f"{len(errors)} of {files} files could not be read:", *lines])


def warnings_in_words(warnings: list[str], files: int) -> str:
    """Return what to print about files, out of `files`, that the model hears differently; ERRORS_SHOWN at most."""
    more = [f"and {len(warnings) - ERRORS_SHOWN} more"] * (len(warnings) > ERRORS_SHOWN)
    return "\n  ".join(
        [f"{len(warnings)} of {files} files could not be heard as they were recorded:", *warnings[:ERRORS_SHOWN], *more]
    )
