"""The protocol: clips -> windows -> logits -> scores, tuned thresholds, and the predictions files."""

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset, DatasetDict
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import EvalPrediction, PreTrainedModel

from irmas_dataset import WaveformColumn
from irmas_dataset.audit.predictions import MIXED
from irmas_metric.figures import ranking_figures
from irmas_recipe.models.pipeline.instrument_recognition import PER_LABEL
from irmas_recipe.models.pipeline.windows import LONGEST_CLIP_SECONDS, TimelineRules
from irmas_recipe.training.clips import (
    Mixtures,
    WindowedClips,
    classes_to_mix,
    collate,
    multi_hot,
    present_counts,
    united,
)
from irmas_recipe.training.data import data_folder, processes, separation, test_halves
from irmas_recipe.training.fields import THRESHOLDS_FROM, DataArguments
from irmas_recipe.training.loss import multi_label_loss
from irmas_recipe.training.precision import full_precision
from irmas_recipe.training.recipe import Recipe
from irmas_recipe.training.separated import separated
from irmas_recipe.training.songs import MOMENTS_FILE, Lengthened, tune_timeline, validation_songs, write_moments
from irmas_recipe.training.thresholds import LABELS_PER_TEST_CLIP, fit_slopes, tune_thresholds, validation_mixtures
from irmas_recipe.training.trainer import InstrumentTrainer


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
    prepared: Dataset, data: DataArguments, sampling_rate: int, batch_size: int = 1, seconds: float = 0.0
) -> WindowedClips:
    """Return the windows of mixtures of 1 to 3 validation clips, in the proportions of IRMAS's test set.

    IRMAS's training clips carry one label and its test clips several, so that single clips would tune thresholds for
    another task; where the two are alike, the recipe's `validation_clips` says `single`.

    prepared: validation clips that hold all of the music; a mixture is separated as a whole, as test clips are.
    seconds: up to this length a clip goes on with the others of its recording.
    """
    clips, labels, recordings = WaveformColumn(prepared), multi_hot(prepared), prepared["recording"][:]
    proportions = LABELS_PER_TEST_CLIP if data.validation_clips == "mixtures" else (1,)
    classes = classes_to_mix(clips, labels)
    members = validation_mixtures(classes, recordings, seed=data.split_seed, proportions=proportions)
    if seconds:
        clips = Lengthened(clips, recordings, classes, round(seconds * sampling_rate), repeat=False)
    mixtures = separated(Mixtures(clips, members), prepared, separation(data), sampling_rate, processes(data))
    window, hop = window_and_hop_samples(data, sampling_rate)
    return WindowedClips(mixtures, united(labels, members), window, hop, batch_size)


def validation_figures(windows: WindowedClips, aggregation: str) -> Callable[[EvalPrediction], dict[str, float]]:
    """Return the Trainer's `compute_metrics`: mAP and LRAP of the clips, which need no threshold, and the windows' loss.

    The Trainer's own loss would count the windows that are repeated to fill the last batch; this one takes its place.
    """

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        figures = ranking_figures(windows.labels, windows.scores(prediction.predictions, aggregation))
        labels = torch.from_numpy(np.repeat(windows.labels, windows.windows_per_clip, axis=0))
        loss = multi_label_loss(torch.from_numpy(prediction.predictions[: len(labels)]), labels)
        return {"loss": float(loss / (labels >= 0).float().mean())} | {
            name: float(figures[name]) for name in ("map", "lrap")
        }

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


def clip_scores(trainer: InstrumentTrainer, windows: WindowedClips, aggregation: str) -> np.ndarray:
    """Return the model's scores (clips, classes); every process takes its share of the windows."""
    return windows.scores(trainer.predict(windows).predictions, aggregation)


@torch.no_grad()
def window_logits(
    model: torch.nn.Module, features: Callable, windows: WindowedClips, batch_size: int, title: str, quiet: bool = False
) -> np.ndarray:
    """Return a model's logits (windows, classes) in full precision, computed by this process alone, without a Trainer.

    Args:
        features: a function from waveforms (batch, samples) to the model's input, on the model's device.
        title: of the progress bar; `quiet` shows none.
    """
    logits, device, training = [], next(model.parameters()).device, model.training
    model.eval()
    try:
        with full_precision(model):
            for batch in tqdm(DataLoader(windows, batch_size, collate_fn=collate), desc=title, disable=quiet):
                waveforms = batch["waveforms"].to(device).float() / 2**15
                logits.append(model(features(waveforms)).logits.float().cpu())
    finally:
        model.train(training)
    return torch.cat(logits).numpy()


