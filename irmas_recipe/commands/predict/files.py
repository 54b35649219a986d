"""Which files `predict` listens to, and where their pictures go."""

import codecs
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from irmas_dataset.errors import UserError
from irmas_dataset.files import READ_BY_FFMPEG, READ_BY_SOUNDFILE, to_text, walk_files
from irmas_dataset.forms.form import has_form
from irmas_dataset.label_text import LONGEST_NAME


def find_audio(paths: list[Path]) -> list[Path]:
    """Return the files named and the audio files in the folders named, each once; hidden ones in folders are skipped.

    The path - stands for the names in the standard input, one a line.
    """
    found, named = [], []
    for path in paths:
        named += map(Path, names_in(sys.stdin.buffer)) if path == Path("-") else [path]
    if not named:
        where = "The standard input" if Path("-") in paths else "The --list"
        raise UserError(f"{where} names no file: write one a line.")
    for path in named:
        if not os.path.exists(path):
            raise UserError(f"There is no file or folder {to_text(path)}.")
        found += audio_in(path) if path.is_dir() else [path]
    return list(dict.fromkeys(found))


def names_in(lines: Iterable[bytes]) -> Iterator[str]:
    """Yield the files that lines name, in whatever encoding the file system has; an address stays as it is.

    Raises:
        UserError: the lines are in UTF-16.
    """
    for number, line in enumerate(lines):
        if number == 0 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise UserError("The list of files is in UTF-16, as PowerShell writes it: save it as UTF-8.")
        if name := (line if number else line.removeprefix(codecs.BOM_UTF8)).rstrip(b"\r\n"):
            yield os.fsdecode(name)


def audio_in(folder: Path) -> list[Path]:
    """Return the files in a folder and below whose names end as audio does; a broken link is one, to be reported.

    Raises:
        UserError: there are none.
    """
    named = [Path(file) for file in walk_files(folder) if file.lower().endswith(READ_BY_SOUNDFILE + READ_BY_FFMPEG)]
    inside = [file for file in named if file.is_file() or not file.exists()]
    if not inside and has_form(folder):
        raise UserError(
            f"{to_text(folder)} is a data set with its audio in tables: `irmas evaluate MODEL --data_dir {to_text(folder)}` "
            "measures a model on it."
        )
    if not inside:
        raise UserError(f"{to_text(folder)} has no audio files (wav, flac, mp3, ogg, ...); name another folder.")
    return inside


def sizes_of(files: list[Path]) -> list[int]:
    """Return the files' sizes in bytes, 0 for a missing one: roughly how long each takes."""
    return [file.stat().st_size if file.exists() else 0 for file in files]


def common_folder(files: list[Path]) -> str:
    """Return the innermost folder that all files are in."""
    return os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in files])


def place_of(file: Path, common: str, folder: Path, suffix: str) -> Path:
    """Return where what is made of a file goes: in the same subfolders, the file's own suffix included, so that no two collide.

    common: the folder that all files are in.
    """
    inside = Path(os.path.abspath(file)).relative_to(common)
    return folder / inside.with_name(name_with_suffix(inside.name, suffix))


def name_with_suffix(name: str, suffix: str) -> str:
    """Return a file's name with a suffix added; one too long for a file system is cut and told apart by a digest."""
    encoded = os.fsencode(name)
    if len(encoded) + len(suffix) <= LONGEST_NAME:
        return name + suffix
    suffix = f"-{hashlib.sha256(encoded).hexdigest()[:12]}{suffix}"
    return encoded[: LONGEST_NAME - len(suffix)].decode("utf-8", "ignore") + suffix
