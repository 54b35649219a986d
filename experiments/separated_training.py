"""Does it matter whether training mixtures are separated after they are summed, as test music is?

python -m experiments.separated_training RECIPE --data_dir DATA --output_dir OUT [--field value ...] [--draws 3] [--seeds 3]

The recipe trains twice for each seed on the same fixed mixtures, half of them of two or three clips: once on separated sums, and
once on sums of separated clips, as a run makes them anew in every step. Both hear the same test music and the same
validation mixtures. Differences are paired, on the same resamples of songs.
"""

import argparse
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, List, Value
from transformers import set_seed

from irmas_dataset import WaveformColumn
from irmas_dataset.errors import UserError, start
from irmas_metric.bootstrap import paired_song_bootstrap
from irmas_metric.figures import decision_figures, ranking_figures
from irmas_recipe.report.text import with_interval
from irmas_recipe.training import evaluation
from irmas_recipe.training.clips import Mixtures, multi_hot
from irmas_recipe.training.data import load_data, prepare_splits
from irmas_recipe.training.model import build_model
from irmas_recipe.training.recipe import Recipe, parse_recipe
from irmas_recipe.training.separated import as_split, training_members
from irmas_recipe.training.thresholds import tune_thresholds
from irmas_recipe.training.train import build_trainer, train

FIGURES = ("micro_f1", "macro_f1", "lrap", "map")
KINDS = ("sums of separated clips", "separated sums")
OF_SEVERAL = 0.5  # of the mixtures: the share that has two or three clips


def main(argv: list[str]) -> None:
    """Train and score each kind with each seed, and print a row for each."""
    arguments, fields = parse_arguments(argv)
    labels = songs = None
    scores_of: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    thresholds: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    for seed in range(arguments.seeds):
        for number, kind in enumerate(KINDS):
            run_dir = arguments.output_dir / f"{number}-seed{seed}"
            own = [f"--separated_mixtures={arguments.draws}", f"--mix_probability={OF_SEVERAL}", "--mix_max_clips=3"]
            own += [f"--seed={seed}", f"--output_dir={run_dir}"]
            recipe = parse_recipe([arguments.recipe, *fields, *own])
            if recipe.data.thresholds_from != "validation":
                raise UserError(
                    f"--thresholds_from {recipe.data.thresholds_from} tunes on test clips: set it to validation."
                )
            test, scores, bars = run(recipe, kind)
            labels, songs = multi_hot(test), test["song"][:]
            scores_of[kind].append(scores)
            thresholds[kind].append(bars)
            print(f"{kind}, seed {seed}: LRAP {ranking_figures(labels, scores)['lrap']:.3f}", flush=True)
    print_rows(labels, scores_of, thresholds, songs)


def parse_arguments(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the arguments, and the recipe's own fields."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.separated_training", description=__doc__.split("\n")[0], allow_abbrev=False
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe with a separation")
    parser.add_argument("--output_dir", type=Path, required=True, help="a folder for each run")
    parser.add_argument("--draws", type=int, default=3, help="mixtures for each training clip (default: 3)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each kind (default: 3)")
    return parser.parse_known_args(argv)


def run(recipe: Recipe, kind: str) -> tuple[Dataset, np.ndarray, np.ndarray]:
    """Train a recipe on one kind of mixture; return the test clips, their scores (clips, classes) and the thresholds."""
    data = load_data(recipe.data)
    set_seed(recipe.training.seed)  # both kinds begin with the same weights
    model, extractor = build_model(recipe, data)
    rate = extractor.sampling_rate
    prepared, fields = prepare_splits(data, recipe.data, rate), recipe.augmentation
    if kind == KINDS[0]:
        whole = prepared["train"]
        members = training_members(whole, recipe.data, fields.mix_probability, fields.mix_max_clips)
        apart = prepare_splits(data, replace(recipe.data, separated_mixtures=0), rate)["train"]
        waveforms = list(Mixtures(WaveformColumn(apart), members))
        summed = Dataset.from_dict({"waveform": waveforms}, features=Features({"waveform": List(Value("int16"))}))
        digests = [hashlib.md5(waveform).hexdigest() for waveform in waveforms]
        prepared["train"] = as_split(summed, members, whole).add_column("md5", digests)
        recipe.data.separated_mixtures, fields.mix_probability = 0, 0.0
    trainer = build_trainer(recipe, prepared, model, extractor)
    train(recipe, trainer, None)
    how, mixtures = recipe.data.aggregation, trainer.eval_dataset
    thresholds = tune_thresholds(mixtures.labels, evaluation.clip_scores(trainer, mixtures, how))
    windows = evaluation.windows_of(prepared["test"], recipe.data, rate, evaluation.eval_batch(recipe))
    return prepared["test"], evaluation.clip_scores(trainer, windows, how), thresholds


def print_rows(labels: np.ndarray, scores: dict, thresholds: dict, songs: list) -> None:
    """Print each kind's figures, of scores and thresholds averaged over the seeds, and the paired differences."""
    averaged = {kind: (np.mean(scores[kind], axis=0), np.mean(thresholds[kind], axis=0)) for kind in KINDS}
    paired = paired_song_bootstrap(labels, *averaged[KINDS[1]], *averaged[KINDS[0]], songs)
    print(f"| training mixtures | {' | '.join(FIGURES)} |")
    print("|---" * (1 + len(FIGURES)) + "|")
    for kind, (mean, bars) in averaged.items():
        found = decision_figures(labels, (mean >= bars).astype(float)) | ranking_figures(labels, mean)
        print(f"| {kind} | {' | '.join(f'{found[figure]:.3f}' for figure in FIGURES)} |")
    cells = (with_interval(paired[name]["difference"], paired[name]["ci95"], signed=True) for name in FIGURES)
    print(f"| difference | {' | '.join(cells)} |")


if __name__ == "__main__":
    start(main)
