"""Hand-made features and a classifier, trained and measured by the same protocol as every network.

irmas classical/sarwar [--field value ...]
"""

import time
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, DatasetDict

from irmas_dataset import WaveformColumn
from irmas_dataset.errors import UserError
from irmas_dataset.splits import merge_groups
from irmas_recipe.baselines.classical.classifiers import (
    CalibratedClassifiers,
    build,
    candidates,
    fold_of_clip,
    search_and_fit,
)
from irmas_recipe.baselines.classical.feature_table import cache_path, feature_table
from irmas_recipe.baselines.classical.features import SAMPLING_RATE, column_names, groups
from irmas_recipe.baselines.classical.importance import draw_importance, permutation_importance
from irmas_recipe.baselines.classical.recipe import ClassicalRecipe
from irmas_recipe.baselines.classical.stored import FILE, save_classifiers
from irmas_recipe.report.results import Results
from irmas_recipe.report.write import finish, results_in_words
from irmas_recipe.training import evaluation, machine
from irmas_recipe.training.clips import Mixtures, WindowedClips, classes_to_mix, multi_hot, united
from irmas_recipe.training.data import data_folder, describe_data, load_data, prepare_splits, training_counts
from irmas_recipe.training.run_folder import RunFolder, choose
from irmas_recipe.training.songs import MOMENTS_FILE, tune_timeline, validation_songs, write_moments
from irmas_recipe.training.thresholds import proportions_of, validation_mixtures

CLASSIFIERS_IN_WORDS = {
    "random_forest": "random forests",
    "bagging": "bagged decision trees",
    "decision_tree": "decision trees",
    "nearest_neighbours": "nearest neighbours",
    "naive_bayes": "naive Bayes classifiers",
    "svm": "support vector machines with a radial kernel",
    "gradient_boosting": "gradient-boosted trees",
}

HOW_KEPT = f"`{FILE}` holds the fitted classifiers, which are loaded without running code from the file."


def main(recipe: ClassicalRecipe) -> None:
    """Recipe -> data -> features -> classifiers -> evaluation -> report."""
    folder = begin(recipe)
    if folder.is_finished:
        print(results_in_words(folder))
        return
    classical = recipe.classical
    settings = candidates(classical.classifier, classical.feature_selection, classical.grid)
    data = load_data(recipe.data)
    prepared = prepare_splits(data, recipe.data, SAMPLING_RATE)
    folder.claim(recipe)
    system, cost = train(recipe, settings, prepared["train"])
    results, importances = evaluate(recipe, data, prepared, system, cost, folder.work)
    save_classifiers(system, folder.work)
    draw_importance(importances, folder.work / "figures" / "feature_importance.png")
    finish(folder, results, how_made=how_made(recipe, system), how_kept=HOW_KEPT, library="scikit-learn")
    print(results_in_words(folder))


def begin(recipe: ClassicalRecipe) -> RunFolder:
    """Choose the run's folder; nothing is changed yet.

    Raises:
        UserError: the folder is a network's, or a run there may not be replaced.
    """
    run_dir = recipe.run_dir
    if (run_dir / "config.json").exists() or list(run_dir.glob("checkpoint-*")):
        raise UserError(f"--output_dir {run_dir} holds a network's run: name another folder.")
    return choose(recipe, run_dir, recipe.classical.overwrite_output_dir)


