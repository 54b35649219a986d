"""A run folder as run_irmas.py leaves it, made from random scores by the project's own functions."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from irmas_dataset.labels import INSTRUMENT_CODES
from irmas_metric.protocol import test_results
from irmas_metric.trivial import trivial_figures
from irmas_recipe.training.thresholds import tune_thresholds

FREQUENCIES = (0.039, 0.022, 0.057, 0.186, 0.328, 0.126, 0.346, 0.113, 0.058, 0.073, 0.363)  # IRMAS's test set


def make_run(
    folder: Path,
    *,
    recipe: dict | None = None,
    num_clips: int = 300,
    num_songs: int = 40,
    resamples: int = 40,
    dataset: dict | None = None,
    classes=INSTRUMENT_CODES,
    frequencies=FREQUENCIES,
    trained: bool = True,
    tuned: bool = True,
) -> Path:
    """Write results.json, predictions.parquet and trainer_state.json of a plausible run into `folder`."""
    generator = np.random.default_rng(0)
    labels, scores = random_test_set(generator, num_clips, frequencies)
    songs = [f"song {index}" for index in np.sort(generator.integers(0, num_songs, num_clips))]
    thresholds = tune_thresholds(*random_test_set(generator, num_clips, frequencies)) if tuned else None
    results = {
        **provenance_of_example(recipe or {}, trained),
        "dataset": {
            "name": "IRMAS",
            "clips": {"train": 5702, "validation": 1003, "test": num_clips},
            "songs": len(set(songs)),
            "classes": list(classes),
            "test_is_held_out": False,
        }
        | (dataset or {}),
        "protocol": PROTOCOL | {"bootstrap_resamples": resamples},
        "trivial": trivial_figures(labels, classes),
        "test": test_results(labels, scores, songs, classes, thresholds, resamples=resamples),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=2), encoding="utf-8")
    config = {"model_type": "audio-spectrogram-transformer", "thresholds": [0.5] * len(classes)}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    predictions = pd.DataFrame(
        {
            "clip": [f"IRMAS-TestingData-Part1/Part1/clip {clip}.wav" for clip in range(num_clips)],
            "song": songs,
            "instruments": [[code for code, on in zip(classes, row, strict=True) if on] for row in labels],
        }
    )
    predictions[list(classes)] = scores
    predictions.to_parquet(folder / "predictions.parquet", index=False)
    if trained:
        state = {"global_step": 900, "log_history": random_log_history(generator)}
        (folder / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    return folder


PROTOCOL = {
    "window_seconds": 3.0,
    "hop_seconds": 1.5,
    "aggregation": "mean",
    "thresholds_from": "validation mixtures",
}


def provenance_of_example(recipe: dict, trained: bool) -> dict:
    """Return the parts of results.json that say where an example run comes from and what it cost."""
    return {
        "recipe": {"model_name_or_path": "MIT/ast-finetuned-audioset-10-10-0.4593", "window_seconds": 3.0} | recipe,
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "seed": 42,
        "versions": {"python": "3.11.7", "torch": "2.11.0", "transformers": "5.23.0"},
        "train": {
            "seconds": 1834.2 if trained else 0.4,
            "clips_per_second": 61.3 if trained else 0.0,
            "peak_memory_bytes": 9_663_676_416,
            "device": "NVIDIA A100-SXM4-40GB",
            "parameters": 86_192_651,
            "epochs": 5.0 if trained else 0,
        },
    }


def read_results(run_dir: Path) -> dict:
    """Return results.json as it is on the disk."""
    return json.loads((run_dir / "results.json").read_text(encoding="utf-8"))


def read_predictions(run_dir: Path, codes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and scores (clips, classes) of predictions.parquet, as pandas reads it."""
    table = pd.read_parquet(run_dir / "predictions.parquet")
    labels = np.array([[code in clip for code in codes] for clip in table["instruments"]], dtype=int)
    return labels, table[list(codes)].to_numpy(dtype=float)


def random_test_set(generator: np.random.Generator, num_clips: int, frequencies) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and scores (clips, classes) of a middling recogniser that hears neighbouring classes alike."""
    labels = (generator.random((num_clips, len(frequencies))) < frequencies).astype(int)
    silent = labels.sum(axis=1) == 0
    labels[silent, np.argmax(frequencies)] = 1
    leak = 0.8 * np.roll(labels, 1, axis=1) * (np.arange(len(frequencies)) % 3 > 0)
    strength = np.linspace(2.2, 4.0, len(frequencies))
    logits = strength * labels + leak - 2.6 + 1.3 * generator.normal(size=labels.shape)
    return labels, (1 / (1 + np.exp(-logits))).astype(np.float32).astype(float)


def random_log_history(generator: np.random.Generator) -> list[dict]:
    """Return what transformers' Trainer logs over five epochs of 180 steps."""
    history = []
    for step in range(10, 901, 10):
        epoch = step / 180
        loss = 0.12 + 0.5 * np.exp(-epoch) + 0.012 * generator.normal()
        rate = 4.3e-6 * min(step / 90, (900 - step) / 810)
        history.append({"loss": loss, "grad_norm": 1.5, "learning_rate": rate, "epoch": epoch, "step": step})
        if step % 180 == 0:
            history.append(
                {
                    "eval_loss": 0.2 + 0.25 * np.exp(-epoch) + 0.01 * epoch,
                    "eval_map": 0.8 - 0.4 * np.exp(-epoch),
                    "eval_lrap": 0.87 - 0.3 * np.exp(-epoch),
                    "eval_micro_f1": 0.7 - 0.4 * np.exp(-epoch),
                    "eval_macro_f1": 0.66 - 0.45 * np.exp(-epoch),
                    "eval_runtime": 12.3,
                    "epoch": epoch,
                    "step": step,
                }
            )
    history.append({"train_loss": 0.2, "train_runtime": 1834.2, "epoch": 5.0, "step": 900})
    return history
