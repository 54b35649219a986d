"""`run_irmas.py export` as a user runs it."""

import subprocess
import sys
from pathlib import Path

import pytest
from datasets import load_dataset

from irmas_recipe.commands import export
from tests.irmas_dataset.folders import TEST_FILES, TRAINING_FILES, write_irmas

ROOT = Path(__file__).parents[2]


@pytest.fixture
def irmas(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return write_irmas(tmp_path / "irmas")


def run(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "run_irmas.py", "export", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_a_folder_for_the_hub(irmas, tmp_path):
    done = run("--data_dir", irmas, "--output_dir", tmp_path / "export", "--metadata_only")
    assert done.returncode == 0, done.stderr
    assert (
        f"Wrote labels without audio of {len(TRAINING_FILES)} train clips, {len(TEST_FILES)} test clips" in done.stdout
    )
    assert len(load_dataset(str(tmp_path / "export"), cache_dir=tmp_path / "other")["test"]) == len(TEST_FILES)


def test_a_folder_that_is_no_data_is_one_sentence(tmp_path):
    done = run("--data_dir", tmp_path / "nowhere", "--output_dir", tmp_path / "export")
    assert done.returncode == 2
    assert "is not a folder" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize("flags, public, said", [([], False, "(private)"), (["--public"], True, "user/name.")])
def test_a_push_is_private_unless_public_is_asked_for(irmas, tmp_path, monkeypatch, capsys, flags, public, said):
    asked = []

    def push(folder, repo_id, *, public):
        asked.append((folder, repo_id, public))
        return f"https://huggingface.co/datasets/{repo_id}"

    monkeypatch.setattr("irmas_dataset.export.push.push", push)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    arguments = ["--data_dir", irmas, "--output_dir", tmp_path / "export", "--push_to_hub", "user/name", *flags]
    export.main([str(argument) for argument in arguments])
    assert asked == [(tmp_path / "export", "user/name", public)]
    assert said in capsys.readouterr().out
