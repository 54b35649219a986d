"""Loading a data folder as a DatasetDict of train, validation and test, disjoint by recording."""

import logging
import os
from pathlib import Path

import pyarrow as pa
from datasets import Audio, Dataset, DatasetDict, DatasetInfo, Features, concatenate_datasets

from irmas_dataset.builder import ANY_COLUMNS, Irmas
from irmas_dataset.errors import UserError
from irmas_dataset.export.layout import is_exported
from irmas_dataset.export.unpack import unpack
from irmas_dataset.files import Listing, from_text, warn_of
from irmas_dataset.forms.flags import Columns
from irmas_dataset.forms.form import is_remote
from irmas_dataset.overlay import apply_corrections, read_corrections
from irmas_dataset.splits import hold_out, merge_groups

logger = logging.getLogger(__name__)

CANCELLED = (
    "has channels that cancel each other out, so that a model hears next to silence; invert one or remove the file",
    "have channels that cancel each other out, so that a model hears next to silence; invert one or remove the files",
)


class Splits(DatasetDict):
    """Train, validation and test.

    `damaged` lists the skipped files, relative to the data folder, with the reason; `is_synthetic` says whether a program
    played the music.
    """

    damaged: tuple[str, ...] = ()
    is_synthetic: bool = False


def load_irmas(
    data_dir: str | Path,
    *,
    validation_fraction: float = 0.15,
    seed: int = 0,
    test_fraction_if_no_test: float = 0.15,
    recording_pattern: str | None = None,
    corrections: str | Path | None = None,
    columns: Columns = ANY_COLUMNS,
    audio: bool = False,
    cache_dir: str | Path | None = None,
) -> DatasetDict:
    """Load any data set as a DatasetDict of train, validation and test.

    data_dir: IRMAS, OpenMIC-2018, a folder of your own, an export of these, a folder in one of the Hub's forms (Parquet
    with audio, `metadata.csv`, class folders), or a data set's id on the Hub, `user/name`. Audio that is in tables or
    afar is written into files once, an export's beside its tables and all other in the cache of `datasets`.

    Columns: path (absolute), instruments (List(ClassLabel)), recording (None in IRMAS's test set), song (the recording,
    for a training clip), genre, drums, duration (seconds), md5, and `unknown` (List(ClassLabel)) where nobody has judged
    some classes in some clips: those are neither present nor absent. Validation is `validation_fraction` of the training
    recordings of every class. No recording and no two files with the same bytes are split between two sides. Without a
    test folder, `test_fraction_if_no_test` of the recordings become the test set.

    recording_pattern: for a folder of your own, a regular expression that finds the recording in a clip's path.
    corrections: a CSV that drops or relabels clips before splitting (see `overlay.py`).
    columns: which columns and splits of a data set in one of the Hub's forms mean what; None is a guess.
    audio: whether to add a column `audio` of type `datasets.Audio`, which is not decoded: cast it to decode.
    cache_dir: where `datasets` caches the table; None means its default.
    Raises UserError for a folder or file that cannot be used; logs one warning for each kind of fault in the data.
    """
    _check_fraction("--validation_fraction", validation_fraction)
    _check_fraction("test_fraction_if_no_test", test_fraction_if_no_test)
    builder = open_builder(data_dir, recording_pattern, columns, cache_dir)
    listing = builder.config.listing
    for warning in listing.warnings:
        logger.warning(warning)
    builder.download_and_prepare()
    read = builder.as_dataset()
    splits = {name: _without_damaged(split) for name, split in read.items()}
    found = Splits(divide(splits, listing, corrections, validation_fraction, test_fraction_if_no_test, seed))
    found.damaged = tuple(os.path.relpath(line, listing.root) for split in read.values() for line in _damaged(split))
    found.is_synthetic = listing.is_synthetic
    if audio:
        for name, split in found.items():
            found[name] = with_audio(split)
    return found


def open_builder(
    data_dir: str | Path,
    recording_pattern: str | None = None,
    columns: Columns = ANY_COLUMNS,
    cache_dir: str | Path | None = None,
) -> Irmas:
    """Return the builder of any data set; its `config.listing` has the clips. The arguments are those of `load_irmas`."""
    location = str(data_dir) if is_remote(data_dir) else os.path.abspath(os.path.expanduser(data_dir))
    if is_exported(location) and not columns.are_given:
        unpack(location)
    files_dir = None if cache_dir is None else str(cache_dir)
    return Irmas(
        data_dir=location,
        recording_pattern=recording_pattern,
        columns=columns,
        files_dir=files_dir,
        cache_dir=cache_dir,
    )


def with_audio(split: Dataset) -> Dataset:
    """Return a split with the column `audio`: {bytes: None, path}, of type `datasets.Audio(decode=False)`."""
    kind = Audio(decode=False)
    if len(split) == 0:
        return Dataset.from_dict(
            {name: [] for name in [*split.features, "audio"]}, Features(split.features | {"audio": kind})
        )
    storage = pa.StructArray.from_arrays(
        [pa.nulls(len(split), pa.binary()), pa.array(map(from_text, split["path"][:]), pa.string())], ["bytes", "path"]
    )
    table = pa.table({"audio": storage})
    return concatenate_datasets([split, Dataset(table, info=DatasetInfo(features=Features(audio=kind)))], axis=1)


