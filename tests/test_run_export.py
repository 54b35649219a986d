"""Training from an export: unpacked, streamed from its folder, and streamed from a server by two processes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

import run_irmas
from irmas_dataset.errors import UserError
from irmas_dataset.synthetic import synthesize
from tests.irmas_dataset.range_server import serve_folder
from tests.test_run import ROOT, TINY


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with a recipe, made music and its export."""
    path = tmp_path_factory.mktemp("run")
    recipe = {name: value for name, value in TINY.items() if not name.startswith("synthetic")}
    (path / "tiny.yaml").write_text(yaml.safe_dump(recipe | {"data_dir": "export"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setattr("datasets.config.HF_DATASETS_CACHE", path / "cache")
        synthesize("made", train=66, test=8, seed=0)
        run_irmas.main(["export", "--data_dir", "made", "--output_dir", "export"])
        yield path


@pytest.fixture(scope="module")
def streamed(folder):
    """The run folder of `run_irmas.py tiny.yaml --streaming true`."""
    run_irmas.main(
        ["tiny.yaml", "--streaming", "true", "--output_dir", "runs/streamed", "--validation_fraction", "0.3"]
    )
    return Path("runs/streamed")


def test_a_streamed_run_is_resumed_to_the_same_weights(streamed):
    shutil.copytree(streamed / "checkpoint-1", "checkpoint-1")
    options = ["--streaming", "true", "--validation_fraction", "0.3", "--resume_from_checkpoint", "checkpoint-1"]
    run_irmas.main(["tiny.yaml", *options, "--output_dir", "runs/resumed"])
    assert (streamed / "model.safetensors").read_bytes() == Path("runs/resumed/model.safetensors").read_bytes()


def test_a_streamed_run_ends_with_a_report_and_stores_no_training_clip(streamed):
    results = json.loads((streamed / "results.json").read_text())
    assert results["dataset"]["name"] == "synthetic, IRMAS-shaped" and results["recipe"]["streaming"] is True
    assert (streamed / "README.md").is_file() and results["train"]["epochs"] > 0
    clips = results["dataset"]["clips"]
    assert clips["train"] + clips["validation"] == 66 and clips["test"] == 8
    names = [path.name for path in Path("cache").glob("irmas-files-*/**/*.wav")]
    assert len(names) == clips["validation"] + 8 and not list(Path("export").glob("**/*.wav"))
    assert pd.read_parquet(streamed / "predictions.parquet")["clip"].str.startswith("IRMAS-TestingData-Part").all()


def test_evaluate_gives_a_streamed_runs_figures_again(streamed, capsys):
    run_irmas.main(["evaluate", str(streamed), "--output_dir", "again"])
    again, before = (pd.read_parquet(path / "predictions.parquet") for path in (Path("again"), streamed))
    assert list(again["clip"]) == list(before["clip"])
    np.testing.assert_allclose(again.iloc[:, 3:].to_numpy(), before.iloc[:, 3:].to_numpy(), atol=1e-6)


def test_a_run_from_the_unpacked_export_has_the_same_splits(streamed):
    run_irmas.main(["tiny.yaml", "--output_dir", "runs/unpacked", "--validation_fraction", "0.3"])
    ours, theirs = (json.loads((run / "results.json").read_text()) for run in (Path("runs/unpacked"), streamed))
    assert ours["dataset"] == theirs["dataset"] and Path("runs/unpacked/README.md").is_file()


@pytest.mark.slow
def test_an_interrupted_stream_goes_on_to_the_same_weights(streamed, tmp_path):
    before = load_file(shutil.copytree(streamed, tmp_path / "before") / "model.safetensors")
    (streamed / "README.md").unlink()  # the card says that a run is finished
    shutil.rmtree(streamed / "checkpoint-2")
    run_irmas.main(["tiny.yaml", "--streaming", "true", "--output_dir", str(streamed), "--validation_fraction", "0.3"])
    assert json.loads((streamed / "results.json").read_text())["train"]["resumed"]
    for name, tensor in load_file(streamed / "model.safetensors").items():
        torch.testing.assert_close(tensor, before[name])


@pytest.mark.slow
def test_two_processes_stream_from_a_server(folder):
    with serve_folder(folder / "export") as server:
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(ROOT / "run_irmas.py")]
        options = ["--data_dir", server.url, "--streaming", "true", "--output_dir", "runs/two"]
        settings = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(folder / "cache2")}
        done = subprocess.run([sys.executable, *command, "tiny.yaml", *options], cwd=folder, env=os.environ | settings,
                              capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads((folder / "runs/two/results.json").read_text())
    assert results["train"]["processes"] == 2 and results["recipe"]["data_dir"] == server.url


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--balanced_sampling", "true"], "--balanced_sampling needs the training clips on disk"),
        (["--data_dir", "synthetic"], "run `irmas export`"),
        (["--data_dir", "made"], "has no data/train"),
    ],
)
def test_what_cannot_be_streamed_is_one_sentence(folder, options, words):
    with pytest.raises(UserError, match=words):
        run_irmas.main(["tiny.yaml", "--streaming", "true", "--output_dir", "runs/none", *options])
