"""`irmas audit --data_dir D --output_dir O`: what is in a data folder, and what is wrong with it."""

import argparse
import shlex
from pathlib import Path

from irmas_dataset.errors import UserError
from irmas_dataset.forms.flags import Columns, add_column_flags
from irmas_dataset.whole_file import whole_folder
from irmas_recipe.commands.arguments import check_is_no_run, check_output_folder


def main(argv: list[str]) -> None:
    """Write report.html and the tables, and print a summary."""
    args = parse_arguments(argv)

    from irmas_dataset.audit.audit import audit  # these need datasets and scikit-learn, which take seconds
    from irmas_dataset.audit.report import summary, write_report
    from irmas_dataset.audit.tables import write_tables

    found = audit(
        args.data_dir,
        predictions=args.predictions,
        label_errors=not args.no_label_errors,
        validation_fraction=args.validation_fraction,
        seed=args.split_seed,
        recording_pattern=args.recording_pattern,
        columns=Columns.of(args),
        num_proc=args.processes,
    )
    with whole_folder(args.output_dir) as folder:
        write_tables(found, folder)
        report = write_report(found, folder, examples=args.examples, home=args.output_dir)
    print(summary(found))
    print(f"\nThe report is {args.output_dir / report.name}; the tables are beside it.")
    if len(found.corrections):
        print(
            f"Apply what follows from the audio alone: --corrections {shlex.quote(str(args.output_dir / 'corrections.csv'))}"
        )
    if len(found.suggestions):
        print(
            f"Listen, delete the lines that are wrong, and apply the rest: {args.output_dir / 'label_suggestions.csv'}"
        )


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Return the arguments.

    Raises:
        UserError: a number that cannot be meant, or an output that cannot be a folder.
    """
    parser = argparse.ArgumentParser(
        prog="irmas audit",
        description="Write a report and tables about every clip of a data folder, and corrections that any recipe can apply.",
    )
    parser.add_argument("--data_dir", metavar="D", required=True, help="a folder, or a data set's id on the Hub")
    parser.add_argument("--output_dir", metavar="O", type=Path, required=True, help="folder for the report")
    parser.add_argument(
        "--predictions", metavar="FILE", type=Path, nargs="+", default=[],
        help="scores of clips by models that were not trained on them (a run's predictions.parquet, tables from predict)",
    )  # fmt: skip
    parser.add_argument(
        "--no_label_errors", action="store_true", help="do not look for wrong labels, which needs cleanlab"
    )
    parser.add_argument(
        "--validation_fraction", metavar="F", type=float, default=0.15, help="as in the recipe (default: %(default)s)"
    )
    parser.add_argument(
        "--split_seed", metavar="S", type=int, default=0, help="as in the recipe (default: %(default)s)"
    )
    parser.add_argument("--recording_pattern", metavar="REGEX", help="as in the recipe")
    add_column_flags(parser)
    parser.add_argument(
        "--examples", metavar="N", type=int, default=24, help="clips to see and hear per section (default: %(default)s)"
    )
    parser.add_argument("--processes", metavar="N", type=int, help="processes that decode (default: one per core)")
    args = parser.parse_args(argv)
    check_output_folder(args.output_dir, "--output_dir")
    check_is_no_run(args.output_dir, "--output_dir")
    if args.examples < 0 or args.split_seed < 0 or (args.processes is not None and args.processes < 1):
        raise UserError("--examples and --split_seed must be at least 0, and --processes at least 1.")
    return args