def divide(
    splits: dict[str, Dataset],
    listing: Listing,
    corrections: str | Path | None,
    validation_fraction: float,
    test_fraction_if_no_test: float,
    seed: int,
) -> DatasetDict:
    """Return train, validation and test of the clips read: corrected, disjoint by recording, no copies across sides."""
    if corrections is not None:
        splits = apply_corrections(splits, read_corrections(corrections, listing))
    train, test = splits.get("train"), splits.get("test")
    if train is None:
        return DatasetDict(train=test.select([]), validation=test.select([]), test=test)
    if test is None:
        train, test = _split(train, test_fraction_if_no_test, seed)
    else:
        train = _without_copies_of(test, train)
    train, validation = _split(train, validation_fraction, seed)
    return DatasetDict(train=train, validation=validation, test=test)


def describe(dataset: DatasetDict) -> dict:
    """Summarise what was loaded, for results.json.

    Returns {"name", "clips": {split: int}, "songs": int, "classes": [str], "test_is_held_out": bool, "damaged": [str],
    "synthetic": bool}: `songs` counts those of the test set, `damaged` has one line for each file that was skipped because it is unreadable.
    """
    test = dataset["test"]
    return {
        "name": test.info.description,
        "clips": {name: len(split) for name, split in dataset.items()},
        "songs": len(set(test["song"][:])),
        "classes": test.features["instruments"].feature.names,
        "test_is_held_out": is_held_out(test),
        "damaged": list(getattr(dataset, "damaged", ())),
        "synthetic": getattr(dataset, "is_synthetic", False),
    }


def is_held_out(test: Dataset) -> bool:
    """Return whether test clips were held out of the training folder: its rows came from the builder's training split."""
    return str(test.split) == "train"


def _split(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Hold out a fraction of the recordings; return the clips that stay and those held out."""
    groups = merge_groups(dataset["recording"][:], dataset["md5"][:])
    held_out = hold_out(groups, dataset["instruments"][:], fraction, seed)
    rows = range(len(dataset))
    return dataset.select([i for i in rows if not held_out[i]]), dataset.select([i for i in rows if held_out[i]])


def _without_damaged(dataset: Dataset) -> Dataset:
    """Remove the files that the builder could not read, with a warning; warn of those that are next to silent in mono."""
    damaged = _damaged(dataset)
    warn_of_damaged(damaged, len(dataset))
    if damaged:
        dataset = dataset.select([i for i, problem in enumerate(dataset["problem"][:]) if not problem])
    paths, cancelled = dataset["path"][:], dataset["cancelled"][:]
    _warn_of([path for path, is_cancelled in zip(paths, cancelled, strict=True) if is_cancelled], *CANCELLED)
    return dataset.remove_columns(["problem", "cancelled"])


def warn_of_damaged(damaged: list[str], clips: int) -> None:
    """Warn of files that are skipped, each a path with the reason; UserError where that is all the clips."""
    _warn_of(damaged, "is damaged and will be skipped", "are damaged and will be skipped")
    if len(damaged) == clips:
        raise UserError(f"None of the {clips} audio files can be read, for example {damaged[0]}: replace them.")


def _damaged(dataset: Dataset) -> list[str]:
    """Return a line for each file that the builder could not read: its path and, in brackets, the problem."""
    problems, paths = dataset["problem"][:], dataset["path"][:]
    return [f"{path} ({problem})" for path, problem in zip(paths, problems, strict=True) if problem]


def _without_copies_of(test: Dataset, train: Dataset) -> Dataset:
    """Remove training clips that share a recording or their bytes with the test set, with a warning."""
    groups = merge_groups(test["recording"][:] + train["recording"][:], test["md5"][:] + train["md5"][:])
    test_groups, train_groups = set(groups[: len(test)]), groups[len(test) :]
    leaking = [path for path, group in zip(train["path"][:], train_groups, strict=True) if group in test_groups]
    _warn_of(
        leaking,
        "belongs to a recording that is also in the test set and will not be used for training",
        "belong to recordings that are also in the test set and will not be used for training",
    )
    if not leaking:
        return train
    if len(leaking) == len(train):
        logger.warning(
            "No training clip is left. If the names of recordings start anew in each split, name another --recording_column, "
            "or --recording_column none."
        )
    return train.select([i for i, group in enumerate(train_groups) if group not in test_groups])


def _warn_of(paths: list[str], singular: str, plural: str) -> None:
    warnings: list[str] = []
    warn_of(warnings, paths, singular, plural)
    for warning in warnings:
        logger.warning(warning)


def _check_fraction(flag: str, fraction: float) -> None:
    if not 0 <= fraction < 1:
        raise UserError(f"{flag} {fraction} must be at least 0 and less than 1.")
