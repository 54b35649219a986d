"""The thresholds with which a released AudioSet checkpoint names IRMAS's instruments, without any training.

python -m experiments.released_thresholds NAME FOLDER --data "what the recordings are" [--output F]

FOLDER is a folder of one's own, train/<class>/*, with IRMAS's class codes and with music: thresholds from single notes are
so low that music reaches nearly all of them. At most CLIPS_PER_CLASS clips of each class are mixed as validation clips are: a
threshold depends on how common an instrument is, and a collection's sizes say nothing about music. One threshold per instrument is tuned on the mixtures and written to released_thresholds.json. The
figures come from halves that share no recording: each is judged by the thresholds of the other.
"""

import argparse
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict, concatenate_datasets

from irmas_dataset.errors import UserError, start
from irmas_dataset.labels import INSTRUMENT_CODES, readable_name
from irmas_dataset.splits import halve, merge_groups
from irmas_dataset.whole_file import write_json
from irmas_metric.figures import decision_figures
from irmas_recipe.report.provenance import commit
from irmas_recipe.training.data import load_data, prepare_splits
from irmas_recipe.training.evaluation import window_logits, windows_of_mixtures
from irmas_recipe.training.features import device_features
from irmas_recipe.training.model import load_model
from irmas_recipe.training.recipe import Recipe, parse_recipe
from irmas_recipe.training.released import find_released
from irmas_recipe.training.released_answers import FILE, PROTOCOL, read_measurements
from irmas_recipe.training.thresholds import best_single_threshold, tune_thresholds

BATCH_SIZE = 32
CLIPS_PER_CLASS = 10


def main(argv: list[str]) -> None:
    """Measure, print the figures and write the thresholds."""
    arguments = parse_arguments(argv)
    released = find_released(arguments.name)
    fields = PROTOCOL | {"model_name_or_path": released.path, "data_dir": arguments.folder}
    recipe = parse_recipe(
        ["mobilenet/zero_shot", "--use_cpu", *(f"--{name}={value}" for name, value in fields.items())]
    )
    clips = as_many_of_each(all_clips(recipe), recipe.data.split_seed)
    model, extractor = load_model(recipe.model, list(INSTRUMENT_CODES), PROTOCOL["window_seconds"], trained=False)
    prepared = prepare_splits(DatasetDict({"test": clips}), recipe.data, extractor.sampling_rate)["test"]

    def scored(part: Dataset) -> tuple[np.ndarray, np.ndarray]:
        windows = windows_of_mixtures(part, recipe.data, extractor.sampling_rate)
        logits = window_logits(model, device_features(extractor), windows, BATCH_SIZE, "Listening")
        return windows.labels, windows.scores(logits, PROTOCOL["aggregation"])

    labels, scores = scored(prepared)
    thresholds = tune_thresholds(labels, scores)
    measured = {
        "command": f"python -m experiments.released_thresholds {released.name} FOLDER --data DATA",
        "commit": commit(),
        "data": {"what": arguments.data, "clips": clips_of_classes(prepared), "mixtures": len(labels)},
        **PROTOCOL,
        "thresholds": {readable_name(code): round(float(value), 6) for code, value in zip(INSTRUMENT_CODES, thresholds, strict=True)},
        "single_threshold": round(best_single_threshold(labels, scores), 6),
        "figures": figures_of_halves(*[scored(half) for half in halves(prepared, recipe.data.split_seed)]),
    }  # fmt: skip
    write_json(arguments.output, read_measurements() | {released.name: measured})
    print(f"{released.path}: {measured['thresholds']}\n{measured['figures']}\nWrote {arguments.output}")


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.released_thresholds", description=__doc__.split("\n")[0]
    )
    parser.add_argument("name", metavar="NAME", help="a released checkpoint, such as mn04")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="train/<class>/*, with IRMAS's class codes")
    parser.add_argument("--data", required=True, help="what the recordings are, in words")
    parser.add_argument("--output", type=Path, default=FILE, help="default: the file that `predict` reads")
    return parser.parse_args(argv)


def all_clips(recipe: Recipe) -> Dataset:
    """Return all clips of the recipe's folder; UserError unless its classes are IRMAS's."""
    splits = load_data(recipe.data, needed=("train",))
    classes = splits["train"].features["instruments"].feature.names
    if tuple(classes) != INSTRUMENT_CODES:
        raise UserError(f"{recipe.data.data_dir} has the classes {', '.join(classes)}: IRMAS's {', '.join(INSTRUMENT_CODES)} are needed.")  # fmt: skip
    return concatenate_datasets([split for split in splits.values() if len(split)])


def as_many_of_each(clips: Dataset, seed: int) -> Dataset:
    """Return a random choice of CLIPS_PER_CLASS clips of each class, or all that it has."""
    of_class: dict[int, list[int]] = {}
    for row in np.random.default_rng(seed).permutation(len(clips)):
        of_class.setdefault(clips[int(row)]["instruments"][0], []).append(int(row))
    return clips.select(sorted(row for rows in of_class.values() for row in rows[:CLIPS_PER_CLASS]))


def halves(prepared: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """Return two halves of the clips that share no recording."""
    first = halve(merge_groups(prepared["recording"][:], prepared["md5"][:]), prepared["instruments"][:], seed)
    rows = range(len(prepared))
    return prepared.select([row for row in rows if first[row]]), prepared.select(
        [row for row in rows if not first[row]]
    )


def clips_of_classes(prepared: Dataset) -> dict[str, int]:
    """Return how many clips each class has."""
    counts = np.bincount(np.concatenate(prepared["instruments"][:]), minlength=len(INSTRUMENT_CODES))
    return dict(zip(INSTRUMENT_CODES, map(int, counts), strict=True))


def figures_of_halves(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]
) -> dict[str, dict[str, float]]:
    """Return micro-F1 and macro-F1 of both halves together: by the other half's thresholds, and by 0.5.

    Args:
        first, second: labels and scores of a half's mixtures, (mixtures, classes) each.
    """
    labels = np.concatenate([first[0], second[0]])
    tuned = [scores >= tune_thresholds(*other) for (_, scores), other in ((first, second), (second, first))]
    decisions = {"tuned": np.concatenate(tuned), "0.5": np.concatenate([first[1], second[1]]) >= 0.5}
    figures = {}
    for name, heard in decisions.items():
        found = decision_figures(labels, heard.astype(float))
        figures[name] = {figure: round(found[figure], 3) for figure in ("micro_f1", "macro_f1")}
    return figures


if __name__ == "__main__":
    start(main)
