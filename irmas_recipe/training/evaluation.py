"""The protocol: clips -> windows -> logits -> scores, the figures, predictions.parquet and results.json."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict
from transformers import EvalPrediction, PreTrainedModel, Trainer

from irmas_dataset import WaveformColumn
from irmas_dataset.whole_file import whole_file
from irmas_metric.figures import ranking_figures
from irmas_metric.protocol import test_results
from irmas_metric.trivial import trivial_figures
from irmas_recipe.training.clips import Mixtures, WindowedClips, multi_hot
from irmas_recipe.training.data import data_folder, describe_data, test_halves
from irmas_recipe.training.fields import DataArguments
from irmas_recipe.training.recipe import Recipe
from irmas_recipe.training.thresholds import tune_thresholds, validation_mixtures
from irmas_recipe.training.trainer import InstrumentTrainer

FIXED_THRESHOLD = 0.5
THRESHOLDS_FROM = {
    "validation": "validation mixtures",
    "test_half": "the other half of the test set, which shares no song with this one",
}
"""Value of a recipe's `thresholds_from` -> what results.json calls it."""


def window_and_hop_samples(data: DataArguments, sampling_rate: int) -> tuple[int, int]:
    """Return the window's and the hop's length in samples; the hop is half a window unless the recipe says."""
    window = round(data.window_seconds * sampling_rate)
    hop = round((data.hop_seconds or data.window_seconds / 2) * sampling_rate)
    return window, max(1, hop)


def windows_of(prepared: Dataset, data: DataArguments, sampling_rate: int, batch_size: int = 1) -> WindowedClips:
    """Return the windows of a prepared split's clips."""
    window, hop = window_and_hop_samples(data, sampling_rate)
    return WindowedClips(WaveformColumn(prepared), multi_hot(prepared), window, hop, batch_size)


def windows_of_mixtures(
    prepared: Dataset, data: DataArguments, sampling_rate: int, batch_size: int = 1
) -> WindowedClips:
    """Return the windows of mixtures of 1 to 3 validation clips, in the proportions of IRMAS's test set.

    Training clips carry one label and test clips several, so that single clips would tune thresholds for another task.
    """
    labels = multi_hot(prepared)
    classes = [set(np.flatnonzero(row)) for row in labels]
    members = validation_mixtures(classes, prepared["recording"], seed=data.split_seed)
    united = np.stack([labels[list(of_one)].max(axis=0) for of_one in members])
    window, hop = window_and_hop_samples(data, sampling_rate)
    return WindowedClips(Mixtures(WaveformColumn(prepared), members), united, window, hop, batch_size)


def validation_figures(windows: WindowedClips, aggregation: str) -> Callable[[EvalPrediction], dict[str, float]]:
    """Return the Trainer's `compute_metrics`: mAP and LRAP of the clips, which need no threshold."""

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        figures = ranking_figures(windows.labels, windows.scores(prediction.predictions, aggregation))
        return {name: float(figures[name]) for name in ("map", "lrap")}

    return compute


def tune_and_write(
    prepared: DatasetDict, mixtures: WindowedClips, mixture_scores: np.ndarray, scores: np.ndarray,
    data: DataArguments, data_dir: Path, run_dir: Path | None,
) -> tuple[np.ndarray, list[int]]:  # fmt: skip
    """Tune thresholds on what the recipe says; return them, (classes,), and the test rows whose figures are reported.

    run_dir: where predictions.parquet (the reported test clips) and validation_predictions.parquet (what the thresholds
    were tuned on, from which an ensemble learns) are written; None writes nothing.
    """
    test = prepared["test"]
    if data.thresholds_from == "test_half":
        tuning, reported = test_halves(test, data.split_seed)
        thresholds = tune_thresholds(multi_hot(test)[tuning], scores[tuning])
    else:
        tuning, reported = None, list(range(len(test)))
        thresholds = tune_thresholds(mixtures.labels, mixture_scores)
    if run_dir is not None:
        write_predictions(run_dir / "predictions.parquet", test.select(reported), scores[reported], data_dir)
        tuned_on = run_dir / "validation_predictions.parquet"
        if tuning is None:
            write_validation_predictions(tuned_on, prepared["validation"], mixtures, mixture_scores, data_dir)
        else:
            write_predictions(tuned_on, test.select(tuning), scores[tuning], data_dir)
    return thresholds, reported


def clip_scores(trainer: Trainer, windows: WindowedClips, aggregation: str) -> np.ndarray:
    """Return the model's scores (clips, classes); every process takes its share of the windows."""
    trainer.compute_metrics = None  # belongs to the validation clips
    return windows.scores(trainer.predict(windows).predictions, aggregation)


