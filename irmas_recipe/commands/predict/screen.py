"""Results on the screen: for people as a table or as bars, for programs as CSV or JSON."""

import json
import math
import os
import sys
from pathlib import Path

from tqdm import tqdm

from irmas_dataset.files import to_text
from irmas_recipe.commands.predict.rows import result_columns
from irmas_recipe.commands.predict.table import csv_line
from irmas_recipe.report.text import clock, shortened

NAME_WIDTH = 44
BAR_WIDTH = 24
SEGMENTS_SHOWN = 4


def say(line: str) -> None:
    """Print a line above any progress bar; characters that the terminal cannot show are escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        tqdm.write(line.encode(encoding, "backslashreplace").decode(encoding), file=sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends
        raise SystemExit(141) from None


class Screen:
    """What prints results in one format."""

    def add(self, row: dict, timeline: list[dict]) -> None:
        """Take the row and the timeline of one file."""
        raise NotImplementedError

    def close(self) -> None:
        """Print what is left to print."""


class Lines(Screen):
    """One line per file, for people: its name, its length, and the instruments with their scores."""

    def __init__(self, paths: list[str], thresholds: dict[str, float]) -> None:
        one_kind = len({os.path.splitdrive(path)[0] + os.sep * os.path.isabs(path) for path in paths}) == 1
        self.folder = os.path.commonpath([os.path.dirname(path) for path in paths]) if one_kind else ""
        self.name_width = min(NAME_WIDTH, max([4, *(len(self.name_of(path)) for path in paths)]))
        self.thresholds = thresholds
        if self.folder:
            say(f"In {self.folder}:")
        say(f"{'file':<{self.name_width}}  {'length':>7}  instruments")

    def name_of(self, path: str) -> str:
        """Return the path inside the folder that all files share."""
        return os.path.relpath(path, self.folder) if self.folder else path

    def add(self, row: dict, timeline: list[dict]) -> None:
        """Print the row of one file."""
        heard = ", ".join(f"{label} {row[label]:.2f}" for label in row["instruments"])
        if not heard:
            label = nearest_label(row, self.thresholds)
            heard = f"– (nearest: {label} {row[label]:.2f}, threshold {self.thresholds[label]:.2f})"
        name = shortened(self.name_of(row["path"]), self.name_width)
        say(f"{name:<{self.name_width}}  {clock(row['duration_seconds']):>7}  {heard}")


def nearest_label(scores: dict[str, float], thresholds: dict[str, float]) -> str:
    """Return the label whose score is the largest share of its own threshold; all lie below theirs."""
    return max(thresholds, key=lambda label: scores[label] / thresholds[label])


class Bars(Screen):
    """Every instrument of a single file as a bar, for people: those heard are marked, with when they are heard."""

    def add(self, row: dict, timeline: list[dict]) -> None:
        """Print the bars of one file."""
        labels = sorted(list(row)[3:], key=lambda label: -row[label])
        labels = labels[: max(12, len(row["instruments"]))]
        width = max(len(label) for label in labels)
        say(f"{row['path']}  ({clock(row['duration_seconds'])})")
        for label in labels:
            mark = "*" if label in row["instruments"] else " "
            bar = "█" * round(BAR_WIDTH * row[label])
            when = stretches([segment for segment in timeline if segment["label"] == label])
            say(f"{mark} {label:<{width}}  {row[label]:.2f}  {bar:<{BAR_WIDTH}}  {when}".rstrip())
        say("* reaches its threshold" if row["instruments"] else "No score reaches its threshold.")


def stretches(segments: list[dict]) -> str:
    """Return when an instrument is heard: 0:00-0:12, 0:20-0:31, ..."""
    shown = [f"{clock(segment['start_seconds'])}-{clock(math.ceil(segment['end_seconds']))}" for segment in segments]
    return ", ".join(shown[:SEGMENTS_SHOWN]) + (f", {len(shown) - SEGMENTS_SHOWN} more" * (len(shown) > SEGMENTS_SHOWN))


class Csv(Screen):
    """The table of results as CSV, row by row."""

    def __init__(self, columns: list[str]) -> None:
        say(csv_line(columns).rstrip("\n"))

    def add(self, row: dict, timeline: list[dict]) -> None:
        """Print the row of one file."""
        say(csv_line(row.values()).rstrip("\n"))


class Json(Screen):
    """The table of results as one JSON list."""

    def __init__(self) -> None:
        self.rows: list[dict] = []

    def add(self, row: dict, timeline: list[dict]) -> None:
        """Keep the row of one file."""
        self.rows.append(row)

    def close(self) -> None:
        """Print all rows."""
        say(json.dumps(self.rows, indent=1))


def open_screen(format: str, files: list[Path], thresholds: dict[str, float]) -> Screen:
    """Return what prints results in this format; a single file gets more room than many."""
    if format == "csv":
        return Csv(result_columns(list(thresholds)))
    if format == "json":
        return Json()
    return Bars() if len(files) == 1 else Lines([to_text(file) for file in files], thresholds)
