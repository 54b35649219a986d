"""The arguments of `segments`, checked before any work starts; imports no heavy library, so that --help is quick."""

import argparse
from pathlib import Path

from irmas_dataset.errors import UserError
from irmas_recipe.commands.arguments import check_batch_size, check_is_new


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Return the arguments.

    Raises:
        UserError: a number that cannot be, or an output folder that has something in it.
    """
    parser = argparse.ArgumentParser(
        prog="irmas segments",
        description="Cut windows of music into class folders by what a model hears, to listen to, correct and train with.",
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a run folder, or the id of a model on the Hub")
    add("paths", metavar="PATH", nargs="+", type=Path, help="audio files, or folders of them")
    add("--output_dir", metavar="D", type=Path, required=True, help="a new or empty folder")
    add("--unsure", action="store_true", help="the windows nearest to a threshold instead of the most confident ones")
    add("--per_class", metavar="N", type=int, default=10, help="windows of a class, at most (default: %(default)s)")
    add(
        "--per_recording", metavar="N", type=int, default=2,
        help="windows of a class from one file, at most (default: %(default)s)",
    )  # fmt: skip
    add("--batch_size", metavar="N", type=int, help="windows at a time (default: 32 on a GPU, otherwise 8)")
    add("--device", metavar="D", help="cpu, cuda, cuda:1 or mps (default: the first GPU, otherwise the CPU)")
    add("--trust_remote_code", action="store_true", help="run code that comes with a model on the Hub")
    args = parser.parse_args(argv)
    for flag in ("per_class", "per_recording"):
        if getattr(args, flag) < 1:
            raise UserError(f"--{flag} {getattr(args, flag)} asks for no windows; give 1 or more.")
    check_batch_size(args.batch_size)
    check_is_new(args.output_dir, "--output_dir")
    return args
