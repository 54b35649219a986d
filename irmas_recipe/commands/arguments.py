"""Checks of arguments that several verbs take, made before any work starts; imports no heavy library."""

import argparse
import os
from pathlib import Path

from irmas_dataset.errors import UserError
from irmas_dataset.whole_file import UNFINISHED

MAX_BATCH_SIZE = 100_000


def check_output_folder(folder: Path | None, flag: str) -> None:
    """Raise UserError where a folder to write to is a file, lies below one or may not be written; None means no output."""
    there = [] if folder is None else [place for place in (folder, *folder.parents) if place.exists()]
    for place in there:
        if not place.is_dir():
            where = "is a file" if place == folder else f"would lie below {place}, which is a file"
            raise UserError(f"{flag} {folder} {where}; name a folder.")
    if there and not os.access(there[0], os.W_OK | os.X_OK):
        raise UserError(f"{flag}: you may not write to {there[0]}; name a folder of your own.")


def check_is_new(folder: Path, flag: str) -> None:
    """Raise UserError where a folder to write to is a file, lies below one, or has anything in it."""
    check_output_folder(folder, flag)
    if folder.exists() and any(path.name != UNFINISHED for path in folder.iterdir()):
        raise UserError(f"{flag} {folder} is not empty; name a new folder.")


def check_output_file(file: Path | None, flag: str) -> None:
    """Raise UserError where a file to write to is a folder or lies below a file; None means no output."""
    if file is not None and file.is_dir():
        raise UserError(f"{flag} {file} is a folder; name a file.")
    check_output_folder(file and file.parent, flag)


def check_is_no_run(folder: Path, flag: str) -> None:
    """Raise UserError where a folder contains a trained run, whose results would be overwritten."""
    if any((folder / name).exists() for name in ("recipe.yaml", "model.safetensors")):
        raise UserError(f"{flag} {folder} contains a run, which would be overwritten; name a new folder.")


def add_overwrite(parser: argparse.ArgumentParser, help: str) -> None:
    """Add --overwrite_output_dir, alone or with `true` or `false`, as recipes take it."""
    parser.add_argument(
        "--overwrite_output_dir", metavar="true", nargs="?", type=true_or_false, const=True, default=False, help=help
    )


def true_or_false(word: str) -> bool:
    """Return what a word means; argparse says which argument has another one."""
    if word not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"write true or false, not {word!r}")
    return word == "true"


def check_batch_size(batch_size: int | None) -> None:
    """Raise UserError for a number of windows that no batch can have; None means the default."""
    if batch_size is not None and not 1 <= batch_size <= MAX_BATCH_SIZE:
        size = "small" if batch_size < 1 else "large"
        raise UserError(f"--batch_size {batch_size} is too {size}; give 1 to {MAX_BATCH_SIZE:,}.")
