"""Streaming an export: the splits without the training audio, which is read from the tables while training.

The splits are made from the small columns of the tables. Only the validation and test files are downloaded, into a cache.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import datasets
from datasets import Dataset, DatasetDict, Features, Value
from datasets.fingerprint import Hasher
from filelock import FileLock
from fsspec.core import url_to_fs
from tqdm import tqdm

from irmas_dataset.errors import UserError
from irmas_dataset.export.layout import path_within, stored_features
from irmas_dataset.export.tables import (
    TRANSFER_ERRORS,
    address,
    by_row_group,
    find_shards,
    open_parquet,
    read_audio,
    transfer_problem,
)
from irmas_dataset.files import SYNTHETIC_MARKER, Clip, Listing, irmas_listing
from irmas_dataset.loading import divide
from irmas_dataset.own_folder import own_folder_title

logger = logging.getLogger(__name__)

PLACE = {"shard": Value("string"), "row_group": Value("int32"), "row": Value("int32")}
"""Columns that say where a clip's audio is: the address of a table, and the row group and row in it."""


def load_streamed(
    location: str,
    *,
    validation_fraction: float = 0.15,
    seed: int = 0,
    test_fraction_if_no_test: float = 0.15,
    corrections: str | Path | None = None,
    cache_dir: str | Path | None = None,
) -> DatasetDict:
    """Return the splits that `load_irmas` returns for an export, without the training audio.

    location: a folder, the https:// address of a served folder (the server must list it), or a dataset on the Hub.
    The files of validation and test are written into `files_folder` once. Rows of train have the columns `PLACE`, for
    `read_audio`. The other arguments are those of `load_irmas`. Several processes may call this at once.
    Raises UserError for a location that is not an export with audio.
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
        raise UserError(f"--data_dir {location} cannot be streamed: {transfer_problem(error)}.") from error
    return parts


def files_folder(location: str, cache_dir: str | Path | None = None) -> Path:
    """Return the folder that keeps the validation and test files of a streamed export."""
    return Path(cache_dir or datasets.config.HF_DATASETS_CACHE) / f"irmas-streamed-{Hasher.hash(address(location))}"


def table_of_rows(shards: list[tuple[str, int]], folder: Path, split: str, cache_dir: str | Path | None) -> Dataset:
    """Return one row per clip with the builder's columns, `PLACE`, and the path that its file has or would have."""
    with open_parquet(shards[0][0]) as first:
        features = stored_features(first.schema_arrow)
    del features["audio"]
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
                    path = str(path_within(Path(folder), row["path"]))
                    yield row | {"path": path, "shard": shard, "row_group": group, "row": number}


def fetch(split: Dataset, folder: Path) -> None:
    """Write those files of a split into the folder that are not there yet; one process at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "fetched.txt"
    with FileLock(folder / ".lock"):
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        # path -> md5, the last line counts; a killed process may have left half a line
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
    """Return what `list_clips` would return for the exported folder: its title, classes and clips by name."""
    clips = [
        Clip(path, Path(path).relative_to(folder).as_posix(), split, (), None, None)
        for split, rows in splits.items()
        for path in rows["path"][:]
    ]
    files, root = url_to_fs(address(location))
    is_synthetic = files.exists(f"{root}/{SYNTHETIC_MARKER}")
    if clips[0].name.startswith("IRMAS-T"):
        return irmas_listing(folder, location, clips, [], is_synthetic)
    classes = tuple(splits["train"].features["instruments"].feature.names)
    name = root.rstrip("/").rsplit("/", 1)[-1]
    return Listing(own_folder_title(name, is_synthetic), folder, classes, clips)
