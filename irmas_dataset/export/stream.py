"""An export, here or served from elsewhere, of which the training clips are read as they come.

The splits are made from the tables' small columns; of the audio only the validation and test files are kept, in a cache.
Files are read by pyarrow through fsspec, so that a folder, a web server and the Hub are one and the same.
"""

import json
import logging
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import datasets
import pyarrow.parquet
from datasets import Dataset, DatasetDict, Features, Value
from datasets.exceptions import DatasetGenerationError
from datasets.fingerprint import Hasher
from filelock import FileLock
from fsspec.core import url_to_fs
from tqdm import tqdm

from irmas_dataset.errors import UserError
from irmas_dataset.files import SYNTHETIC_MARKER, Clip, Listing, irmas_title
from irmas_dataset.loading import divide

logger = logging.getLogger(__name__)

PLACE = {"shard": Value("string"), "row_group": Value("int32"), "row": Value("int32")}
"""Columns that say where a clip's audio is: the address of a Parquet file, and where in it."""

TRANSFER_ERRORS = (OSError, ValueError, pyarrow.ArrowException, aiohttp.ClientError, DatasetGenerationError)
ATTEMPTS, FIRST_PAUSE_SECONDS = 5, 1.0


def load_streamed(
    location: str,
    *,
    validation_fraction: float = 0.15,
    seed: int = 0,
    test_fraction_if_no_test: float = 0.15,
    corrections: str | Path | None = None,
    cache_dir: str | Path | None = None,
) -> DatasetDict:
    """Return the same splits as `load_irmas` does of an export, without the training audio.

    location: a folder, the https:// address of a served folder (the server must list it), or a dataset on the Hub.
    The files of validation and test are written into `files_folder` once; rows of train have the columns `PLACE`
    instead. Several processes may call this at once. Raises UserError for a location that is no export with audio.
    """
    folder = files_folder(location, cache_dir)
    try:
        shards = find_shards(location)
        splits = {name: table_of_rows(files, folder, name, cache_dir) for name, files in shards.items()}
        listing = listing_of(location, folder, splits)
        for warning in listing.warnings:
            logger.warning(warning)
        for split in splits.values():
            split.info.description = listing.title
        parts = divide(splits, listing, corrections, validation_fraction, test_fraction_if_no_test, seed)
        for name in ("validation", "test"):
            fetch(parts[name], folder)
            parts[name] = parts[name].remove_columns(list(PLACE))
    except TRANSFER_ERRORS as error:
        raise UserError(f"--data_dir {location} cannot be streamed: {_first_line(error)}.") from error
    return parts


def files_folder(location: str, cache_dir: str | Path | None = None) -> Path:
    """Return where the validation and test files of a streamed export are kept."""
    return Path(cache_dir or datasets.config.HF_DATASETS_CACHE) / f"irmas-streamed-{Hasher.hash(address(location))}"


def address(location: str) -> str:
    """Return a location as fsspec wants it: a path, a URL, or hf://datasets/user/name."""
    if "://" in location or Path(location).expanduser().is_dir():
        return location.rstrip("/") if "://" in location else str(Path(location).expanduser().resolve())
    if re.fullmatch(r"[\w.-]+/[\w.-]+", location):
        return f"hf://datasets/{location}"
    return location


def find_shards(location: str) -> dict[str, list[tuple[str, int]]]:
    """Return the Parquet files of each split, as addresses with their sizes in bytes."""
    files, root = url_to_fs(address(location))
    found = {}
    for split in ("train", "test"):
        shards = sorted(str(path) for path in files.glob(f"{root}/data/{split}-*.parquet"))
        if shards:
            found[split] = [(files.unstrip_protocol(path), files.size(path) or 0) for path in shards]
    if "train" not in found:
        raise FileNotFoundError(
            "it holds no data/train-*.parquet, as `export` writes them (a web server must list its folders)"
        )
    return found


def table_of_rows(shards: list[tuple[str, int]], folder: Path, split: str, cache_dir: str | Path | None) -> Dataset:
    """Return one row a clip, as the builder's, with `PLACE` and with the path that its file has or would have."""
    with open_parquet(shards[0][0]) as first:
        if "audio" not in first.schema_arrow.names:
            raise ValueError("it holds labels without audio: export it again without --metadata_only")
        described = json.loads(first.schema_arrow.metadata[b"huggingface"])["info"]["features"]
    features = Features.from_dict({name: feature for name, feature in described.items() if name != "audio"})
    return Dataset.from_generator(
        rows_of,
        features=Features(features | PLACE),
        gen_kwargs={"shards": tuple(shards), "columns": tuple(features), "folder": str(folder)},
        split=datasets.NamedSplit(split),
        cache_dir=None if cache_dir is None else str(cache_dir),
    )


