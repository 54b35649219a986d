"""Which validation mixtures give the better thresholds for test clips, on one trained run.

python -m experiments.validation_mixtures RUN [--seconds 12] [--max_test_clips N]

The run's model scores its test clips once, and several kinds of validation mixtures: of one excerpt each, or of clips
that go on with the others of their recording up to --seconds; and, where the run hears a part of the music only, summed
and then separated, or summed from separated clips. Each kind gives thresholds for the same scores. Differences from the
first kind are paired, on the same resamples of songs.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from datasets import DatasetDict

from irmas_dataset import prepare
from irmas_dataset.errors import start
from irmas_metric.bootstrap import paired_song_bootstrap
from irmas_metric.figures import decision_figures
from irmas_recipe.training.clips import WindowedClips, multi_hot
from irmas_recipe.training.data import EXCERPT_SECONDS, load_data, prepare_splits, separation
from irmas_recipe.training.evaluation import window_logits, windows_of, windows_of_mixtures
from irmas_recipe.training.features import device_features
from irmas_recipe.training.model import build_model
from irmas_recipe.training.recipe import Recipe, parse_recipe
from irmas_recipe.training.thresholds import tune_thresholds

BATCH_SIZE = 32
FIGURES = ("micro_f1", "macro_f1")


def main(argv: list[str]) -> None:
    """Score everything once, tune on each kind, print a row for each."""
    arguments = parse_arguments(argv)
    with tempfile.TemporaryDirectory() as scratch:
        recipe = recipe_of(arguments, scratch)
        splits = load_data(recipe.data)
        model, extractor = build_model(recipe, splits)
    rate, data, features = extractor.sampling_rate, recipe.data, device_features(extractor)
    prepared = prepare_splits(DatasetDict({name: splits[name] for name in ("validation", "test")}), data, rate)

    def scores_of(windows: WindowedClips, title: str) -> np.ndarray:
        return windows.scores(window_logits(model, features, windows, BATCH_SIZE, title), data.aggregation)

    test = prepared["test"]
    labels, scores = multi_hot(test), scores_of(windows_of(test, data, rate), "Test clips")
    thresholds = {
        kind: tune_thresholds(windows.labels, scores_of(windows, kind))
        for kind, windows in kinds_of_mixtures(recipe, prepared, splits, rate, arguments.seconds)
    }
    print_rows(labels, scores, thresholds, test["song"][:])


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.validation_mixtures", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "run", metavar="RUN", type=Path, help="folder of a finished run whose thresholds are from validation"
    )
    parser.add_argument("--seconds", type=float, default=12.0, help="of a long mixture, at most (default: 12)")
    parser.add_argument("--max_test_clips", type=int, default=None, help="use at most this many test clips")
    return parser.parse_args(argv)


def recipe_of(arguments: argparse.Namespace, scratch: str) -> Recipe:
    """Return the run's recipe with the run's weights and nothing left to train."""
    fields = {
        "model_name_or_path": arguments.run, "output_dir": scratch, "num_train_epochs": 0, "eval_strategy": "no",
        "save_strategy": "no", "load_best_model_at_end": "false", "use_cpu": "true",
    }  # fmt: skip
    recipe = parse_recipe(
        [str(arguments.run / "recipe.yaml"), *(f"--{name}={value}" for name, value in fields.items())]
    )
    recipe.model.model_config = recipe.model.feature_extractor_config = None
    recipe.data.max_test_clips = arguments.max_test_clips or recipe.data.max_test_clips
    return recipe


def kinds_of_mixtures(
    recipe: Recipe, prepared: DatasetDict, splits: DatasetDict, rate: int, seconds: float
) -> list[tuple[str, WindowedClips]]:
    """Return the name and the windows of each kind; the first is the one that the others are compared with."""
    data, lengths = recipe.data, {"one excerpt": 0.0, f"up to {seconds:g} s": seconds}
    kinds = [
        (name, windows_of_mixtures(prepared["validation"], data, rate, seconds=length))
        for name, length in lengths.items()
    ]
    if separation(data) is not None:
        clip_seconds = max(data.window_seconds, EXCERPT_SECONDS)
        apart = prepare(splits["validation"], rate, segment_seconds=clip_seconds, transform=separation(data))
        whole = replace(data, separation="none")
        sums = [
            (f"{name}, sums of separated clips", windows_of_mixtures(apart, whole, rate, seconds=length))
            for name, length in lengths.items()
        ]
        return sums + [(f"{name}, separated sums", windows) for name, windows in kinds]
    return kinds


def print_rows(labels: np.ndarray, scores: np.ndarray, thresholds: dict[str, np.ndarray], songs: list) -> None:
    """Print each kind's figures and their paired differences from the first kind, as a Markdown table."""
    first = next(iter(thresholds.values()))
    print(f"| mixtures | {' | '.join(f'{figure} | difference' for figure in FIGURES)} | mean threshold |")
    print("|---" * (2 + 2 * len(FIGURES)) + "|")
    for kind, of_kind in thresholds.items():
        found = decision_figures(labels, (scores >= of_kind).astype(float))
        paired = paired_song_bootstrap(labels, scores, of_kind, scores, first, songs)
        cells = [kind]
        for figure in FIGURES:
            low, high = paired[figure]["ci95"]
            cells += [f"{found[figure]:.3f}", f"{paired[figure]['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"]
        print(f"| {' | '.join(cells)} | {of_kind.mean():.3f} |")


if __name__ == "__main__":
    start(main)
