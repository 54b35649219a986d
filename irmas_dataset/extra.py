"""Adding training clips from a second data set: generated clips, recordings of your own, or another public collection."""

import copy
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from datasets import Dataset, DatasetDict, Features, concatenate_datasets

from irmas_dataset.audit.copies import copies_of
from irmas_dataset.builder import ANY_COLUMNS
from irmas_dataset.errors import UserError
from irmas_dataset.files import to_text, warn_of
from irmas_dataset.forms.flags import Columns
from irmas_dataset.forms.form import is_remote
from irmas_dataset.labels import readable_name
from irmas_dataset.loading import load_irmas, logger


def add_training_clips(
    splits: DatasetDict,
    location: str | Path,
    label_map: Mapping[str, str] | None = None,
    columns: Columns = ANY_COLUMNS,
    *,
    by_sound: bool = True,
) -> DatasetDict:
    """Return the splits with the training clips of another data set at the end of the training set.

    location: anything that `load_irmas` takes; a test set of it is ignored.
    label_map: its label -> class of the data. Labels without a class are dropped, with the clips that have no other; a
        class that no label stands for is unknown in these clips. Without a map the labels are the data's own.
    columns: which columns and splits of it mean what, as of `load_irmas`.
    by_sound: whether to find copies of validation and test clips by their sound too, which decodes every clip once.
    Its recordings are separate from those of the data, whatever their names. Clips with the bytes of a validation or
    test clip, and copies of one in other bytes, are skipped with a warning.
    Raises UserError for a data set without training clips, or a class that the data does not have.
    """
    if not is_remote(location) and not os.path.isdir(os.path.expanduser(location)):
        raise UserError(f"--extra_train_dir {location}: no such folder.")
    extra = load_extra(location, columns)
    if len(extra) == 0:
        raise UserError(f"--extra_train_dir {location} has no training clips: put them in train/<class>/*.wav.")
    extra = without_copies_of(splits, extra, by_sound)
    train, extra = alike(splits["train"], relabelled(extra, splits["train"], str(location), label_map))
    joined = copy.copy(splits)  # keeps `damaged`
    joined["train"] = concatenate_datasets([train, extra])
    return joined


def load_extra(location: str | Path, columns: Columns) -> Dataset:
    """Return the training clips of another data set; an error about its columns names the flag that they have here."""
    try:
        return load_irmas(location, validation_fraction=0, test_fraction_if_no_test=0, columns=columns)["train"]
    except UserError as error:
        named = next((item.name for item in fields(Columns) if f"--{item.name}" in str(error)), None)
        if named is None:
            raise
        raise UserError(
            f"--extra_train_dir {error} Of this data set, it is written as --extra_columns '{{\"{named}\": ...}}'."
        ) from error


def without_copies_of(splits: DatasetDict, extra: Dataset, by_sound: bool) -> Dataset:
    """Return the clips that are not in validation or test, neither with the same bytes nor, if asked, with the same sound."""
    held_out = [splits[name].select_columns(["path", "md5"]) for name in ("validation", "test") if len(splits[name])]
    if not held_out:
        return extra
    elsewhere = {md5 for split in held_out for md5 in split["md5"][:]}
    extra = without_rows(
        extra, [row for row, md5 in enumerate(extra["md5"][:]) if md5 in elsewhere], "has the bytes of"
    )
    if not by_sound:
        return extra
    return without_rows(extra, copies_of(concatenate_datasets(held_out), extra), "has the sound of")


def without_rows(extra: Dataset, copies: list[int], what: str) -> Dataset:
    """Return the clips without some rows, with a warning that says what is the matter with these."""
    if not copies:
        return extra
    paths, warnings = extra["path"][:], []
    end = "a validation or test clip and will not be used for training"
    warn_of(warnings, [paths[row] for row in copies], f"{what} {end}", f"{what.replace('has', 'have')} {end}")
    logger.warning("--extra_train_dir: %s", warnings[0])
    return extra.select(sorted(set(range(len(extra))) - set(copies)))


