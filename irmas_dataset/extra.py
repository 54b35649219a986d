"""Adding training clips from a second folder: generated clips or more recordings."""

import copy
import os
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, concatenate_datasets

from irmas_dataset.errors import UserError
from irmas_dataset.files import to_text, warn_of
from irmas_dataset.labels import readable_name
from irmas_dataset.loading import load_irmas, logger


def add_training_clips(splits: DatasetDict, folder: str | Path) -> DatasetDict:
    """Return the splits with the training clips of `folder` (train/<class>/*.wav) at the end of the training set.

    Its recordings are separate from those of the dataset, whatever their names. Clips with the bytes of a validation or
    test clip are skipped with a warning; a test set of the folder is ignored.
    Raises UserError for a folder without training clips, or a class that the dataset does not have.
    """
    root = os.path.abspath(os.path.expanduser(folder))
    if not os.path.isdir(root):
        raise UserError(f"--extra_train_dir {folder}: no such folder.")
    extra = load_irmas(root, validation_fraction=0, test_fraction_if_no_test=0)["train"]
    if len(extra) == 0:
        raise UserError(f"--extra_train_dir {folder} has no training clips: put them in train/<class>/*.wav.")
    elsewhere = {md5 for name in ("validation", "test") for md5 in splits[name]["md5"][:]}
    leaking = [row for row, md5 in enumerate(extra["md5"][:]) if md5 in elsewhere]
    if leaking:
        paths, warnings = extra["path"][:], []
        warn_of(
            warnings,
            [paths[row] for row in leaking],
            "is also a validation or test clip and will not be used for training",
            "are also validation or test clips and will not be used for training",
        )
        logger.warning("--extra_train_dir: %s", warnings[0])
        extra = extra.select(sorted(set(range(len(extra))) - set(leaking)))
    joined = copy.copy(splits)  # keeps `damaged`
    joined["train"] = concatenate_datasets([splits["train"], relabelled(extra, splits["train"], root)])
    return joined


def count_of(train: Dataset, folder: str | Path) -> int:
    """Return how many of the training clips are in `folder`."""
    inside = to_text(os.path.abspath(os.path.expanduser(folder))) + os.sep
    return sum(path.startswith(inside) for path in train["path"][:])


def relabelled(extra: Dataset, train: Dataset, root: str) -> Dataset:
    """Return the extra clips with the class ids of the dataset; IRMAS's classes may have their codes or readable names."""
    names = extra.features["instruments"].feature.names
    classes: ClassLabel = train.features["instruments"].feature
    present = {names[label] for of_clip in extra["instruments"][:] for label in of_clip}
    known = {readable_name(name): name for name in classes.names} | {name: name for name in classes.names}
    own_names = [known.get(name, known.get(readable_name(name))) for name in names]
    if unknown := sorted(name for name, own in zip(names, own_names, strict=True) if name in present and own is None):
        raise UserError(
            f"--extra_train_dir {root}: the dataset has no class {unknown[0]}; its classes are {', '.join(classes.names)}."
        )
    ids = [own and classes.str2int(own) for own in own_names]
    return extra.map(
        _rename, fn_kwargs={"ids": ids, "root": to_text(root)}, features=train.features, desc="Extra clips"
    )


def _rename(row: dict, ids: list[int | None], root: str) -> dict:
    recording = f"{root}: {row['recording']}"  # unlike any recording of the dataset
    return {"instruments": [ids[label] for label in row["instruments"]], "recording": recording, "song": recording}
