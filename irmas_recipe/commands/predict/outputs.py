"""Where results go: to the screen or into a table, and if asked for into a table of timelines and into pictures."""

import argparse
import sys
from operator import itemgetter
from pathlib import Path

from irmas_dataset.errors import UserError
from irmas_dataset.files import to_text
from irmas_recipe.commands.predict.arguments import format_of
from irmas_recipe.commands.predict.files import picture_of
from irmas_recipe.commands.predict.resume import check_is_of_this_model
from irmas_recipe.commands.predict.rows import TIMELINE_COLUMNS, result_columns, result_row, timeline_row
from irmas_recipe.commands.predict.screen import open_screen
from irmas_recipe.commands.predict.table import ResultPart, ResultTable
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline
from irmas_recipe.report.timeline import draw_timeline, save_picture
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
        self.results = self.timelines = self.screen = None
        self.unshown: list[tuple[int, dict, list[dict]]] = []
        if processes.is_first:
            self.results = open_results(args, recognise.labels)
            if self.results:
                check_is_of_this_model(self.results, recognise, files, self.thresholds)
            self.timelines = open_timelines(args, self.results)

    def begin(self) -> list[Path]:
        """Return the files without a row in the table, once it is open in all processes; also open the screen."""
        finished = self.processes.from_first(set(self.results.paths) if self.results else set())
        todo = [file for file in self.files if to_text(file) not in finished]
        if not self.processes.is_first:
            self.results, self.timelines = (
                ResultPart(file, self.processes.index) if file else None
                for file in (self.args.output, self.args.timeline_table)
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
        if self.results:
            self.results.append([row])  # last: a file whose row is there has everything else, and --resume skips it
        elif self.processes.count == 1:
            self.screen.add(row, result["timeline"])
        else:
            self.unshown.append((self.files.index(file), row, result["timeline"]))
        return None

    def close(self) -> None:
        """Finish the tables and the screen; all processes call it together."""
        for table in (self.timelines, self.results):
            if table:
                close_together(table, self.processes, order=[to_text(file) for file in self.files])
        unshown = self.processes.gather(self.unshown)
        if self.screen:
            for _, row, timeline in sorted(unshown, key=itemgetter(0)):
                self.screen.add(row, timeline)
            self.screen.close()

    def written(self) -> list[str]:
        """Return the names of the files and the folder that were written to."""
        return [str(path) for path in (self.args.output, self.args.timeline_table, self.args.timeline) if path]


def open_results(args: argparse.Namespace, labels: list[str]) -> ResultTable | None:
    """Return the table of results, if asked for."""
    if not args.output:
        return None
    return ResultTable(args.output, result_columns(labels), format=args.format, resume=args.resume)


def open_timelines(args: argparse.Namespace, results: ResultTable | None) -> ResultTable | None:
    """Return the table of timelines, if asked for, with its rows of the files that `results` has."""
    if not args.timeline_table:
        return None
    if results is None and args.timeline_table.exists():
        raise UserError(f"{args.timeline_table} exists; delete it, or add --output and --resume to resume both tables.")
    return ResultTable(
        args.timeline_table, TIMELINE_COLUMNS, format=format_of(args.timeline_table, "--timeline_table"),
        resume=args.resume, only_paths=results and set(results.paths),
    )  # fmt: skip


def close_together(table: ResultTable | ResultPart, processes: Processes, order: list[str]) -> None:
    """Close the parts of a table, then the table itself, which takes in their rows in the `order` of their paths."""
    if not processes.is_first:
        table.close()
    processes.wait()
    if processes.is_first:
        if processes.count > 1:
            table.take_parts(order)
        table.close()
