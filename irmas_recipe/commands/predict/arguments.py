"""The arguments of `predict`, checked before any work starts; imports no heavy library, so that --help is quick."""

import argparse
from pathlib import Path

from irmas_dataset.errors import UserError
from irmas_dataset.files import READ_BY_FFMPEG, READ_BY_SOUNDFILE
from irmas_recipe.commands.arguments import check_batch_size, check_output_file, check_output_folder
from irmas_recipe.training.released import DEFAULT_MODEL, find_released, is_released

FORMATS = ("csv", "json", "parquet")
TABLES = ("output", "timeline_table", "window_table")
PAGE, VIEWS = "index.html", "page.json"
"""What --html writes: the page, and what it shows, so that processes can share it and a stopped run resume it."""
AGGREGATIONS = ("mean", "energy", "max", "mean_probability", "s1", "s2")
"""The pipeline's, which cannot be imported here: it needs torch."""
MODEL_FILES = (
    "config.json",
    "recipe.yaml",
    "results.json",
    "*.safetensors",
    "preprocessor_config.json",
    "*/config.json",
)
"""A folder with one of these is a model, a damaged one, or the parent folder of models, and never taken for music."""


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Return the arguments, with `format` filled in from the name of --output.

    Raises:
        UserError: arguments that contradict each other, or an output that cannot be written.
    """
    args = build_parser().parse_args(argv)
    args.is_default = not args.paths or args.paths[0] == "-" or is_audio(args.paths[0])
    args.model = DEFAULT_MODEL if args.is_default else args.paths.pop(0)
    args.names, args.paths = args.paths, [Path(path) for path in args.paths]
    if args.format is None:
        args.format = format_of(args.output, "--output") if args.output else "table"
    for flag in ("timeline_table", "window_table"):
        if file := getattr(args, flag):
            format_of(file, f"--{flag}")
    check_combination(args)
    check_parts(args)
    for flag in TABLES:
        check_output_file(getattr(args, flag), f"--{flag}")
    for flag in ("timeline", "audacity", "html", "parts"):
        check_output_folder(getattr(args, flag), f"--{flag}")
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
    add("paths", metavar="[MODEL] PATH", nargs="*",
        help="a run folder, the id of a model on the Hub or a released checkpoint (default: "
        f"{DEFAULT_MODEL}, fetched once), then audio files, or folders of them; - reads their names from the standard input, one a line")  # fmt: skip
    add("--classes", choices=("irmas", "all"), help="of a released checkpoint: IRMAS's eleven instruments, which is the "
        "default, or all that AudioSet knows")  # fmt: skip
    add("--format", choices=("table", *FORMATS), help="default: from the name of --output, otherwise table")
    add("--output", metavar="F", type=Path, help="write to this csv, json or parquet file instead of the screen")
    add("--resume", action="store_true", help="keep the rows that --output already has, and skip their files")
    add("--timeline", metavar="DIR", type=Path, help="draw each file's instruments over time into this folder")
    add("--timeline_table", metavar="F", type=Path, help="write when each is heard to this csv, json or parquet file")
    add(
        "--html",
        metavar="DIR",
        type=Path,
        help="write a page to listen to, with each file's timeline, into this folder",
    )
    add(
        "--window_table",
        metavar="F",
        type=Path,
        help="write the scores of every window to this csv, json or parquet file",
    )
    add(
        "--audacity",
        metavar="DIR",
        type=Path,
        help="write each file's timeline as an Audacity label track into this folder",
    )
    add_parts(parser)
    add("--only", metavar="LABEL", action="append", help="speak of this instrument only; can be given several times")
    add("--top_k", metavar="K", type=int, help="the K first instruments of each file, whatever their thresholds")
    add(
        "--sort",
        metavar="BY",
        help="order the lines on the screen by `duration`, or by an instrument, most of it first",
    )
    add("--threshold", metavar="T", type=float, help="for all instruments, instead of the model's own thresholds")
    add("--aggregation", choices=AGGREGATIONS, help="how window scores become one, instead of the model's own way")
    add("--window_seconds", metavar="S", type=float, help="instead of the model's own")
    add("--hop_seconds", metavar="S", type=float, help="instead of the model's own")
    add("--batch_size", metavar="N", type=int, help="windows at a time (default: 32 on a GPU, otherwise 8)")
    add("--device", metavar="D", help="cpu, cuda, cuda:1 or mps (default: the first GPU, otherwise the CPU)")
    add("--trust_remote_code", action="store_true", help="run code that comes with a model on the Hub")
    return parser


def add_parts(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for more files than a table holds."""
    add = parser.add_argument
    add("--list", metavar="F", action="append", type=Path, default=[], help="a text file with a name per line, or a "
        "Parquet file with a column of names; can be given several times")  # fmt: skip
    add("--column", metavar="C", default="path", help="the column of names in a Parquet --list (default: path)")
    add(
        "--parts", metavar="DIR", type=Path, help="write any number of files' results as Parquet parts into this folder"
    )
    add(
        "--part_files",
        metavar="N",
        type=int,
        default=500,
        help="files per part, and at most lost by a kill (default: 500)",
    )
    add("--shard", metavar="I/N", help="hear only the I-th of N shares of the files, from 0/N to N-1/N; needs --parts")
    add("--embeddings", choices=("file", "window"), help="add a vector for each file or window to --parts")
    add("--workers", metavar="N", type=int, help="processes that decode (default: the usable cores, fewer for few files; "
        "0: a thread)")  # fmt: skip
    add(
        "--bf16",
        action="store_true",
        help="compute in bfloat16, and print how far the first files' scores are from float32's",
    )


