"""The arguments of `onnx`, checked before any work starts; imports no heavy library, so that --help is quick."""

import argparse
from pathlib import Path

from irmas_dataset.forms.flags import add_column_flags
from irmas_recipe.commands.arguments import check_batch_size, check_output_folder


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Return the arguments.

    Raises:
        UserError: an output that cannot be a folder, or a batch size that cannot be.
    """
    parser = argparse.ArgumentParser(
        prog="irmas onnx",
        description="Write a model as one ONNX graph, from waveforms to logits, for machines without torch.",
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a run folder, or the id of a model on the Hub")
    add("output_dir", metavar="OUTPUT_DIR", type=Path, help="folder to write the graph to")
    add("--int8", action="store_true", help="write a second graph with 8-bit weights, for CPUs")
    add("--window_seconds", metavar="S", type=float, help="instead of the model's own")
    add("--measure", action="store_true", help="compare scores on the run's test set, and speed, with torch's")
    add("--data_dir", metavar="D", help="with --measure: folder with the test set (default: the run's)")
    add_column_flags(parser)
    add("--recording_pattern", metavar="REGEX", help="as in the recipe")
    add("--batch_size", metavar="N", type=int, default=8, help="with --measure: windows at a time (default: 8)")
    add("--trust_remote_code", action="store_true", help="run code that comes with a model on the Hub")
    args = parser.parse_args(argv)
    check_output_folder(args.output_dir, "OUTPUT_DIR")
    check_batch_size(args.batch_size)
    return args
