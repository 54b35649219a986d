"""Where results go: to the screen or into a table, and if asked for into a table of timelines, pictures and a page."""

import argparse
import difflib
import json
import sys
from dataclasses import asdict
from functools import cached_property
from operator import itemgetter
from pathlib import Path

from irmas_dataset.errors import UserError
from irmas_dataset.files import to_text
from irmas_recipe.commands.predict.arguments import PAGE, VIEWS, format_of
from irmas_recipe.commands.predict.files import common_folder, place_of
from irmas_recipe.commands.predict.resume import check_is_of_this_model
from irmas_recipe.commands.predict.rows import (
    TIMELINE_COLUMNS,
    VIEW_COLUMNS,
    audacity_labels,
    heard_in,
    narrowed,
    result_columns,
    result_row,
    seconds_in,
    timeline_row,
    window_columns,
    window_rows,
)
from irmas_recipe.commands.predict.screen import open_screen
from irmas_recipe.commands.predict.table import ResultPart, ResultTable, left_over
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline
from irmas_recipe.report.page import write_page
from irmas_recipe.report.text import in_words
from irmas_recipe.report.timeline import draw_timeline, save_picture
from irmas_recipe.report.view import view_of
from irmas_recipe.training.processes import Processes


class Outputs:
    """What this process writes and shows.

    Of several processes the first holds the tables and the screen; the others write parts beside the tables, and what
    is for the screen is gathered at the end.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        processes: Processes,
        files: list[Path],
        recognise: InstrumentRecognitionPipeline,
    ) -> None:
        """Open the tables in the first process.

        Raises:
            UserError: a table exists and must not or cannot be resumed.
        """
        self.args, self.processes, self.files = args, processes, files
        self.labels = chosen_labels(recognise.labels, args)
        self.heading = heading(recognise, args, self.labels)
        self.results = self.timelines = self.windows = self.views = self.screen = None
        self.unshown: list[tuple[int, dict, dict, list[dict]]] = []
        self.counted: dict[str, dict[str, float]] = {}  # path -> label -> seconds
        if processes.is_first:
            check_beside(args)
            self.results = open_results(args, self.labels, self.heading)
            if self.results:
                check_is_of_this_model(self.results, recognise, files, args, self.heading)
            self.timelines = open_beside(args.timeline_table, TIMELINE_COLUMNS, args, self.results)
            self.windows = open_beside(args.window_table, window_columns(self.labels), args, self.results)
            self.views = open_views(args, self.results)

    @cached_property
    def common(self) -> str:
        """The folder that all files are in; found once, as there may be many."""
        return common_folder(self.files)

    def begin(self) -> list[Path]:
        """Return the files without a row in the table, once it is open in all processes; also open the screen."""
        finished = self.processes.from_first(set(self.results.paths) if self.results else set())
        todo = [file for file in self.files if to_text(file) not in finished]
        if not self.processes.is_first:
            self.results, self.timelines, self.windows, self.views = (
                ResultPart(file, self.processes.index) if file else None
                for file in (self.args.output, self.args.timeline_table, self.args.window_table, views_of(self.args))
            )
        elif self.results is None:
            self.screen = open_screen(self.args, todo, self.labels, self.heading)
        elif finished_here := len(self.files) - len(todo):
            asked = {to_text(file) for file in self.files}
            self.counted = {row["path"]: seconds_in(row) for row in self.results.kept if row["path"] in asked}
            print(f"{finished_here} of {len(self.files)} files are in {self.args.output} already.", file=sys.stderr)
        return todo

    def add(self, file: Path, result: dict) -> str | None:
        """Draw, write or show the result of one file; return the error where its picture cannot read the file again."""
        result = narrowed(result, self.args.only)
        heard = heard_in(result, self.args.top_k)
        row = result_row(file, result, heard, self.labels, self.args.format)
        if self.args.timeline:
            try:
                picture = draw_timeline(file, result)
            except (FileNotFoundError, ValueError) as error:
                return str(error)
            save_picture(picture, place_of(file, self.common, self.args.timeline, ".png"))
        if self.args.audacity:
            track = place_of(file, self.common, self.args.audacity, ".txt")
            track.parent.mkdir(parents=True, exist_ok=True)
            track.write_text(audacity_labels(result["timeline"]), encoding="utf-8")
        if self.timelines:
            self.timelines.append([timeline_row(file, segment) for segment in result["timeline"]])
        if self.windows:
            self.windows.append(window_rows(file, result, self.labels))
        if self.views:
            self.views.append([{"path": row["path"], "view": view_of(result, [entry["label"] for entry in heard])}])
        if self.results:
            self.results.append([row])  # last: a file whose row is there has everything else, and --resume skips it
        elif self.processes.count == 1:
            self.screen.add(row, result, heard)
        else:
            self.unshown.append((self.files.index(file), row, without_activity(result), heard))
        self.counted[row["path"]] = seconds_in(row)
        return None

    def close(self, errors: list[tuple[str, str]]) -> None:
        """Finish the tables, the page, which names the `errors` of all processes, and the screen; all call it together."""
        for table in (self.timelines, self.windows, self.views, self.results):
            if table:
                close_together(table, self.processes, order=[to_text(file) for file in self.files])
        if self.views and self.processes.is_first:
            rows = json.loads(self.views.file.read_text(encoding="utf-8"))
            views = {row["path"]: row["view"] for row in rows}
            write_page(self.args.html / PAGE, views, self.args.model, errors)
        unshown = self.processes.gather(self.unshown)
        if self.screen:
            for _, *shown in sorted(unshown, key=itemgetter(0)):
                self.screen.add(*shown)
            self.screen.close()

    def summary(self) -> list[str]:
        """Return a line for each instrument that was heard in the files, or earlier in this table: in how many, for how long.

        All processes call it together, and the first has the answer. There is none about a single file, or where programs
        read the screen.
        """
        counted = dict(self.processes.gather(list(self.counted.items())))
        if len(counted) < 2 or not self.processes.is_first or (self.screen and self.args.format != "table"):
            return []
        together: dict[str, list[float]] = {}
        for of_file in counted.values():
            for label, seconds in of_file.items():
                together.setdefault(label, []).append(seconds)
        most_first = sorted(together.items(), key=lambda item: (-len(item[1]), -round(sum(item[1]), 3), item[0]))
        return [
            f"{label} in {len(seconds)} of {len(counted)} files, {in_words(sum(seconds))}"
            for label, seconds in most_first
        ]

    def written(self) -> list[str]:
        """Return the names of the files and the folder that were written to."""
        args = self.args
        page = args.html and args.html / PAGE
        named = (args.output, args.timeline_table, args.window_table, args.timeline, args.audacity, page)
        return [str(path) for path in named if path]


def chosen_labels(labels: list[str], args: argparse.Namespace) -> list[str]:
    """Return the labels that are spoken of, in the model's order.

    Raises:
        UserError: --only or --sort names none of the model's.
    """
    for flag, named in (("only", args.only or []), ("sort", [args.sort] if args.sort else [])):
        for label in named:
            if label not in labels and (flag, label) != ("sort", "duration"):
                nearest = difflib.get_close_matches(label, labels, n=1)
                hint = f"did you mean {nearest[0]}?" if nearest else f"it has {', '.join(labels)}."
                raise UserError(f"--{flag} {label} is no instrument of the model; {hint}")
    return [label for label in labels if args.only is None or label in args.only]


def heading(recognise: InstrumentRecognitionPipeline, args: argparse.Namespace, labels: list[str]) -> dict:
    """Return what a JSON file says before its files: the model, the settings and the thresholds of both rules."""
    window, hop = recognise.window_and_hop(args.window_seconds, args.hop_seconds)
    own = getattr(recognise.model.config, "aggregation", None) or "mean"
    thresholds = {
        rule: {
            label: round(value, 6)
            for label, value in zip(
                recognise.labels,
                recognise.resolve_thresholds(args.threshold, of_moments=rule == "timeline"),
                strict=True,
            )
            if label in labels
        }
        for rule in ("clip", "timeline")
    }
    settings = {"window_seconds": window, "hop_seconds": hop, "aggregation": args.aggregation or own}
    settings |= {"longest_clip_seconds": recognise.longest_clip_seconds} | asdict(recognise.rules)
    return {"model": args.model, "settings": settings, "thresholds": thresholds}


def without_activity(result: dict) -> dict:
    """Return a result without its scores over time, which are large."""
    return {name: value for name, value in result.items() if name not in ("activity", "windows")}


def open_results(args: argparse.Namespace, labels: list[str], heading: dict) -> ResultTable | None:
    """Return the table of results, if asked for."""
    if not args.output:
        return None
    columns = result_columns(labels, args.format)
    return ResultTable(args.output, columns, format=args.format, resume=args.resume, heading=heading)


def views_of(args: argparse.Namespace) -> Path | None:
    """Return the table of what the page shows, if a page is asked for."""
    return args.html and args.html / VIEWS


def check_beside(args: argparse.Namespace) -> None:
    """Raise UserError where a table beside the results exists and is not resumed, before any other is made."""
    for file in (args.timeline_table, args.window_table, views_of(args)):
        if file and not args.resume and (found := left_over(file, format_of(file, "--timeline_table"))):
            missing = "--resume" if args.output else "--output and --resume"
            raise UserError(f"{found} exists; delete it, or add {missing} to resume both tables.")


def open_beside(
    file: Path | None, columns: list[str], args: argparse.Namespace, results: ResultTable | None
) -> ResultTable | None:
    """Return a table beside the results, if asked for, with its rows of the files that `results` has."""
    if not file:
        return None
    return ResultTable(
        file, columns, format=format_of(file, "--timeline_table"),
        resume=args.resume, only_paths=results and set(results.paths),
    )  # fmt: skip


def open_views(args: argparse.Namespace, results: ResultTable | None) -> ResultTable | None:
    """Return the table of what the page shows, if a page is asked for.

    Raises:
        UserError: the page would lack files that a resumed table has.
    """
    views = open_beside(views_of(args), VIEW_COLUMNS, args, results)
    if views and results and (lacking := len(results.paths - views.paths)):
        raise UserError(
            f"{args.output} has {lacking} files that the page in {args.html} would lack; resume with the folder that "
            "--html had from the start, or name a new --output."
        )
    return views


def close_together(table: ResultTable | ResultPart, processes: Processes, order: list[str]) -> None:
    """Close the parts of a table, then the table itself, which takes in their rows in the `order` of their paths."""
    if not processes.is_first:
        table.close()
    processes.wait()
    if processes.is_first:
        if processes.count > 1:
            table.take_parts(order)
        table.close()
