"""The pipeline and `predict` give a finished run's own scores of its test clips, from the files themselves.

What differs: the pipeline resamples block by block and batches other windows together, and without this project it makes
features with transformers' own extractor. In float32 that moves a score by less than `TOLERANCE`.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from transformers import pipeline

import run_irmas
from irmas_dataset.labels import readable_name
from tests.test_run import TINY
from tests.tiny import build

TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of a model that tells clips apart (a random one, its head scaled), its scores, and its test files."""
    folder = tmp_path_factory.mktemp("equality")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
        model, extractor = build("ast")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
            model.classifier.dense.weight *= 2
        model.save_pretrained("start")
        extractor.save_pretrained("start")
        recipe = {name: TINY[name] for name in ("data_dir", "synthetic_train", "synthetic_test", "use_cpu")}
        recipe |= {"model_name_or_path": "./start", "num_train_epochs": 0, "window_seconds": 1.0, "bf16": False}
        recipe |= {
            "eval_strategy": "no",
            "save_strategy": "no",
            "load_best_model_at_end": False,
            "bootstrap_resamples": 50,
        }
        (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe))
        run_irmas.main(["tiny.yaml"])
        stored = pd.read_parquet("runs/tiny/predictions.parquet")
        data = next(folder.glob("data/synthetic-*"))
        yield stored, [data / clip for clip in stored["clip"]]


def scores_of(stored: pd.DataFrame) -> np.ndarray:
    """Return the stored scores (clips, classes)."""
    return stored.drop(columns=["clip", "song", "instruments"]).to_numpy()


def classes_of(stored: pd.DataFrame) -> list[str]:
    """Return the model's labels in the order of the score columns."""
    return [readable_name(code) for code in stored.columns[3:]]


def check_decisions(decided: list[set[str]], stored: pd.DataFrame) -> None:
    """Each label is named exactly where its stored score reaches the tuned threshold, but for scores right at it."""
    per_class = json.loads(Path("runs/tiny/results.json").read_text())["test"]["tuned"]["per_class"]
    thresholds = np.array([entry["threshold"] for entry in per_class.values()])
    named = np.array([[label in labels for label in classes_of(stored)] for labels in decided])
    margins = scores_of(stored) - thresholds
    clear = np.abs(margins) > TOLERANCE
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(named[clear], margins[clear] > 0)


def test_the_runs_scores_tell_clips_apart(finished):
    stored, _ = finished
    assert scores_of(stored).std(axis=0).max() > 10 * TOLERANCE, "or equality within the tolerance would say nothing"


def test_the_pipeline_gives_the_runs_scores_and_decisions(finished):
    stored, files = finished
    recognise = pipeline("instrument-recognition", model="runs/tiny", trust_remote_code=True)
    results = recognise([str(file) for file in files], all_labels=True)
    scores = [{entry["label"]: entry["score"] for entry in result} for result in results]
    given = np.array([[of_clip[label] for label in classes_of(stored)] for of_clip in scores])
    np.testing.assert_allclose(given, scores_of(stored), rtol=0, atol=TOLERANCE)
    decided = [{entry["label"] for entry in result} for result in recognise([str(file) for file in files])]
    check_decisions(decided, stored)


def test_predict_writes_the_runs_scores_and_decisions(finished):
    stored, files = finished
    run_irmas.main(["predict", "runs/tiny", *map(str, files), "--format", "parquet", "--output", "tags.parquet"])
    table = pd.read_parquet("tags.parquet")
    assert list(table["path"]) == [str(file) for file in files]
    np.testing.assert_allclose(
        table[[f"score_{label}" for label in classes_of(stored)]].to_numpy(), scores_of(stored), rtol=0, atol=TOLERANCE
    )
    check_decisions([set(labels) for labels in table["instruments"]], stored)
