"""A run that hears only a part of the music, with thresholds from half of the test set: the same in every command."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from transformers import pipeline

import run_irmas
from irmas_dataset.errors import UserError
from irmas_dataset.labels import readable_name
from irmas_recipe.models.pipeline.separation import separation_of
from tests.test_pipeline_equals_evaluation import TOLERANCE, scores_of

RECIPE = {
    "data_dir": "synthetic", "synthetic_train": 44, "synthetic_test": 16, "architecture": "cnn", "window_seconds": 1.0,
    "model_config": {"architecture": "spectrogram_image"}, "max_steps": 8, "per_device_train_batch_size": 8,
    "learning_rate": 0.01, "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False,
    "bootstrap_resamples": 50, "use_cpu": True, "bf16": False, "disable_tqdm": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a run on harmonic sound and half of the test set, and one without either."""
    path = tmp_path_factory.mktemp("separated")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setenv("HF_DATASETS_CACHE", str(path / "cache"))
        Path("whole.yaml").write_text(yaml.safe_dump(RECIPE))
        Path("half.yaml").write_text(
            yaml.safe_dump(RECIPE | {"separation": "harmonic", "thresholds_from": "test_half"})
        )
        run_irmas.main(["whole.yaml"])
        run_irmas.main(["half.yaml"])
        yield path


def results_of(run: str) -> dict:
    return json.loads(Path(run, "results.json").read_text())


@pytest.mark.slow
def test_the_figures_are_of_one_half_and_the_thresholds_of_the_other(folder):
    reported = pd.read_parquet("runs/half/predictions.parquet")
    tuning = pd.read_parquet("runs/half/validation_predictions.parquet")
    whole = pd.read_parquet("runs/whole/predictions.parquet")
    assert not set(reported["song"]) & set(tuning["song"]) and len(tuning) >= 4
    assert sorted([*reported["clip"], *tuning["clip"]]) == sorted(whole["clip"])
    results = results_of("runs/half")
    assert results["dataset"]["clips"]["test"] == len(reported)
    assert "other half" in results["protocol"]["thresholds_from"] and results["protocol"]["separation"] == "harmonic"
    card = Path("runs/half/README.md").read_text()
    assert "come from the other half of the test set" in card and "only the harmonic part" in card
    assert results_of("runs/whole")["protocol"]["thresholds_from"] == "validation mixtures"


@pytest.mark.slow
def test_the_pipelines_and_evaluate_separate_too(folder, capsys):
    stored = pd.read_parquet("runs/half/predictions.parquet")
    data = next(folder.glob("data/synthetic-*"))
    files = [str(data / clip) for clip in stored["clip"]]
    labels = [readable_name(code) for code in stored.columns[3:]]
    recognise = pipeline("instrument-recognition", model="runs/half", trust_remote_code=True)
    scores = [{entry["label"]: entry["score"] for entry in result} for result in recognise(files, all_labels=True)]
    given = np.array([[of_clip[label] for label in labels] for of_clip in scores])
    np.testing.assert_allclose(given, scores_of(stored), rtol=0, atol=TOLERANCE)
    recognise.separate = None
    unseparated = [{entry["label"]: entry["score"] for entry in r} for r in recognise(files, all_labels=True)]
    other = np.array([[of_clip[label] for label in labels] for of_clip in unseparated])
    assert np.abs(other - scores_of(stored)).max() > 5 * TOLERANCE, "or the separation would make no difference"
    run_irmas.main(["predict", "runs/half", *files, "--format", "parquet", "--output", "tags.parquet"])
    predicted = pd.read_parquet("tags.parquet")[[f"score_{label}" for label in labels]].to_numpy()
    np.testing.assert_allclose(predicted, scores_of(stored), rtol=0, atol=TOLERANCE)
    run_irmas.main(["evaluate", "runs/half", "--output_dir", "evaluated"])
    before, after = results_of("runs/half"), results_of("evaluated")
    assert after["protocol"] == before["protocol"] and after["dataset"]["clips"]["test"] == len(stored)
    assert after["test"]["lrap"] == pytest.approx(before["test"]["lrap"])
    assert after["test"]["tuned"]["micro_f1"] == pytest.approx(before["test"]["tuned"]["micro_f1"])
    assert "the harmonic part" in capsys.readouterr().out
    shutil.copytree(data, "elsewhere")
    run_irmas.main(["evaluate", "runs/half", "--data_dir", "elsewhere", "--output_dir", "moved"])
    assert list(pd.read_parquet("moved/predictions.parquet")["song"]) == list(stored["song"]), "not those tuned on"


@pytest.mark.slow
def test_compare_sets_a_half_beside_the_whole_and_says_so(folder, capsys):
    run_irmas.main(["compare", "runs/whole", "runs/half"])
    printed = capsys.readouterr().out
    clips = results_of("runs/half")["dataset"]["clips"]["test"]
    assert f"measured on {clips} clips, half of the test set" in printed
    assert "half: figures of half of the test set" in printed
    run_irmas.main(["compare", "runs/half", "runs/whole", "--format", "markdown"])
    assert "harmonic part" in capsys.readouterr().out


@pytest.mark.slow
def test_a_classical_system_does_both_too(folder, capsys):
    fields = ("data_dir", "synthetic_train", "synthetic_test", "bootstrap_resamples")
    recipe = {name: RECIPE[name] for name in fields} | {
        "system": "classical", "features": "sarwar", "classifier": "naive_bayes", "grid": {"var_smoothing": [0.1]},
        "processes": 1, "importance_repeats": 1, "search_folds": 2, "separation": "harmonic", "thresholds_from": "test_half",
    }  # fmt: skip
    Path("classical.yaml").write_text(yaml.safe_dump(recipe))
    run_irmas.main(["classical.yaml"])
    results = results_of("runs/classical")
    assert results["protocol"]["separation"] == "harmonic"
    assert list(pd.read_parquet("runs/classical/predictions.parquet")["clip"]) == list(
        pd.read_parquet("runs/half/predictions.parquet")["clip"]
    )
    run_irmas.main(["compare", "runs/half", "runs/classical"])
    run_irmas.main(["ensemble", "runs/half", "runs/classical", "--output_dir", "runs/both"])
    assert results_of("runs/both")["protocol"]["thresholds_from"] == results["protocol"]["thresholds_from"]
    assert "the other half" in capsys.readouterr().out
    with pytest.raises(UserError, match="is for networks"):
        run_irmas.main(["classical.yaml", "--streaming", "true"])


def test_a_part_that_librosa_does_not_give_is_refused_with_the_way_out():
    assert separation_of("none") is None and separation_of(None) is None
    with pytest.raises(ValueError, match=r"irmas predict"):
        separation_of("solo")
