"""From the fields of a recipe to prepared clips: find the folder, load the splits, check them, decode and resample once."""

import copy
import math
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict

from irmas_dataset import describe, load_irmas, prepare
from irmas_dataset.download import ensure_irmas
from irmas_dataset.errors import UserError
from irmas_dataset.export.layout import is_exported
from irmas_dataset.export.stream import load_streamed
from irmas_dataset.export.tables import files_folder
from irmas_dataset.extra import add_training_clips, without_extra
from irmas_dataset.forms.form import is_hub_id, is_remote
from irmas_dataset.forms.listing import home_of
from irmas_dataset.separation import Separation
from irmas_dataset.splits import halve, merge_groups
from irmas_dataset.synthetic import FORMAT_VERSION, synthesize
from irmas_recipe.training.clips import multi_hot, present_counts
from irmas_recipe.training.fields import DataArguments
from irmas_recipe.training.recipe import Recipe

EXCERPT_SECONDS = 3.0  # IRMAS's training excerpts; longer training clips of one's own are cut into such pieces


def load_data(data: DataArguments, needed: tuple[str, ...] = ("train", "validation", "test")) -> DatasetDict:
    """Return train, validation and test, those `needed` with clips; make or download them first where the recipe says so.

    Nothing is downloaded where no training clips are needed.

    Raises:
        UserError: no data, or data that cannot be used.
    """
    options = {
        "validation_fraction": data.validation_fraction, "seed": data.split_seed, "corrections": data.corrections,
        "recording_pattern": data.recording_pattern, "columns": data.columns,
    }  # fmt: skip
    if data.streaming:
        splits = load_streamed(data.data_dir, **options)
    else:
        if data.data_dir == "synthetic":
            synthesize(
                data_folder(data), train=data.synthetic_train, test=data.synthetic_test, seed=data.synthetic_seed
            )
        elif not is_remote(data.data_dir):
            ensure_irmas(data.data_dir, may_fetch="train" in needed)
        splits = load_irmas(data_folder(data) if data.data_dir == "synthetic" else data.data_dir, **options)
    check_classes(splits["train"].features["instruments"].feature.names, data.data_dir)
    if data.extra_train_dir is not None:
        splits = add_training_clips(
            splits, data.extra_train_dir, data.extra_label_map, data.columns_of_extra, by_sound=data.compare_extra_sound
        )
    for split, most in (("train", data.max_train_clips), ("test", data.max_test_clips)):
        if most is not None and most < len(splits[split]):
            splits[split] = splits[split].shuffle(seed=data.split_seed).select(range(most))
    for split in needed:
        if len(splits[split]) == 0:
            raise UserError(f"{data.data_dir} has no {split} clips: add recordings, or change --validation_fraction.")
    return splits


def check_classes(names: list[str], folder: str) -> None:
    """Raise UserError for classes that no table of scores could hold: a single one, or one named as another column."""
    if len(names) < 2:
        raise UserError(f"{folder} holds one class, {names[0]}: there is nothing to tell apart; add folders of others.")
    of_clips = {"clip", "song", "instruments", "unknown", "path", "duration_seconds"}
    of_moments = {"start_seconds", "end_seconds", *(f"label_{name}" for name in names)}
    if taken := sorted((of_clips | of_moments) & set(names)):
        raise UserError(f"{folder} holds a class named '{taken[0]}', as a column of a table is: rename its folder.")


def check_before_training(recipe: Recipe, splits: DatasetDict) -> None:
    """Refuse what would show only when hours of training are lost; nothing where nothing is trained.

    Raises:
        UserError: a window longer than every training clip, or a test set that cannot be halved.
    """
    data, longest = (
        recipe.data,
        max(math.inf if seconds is None else seconds for seconds in splits["train"]["duration"][:]),
    )
    if recipe.training.num_train_epochs == 0:
        return
    if data.window_seconds > 1.1 * longest:
        raise UserError(
            f"--window_seconds {data.window_seconds:g} is longer than every training clip of {data_folder(data)} (the "
            f"longest lasts {longest:.1f} s): the model would learn from padding; set it to {longest:.1f} or less."
        )
    if data.thresholds_from == "test_half":
        test_halves(splits["test"], data.split_seed)


def test_halves(test: Dataset, seed: int) -> tuple[list[int], list[int]]:
    """Return the rows of a test set's two halves, to tune thresholds on and to report; no song or file is in both.

    Raises:
        UserError: the test set is of one song.
    """
    tuning = halve(merge_groups(test["song"][:], test["md5"][:]), test["instruments"][:], seed)
    if not any(tuning):
        raise UserError(
            "The test set is of one song and cannot be halved: set --thresholds_from validation, or add recordings."
        )
    rows = range(len(test))
    return [row for row in rows if tuning[row]], [row for row in rows if not tuning[row]]


def data_folder(data: DataArguments) -> Path:
    """Return where the recipe's music is; synthetic music is kept by its version, size and seed."""
    if data.streaming and is_exported(data.data_dir):
        return files_folder(data.data_dir)
    if data.data_dir == "synthetic":
        return Path(
            f"data/synthetic-v{FORMAT_VERSION}-{data.synthetic_train}-{data.synthetic_test}-seed{data.synthetic_seed}"
        )
    return home_of(data.data_dir, data.columns, is_form=data.streaming)


def prepare_splits(splits: DatasetDict, data: DataArguments, sampling_rate: int) -> DatasetDict:
    """Decode, resample and, where asked for, separate every clip, once; what is cached already is only opened.

    Validation clips stay whole, and so do training clips for `separated_mixtures`: they are mixed first and separated
    then, as test music is.
    """
    clip_seconds = max(data.window_seconds, EXCERPT_SECONDS)
    mixed_first = ("validation", "train") if data.separated_mixtures else ("validation",)
    return DatasetDict(
        {
            name: split
            if name == "train" and data.streaming
            else prepare(
                split,
                sampling_rate,
                segment_seconds=None if name == "test" else clip_seconds,
                num_proc=processes(data),
                transform=None if name in mixed_first else separation(data),
            )
            for name, split in splits.items()
        }
    )


def separation(data: DataArguments) -> Separation | None:
    """Return what finds the part of the music that the recipe hears; None where it hears all."""
    return None if data.separation == "none" else Separation(data.separation)


def processes(data: DataArguments) -> int | None:
    """Return how many processes decode and separate; None: as many as pay."""
    found = separation(data)
    return 1 if found is not None and found.by_network else data.preparation_processes


def describe_data(data: DataArguments, splits: DatasetDict, reported: list[int]) -> dict:
    """Return the `dataset` part of results.json; of the test set, the rows whose figures are reported."""
    measured = copy.copy(splits)  # with what it knows of damaged files
    measured["test"] = splits["test"].select(reported)
    description = describe(measured)
    if is_hub_id(data.data_dir):
        description["hub_id"] = data.data_dir
    if data.extra_train_dir is not None:
        description["extra_train_clips"] = len(splits["train"]) - len(own_training_clips(data, splits["train"]))
    return description


def own_training_clips(data: DataArguments, train: Dataset) -> Dataset:
    """Return the training clips of `data_dir`, without those of `extra_train_dir`."""
    return train if data.extra_train_dir is None else without_extra(train, data.extra_train_dir)


def training_counts(data: DataArguments, train: Dataset) -> np.ndarray | None:
    """Return how many training clips of `data_dir` have each class, (classes,), or None where it has none.

    The trivial ranking belongs to the data set, so that it is the same in every run and in `evaluate`.
    """
    own = own_training_clips(data, train)
    return present_counts(multi_hot(own)) if len(own) else None
