"""`run_irmas.py audit` as a user runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.irmas_dataset.folders import write_irmas

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
