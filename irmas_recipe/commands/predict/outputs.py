"""Where results go: to the screen or into a table, and if asked for into a table of timelines, pictures and a page."""

import argparse
import json
import sys
from operator import itemgetter
from pathlib import Path

from irmas_dataset.errors import UserError
from irmas_dataset.files import to_text
from irmas_recipe.commands.predict.arguments import PAGE, VIEWS, format_of
from irmas_recipe.commands.predict.files import picture_of
from irmas_recipe.commands.predict.resume import check_is_of_this_model
from irmas_recipe.commands.predict.rows import TIMELINE_COLUMNS, VIEW_COLUMNS, result_columns, result_row, timeline_row
from irmas_recipe.commands.predict.screen import open_screen
from irmas_recipe.commands.predict.table import ResultPart, ResultTable, left_over
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline
from irmas_recipe.report.page import write_page
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
        self.thresholds = dict(zip(recognise.labels, recognise.resolve_thresholds(args.threshold), strict=True))
        self.results = self.timelines = self.views = self.screen = None
        self.unshown: list[tuple[int, dict, list[dict]]] = []
        if processes.is_first:
            check_beside(args)
            self.results = open_results(args, recognise.labels)
            if self.results:
                check_is_of_this_model(self.results, recognise, files, self.thresholds)
            self.timelines = open_beside(args.timeline_table, TIMELINE_COLUMNS, args, self.results)
            self.views = open_views(args, self.results)

    def begin(self) -> list[Path]:
        """Return the files without a row in the table, once it is open in all processes; also open the screen."""
        finished = self.processes.from_first(set(self.results.paths) if self.results else set())
        todo = [file for file in self.files if to_text(file) not in finished]
        if not self.processes.is_first:
            self.results, self.timelines, self.views = (
                ResultPart(file, self.processes.index) if file else None
                for file in (self.args.output, self.args.timeline_table, views_of(self.args))
            )
        elif self.results is None:
            self.screen = open_screen(self.args.format, todo, self.thresholds)
        elif finished_here := len(self.files) - len(todo):
            print(f"{finished_here} of {len(self.files)} files are in {self.args.output} already.", file=sys.stderr)
        return todo

    def add(self, file: Path, result: dict) -> str | None:
        """Draw, write or show the result of one file; return the error where its picture cannot read the file again."""
        row = result_row(file, result, self.thresholds)
        if self.args.timeline:
            try:
                picture = draw_timeline(file, result, list(self.thresholds.values()))
            except (FileNotFoundError, ValueError) as error:
                return str(error)
            save_picture(picture, picture_of(file, self.files, self.args.timeline))
        if self.timelines:
            self.timelines.append([timeline_row(file, segment) for segment in result["timeline"]])
        if self.views:
            thresholds, heard = list(self.thresholds.values()), row["instruments"]
            view = view_of(result, list(self.thresholds), thresholds, heard)
            self.views.append([{"path": row["path"], "view": view}])
        if self.results:
            self.results.append([row])  # last: a file whose row is there has everything else, and --resume skips it
        elif self.processes.count == 1:
            self.screen.add(row, result["timeline"])
        else:
            self.unshown.append((self.files.index(file), row, result["timeline"]))
        return None

    def close(self, errors: list[tuple[str, str]]) -> None:
        """Finish the tables, the page, which names the `errors` of all processes, and the screen; all call it together."""
        for table in (self.timelines, self.views, self.results):
            if table:
                close_together(table, self.processes, order=[to_text(file) for file in self.files])
        if self.views and self.processes.is_first:
            rows = json.loads(self.views.file.read_text(encoding="utf-8"))
            views = {row["path"]: row["view"] for row in rows}
            write_page(self.args.html / PAGE, views, self.args.model, errors)
        unshown = self.processes.gather(self.unshown)
        if self.screen:
            for _, row, timeline in sorted(unshown, key=itemgetter(0)):
                self.screen.add(row, timeline)
            self.screen.close()

    def written(self) -> list[str]:
        """Return the names of the files and the folder that were written to."""
        args = self.args
        page = args.html and args.html / PAGE
        return [str(path) for path in (args.output, args.timeline_table, args.timeline, page) if path]


def open_results(args: argparse.Namespace, labels: list[str]) -> ResultTable | None:
    """Return the table of results, if asked for."""
    if not args.output:
        return None
    return ResultTable(args.output, result_columns(labels), format=args.format, resume=args.resume)


def views_of(args: argparse.Namespace) -> Path | None:
    """Return the table of what the page shows, if a page is asked for."""
    return args.html and args.html / VIEWS


def check_beside(args: argparse.Namespace) -> None:
    """Raise UserError where a table beside the results exists and is not resumed, before any other is made."""
    for file in (args.timeline_table, views_of(args)):
        if file and not args.resume and (found := left_over(file, format_of(file, "--timeline_table"))):
            raise UserError(f"{found} exists; delete it, or add --output and --resume to resume both tables.")


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
