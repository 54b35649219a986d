"""More clips for training from a folder beside the data set: generated ones, or recordings of one's own."""

import copy
import os
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, concatenate_datasets

from irmas_dataset.errors import UserError
from irmas_dataset.files import to_text, warn_of
from irmas_dataset.loading import load_irmas, logger


def add_training_clips(splits: DatasetDict, folder: str | Path) -> DatasetDict:
    """Return the splits with the training clips of `folder` (train/<class>/*.wav) at the end of the training set.

    Its recordings count as recordings of their own. A clip with the bytes of a validation or test clip is left out, with
    a warning; so is a test set of the folder. Raises UserError for a class that the data set does not have.
    """
    root = os.path.abspath(os.path.expanduser(folder))
    if not os.path.isdir(root):
        raise UserError(f"--extra_train_dir {folder}: there is no such folder.")
    extra = load_irmas(root, validation_fraction=0, test_fraction_if_no_test=0)["train"]
    if len(extra) == 0:
        raise UserError(f"--extra_train_dir {folder} holds no training clips: put them into train/<class>/*.wav.")
    elsewhere = {md5 for name in ("validation", "test") for md5 in splits[name]["md5"][:]}
    leaking = [row for row, md5 in enumerate(extra["md5"][:]) if md5 in elsewhere]
    if leaking:
        paths, warnings = extra["path"][:], []
        warn_of(
            warnings,
            [paths[row] for row in leaking],
            "is a validation or test clip too and is left out of training",
            "are validation or test clips too and are left out of training",
        )
        logger.warning("--extra_train_dir: %s", warnings[0])
        extra = extra.select(sorted(set(range(len(extra))) - set(leaking)))
    joined = copy.copy(splits)  # with what it knows of damaged files
    joined["train"] = concatenate_datasets([splits["train"], relabelled(extra, splits["train"], root)])
    return joined


def count_of(train: Dataset, folder: str | Path) -> int:
    """Return how many of the training clips lie in `folder`."""
    inside = to_text(os.path.abspath(os.path.expanduser(folder))) + os.sep
    return sum(path.startswith(inside) for path in train["path"][:])


def relabelled(extra: Dataset, train: Dataset, root: str) -> Dataset:
    """Return the extra clips with the classes of the data set in place of their folder's own."""
    names = extra.features["instruments"].feature.names
    classes: ClassLabel = train.features["instruments"].feature
    present = {names[label] for of_clip in extra["instruments"][:] for label in of_clip}
    if unknown := sorted(present - set(classes.names)):
        raise UserError(
            f"--extra_train_dir {root}: the data set has no class {unknown[0]}; it has {', '.join(classes.names)}."
        )
    ids = [classes.str2int(name) if name in classes.names else None for name in names]
    return extra.map(
        _rename, fn_kwargs={"ids": ids, "root": to_text(root)}, features=train.features, desc="Extra clips"
    )


def _rename(row: dict, ids: list[int | None], root: str) -> dict:
    recording = f"{root}: {row['recording']}"  # its own, whatever the data set's recordings are called
    return {"instruments": [ids[label] for label in row["instruments"]], "recording": recording, "song": recording}