def check_parts(args: argparse.Namespace) -> None:
    """Fill in `shard` as (index, count); raise UserError where arguments and --parts contradict each other."""
    if args.parts:
        others = ("output", "timeline_table", "window_table", "timeline", "audacity", "html", "only", "top_k", "sort")
        if named := [flag for flag in others if getattr(args, flag) is not None]:
            raise UserError(f"--{named[0]} does not go with --parts, whose rows have everything; remove one of them.")
    for flag in ("shard", "embeddings"):
        if getattr(args, flag) and not args.parts:
            raise UserError(f"--{flag} needs --parts DIR.")
    if not args.parts and any("://" in name for name in args.names):
        raise UserError("Files at an address are heard with --parts DIR; add it, or download them.")
    index, slash, count = (args.shard or "0/1").partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UserError(f"--shard {args.shard} is not a share; write 3/100 for one of 0/100 to 99/100.")
    args.shard = int(index), int(count)
    if args.part_files < 1:
        raise UserError(f"--part_files {args.part_files} is too small; give 1 or more.")
    if args.workers is not None and args.workers < 0:
        raise UserError(f"--workers {args.workers} is too small; give 0 or more.")


def is_audio(name: str) -> bool:
    """Return whether a name is that of music rather than of a model: of an audio file, or of a folder without a model."""
    folder = Path(name)
    if "://" in name:
        return True
    if not folder.is_dir():
        return name.lower().endswith(READ_BY_SOUNDFILE + READ_BY_FFMPEG)
    return not any(any(folder.glob(file)) for file in MODEL_FILES)


def check_combination(args: argparse.Namespace) -> None:
    """Raise UserError where arguments contradict each other."""
    if not args.paths and not args.list:
        raise UserError(f"Name audio files, or folders of them, after MODEL {args.model}.")
    if is_released(args.model):
        find_released(args.model)
    elif args.classes:
        raise UserError(f"--classes is for released checkpoints, such as {DEFAULT_MODEL}; {args.model} has its own.")
    if args.output and args.format == "table":
        raise UserError("--format table is for the screen; with --output choose --format csv, json or parquet.")
    named = args.output.suffix.lower().removeprefix(".") if args.output else args.format
    if named in FORMATS and named != args.format:
        raise UserError(f"--output {args.output} ends with .{named}, and --format says {args.format}: leave one out.")
    if args.format == "parquet" and not args.output:
        raise UserError("--format parquet cannot be shown on the screen; add --output FILE.parquet.")
    if args.resume and not (args.output or args.parts):
        raise UserError("--resume needs a table to resume; add --output FILE.")
    if args.html and (args.html / PAGE).exists() and not (args.resume and (args.html / VIEWS).exists()):
        raise UserError(f"{args.html / PAGE} exists; delete it, or name another folder with --html.")
    named = {flag: getattr(args, flag).resolve() for flag in TABLES if getattr(args, flag)}
    if len(set(named.values())) < len(named):
        raise UserError(f"Two of {', '.join(f'--{flag}' for flag in named)} name the same file; name several.")
    if args.top_k is not None and args.top_k < 1:
        raise UserError(f"--top_k {args.top_k} asks for no instrument; give 1 or more.")
    if args.sort and args.format != "table":
        raise UserError("--sort orders the lines on the screen: sort the table with what reads it.")


def format_of(file: Path, flag: str) -> str:
    """Return the format that a table's name asks for."""
    suffix = file.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise UserError(f"{flag} {file} does not say its format; end it with .csv, .json or .parquet.")
    return suffix
