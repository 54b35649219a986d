"""The arguments of `benchmark`, checked before any work starts; imports no heavy library, so that --help is quick."""

import argparse
from pathlib import Path

from irmas_dataset.errors import UserError, did_you_mean
from irmas_recipe.commands.arguments import check_output_file

FEWEST_CLIPS = 33  # so that each class has recordings


def parse_arguments(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the benchmark's own arguments, and the rest, which are fields of the recipe.

    Raises:
        UserError: a number that cannot be measured with, or an output that cannot be written.
    """
    parser = argparse.ArgumentParser(
        prog="irmas benchmark",
        description="Measure how fast this machine decodes, trains, evaluates and tags with a recipe.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("recipe", metavar="RECIPE", help="a recipe; any of its fields can follow as --field value")
    add("--against", choices=["stock"], help="also measure transformers' own example")
    add("--output", metavar="F", type=Path, help="write all figures to this JSON file")
    add("--figure", metavar="F", type=Path, help="the picture (default: beside --output, otherwise in runs/)")
    add("--processes", metavar="N", type=int, help="also train in 1 and in N processes")
    add("--epochs", metavar="N", type=int, help="with --against: also train both for N epochs and compare their scores")
    add("--clips", metavar="N", type=int, default=330, help="clips of 3 s to measure with (default: %(default)s)")
    add("--long_clips", metavar="N", type=int, help="clips of 20 s (default: 8, or 1 for a slow model on a CPU)")
    add("--repeats", metavar="N", type=int, default=3, help="repeats behind each median (default: %(default)s)")
    add("--training_only", action="store_true", help="measure training steps, not decoding, evaluation and tagging")
    add("--random_weights", action="store_true", help="use the checkpoint's shape without its weights")
    arguments, fields = parser.parse_known_args(argv)
    check_numbers(arguments)
    check_output_file(arguments.output, "--output")
    check_output_file(arguments.figure, "--figure")
    if arguments.figure and arguments.figure.suffix.lower() != ".png":
        raise UserError(f"--figure {arguments.figure} does not end with .png; name a PNG file.")
    if arguments.output and arguments.output.suffix.lower() == ".png":
        raise UserError(
            f"--output {arguments.output} would hold JSON; name a .json file, and the picture with --figure."
        )
    of_data, _ = data_parser().parse_known_args(fields)
    if of_data.data_dir not in (None, "synthetic") and not Path(of_data.data_dir).is_dir():
        raise UserError(
            f"--data_dir {of_data.data_dir} does not exist{did_you_mean(Path(of_data.data_dir))}name a folder."
        )
    return arguments, fields


def data_parser() -> argparse.ArgumentParser:
    """Return a parser of the one field of the recipe that is checked here: its absence would go unnoticed."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--data_dir")
    return parser


def check_numbers(arguments: argparse.Namespace) -> None:
    """Raise UserError for a number that cannot be measured with."""
    if arguments.clips < FEWEST_CLIPS or arguments.repeats < 1:
        raise UserError(
            f"--clips must be at least {FEWEST_CLIPS}, so that each class has recordings, and --repeats at least 1."
        )
    if arguments.long_clips is not None and arguments.long_clips < 1:
        raise UserError(f"--long_clips {arguments.long_clips} is too few; give 1 or more.")
    if arguments.processes is not None and arguments.processes < 2:
        raise UserError(f"--processes {arguments.processes} leaves nothing to compare with 1 process; give 2 or more.")
    if arguments.epochs is not None and (arguments.epochs < 1 or not arguments.against):
        raise UserError("--epochs must be at least 1, and needs --against stock to compare with.")
