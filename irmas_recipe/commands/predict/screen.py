"""Results on the screen: for people as a table or as bars, for programs as CSV or JSON."""

import argparse
import json
import math
import os
import sys
from operator import itemgetter
from pathlib import Path

from tqdm import tqdm

from irmas_dataset.files import to_text
from irmas_recipe.commands.predict.rows import result_columns
from irmas_recipe.commands.predict.table import csv_line
from irmas_recipe.report.text import clock, shortened

NAME_WIDTH = 44
BAR_WIDTH = 24
SEGMENTS_SHOWN = 4
BARS_SHOWN = 12  # and those of the answer


def say(line: str) -> None:
    """Print a line above any progress bar."""
    try:
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends
        raise SystemExit(141) from None


class Screen:
    """What prints results in one format."""

    def add(self, row: dict, result: dict, heard: list[dict]) -> None:
        """Take the row of one file, its result, and the entries of it that are the answer."""
        raise NotImplementedError

    def close(self) -> None:
        """Print what is left to print."""


class Lines(Screen):
    """One line per file, for people: its name, its length, and the instruments."""

    def __init__(self, paths: list[str], sort: str | None) -> None:
        one_kind = len({os.path.splitdrive(path)[0] + os.sep * os.path.isabs(path) for path in paths}) == 1
        self.folder = os.path.commonpath([os.path.dirname(path) for path in paths]) if one_kind else ""
        self.name_width = min(NAME_WIDTH, max([4, *(len(self.name_of(path)) for path in paths)]))
        self.sort, self.waiting = sort, []
        if self.folder:
            say(f"In {self.folder}:")
        say(f"{'file':<{self.name_width}}  {'length':>7}  instruments")

    def name_of(self, path: str) -> str:
        """Return the path inside the folder that all files share."""
        return os.path.relpath(path, self.folder) if self.folder else path

    def add(self, row: dict, result: dict, heard: list[dict]) -> None:
        """Print the line of one file, or keep it until all can be sorted."""
        say_entry = as_long_as if result["rule"] == "timeline" else as_sure_as
        answer = ", ".join(say_entry(entry) for entry in in_order(heard, result))
        if not heard:
            answer = "–"
            if result["instruments"]:
                answer += f" (nearest: {as_sure_as(max(result['instruments'], key=itemgetter('confidence')))})"
        name = shortened(self.name_of(row["path"]), self.name_width)
        line = f"{name:<{self.name_width}}  {clock(round(row['duration_seconds'])):>7}  {answer}"
        if self.sort:
            self.waiting.append((self.most(result), line))
        else:
            say(line)

    def most(self, result: dict) -> tuple[float, float]:
        """Return how much of what the lines are sorted by a file has: seconds, then confidence."""
        if self.sort == "duration":
            return result["duration_seconds"], 0.0
        entry = next((entry for entry in result["instruments"] if entry["label"] == self.sort), None)
        return (entry["seconds"], entry["confidence"]) if entry else (0.0, 0.0)

    def close(self) -> None:
        """Print the lines that waited, those with most first."""
        for _, line in sorted(self.waiting, key=itemgetter(0), reverse=True):
            say(line)


def in_order(entries: list[dict], result: dict) -> list[dict]:
    """Return entries as people read them: a clip's by confidence, for each score has a threshold of its own."""
    by_confidence = itemgetter("confidence") if result["rule"] == "clip" else lambda entry: 0
    return sorted(entries, key=by_confidence, reverse=True)


def as_sure_as(entry: dict) -> str:
    """Return a clip's instrument with its confidence."""
    return f"{entry['label']} {entry['confidence']:.2f}"


def as_long_as(entry: dict) -> str:
    """Return a song's instrument with how long it is heard and its share of the song."""
    return f"{entry['label']} {clock(round(entry['seconds']))} ({entry['share']:.0%})"


class Bars(Screen):
    """Every instrument of a single file as a bar, for people: those heard are marked, with when they are heard."""

    def __init__(self, top_k: int | None) -> None:
        self.top_k = top_k

    def add(self, row: dict, result: dict, heard: list[dict]) -> None:
        """Print the bars of one file."""
        is_song = result["rule"] == "timeline"
        ordered = enumerate(in_order(result["instruments"], result))
        entries = [entry for place, entry in ordered if place < BARS_SHOWN or entry in heard]
        width = max(len(entry["label"]) for entry in entries)
        say(f"{row['path']}  ({clock(round(row['duration_seconds']))})")
        for entry in entries:
            mark = "*" if entry in heard else " "
            share = entry["share"] if is_song else entry["confidence"]
            figures = f"{clock(round(entry['seconds'])):>7}  {share:>4.0%}" if is_song else f"{share:.2f}"
            bar = "█" * round(BAR_WIDTH * share)
            when = stretches([segment for segment in result["timeline"] if segment["label"] == entry["label"]])
            say(f"{mark} {entry['label']:<{width}}  {figures}  {bar:<{BAR_WIDTH}}  {when}".rstrip())
        say(rule_in_words(result, heard, self.top_k))


def rule_in_words(result: dict, heard: list[dict], top_k: int | None) -> str:
    """Return which rule gave the answer, and what the mark of an instrument means."""
    if top_k is not None:
        return (
            "* the first, whatever its threshold" if top_k == 1 else f"* the first {top_k}, whatever their thresholds"
        )
    if result["rule"] == "timeline":
        return "* heard for long enough, by the timeline" if heard else "No instrument is heard for long enough."
    return "* confidence of 0.50 or more: its threshold" if heard else "No score reaches its threshold."


def stretches(segments: list[dict]) -> str:
    """Return when an instrument is heard: 0:00-0:12, 0:20-0:31, ..."""
    shown = [f"{clock(segment['start_seconds'])}-{clock(math.ceil(segment['end_seconds']))}" for segment in segments]
    return ", ".join(shown[:SEGMENTS_SHOWN]) + (f", {len(shown) - SEGMENTS_SHOWN} more" * (len(shown) > SEGMENTS_SHOWN))


class Csv(Screen):
    """The table of results as CSV, row by row."""

    def __init__(self, columns: list[str]) -> None:
        say(csv_line(columns).rstrip("\n"))

    def add(self, row: dict, result: dict, heard: list[dict]) -> None:
        """Print the row of one file."""
        say(csv_line(row.values()).rstrip("\n"))


class Json(Screen):
    """The results as one JSON object."""

    def __init__(self, heading: dict) -> None:
        self.heading, self.rows = heading, []

    def add(self, row: dict, result: dict, heard: list[dict]) -> None:
        """Keep the row of one file."""
        self.rows.append(row)

    def close(self) -> None:
        """Print all rows."""
        say(json.dumps(self.heading | {"files": self.rows}, indent=1))


def open_screen(args: argparse.Namespace, files: list[Path], labels: list[str], heading: dict) -> Screen:
    """Return what prints results in the format asked for; a single file gets more room than many."""
    if args.format == "csv":
        return Csv(result_columns(labels, args.format))
    if args.format == "json":
        return Json(heading)
    return Bars(args.top_k) if len(files) == 1 else Lines([to_text(file) for file in files], args.sort)
