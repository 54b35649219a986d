"""OpenMIC in its published layout through a whole run: training, thresholds, report, evaluation, comparison, audit."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import run_irmas
from irmas_dataset.synthetic_openmic import synthesize_openmic
from irmas_metric.openmic import openmic_figures
from irmas_recipe.report.runs import read_scored_clips
from tests.test_run import TINY


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("openmic")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setattr("datasets.config.HF_DATASETS_CACHE", path / "cache")
        synthesize_openmic(Path("data"), train=80, test=20, seconds=3.0)
        recipe = {name: value for name, value in TINY.items() if not name.startswith("synthetic")}
        own = {"data_dir": "data", "validation_fraction": 0.3, "validation_clips": "single", "mix_probability": 0.5}
        Path("tiny.yaml").write_text(yaml.safe_dump(recipe | own))
        run_irmas.main(["tiny.yaml", "--output_dir", "run"])
        yield path


def test_the_report_counts_only_what_was_judged(folder):
    results = json.loads(Path("run/results.json").read_text())
    with np.load("data/openmic-2018/openmic-2018.npz", allow_pickle=True) as arrays:
        judged = arrays["Y_mask"][80:]
    assert [entry["known"] for entry in results["test"]["tuned"]["per_class"].values()] == judged.sum(axis=0).tolist()
    assert results["dataset"]["name"] == "synthetic, OpenMIC-shaped"
    assert results["protocol"]["thresholds_from"] == "single validation clips"
    clips = read_scored_clips(Path("run/predictions.parquet"), results["dataset"]["classes"])
    assert np.array_equal(clips.labels >= 0, judged)
    assert results["test"]["judged"] == pytest.approx(openmic_figures(clips.labels, clips.scores))
    assert results["test"]["judged"]["map"] == pytest.approx(results["test"]["map"])
    assert "| judged |" in Path("run/README.md").read_text()


def test_predictions_have_a_column_of_what_is_unknown(folder):
    for name in ("predictions", "validation_predictions"):
        table = pd.read_parquet(f"run/{name}.parquet")
        assert {"clip", "song", "instruments", "unknown"} <= set(table.columns)
        assert all(not set(a) & set(b) for a, b in zip(table["instruments"], table["unknown"], strict=True))
        assert table["unknown"].map(len).sum() > 0


def test_evaluate_gives_the_figures_again_and_compare_reads_them(folder, capsys):
    run_irmas.main(["evaluate", "run", "--output_dir", "again"])
    first, again = (json.loads(Path(run, "results.json").read_text())["test"] for run in ("run", "again"))
    assert again["map"] == pytest.approx(first["map"], abs=1e-6) and again["lrap"] == pytest.approx(
        first["lrap"], abs=1e-6
    )
    assert "Clips in which each class was judged" in capsys.readouterr().out
    run_irmas.main(["compare", "run", "again"])
    assert "again" in capsys.readouterr().out


def test_an_ensemble_learns_from_what_is_known(folder):
    run_irmas.main(["tiny.yaml", "--output_dir", "other", "--seed", "1"])
    run_irmas.main(["ensemble", "run", "other", "--output_dir", "both", "--method", "weights"])
    assert "unknown" in pd.read_parquet("both/predictions.parquet")


def test_the_audit_doubts_nothing_that_nobody_judged(folder):
    run_irmas.main(["audit", "--data_dir", "data", "--output_dir", "audit", "--processes", "1"])
    suggestions = pd.read_csv("audit/label_suggestions.csv")
    assert Path("audit/report.html").is_file() and {"path", "instruments"} <= set(suggestions.columns)