def write_scores(
    path: Path, clips: list[str], songs: list[str | None], labels: np.ndarray, scores: np.ndarray, classes: list[str]
) -> None:
    """Write a predictions file: one row per clip with its song, instruments and one score column per class.

    Where some labels are not known, a column `unknown` lists their classes.
    """
    instruments, unknown = (
        [[classes[column] for column in np.flatnonzero(row == value)] for row in labels] for value in (1, -1)
    )
    frame = pd.DataFrame({"clip": list(clips), "song": list(songs), "instruments": instruments})
    if any(unknown):
        frame["unknown"] = unknown
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
    names = [MIXED.join(clips[i] for i in members) for members in windows.clips.members]
    write_scores(path, names, names, windows.labels, scores, classes)


def protocol(data: DataArguments) -> dict:
    """Return the `protocol` part of results.json."""
    return {
        "window_seconds": data.window_seconds,
        "hop_seconds": data.hop_seconds or data.window_seconds / 2,
        "aggregation": data.aggregation,
        "thresholds_from": "single validation clips"
        if (data.thresholds_from, data.validation_clips) == ("validation", "single")
        else THRESHOLDS_FROM[data.thresholds_from],
        "separation": data.separation,
        "bootstrap_resamples": data.bootstrap_resamples,
    }


@dataclass(frozen=True)
class Evaluation:
    """What a model scored on a test set: the reported clips, their scores (clips, classes), thresholds and protocol."""

    test: Dataset
    reported: list[int]  # rows of the whole test set
    scores: np.ndarray
    thresholds: np.ndarray
    protocol: dict
    clips_per_second: float
    slopes: np.ndarray | None = None  # of the confidence, (classes, 2); None where thresholds come from test clips
    validation_positives: np.ndarray | None = None  # validation mixtures of each class, (classes,)


def evaluate(recipe: Recipe, prepared: DatasetDict, trainer: InstrumentTrainer) -> Evaluation:
    """Score validation mixtures and test clips, tune thresholds, and write predictions.parquet into the run folder."""
    data, rate = recipe.data, trainer.processing_class.sampling_rate
    mixtures = trainer.eval_dataset
    mixture_scores = clip_scores(trainer, mixtures, data.aggregation)
    windows = windows_of(prepared["test"], data, rate, eval_batch(recipe))
    start = time.perf_counter()
    scores = clip_scores(trainer, windows, data.aggregation)
    speed = round(len(scores) / (time.perf_counter() - start), 3)
    run_dir = Path(recipe.training.output_dir) if trainer.is_world_process_zero() else None
    thresholds, reported = tune_and_write(prepared, mixtures, mixture_scores, scores, data, data_folder(data), run_dir)
    tuned, slopes = {"thresholds": thresholds}, None
    if data.thresholds_from == "validation":
        slopes = fit_slopes(mixtures.labels, mixture_scores, thresholds)
        window, hop = window_and_hop_samples(data, rate)
        songs = validation_songs(prepared["validation"], data, window, hop, rate, eval_batch(recipe))
        heard = songs.moments(trainer.predict(songs.windows).predictions, data.aggregation)
        tuned |= {"confidence_slopes": slopes} | tune_timeline(heard)
        if run_dir is not None:
            write_moments(run_dir / MOMENTS_FILE, heard, prepared["validation"].features["instruments"].feature.names)
    remember_protocol(trainer.model, data, tuned)
    test = prepared["test"].select(reported)
    return Evaluation(
        test, reported, scores[reported], thresholds, protocol(data), speed, slopes, present_counts(mixtures.labels)
    )


def remember_protocol(model: PreTrainedModel, data: DataArguments, tuned: dict[str, np.ndarray]) -> None:
    """Store in the model's configuration how it was evaluated, what was `tuned`, and the rules for long audio.

    The pipeline does the same. What was not tuned is forgotten: a starting checkpoint's was for other weights.
    """
    stored = protocol(data)
    for name in ("window_seconds", "hop_seconds", "aggregation", "separation"):
        setattr(model.config, name, stored[name])
    rules = {"longest_clip_seconds": LONGEST_CLIP_SECONDS} | asdict(TimelineRules())
    of_labels = dict.fromkeys(PER_LABEL) | {name: values.tolist() for name, values in tuned.items()}
    for name, value in (rules | of_labels).items():
        setattr(model.config, name, value)


def eval_batch(recipe: Recipe) -> int:
    """Return how many windows all processes evaluate at once."""
    return recipe.training.per_device_eval_batch_size * recipe.training.world_size
