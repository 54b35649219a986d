"""Names of files, one at a time, however many: from folders, lists, the standard input and addresses."""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as parquet

from irmas_dataset.errors import UserError
from irmas_dataset.files import READ_BY_FFMPEG, READ_BY_SOUNDFILE, to_text
from irmas_recipe.commands.predict.files import audio_in, names_in


class Address(os.PathLike):
    """A file elsewhere, such as hf://datasets/me/songs/1.mp3 or s3://bucket/1.mp3; fetched when it is called."""

    def __init__(self, address: str) -> None:
        self.address = address

    def __fspath__(self) -> str:
        return self.address

    def __call__(self) -> bytes:
        """Return the file's bytes.

        Raises:
            ValueError: they cannot be had.
        """
        try:
            with fsspec.open(self.address, "rb") as file:
                return file.read()
        except Exception as error:  # whatever a file system raises, in a sentence
            raise ValueError(f"{self.address} cannot be fetched ({type(error).__name__}: {error}).") from error


def is_address(name: str) -> bool:
    """Return whether a name is one of a file elsewhere."""
    return "://" in name


def every_name(paths: list[str], lists: list[Path], column: str) -> Iterator[str]:
    """Yield the names of all files that the command line asks for.

    Args:
        paths: files, folders, addresses of files or (with a / at the end) folders, and - for the standard input.
        lists: text files with a name per line, or Parquet files whose `column` has names.

    Raises:
        UserError: a path, a list or a column is not there.
    """
    for path in paths:
        if path == "-":
            yield from names_in(sys.stdin.buffer)
        elif is_address(path):
            yield from addresses_in(path) if path.endswith("/") else [path]
        elif not os.path.exists(path):
            raise UserError(f"There is no file or folder {to_text(path)}.")
        else:
            yield from map(os.fspath, audio_in(Path(path))) if os.path.isdir(path) else [path]
    for file in lists:
        if not file.is_file():
            raise UserError(f"There is no --list {file}.")
        if file.suffix.lower() == ".parquet":
            yield from names_in_column(file, column)
        else:
            with file.open("rb") as lines:
                yield from names_in(lines)


def addresses_in(folder: str) -> Iterator[str]:
    """Yield the addresses of the audio files below a folder elsewhere, sorted."""
    filesystem, path = fsspec.url_to_fs(folder)
    for name in sorted(filesystem.find(path)):
        if name.lower().endswith(READ_BY_SOUNDFILE + READ_BY_FFMPEG):
            yield filesystem.unstrip_protocol(name)


def names_in_column(file: Path, column: str) -> Iterator[str]:
    """Yield a column of a Parquet file, a batch of rows in memory at a time.

    Raises:
        UserError: the file is not Parquet, or has no such column, or not a name in every row of it.
    """
    try:
        table = parquet.ParquetFile(file)
    except pa.ArrowException as error:
        raise UserError(f"--list {file} cannot be read as Parquet ({error}): write it again.") from error
    if column not in table.schema_arrow.names:
        raise UserError(
            f"{file} has no column {column}; name one of {', '.join(table.schema_arrow.names)} with --column."
        )
    row = 0
    for batch in table.iter_batches(columns=[column]):
        for name in batch.column(0).to_pylist():
            row += 1
            if not name or not isinstance(name, str):
                raise UserError(f"{file}, row {row}: {column} is {name!r}, which names no file; name another --column.")
            yield name


def share_of(names: Iterable[str], index: int, count: int) -> Iterator[str]:
    """Yield every `count`-th name, from the one at `index`: the shares of all indices are disjoint and complete."""
    return (name for place, name in enumerate(names) if place % count == index)
