"""`run_irmas.py audit` as a user runs it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from irmas_dataset.audit.clips import read_clips
from irmas_dataset.audit.predictions import read_predictions
from irmas_dataset.labels import INSTRUMENT_NAMES
from irmas_recipe.commands.predict import main as predict
from irmas_recipe.models.pipeline.attach import attach_pipeline
from tests.irmas_dataset.folders import write_irmas
from tests.tiny import build

ROOT = Path(__file__).parents[2]


def run(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "run_irmas.py", "audit", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture
def irmas(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return write_irmas(tmp_path / "irmas")


def test_a_report_and_tables(irmas, tmp_path):
    done = run("--data_dir", irmas, "--output_dir", tmp_path / "report", "--no_label_errors", "--processes", 1)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "report.html", "clips.csv", "counts.csv", "duplicates.csv", "label_errors.csv", "missing_labels.csv",
        "leaky_split.csv", "corrections.csv", "label_suggestions.csv",
    }  # fmt: skip
    assert "silent clips" in done.stdout
    assert "report.html" in done.stdout
    assert "Measuring clips" in done.stderr


def test_tables_that_predict_wrote_give_scores_to_clips(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    irmas = write_irmas(tmp_path / "irmas")
    model, extractor = build("mobilenet")
    model.config.update({"window_seconds": 1.0, "hop_seconds": 0.5, "aggregation": "mean", "thresholds": [0.5] * 11})
    for part in (model, extractor):
        part.save_pretrained(tmp_path / "run")
    attach_pipeline(tmp_path / "run")
    clips = read_clips(irmas, cache_dir=tmp_path / "cache", num_proc=1)
    (tmp_path / "broken.wav").write_text("no music")
    for output in ("t.csv", "t.parquet", "parts"):
        flag = ["--parts" if output == "parts" else "--output", str(tmp_path / output)]
        heard = [str(irmas), *([str(tmp_path / "broken.wav")] if output == "parts" else [])]
        predict.main([str(tmp_path / "run"), *heard, *flag, "--device", "cpu"])
        (table,) = (tmp_path / output).glob("*.parquet") if output == "parts" else [tmp_path / output]
        scores = read_predictions([table], clips)
        written = (pd.read_csv if output == "t.csv" else pd.read_parquet)(table).set_index("path")
        expected = written.loc[[clips.file(row) for row in range(len(clips.table))]]
        columns = [f"score_{INSTRUMENT_NAMES[code]}" for code in clips.classes]
        np.testing.assert_allclose(scores, expected[columns].to_numpy(dtype=float))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--data_dir", "nowhere"], "nowhere is not a folder"),
        (["--predictions", "nowhere.parquet"], "--predictions nowhere.parquet cannot be read"),
    ],
)
def test_mistakes_are_one_sentence(irmas, tmp_path, arguments, words):
    done = run("--data_dir", irmas, "--output_dir", tmp_path / "report", "--no_label_errors", *arguments)
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_an_output_that_is_a_file(irmas, tmp_path):
    (tmp_path / "file").write_text("")
    done = run("--data_dir", irmas, "--output_dir", tmp_path / "file")
    assert done.returncode == 2
    assert done.stderr.strip() == f"--output_dir {tmp_path / 'file'} is a file; name a folder."
