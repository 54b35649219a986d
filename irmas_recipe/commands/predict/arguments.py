"""The arguments of `predict`, checked before any work starts; imports no heavy library, so that --help is quick."""

import argparse
from pathlib import Path

from irmas_dataset.errors import UserError
from irmas_dataset.files import READ_BY_FFMPEG, READ_BY_SOUNDFILE
from irmas_recipe.commands.arguments import check_batch_size, check_output_file, check_output_folder
from irmas_recipe.training.released import DEFAULT_MODEL, find_released, is_released

FORMATS = ("csv", "json", "parquet")
AGGREGATIONS = ("mean", "max", "mean_probability", "s1", "s2")
"""The pipeline's, which cannot be imported here: it needs torch."""
MODEL_FILES = ("config.json", "recipe.yaml", "results.json", "*/config.json")
"""A folder with one of these is a model, a damaged one, or the parent folder of models, and never taken for music."""


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Return the arguments, with `format` filled in from the name of --output.

    Raises:
        UserError: arguments that contradict each other, or an output that cannot be written.
    """
    args = build_parser().parse_args(argv)
    args.is_default = is_audio(args.paths[0])
    args.model = DEFAULT_MODEL if args.is_default else args.paths.pop(0)
    args.paths = [Path(path) for path in args.paths]
    if args.format is None:
        args.format = format_of(args.output, "--output") if args.output else "table"
    if args.timeline_table:
        format_of(args.timeline_table, "--timeline_table")
    check_combination(args)
    check_output_file(args.output, "--output")
    check_output_file(args.timeline_table, "--timeline_table")
    check_output_folder(args.timeline, "--timeline")
    check_batch_size(args.batch_size)
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        raise UserError(f"--threshold {args.threshold} is not a score; give a number from 0 to 1.")
    return args


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `predict`."""
    parser = argparse.ArgumentParser(
        prog="irmas predict", description="Tell which instruments are heard in audio files, and when."
    )
    add = parser.add_argument
    add("paths", metavar="[MODEL] PATH", nargs="+",
        help="a run folder, the id of a model on the Hub or a released checkpoint (default: "
        f"{DEFAULT_MODEL}, fetched once), then audio files, or folders of them")  # fmt: skip
    add("--classes", choices=("irmas", "all"), help="of a released checkpoint: IRMAS's eleven instruments, which is the "
        "default, or all that AudioSet knows")  # fmt: skip
    add("--format", choices=("table", *FORMATS), help="default: from the name of --output, otherwise table")
    add("--output", metavar="F", type=Path, help="write to this csv, json or parquet file instead of the screen")
    add("--resume", action="store_true", help="keep the rows that --output already has, and skip their files")
    add("--timeline", metavar="DIR", type=Path, help="draw each file's instruments over time into this folder")
    add("--timeline_table", metavar="F", type=Path, help="write when each is heard to this csv, json or parquet file")
    add("--threshold", metavar="T", type=float, help="for all instruments, instead of the model's own thresholds")
    add("--aggregation", choices=AGGREGATIONS, help="how window scores become one, instead of the model's own way")
    add("--window_seconds", metavar="S", type=float, help="instead of the model's own")
    add("--hop_seconds", metavar="S", type=float, help="instead of the model's own")
    add("--batch_size", metavar="N", type=int, help="windows at a time (default: 32 on a GPU, otherwise 8)")
    add("--device", metavar="D", help="cpu, cuda, cuda:1 or mps (default: the first GPU, otherwise the CPU)")
    add("--trust_remote_code", action="store_true", help="run code that comes with a model on the Hub")
    return parser


def is_audio(name: str) -> bool:
    """Return whether a name is that of music rather than of a model: of an audio file, or of a folder without a model."""
    folder = Path(name)
    if not folder.is_dir():
        return name.lower().endswith(READ_BY_SOUNDFILE + READ_BY_FFMPEG)
    return not any(any(folder.glob(file)) for file in MODEL_FILES)


def check_combination(args: argparse.Namespace) -> None:
    """Raise UserError where arguments contradict each other."""
    if not args.paths:
        raise UserError(f"Name audio files, or folders of them, after MODEL {args.model}.")
    if is_released(args.model):
        find_released(args.model)
    elif args.classes:
        raise UserError(f"--classes is for released checkpoints, such as {DEFAULT_MODEL}; {args.model} has its own.")
    if args.output and args.format == "table":
        raise UserError("--format table is for the screen; with --output choose --format csv, json or parquet.")
    if args.format == "parquet" and not args.output:
        raise UserError("--format parquet cannot be shown on the screen; add --output FILE.parquet.")
    if args.resume and not args.output:
        raise UserError("--resume needs a table to resume; add --output FILE.")
    if args.timeline_table and args.output and args.timeline_table.resolve() == args.output.resolve():
        raise UserError("--output and --timeline_table name the same file; name two files.")


def format_of(file: Path, flag: str) -> str:
    """Return the format that a table's name asks for."""
    suffix = file.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise UserError(f"{flag} {file} does not say its format; end it with .csv, .json or .parquet.")
    return suffix
