"""The arguments of `demo`, checked before any work starts, and what the page and a Space have in common."""

import argparse
from pathlib import Path

from irmas_dataset.errors import UserError
from irmas_recipe.commands.arguments import check_is_new

GRADIO = "6.31.0"
LARGEST_FILE = "500mb"  # that can be dropped on the page: about an hour of uncompressed music


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Return the arguments.

    Raises:
        UserError: a port that cannot exist, or a Space that cannot be written where it should go.
    """
    parser = argparse.ArgumentParser(
        prog="irmas demo",
        description="Open a page on this machine that shows which instruments play in a piece of music, and when.",
    )
    parser.add_argument("model", metavar="MODEL", help="a run folder, or the id of a model on the Hub")
    parser.add_argument("--port", metavar="N", type=int, default=7860, help="of the page (default: %(default)s)")
    parser.add_argument("--export_space", metavar="DIR", type=Path, help="write a Space into this new folder instead")
    parser.add_argument(
        "--device", metavar="D", help="cpu, cuda, cuda:1 or mps (default: the first GPU, otherwise the CPU)"
    )
    parser.add_argument("--trust_remote_code", action="store_true", help="run code that comes with a model on the Hub")
    args = parser.parse_args(argv)
    if not 1 <= args.port <= 65_535:
        raise UserError(f"--port {args.port} is not a port; give a number from 1 to 65535.")
    if args.export_space:
        check_is_new(args.export_space, "--export_space")
    return args
