"""Streaming an export, or a data set in one of the Hub's forms: the splits without the training audio, which is read from the tables while training.

The splits are made from the small columns of the tables. Only the validation and test files are downloaded, into a cache.
"""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value, concatenate_datasets
from filelock import FileLock
from fsspec.core import url_to_fs
from tqdm import tqdm

from irmas_dataset.builder import ANY_COLUMNS, read_facts
from irmas_dataset.cores import usable_cores
from irmas_dataset.errors import UserError
from irmas_dataset.export.layout import COLUMNS, check_no_pattern, path_within, shard_pattern, stored_features
from irmas_dataset.export.tables import (
    TRANSFER_ERRORS,
    address,
    by_row_group,
    files_folder,
    find_shards,
    open_parquet,
    read_audio,
    transfer_problem,
)
from irmas_dataset.export.unpack import listing_of_export
from irmas_dataset.files import SYNTHETIC_MARKER, Clip, Listing, find_irmas, from_text
from irmas_dataset.forms.flags import Columns
from irmas_dataset.forms.form import Form, form_title, open_form
from irmas_dataset.forms.listing import (
    FETCHED,
    MARKER,
    facts_of,
    home_of,
    placed_clips,
    recordings_warning,
    state_of,
)
from irmas_dataset.loading import Splits, divide, warn_of_damaged
from irmas_dataset.openmic import list_openmic

logger = logging.getLogger(__name__)

PLACE = {"shard": Value("string"), "row_group": Value("int32"), "row": Value("int32"), "audio_column": Value("string")}
"""Columns that say where a clip's audio is: the address of a table, and the row group, row and column in it."""


def load_streamed(
    location: str,
    *,
    validation_fraction: float = 0.15,
    seed: int = 0,
    test_fraction_if_no_test: float = 0.15,
    corrections: str | Path | None = None,
    recording_pattern: str | None = None,
    columns: Columns = ANY_COLUMNS,
    cache_dir: str | Path | None = None,
) -> DatasetDict:
    """Return the splits that `load_irmas` returns, without the training audio.

    location: a folder, the https:// address of a served folder (the server must list it), or a dataset on the Hub: an
    export, or any other in one of the Hub's forms. Of the others the lengths and checksums of files are not known, so
    that copies of a file under other recordings are not found. The files of validation and test are written into `files_folder` once. Rows of train have the columns `PLACE`, for
    `read_audio`. The other arguments are those of `load_irmas`. Several processes may call this at once.
    Raises UserError for a location that is not an export with audio.
    """
    folder, state = files_folder(location, cache_dir), None
    try:
        if shards := shards_of_export(location, columns):
            check_no_pattern(location, recording_pattern)
            splits = {name: table_of_rows(files, folder, name, cache_dir) for name, files in shards.items()}
            listing = listing_of(location, folder, splits)
        else:
            check_is_form(location)
            form = open_form(location, columns)
            home = home_of(form.location, columns, cache_dir, is_form=True)
            check_is_streamed(form)
            state = state_of(form)
            splits = {
                split: table_of_form(form, split, home, recording_pattern, cache_dir)
                for split in splits_with_clips(form)
            }
            listing = listing_of_form(form, home, splits, recording_pattern)
        for warning in listing.warnings:
            logger.warning(warning)
        for split in splits.values():
            split.info.description = listing.title
        parts = Splits(divide(splits, listing, corrections, validation_fraction, test_fraction_if_no_test, seed))
        parts.is_synthetic = listing.is_synthetic
        for name in ("validation", "test"):
            fetch(parts[name], folder, state)
            parts[name] = with_facts(parts[name].remove_columns(list(PLACE)))
    except UserError:
        raise
    except TRANSFER_ERRORS as error:
        raise UserError(f"--data_dir {location} cannot be streamed: {transfer_problem(error)}.") from error
    return parts


def shards_of_export(location: str, columns: Columns) -> dict[str, list[tuple[str, int]]] | None:
    """Return the tables of an export by split; None for any other data set."""
    if columns.are_given:
        return None
    try:
        shards = find_shards(location)
    except FileNotFoundError:
        if "://" in location:
            raise
        return None
    with open_parquet(shards["train"][0][0]) as first:
        names = first.schema_arrow.names
    return shards if set(COLUMNS) <= set(names) else None


def check_is_form(location: str) -> None:
    """Raise UserError for a folder in a layout of its own: `datasets` would take its test music for training clips."""
    folder = Path(location).expanduser()
    if folder.is_dir() and (find_irmas(folder) or (folder / "labels.csv").is_file() or list_openmic(folder)):
        raise UserError(
            f"--data_dir {location} has no {shard_pattern('train')}, and its own layout cannot be streamed: run `irmas export "
            f"--data_dir {location}` and name that folder, or set --streaming false."
        )


def check_is_streamed(form: Form) -> None:
    """Raise UserError for a form of which no clip can be read by itself."""
    if not form.is_parquet and not form.is_folder:
        raise UserError(
            f"--data_dir {form.location}: only Parquet and audio files can be streamed, and these are "
            f"{type(form.builder).__module__.rsplit('.', 1)[-1]} files: set --streaming false."
        )


def splits_with_clips(form: Form) -> list[str]:
    """Return which of train and test have a clip with a label; adds a sentence about an empty test set to the warnings."""
    found = [
        split for split in form.splits
        if any(len(form.labels.read(row, form.location)[1]) < len(form.labels.classes) for row in form.rows(split, form.described))
    ]  # fmt: skip
    if "train" not in found:
        raise UserError(f"--data_dir {form.location}: no clip of the split {form.splits['train']} has a label.")
    form.warnings += form.empty_test(found)
    return found