def rows_of(shards: tuple[tuple[str, int], ...], columns: tuple[str, ...], folder: str) -> Iterator[dict]:
    """Yield every row of the tables without its audio."""
    for shard, _ in shards:
        with open_parquet(shard) as table:
            for group in range(table.num_row_groups):
                for number, row in enumerate(table.read_row_group(group, columns=list(columns)).to_pylist()):
                    path = Path(folder, row["path"])
                    if not path.resolve().is_relative_to(Path(folder).resolve()):
                        raise ValueError(f"{shard} holds the path {row['path']}, which leads out of its folder")
                    yield row | {"path": str(path), "shard": shard, "row_group": group, "row": number}


def open_parquet(shard: str) -> pyarrow.parquet.ParquetFile:
    """Open a Parquet file at an address; only what is asked for is transferred, neighbouring parts in one request."""
    files, path = url_to_fs(shard)
    return pyarrow.parquet.ParquetFile(files.open(path, "rb", cache_type="none"), pre_buffer=True)


def read_audio(shard: str, row_group: int, rows: list[int]) -> list[bytes]:
    """Return the bytes of some files of a row group; tries again after a pause where a server stumbles."""
    for attempt in range(ATTEMPTS):
        try:
            with open_parquet(shard) as table:
                column = table.read_row_group(row_group, columns=["audio"])["audio"]
            return [column[row]["bytes"].as_py() for row in rows]
        except TRANSFER_ERRORS as error:
            if attempt + 1 == ATTEMPTS:
                raise UserError(f"{shard} cannot be read: {_first_line(error)}. Start again to go on.") from error
            time.sleep(FIRST_PAUSE_SECONDS * 2**attempt)
    raise AssertionError("unreachable")


def by_row_group(shards: list[str], groups: list[int]) -> dict[tuple[str, int], list[int]]:
    """Return the positions of the clips that lie in each row group, in order."""
    found = defaultdict(list)
    for position, place in enumerate(zip(shards, groups, strict=True)):
        found[place].append(position)
    return dict(found)


def fetch(split: Dataset, folder: Path) -> None:
    """Write the files of a split into the folder, those that are not there yet; one process at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "fetched.txt"
    with FileLock(folder / ".lock"):
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        # path -> md5, the last line counts; a start that was killed may have left half a line
        there = dict(reversed(line.split("\t", 1)) for line in lines if "\t" in line)
        missing = [i for i, (path, md5) in enumerate(zip(split["path"][:], split["md5"][:], strict=True))
                   if there.get(path) != md5 or not Path(path).exists()]  # fmt: skip
        rows = split.select(missing)
        places = by_row_group(rows["shard"][:], rows["row_group"][:])
        with open(log, "a", encoding="utf-8") as done:
            for (shard, group), clips in tqdm(places.items(), desc=f"Fetching {split.split} files", disable=not places):
                found = rows[clips]
                contents = read_audio(shard, group, found["row"])
                for path, md5, content in zip(found["path"], found["md5"], contents, strict=True):
                    Path(path).parent.mkdir(parents=True, exist_ok=True)
                    Path(path).write_bytes(content)
                    done.write(f"{md5}\t{path}\n")


def listing_of(location: str, folder: Path, splits: dict[str, Dataset]) -> Listing:
    """Return what `list_clips` would say of the exported folder: its title, classes and clips by name."""
    classes = tuple(splits["train"].features["instruments"].feature.names)
    clips = [
        Clip(path, Path(path).relative_to(folder).as_posix(), split, (), None, None)
        for split, rows in splits.items()
        for path in rows["path"][:]
    ]
    files, root = url_to_fs(address(location))
    is_synthetic, name = files.exists(f"{root}/{SYNTHETIC_MARKER}"), root.rstrip("/").rsplit("/", 1)[-1]
    if not clips[0].name.startswith("IRMAS-T"):
        return Listing(f"{'synthetic' if is_synthetic else 'own'} folder {name}", folder, classes, clips)
    if is_synthetic:
        return Listing("synthetic, IRMAS-shaped", folder, classes, clips)
    warnings: list[str] = []
    title = irmas_title(location, clips, warnings)
    return Listing(title or "IRMAS-shaped folder", folder, classes, clips, warnings, is_irmas=title is not None)


def _first_line(error: BaseException) -> str:
    if isinstance(error, DatasetGenerationError):
        error = error.__cause__ or error
    if "range requests" in str(error):
        return "its server answers no range requests (nginx, Apache, S3 and the Hub do; python -m http.server does not)"
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