def train(recipe: ClassicalRecipe, settings: list[dict], prepared: Dataset) -> tuple[CalibratedClassifiers, dict]:
    """Return the fitted system, with the best of the settings, and the `train` part of results.json."""
    classical, start = recipe.classical, time.perf_counter()
    windows, fold_of_row = training_windows(recipe, prepared)
    features = feature_table(windows, classical.features, prepared, recipe.processes, "the training clips")
    rows = np.repeat(np.arange(len(fold_of_row)), windows.windows_per_clip)
    system = search_and_fit(
        build(classical.classifier, classical.feature_selection, classical.seed), settings, features,
        windows.labels[rows].astype(int), fold_of_row[rows], recipe.processes,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    return system, {
        "seconds": round(seconds, 3),
        "clips_per_second": round(len(fold_of_row) / seconds, 3),
        "peak_memory_bytes": machine.peak_memory_bytes(torch.device("cpu")),
        "device": machine.cpu_name(),
        "processes": recipe.processes,
    }


def training_windows(recipe: ClassicalRecipe, prepared: Dataset) -> tuple[WindowedClips, np.ndarray]:
    """Return the training rows as windows, and the fold of each clip or mixture.

    Clips are mixed within a fold only, so that no recording is on both sides of the search.
    """
    classical, labels = recipe.classical, multi_hot(prepared)
    recordings = prepared["recording"][:]
    fold = fold_of_clip(labels, merge_groups(recordings, prepared["md5"][:]), classical.search_folds, classical.seed)
    if classical.mix_probability == 0:
        return evaluation.windows_of(prepared, recipe.data, SAMPLING_RATE), fold
    proportions = proportions_of(classical.mix_probability, classical.mix_max_clips)
    clips, members, fold_of_mixture = WaveformColumn(prepared), [], []
    classes = classes_to_mix(clips, labels)
    for number in range(classical.search_folds):
        of_fold = np.flatnonzero(fold == number)
        of_clips = [classes[clip] for clip in of_fold], [recordings[clip] for clip in of_fold]
        found = validation_mixtures(*of_clips, classical.seed, proportions)
        members += [tuple(int(of_fold[clip]) for clip in mixture) for mixture in found]
        fold_of_mixture += [number] * len(found)
    window, hop = evaluation.window_and_hop_samples(recipe.data, SAMPLING_RATE)
    return WindowedClips(Mixtures(clips, members), united(labels, members), window, hop), np.array(fold_of_mixture)


def evaluate(
    recipe: ClassicalRecipe,
    data: DatasetDict,
    prepared: DatasetDict,
    system: CalibratedClassifiers,
    cost: dict,
    run_dir: Path,
) -> tuple[Results, dict]:
    """Score validation mixtures and test clips, tune thresholds, write both; return results and importances."""
    classical, settings = recipe.classical, recipe.data
    mixtures = evaluation.windows_of_mixtures(prepared["validation"], settings, SAMPLING_RATE)
    heard = feature_table(mixtures, classical.features, prepared["validation"], recipe.processes, "validation mixtures")
    validation_scores = mixtures.scores(system.logits(heard), settings.aggregation)

    test = evaluation.windows_of(prepared["test"], settings, SAMPLING_RATE)
    computed_now, start = not cache_path(test, classical.features, prepared["test"]).is_file(), time.perf_counter()
    features = feature_table(test, classical.features, prepared["test"], recipe.processes, "the test clips")
    scores = test.scores(system.logits(features), settings.aggregation)
    if computed_now:  # the speed of reading a cache is nobody's
        cost = cost | {"inference_clips_per_second": round(len(scores) / (time.perf_counter() - start), 3)}

    thresholds, reported = evaluation.tune_and_write(
        prepared, mixtures, validation_scores, scores, settings, data_folder(recipe.data), run_dir
    )
    columns = column_names(classical.features)
    rows = np.repeat(np.arange(len(validation_scores)), mixtures.windows_per_clip)
    importances = permutation_importance(
        system.logits, heard, mixtures.labels[rows], groups(columns), classical.importance_repeats, classical.seed
    )
    results = Results.measure(
        recipe=recipe.values(),
        seed=classical.seed,
        dataset=describe_data(settings, data, reported),
        train=cost,
        protocol=evaluation.protocol(settings),
        labels=multi_hot(prepared["test"].select(reported)),
        scores=scores[reported],
        songs=prepared["test"].select(reported)["song"],
        thresholds=thresholds,
        training_counts=training_counts(settings, data["train"]),
        more={"search": {"chosen": system.chosen, "tried": system.search}, "importances": importances}
        | tuned_on_songs(recipe, prepared["validation"], system, run_dir),
    )
    return results, importances


def tuned_on_songs(
    recipe: ClassicalRecipe, validation: Dataset, system: CalibratedClassifiers, run_dir: Path
) -> dict[str, dict]:
    """Return what the timeline needs, under "moments", and write the moments that it was tuned on; {} where tests tune."""
    data, features = recipe.data, recipe.classical.features
    if data.thresholds_from != "validation":
        return {}
    window, hop = evaluation.window_and_hop_samples(data, SAMPLING_RATE)
    songs = validation_songs(validation, data, window, hop, SAMPLING_RATE)
    heard = feature_table(songs.windows, features, validation, recipe.processes, "validation songs")
    moments = songs.moments(system.logits(heard), data.aggregation)
    write_moments(run_dir / MOMENTS_FILE, moments, validation.features["instruments"].feature.names)
    return {"moments": {name: values.tolist() for name, values in tune_timeline(moments).items()}}


def how_made(recipe: ClassicalRecipe, system: CalibratedClassifiers) -> str:
    """Return the card's section on features, classifier and search."""
    classical = recipe.classical
    chosen = ", ".join(f"{name} {value}" for name, value in system.chosen.items())
    selection = (
        ", each on the columns that an L1 linear SVM keeps for it" if classical.feature_selection == "l1" else ""
    )
    mixed = f", {classical.mix_probability:.0%} of them mixtures" if classical.mix_probability else ""
    return (
        f"It is no network: {len(column_names(classical.features))} hand-made features of {recipe.data.window_seconds:g} s "
        f"of music (set `{classical.features}`, librosa) and {CLASSIFIERS_IN_WORDS[classical.classifier]}, one per class against "
        f"the rest{selection}, trained on excerpts{mixed}. Chosen among {len(system.search)} settings in "
        f"{classical.search_folds} folds of whole training recordings: {chosen or 'the only one'}. Scores are calibrated on "
        "the same held-out folds (Platt 1999)."
    )