def with_facts(split: Dataset) -> Dataset:
    """Return clips whose files are on this disk with their lengths and checksums, without those that are damaged."""
    if len(split) == 0 or None not in split["md5"][:]:
        return split
    with ThreadPoolExecutor(min(8, usable_cores())) as threads:
        facts = list(threads.map(read_facts, map(from_text, split["path"][:])))
    problems = [
        f"{path} ({fact['problem']})" for path, fact in zip(split["path"][:], facts, strict=True) if fact["problem"]
    ]
    warn_of_damaged(problems, len(split))
    for name in ("duration", "md5"):
        kind = split.features[name]
        column = Dataset.from_dict({name: [fact[name] for fact in facts]}, Features({name: kind}))
        split = concatenate_datasets([split.remove_columns(name), column], axis=1)
    return split.select([row for row, fact in enumerate(facts) if not fact["problem"]])


def table_of_form(
    form: Form, split: str, folder: Path, recording_pattern: str | None, cache_dir: str | Path | None
) -> Dataset:
    """Return what `table_of_rows` returns, of a split of a data set in one of the Hub's forms."""
    labels = List(ClassLabel(names=list(form.labels.classes)))
    kinds = {name: Value("string") for name in ("path", "recording", "song", "genre", "drums", "md5")}
    features = kinds | {"instruments": labels, "unknown": labels, "duration": Value("float32")} | PLACE
    table = Dataset.from_generator(
        rows_of_form,
        features=Features(features),
        gen_kwargs={
            "location": form.location, "columns": form.columns, "split": split, "folder": str(folder),
            "recording_pattern": recording_pattern, "facts": tuple(facts_of(form, split)),
        },
        split=datasets.NamedSplit(split),
        cache_dir=None if cache_dir is None else str(cache_dir),
    )  # fmt: skip
    return table if any(table["unknown"][:]) else table.remove_columns("unknown")


def rows_of_form(
    location: str, columns: Columns, split: str, folder: str, recording_pattern: str | None, facts: tuple
) -> Iterator[dict]:
    """Yield every row of a split without its audio; `facts` names the state of the files for the cache."""
    form = open_form(location, columns)
    for clip, place in placed_clips(form, split, Path(folder), recording_pattern):
        if len(clip.unknown) < len(form.labels.classes):
            kept = {name: getattr(clip, name) for name in ("path", "recording", "song", "genre", "drums")}
            kept |= {"instruments": clip.instruments, "unknown": clip.unknown, "duration": None, "md5": None}
            yield kept | place


def listing_of_form(form: Form, folder: Path, splits: dict[str, Dataset], recording_pattern: str | None) -> Listing:
    """Return what `list_clips` would return for the data set: its title, classes and clips by name."""
    clips = [
        Clip(path, os.path.relpath(path, folder), split, (), None, None)
        for split, rows in splits.items()
        for path in rows["path"][:]
    ]
    warnings = [*form.warnings, *recordings_warning(form, recording_pattern)]
    return Listing(form_title(form.location), folder, form.labels.classes, clips, warnings)


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
                    yield row | {
                        "path": path,
                        "shard": shard,
                        "row_group": group,
                        "row": number,
                        "audio_column": "audio",
                    }


def fetch(split: Dataset, folder: Path, state: str | None = None) -> None:
    """Write those files of a split into the folder that are not there yet; one process at a time.

    state: names what the tables have, where the checksums of their files are not known.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / FETCHED
    with FileLock(folder / ".lock"):
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        # path -> md5 or state, the last line counts; a killed process may have left half a line
        there = dict(reversed(line.split("\t", 1)) for line in lines if "\t" in line)
        rows = zip(split["path"][:], split["md5"][:], split["shard"][:], strict=True)
        missing = [i for i, (path, md5, shard) in enumerate(rows)  # a file of its own on this disk is its own shard
                   if path != shard and (there.get(path) != (md5 or state) or not Path(path).exists())]  # fmt: skip
        rows = split.select(missing)
        places = by_row_group(rows["shard"][:], rows["row_group"][:])
        if missing:
            (folder / MARKER).unlink(missing_ok=True)  # `take_files` may have written the same files, of another state
        with open(log, "a", encoding="utf-8") as done:
            for (shard, group), clips in tqdm(places.items(), desc=f"Fetching {split.split} files", disable=not places):
                found = rows[clips]
                contents = read_audio(shard, group, found["row"], found["audio_column"][0])
                for path, md5, content in zip(found["path"], found["md5"], contents, strict=True):
                    Path(path).parent.mkdir(parents=True, exist_ok=True)
                    Path(path).write_bytes(content)
                    done.write(f"{md5 or state}\t{path}\n")


def listing_of(location: str, folder: Path, splits: dict[str, Dataset]) -> Listing:
    """Return what `list_clips` would return for the exported folder: its title, classes and clips by name."""
    clips = [
        Clip(path, Path(path).relative_to(folder).as_posix(), split, (), None, None)
        for split, rows in splits.items()
        for path in rows["path"][:]
    ]
    files, root = url_to_fs(address(location))
    classes = tuple(splits["train"].features["instruments"].feature.names)
    is_synthetic = files.exists(f"{root}/{SYNTHETIC_MARKER}")
    return listing_of_export(folder, location, root.rstrip("/").rsplit("/", 1)[-1], classes, clips, is_synthetic)
