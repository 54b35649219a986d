"""The arguments of `evaluate`, checked before any work starts."""

import argparse
from pathlib import Path

from irmas_dataset.forms.flags import add_column_flags
from irmas_recipe.commands.arguments import check_batch_size, check_is_no_run, check_output_folder


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Return the arguments; UserError if nothing can be written to the output folder, or a run would be overwritten."""
    parser = argparse.ArgumentParser(
        prog="irmas evaluate",
        description="Measure a model on a test set by the protocol stored with it: on its run's own, its figures again.",
    )
    parser.add_argument("model", metavar="MODEL", help="folder of a run, or id of a model of this project on the Hub")
    parser.add_argument(
        "--data_dir", metavar="D", help="`synthetic`, a folder, or a data set's id on the Hub (default: the run's)"
    )
    add_column_flags(parser)
    parser.add_argument("--recording_pattern", metavar="REGEX", help="as in the recipe")
    parser.add_argument(
        "--output_dir", metavar="O", type=Path, help="write results.json, predictions.parquet and figures here"
    )
    parser.add_argument(
        "--batch_size", metavar="N", type=int, help="windows at a time (default: 32 on a GPU, otherwise 8)"
    )
    parser.add_argument("--trust_remote_code", action="store_true", help="run model code that comes from the Hub")
    arguments = parser.parse_args(argv)
    check_output_folder(arguments.output_dir, "--output_dir")
    if arguments.output_dir:
        check_is_no_run(arguments.output_dir, "--output_dir")
    check_batch_size(arguments.batch_size)
    return arguments
