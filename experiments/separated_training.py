"""Does it matter whether training mixtures are separated after they are summed, as test music is?

python -m experiments.separated_training RECIPE --data_dir DATA --output_dir OUT [--field value ...] [--draws 3] [--seeds 3]

The recipe trains twice for each seed on the same fixed mixtures, half of them of two or three clips: once on separated sums, and
once on sums of separated clips, as a run makes them anew in every step. Both hear the same test music and the same
validation mixtures. Differences are paired, on the same resamples of songs.
"""

import argparse
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, List, Value

from irmas_dataset import WaveformColumn, prepare
from irmas_dataset.errors import UserError, start
from irmas_metric.bootstrap import paired_song_bootstrap
from irmas_metric.figures import decision_figures, ranking_figures
from irmas_recipe.training import evaluation
from irmas_recipe.training.clips import Mixtures, multi_hot, united
from irmas_recipe.training.data import EXCERPT_SECONDS, load_data, prepare_splits, separation
from irmas_recipe.training.model import build_model
from irmas_recipe.training.recipe import Recipe, parse_recipe
from irmas_recipe.training.separated import separated
from irmas_recipe.training.thresholds import tune_thresholds
from irmas_recipe.training.train import build_trainer, train

FIGURES = ("micro_f1", "macro_f1", "lrap", "map")
KINDS = ("sums of separated clips", "separated sums")
OF_SEVERAL = 0.5  # of the mixtures: the share that has two or three clips


def main(argv: list[str]) -> None:
    """Train and score each kind with each seed, and print a row for each."""
    arguments, fields = parse_arguments(argv)
    labels = songs = None
    mean_scores: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    thresholds: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    for seed in range(arguments.seeds):
        for number, kind in enumerate(KINDS):
            run_dir = arguments.output_dir / f"{number}-seed{seed}"
            recipe = parse_recipe([arguments.recipe, *fields, f"--seed={seed}", f"--output_dir={run_dir}"])
            if separation(recipe.data) is None or recipe.data.thresholds_from != "validation":
                raise UserError(
                    f"{arguments.recipe} must separate: set --separation, and --thresholds_from validation."
                )
            test, scores, bars = run(recipe, kind, arguments.draws)
            labels, songs = multi_hot(test), test["song"][:]
            mean_scores[kind].append(scores)
            thresholds[kind].append(bars)
            print(f"{kind}, seed {seed}: LRAP {ranking_figures(labels, scores)['lrap']:.3f}", flush=True)
    print_rows(labels, mean_scores, thresholds, songs)


def parse_arguments(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the arguments, and the recipe's own fields."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.separated_training", description=__doc__.split("\n")[0], allow_abbrev=False
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe with a separation")
    parser.add_argument("--output_dir", type=Path, required=True, help="a folder for each run")
    parser.add_argument("--draws", type=int, default=3, help="mixtures that begin with each training clip (default: 3)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each kind (default: 3)")
    return parser.parse_known_args(argv)


def run(recipe: Recipe, kind: str, draws: int) -> tuple[Dataset, np.ndarray, np.ndarray]:
    """Train a recipe on one kind of mixture; return the test clips, their scores (clips, classes) and the thresholds."""
    data = load_data(recipe.data)
    model, extractor = build_model(recipe, data)
    rate = extractor.sampling_rate
    prepared = prepare_splits(data, recipe.data, rate)
    clip_seconds = max(recipe.data.window_seconds, EXCERPT_SECONDS)
    whole = prepare(data["train"], rate, segment_seconds=clip_seconds)
    members = drawn_members(multi_hot(whole), draws)
    begun = time.perf_counter()
    if kind == KINDS[0]:
        mixtures = Mixtures(WaveformColumn(prepared["train"]), members)
    else:
        many = whole.select(np.resize(np.arange(len(whole)), len(members)))  # as many rows as mixtures
        mixtures = separated(Mixtures(WaveformColumn(whole), members), many, separation(recipe.data), rate)
        print(f"{len(members)} mixtures in {time.perf_counter() - begun:.0f} s (0 where they were cached)", flush=True)
    trainer = build_trainer(recipe, prepared | {"train": table_of(mixtures, whole)}, model, extractor)
    train(recipe, trainer, None)
    how, mixtures = recipe.data.aggregation, trainer.eval_dataset
    thresholds = tune_thresholds(mixtures.labels, evaluation.clip_scores(trainer, mixtures, how))
    windows = evaluation.windows_of(prepared["test"], recipe.data, rate, evaluation.eval_batch(recipe))
    return prepared["test"], evaluation.clip_scores(trainer, windows, how), thresholds


def drawn_members(labels: np.ndarray, draws: int) -> list[tuple[int, ...]]:
    """Return the clips of each mixture: `draws` begin with each clip, with up to two others that share no class with it."""
    random, members = np.random.default_rng(0), []
    for first in np.repeat(np.arange(len(labels)), draws):
        chosen = [int(first)]
        for _ in range(int(random.integers(1, 3)) if random.random() < OF_SEVERAL else 0):
            others = np.flatnonzero((labels[:, labels[chosen].any(axis=0)] == 0).all(axis=1))
            chosen.append(int(random.choice(others)))
        members.append(tuple(chosen))
    return members


def table_of(mixtures: Mixtures, clips: Dataset) -> Dataset:
    """Return mixtures as a prepared split, with the united labels."""
    labels = united(multi_hot(clips), mixtures.members)
    features = Features(
        {
            "path": Value("string"),
            "md5": Value("string"),
            "instruments": clips.features["instruments"],
            "waveform": List(Value("int16")),
        }
    )
    paths: Sequence[str] = clips["path"][:]
    waveforms = [mixtures[index] for index in range(len(mixtures))]
    rows = {
        "path": [" + ".join(paths[clip] for clip in of_one) for of_one in mixtures.members],
        "instruments": [np.flatnonzero(row == 1).tolist() for row in labels],
        "md5": [hashlib.md5(waveform).hexdigest() for waveform in waveforms],
        "waveform": waveforms,
    }
    return Dataset.from_dict(rows, features=features)


def print_rows(labels: np.ndarray, scores: dict, thresholds: dict, songs: list) -> None:
    """Print each kind's figures, of scores and thresholds averaged over the seeds, and the paired differences."""
    averaged = {kind: (np.mean(scores[kind], axis=0), np.mean(thresholds[kind], axis=0)) for kind in KINDS}
    paired = paired_song_bootstrap(labels, *averaged[KINDS[1]], *averaged[KINDS[0]], songs)
    print(f"| training mixtures | {' | '.join(FIGURES)} |")
    print("|---" * (1 + len(FIGURES)) + "|")
    for kind, (mean, bars) in averaged.items():
        found = decision_figures(labels, (mean >= bars).astype(float)) | ranking_figures(labels, mean)
        print(f"| {kind} | {' | '.join(f'{found[figure]:.3f}' for figure in FIGURES)} |")
    cells = (
        f"{paired[name]['difference']:+.3f} [{', '.join(f'{e:+.3f}' for e in paired[name]['ci95'])}]"
        for name in FIGURES
    )
    print(f"| difference | {' | '.join(cells)} |")


if __name__ == "__main__":
    start(main)