def without_extra(train: Dataset, location: str | Path) -> Dataset:
    """Return the training clips that are not of the other data set."""
    start = recordings_of(location)
    return train.select([row for row, name in enumerate(train["recording"][:]) if not name.startswith(start)])


def recordings_of(location: str | Path) -> str:
    """Return how the names of another data set's recordings begin, unlike those of any recording of the data."""
    return to_text(location if is_remote(location) else os.path.abspath(os.path.expanduser(location))) + ": "


def relabelled(extra: Dataset, train: Dataset, location: str, label_map: Mapping[str, str] | None) -> Dataset:
    """Return the extra clips with the class ids of the data; its classes may be named by IRMAS's codes or their words."""
    names = extra.features["instruments"].feature.names
    classes = train.features["instruments"].feature
    known = {readable_name(name): name for name in classes.names} | {name: name for name in classes.names}
    if label_map is None:
        stands_for = {name: known.get(name, known.get(readable_name(name))) for name in names}
        check_classes_of(extra, stands_for, classes.names, location)
        unmapped = []
    else:
        if wrong := sorted({name for name in label_map.values() if name not in known}):
            raise UserError(f"--extra_label_map: the data has no class {wrong[0]}; it has {', '.join(classes.names)}.")
        if wrong := sorted(set(label_map) - set(names)):
            raise UserError(f"--extra_label_map: {location} has no label {wrong[0]}; it has {', '.join(names)}.")
        stands_for = {name: known[label_map[name]] if name in label_map else None for name in names}
        unmapped = [label for label, name in enumerate(classes.names) if name not in stands_for.values()]
    ids = [None if own is None else classes.str2int(own) for own in stands_for.values()]
    features = Features(extra.features | {"instruments": train.features["instruments"]})
    if unmapped or "unknown" in extra.features:
        features["unknown"] = train.features["instruments"]
    arguments = {"ids": ids, "prefix": recordings_of(location), "unmapped": unmapped if "unknown" in features else None}
    extra = extra.map(_rename, fn_kwargs=arguments, features=features, desc="Extra clips")
    if label_map is None:
        return extra
    return extra.select([row for row, labels in enumerate(extra["instruments"][:]) if labels])


def check_classes_of(extra: Dataset, stands_for: dict[str, str | None], classes: list[str], location: str) -> None:
    """Raise UserError for a label of the extra clips that is no class of the data."""
    names = extra.features["instruments"].feature.names
    present = {names[label] for of_clip in extra["instruments"][:] for label in of_clip}
    if missing := sorted(name for name in present if stands_for[name] is None):
        raise UserError(
            f"--extra_train_dir {location}: the dataset has no class {missing[0]}; its classes are {', '.join(classes)} "
            "(--extra_label_map says which of them a label stands for)."
        )


def alike(train: Dataset, extra: Dataset) -> tuple[Dataset, Dataset]:
    """Return both with a column `unknown` where one of them has it, in the same order of columns."""
    if "unknown" not in {*train.features, *extra.features}:
        return train, extra
    features = Features(train.features | {"unknown": train.features["instruments"]})
    return tuple(
        rows.select_columns(list(features))
        if "unknown" in rows.features
        else rows.map(_all_known, features=features, desc="Marking labels as known")
        for rows in (train, extra)
    )


def _all_known(row: dict) -> dict:
    return {"unknown": []}


def _rename(row: dict, ids: list[int | None], prefix: str, unmapped: list[int] | None) -> dict:
    recording = prefix + row["recording"]
    present = sorted({ids[label] for label in row["instruments"] if ids[label] is not None})
    renamed = {"instruments": present, "recording": recording, "song": recording}
    if unmapped is not None:
        unknown = {ids[label] for label in row.get("unknown") or () if ids[label] is not None} | set(unmapped)
        renamed["unknown"] = sorted(unknown - set(present))
    return renamed
