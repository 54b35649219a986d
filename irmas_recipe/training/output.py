"""Where a verb may write, looked at before it works."""

from pathlib import Path

from irmas_dataset.errors import UserError


def check_output_folder(folder: Path | None, flag: str) -> None:
    """Raise UserError where a folder to write to is a file, or would lie below one; None is no output."""
    for place in [] if folder is None else (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            where = "is a file" if place == folder else f"would lie below {place}, which is a file"
            raise UserError(f"{flag} {folder} {where}; name a folder.")


def check_is_no_run(folder: Path, flag: str) -> None:
    """Raise UserError where a folder holds a trained run, whose results would be written over."""
    if any((folder / name).exists() for name in ("recipe.yaml", "model.safetensors")):
        raise UserError(f"{flag} {folder} holds a run of its own, which would be written over; name a new folder.")


def check_output_file(file: Path | None, flag: str) -> None:
    """Raise UserError where a file to write to is a folder, or would lie below a file; None is no output."""
    if file is not None and file.is_dir():
        raise UserError(f"{flag} {file} is a folder; name a file.")
    check_output_folder(file and file.parent, flag)