def write_scores(path: Path, clips, songs, labels: np.ndarray, scores: np.ndarray, classes: list[str]) -> None:
    """Write a predictions file: one row a clip with its song, instruments and one score column a class."""
    instruments = [[classes[column] for column in np.flatnonzero(row)] for row in labels]
    frame = pd.DataFrame({"clip": list(clips), "song": list(songs), "instruments": instruments})
    frame = pd.concat([frame, pd.DataFrame(scores.astype(np.float64), columns=classes)], axis=1)
    frame.to_parquet(path, index=False)


def clip_names(dataset: Dataset, data_dir: Path) -> list[str]:
    """Return each clip's path inside the data folder."""
    return [os.path.relpath(path, data_dir) for path in dataset["path"]]


def write_predictions(path: Path, test: Dataset, scores: np.ndarray, data_dir: Path) -> None:
    """Write predictions.parquet: the test clips' scores."""
    classes = test.features["instruments"].feature.names
    write_scores(path, clip_names(test, data_dir), test["song"], multi_hot(test), scores, classes)


def write_validation_predictions(
    path: Path, validation: Dataset, windows: WindowedClips, scores: np.ndarray, data_dir: Path
) -> None:
    """Write the validation mixtures' scores, from which an ensemble learns; a mixture is named by its clips."""
    clips, classes = clip_names(validation, data_dir), validation.features["instruments"].feature.names
    names = [" + ".join(clips[i] for i in members) for members in windows.clips.members]
    write_scores(path, names, names, windows.labels, scores, classes)


def evaluate_test(
    test: Dataset, scores: np.ndarray, thresholds: np.ndarray | None, data: DataArguments, train_counts=None
) -> dict:
    """Return the `trivial` and `test` parts of results.json."""
    labels, names = multi_hot(test), test.features["instruments"].feature.names
    return {
        "trivial": trivial_figures(labels, names, train_counts),
        "test": test_results(
            labels, scores, test["song"], names, thresholds, FIXED_THRESHOLD, resamples=data.bootstrap_resamples
        ),
    }


def protocol(data: DataArguments) -> dict:
    """Return the `protocol` part of results.json."""
    return {
        "window_seconds": data.window_seconds,
        "hop_seconds": data.hop_seconds or data.window_seconds / 2,
        "aggregation": data.aggregation,
        "thresholds_from": THRESHOLDS_FROM[data.thresholds_from],
        "separation": data.separation,
        "bootstrap_resamples": data.bootstrap_resamples,
    }


def provenance(recipe: Recipe) -> dict:
    """Return what the run depended on: recipe, commit, seed, versions."""
    packages = ("torch", "torchaudio", "transformers", "datasets", "accelerate", "evaluate", "numpy", "scikit-learn")
    return {
        "recipe": recipe.values(),
        "commit": commit(),
        "seed": recipe.training.seed,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
    }


def commit() -> str | None:
    """Return the repository's commit, with `-dirty` after it where files differ from it; None outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def write_json(path: Path, content: dict) -> None:
    """Write JSON so that a reader never sees half a file."""
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")


def evaluate(
    recipe: Recipe, data: DatasetDict, prepared: DatasetDict, trainer: InstrumentTrainer, training: dict
) -> dict:
    """Score validation mixtures and test clips, tune thresholds, write predictions.parquet, return the results."""
    settings, rate = recipe.data, trainer.processing_class.sampling_rate
    mixtures = trainer.eval_dataset
    validation_scores = clip_scores(trainer, mixtures, settings.aggregation)
    test = windows_of(prepared["test"], settings, rate, eval_batch(recipe))
    start = time.perf_counter()
    scores = clip_scores(trainer, test, settings.aggregation)
    training["inference_clips_per_second"] = round(len(scores) / (time.perf_counter() - start), 3)
    run_dir = Path(recipe.training.output_dir) if trainer.is_world_process_zero() else None
    thresholds, reported = tune_and_write(
        prepared, mixtures, validation_scores, scores, settings, data_folder(recipe.data), run_dir
    )
    remember_protocol(trainer.model, settings, thresholds)
    counts = multi_hot(data["train"]).sum(axis=0)
    return {
        **provenance(recipe),
        "dataset": describe_data(recipe.data, data, reported),
        "train": training,
        "protocol": protocol(settings),
        **evaluate_test(prepared["test"].select(reported), scores[reported], thresholds, settings, counts),
    }


def remember_protocol(model: PreTrainedModel, data, thresholds) -> None:
    """Store in the model's configuration how it was evaluated; the pipeline does the same."""
    stored = protocol(data)
    for name in ("window_seconds", "hop_seconds", "aggregation", "separation"):
        setattr(model.config, name, stored[name])
    model.config.thresholds = [float(threshold) for threshold in thresholds]


def eval_batch(recipe: Recipe) -> int:
    """Return how many windows all processes evaluate at once."""
    return recipe.training.per_device_eval_batch_size * recipe.training.world_size
