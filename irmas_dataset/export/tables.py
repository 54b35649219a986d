"""The tables of an export wherever they are: a folder, a web server or the Hub, read by pyarrow through fsspec."""

import re
import time
from collections import defaultdict
from pathlib import Path

import aiohttp
import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet
from datasets.exceptions import DatasetGenerationError
from datasets.fingerprint import Hasher
from fsspec.core import url_to_fs

from irmas_dataset.errors import UserError
from irmas_dataset.export.layout import SPLITS, shard_pattern

TRANSFER_ERRORS = (OSError, ValueError, pa.ArrowException, aiohttp.ClientError, DatasetGenerationError)
ATTEMPTS, FIRST_PAUSE_SECONDS = 5, 1.0
WHOLE_FILE = -1


def address(location: str) -> str:
    """Return a location in fsspec's form: a path, a URL, or hf://datasets/user/name."""
    if "://" in location or Path(location).expanduser().is_dir():
        return location.rstrip("/") if "://" in location else str(Path(location).expanduser().resolve())
    if re.fullmatch(r"[\w.-]+/[\w.-]+", location):
        return f"hf://datasets/{location}"
    return location


def files_folder(location: str | Path, cache_dir: str | Path | None = None) -> Path:
    """Return the folder that keeps the files which are taken out of a data set's tables or fetched from afar."""
    return Path(cache_dir or datasets.config.HF_DATASETS_CACHE) / f"irmas-files-{Hasher.hash(address(str(location)))}"


def find_shards(location: str) -> dict[str, list[tuple[str, int]]]:
    """Return the tables of each split as (address, size in bytes).

    Raises FileNotFoundError if there are no training tables.
    """
    files, root = url_to_fs(address(location))
    found = {}
    for split in SPLITS:
        shards = sorted(str(path) for path in files.glob(f"{root}/{shard_pattern(split)}"))
        if shards:
            found[split] = [(files.unstrip_protocol(path), files.size(path) or 0) for path in shards]
    if "train" not in found:
        raise FileNotFoundError(
            f"it has no {shard_pattern('train')}, as `export` writes them (a web server must list its folders)"
        )
    return found


def open_parquet(shard: str) -> pyarrow.parquet.ParquetFile:
    """Open a table at an address; only the columns and row groups that are read are transferred."""
    files, path = url_to_fs(shard)
    try:
        return pyarrow.parquet.ParquetFile(files.open(path, "rb", cache_type="none"), pre_buffer=True)
    except pa.ArrowInvalid as error:
        raise pa.ArrowInvalid(f"{shard}: {error}") from error


def read_audio(shard: str, row_group: int, rows: list[int], audio: str = "audio") -> list[bytes]:
    """Return the contents of the files in some rows of a row group, retrying after a pause when a transfer fails.

    audio: the name of the column; with the row group WHOLE_FILE, `shard` is itself an audio file.
    A file that the table lacks, or that is not on this disk, has no bytes. Raises UserError if every attempt fails.
    """
    for attempt in range(ATTEMPTS):
        try:
            if row_group == WHOLE_FILE:
                if "://" not in shard and not Path(shard).exists():
                    return [b""] * len(rows)
                with fsspec.open(shard, "rb") as file:
                    return [file.read()] * len(rows)
            with open_parquet(shard) as table:
                column = table.read_row_group(row_group, columns=[audio])[audio]
            return [column[row]["bytes"].as_py() or b"" for row in rows]
        except TRANSFER_ERRORS as error:
            if attempt + 1 == ATTEMPTS:
                raise UserError(
                    f"{shard} cannot be read: {transfer_problem(error)}. Run the same command again to resume."
                ) from error
            time.sleep(FIRST_PAUSE_SECONDS * 2**attempt)
    raise AssertionError("unreachable")


def by_row_group(shards: list[str], groups: list[int]) -> dict[tuple[str, int], list[int]]:
    """Return the positions of the clips in each (shard, row group), in order."""
    found = defaultdict(list)
    for position, place in enumerate(zip(shards, groups, strict=True)):
        found[place].append(position)
    return dict(found)


def transfer_problem(error: BaseException) -> str:
    """Return the first line of what a transfer error says, without the final period."""
    if isinstance(error, DatasetGenerationError):
        error = error.__cause__ or error
    if "range requests" in str(error):
        return "its server does not support range requests (nginx, Apache, S3 and the Hub do, python -m http.server does not)"
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
