"""What the model is asked about each file, and how its answer becomes the rows of tables."""

import os
from pathlib import Path

from irmas_dataset.files import to_text
from irmas_dataset.label_text import split_labels

TIMELINE_COLUMNS = ["path", "label", "start_seconds", "end_seconds", "score", "confidence"]
VIEW_COLUMNS = ["path", "view"]
FIXED_COLUMNS = ["path", "duration_seconds", "rule", "instruments", "seconds"]
NESTED_COLUMNS = ["path", "duration_seconds", "rule", "instruments", "scores", "timeline"]
ASKED = {"all_labels": True, "return_timeline": True, "return_activity": True, "skip_unreadable": True}
"""Options of a call of the pipeline: scores and timeline, or the `error` that kept a file from being read."""
ERRORS_SHOWN = 10  # lines, at most


def narrowed(result: dict, only: list[str] | None) -> dict:
    """Return a result with these labels only, or as it is."""
    if only is None:
        return result
    kept = {name: [entry for entry in result[name] if entry["label"] in only] for name in ("instruments", "timeline")}
    activity = result["activity"]
    over_time = {
        name: {label: values for label, values in activity[name].items() if label in only}
        for name in ("scores", "confidences")
    }
    return result | kept | {"activity": activity | over_time}


def heard_in(result: dict, top_k: int | None) -> list[dict]:
    """Return the entries that are the answer: those that reach their threshold, or the first `top_k`."""
    if top_k is not None:
        return result["instruments"][:top_k]
    return [entry for entry in result["instruments"] if entry["score"] >= result["thresholds"][entry["label"]]]


def result_columns(labels: list[str], format: str) -> list[str]:
    """Return the columns of the table of results; JSON nests what CSV and Parquet lay flat."""
    return NESTED_COLUMNS if format == "json" else FIXED_COLUMNS + [f"score_{label}" for label in labels]


def result_row(file: Path, result: dict, heard: list[dict], labels: list[str], format: str) -> dict:
    """Return a file's row, with `result_columns`: the instruments that are `heard`, and the score of every label."""
    scores = {entry["label"]: round(entry["score"], 6) for entry in result["instruments"]}
    scores = {label: scores[label] for label in labels}
    row = {"path": to_text(file), "duration_seconds": round(result["duration_seconds"], 3), "rule": result["rule"]}
    if format == "json":
        instruments = [
            {name: entry[name] for name in ("label", "score", "confidence", "seconds", "share")} for entry in heard
        ]
        return row | {"instruments": rounded(instruments), "scores": scores, "timeline": rounded(result["timeline"])}
    row |= {"instruments": [entry["label"] for entry in heard], "seconds": [round(e["seconds"], 3) for e in heard]}
    return row | {f"score_{label}": score for label, score in scores.items()}


def rounded(entries: list[dict]) -> list[dict]:
    """Return entries whose times have three decimals and whose other numbers have six."""
    return [
        {name: round(value, 3 if "seconds" in name else 6) if isinstance(value, float) else value
         for name, value in entry.items()}
        for entry in entries
    ]  # fmt: skip


def scores_in(row: dict) -> dict[str, float]:
    """Return the score of each label in a row of results, of any format."""
    if "scores" in row:
        return row["scores"]
    return {name.removeprefix("score_"): float(row[name]) for name in row if name.startswith("score_")}


def seconds_in(row: dict) -> dict[str, float]:
    """Return the instruments in a row of results, of any format, and how many seconds each is heard."""
    labels, seconds = row["instruments"], row.get("seconds")
    if seconds is None:  # JSON nests them
        return {entry["label"]: entry["seconds"] for entry in labels}
    if isinstance(seconds, str):  # CSV keeps a list as one string
        labels, seconds = split_labels(labels), split_labels(seconds)
    return {label: float(of_label) for label, of_label in zip(labels, seconds, strict=True)}


def timeline_row(file: Path, segment: dict) -> dict:
    """Return one row of the table of timelines."""
    (row,) = rounded([segment])
    return {"path": to_text(file)} | {name: row[name] for name in TIMELINE_COLUMNS[1:]}


def window_columns(labels: list[str]) -> list[str]:
    """Return the columns of the table of windows."""
    return ["path", "start_seconds", "end_seconds", *(f"score_{label}" for label in labels)]


def window_rows(file: Path, result: dict, labels: list[str]) -> list[dict]:
    """Return the rows of the table of windows: what the model said of each."""
    windows = result["windows"]
    return [
        {"path": to_text(file), "start_seconds": round(start, 3), "end_seconds": round(end, 3)}
        | {f"score_{label}": round(windows["scores"][label][place], 6) for label in labels}
        for place, (start, end) in enumerate(zip(windows["start_seconds"], windows["end_seconds"], strict=True))
    ]


def audacity_labels(timeline: list[dict]) -> str:
    """Return a timeline as a label track of Audacity: a line of start, end and label each, between tabulators."""
    lines = [f"{part['start_seconds']:.6f}\t{part['end_seconds']:.6f}\t{part['label']}\n" for part in timeline]
    return "".join(lines)


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
