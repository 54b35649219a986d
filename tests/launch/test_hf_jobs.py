"""recipes/launch/hf_jobs.sh with the installed `hf`, whose jobs run on this machine with two processes; see jobs.py."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from irmas_recipe.training.run_folder import last_checkpoint
from tests.launch.test_slurm import FIELDS, write_program
from tests.robustness.tiny_run import ROOT, environment, write_recipe

SCRIPT = ROOT / "recipes/launch/hf_jobs.sh"


@pytest.fixture
def settings(tmp_path) -> dict[str, str]:
    """The environment of a shell in which `hf` and `uv` are those of jobs.py."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("hf", "uv"):
        write_program(programs / name, f'"{sys.executable}" "{ROOT}/tests/launch/jobs.py" {name}')
    write_program(programs / "irmas", f'"{sys.executable}" -c "from run_irmas import run; run()"')
    write_recipe(tmp_path, **FIELDS)
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    ours = {
        "PATH": path,
        "JOBS": str(tmp_path),
        "BUCKET": "me/runs",
        "HF_TOKEN": "hf_secret",
        "PROCESSES_PER_NODE": "2",
    }
    return environment(tmp_path, PIP_NO_BUILD_ISOLATION="0", **ours)  # 0: without isolation, and so without a network


@pytest.mark.slow
def test_a_job_that_is_stopped_is_resumed_by_its_next_attempt(tmp_path, settings):
    command = [str(SCRIPT), "tiny.yaml", "--output_dir"]
    subprocess.run([*command, "/runs/whole"], cwd=tmp_path, env=settings, check=True, timeout=300)
    runs = tmp_path / "me/runs"
    job = subprocess.Popen([*command, "/runs/cut"], cwd=tmp_path, env=settings)
    while not last_checkpoint(runs / "cut"):
        assert job.poll() is None, (tmp_path / "job.log").read_text()[-5000:]
        time.sleep(0.02)
    attempt, container = map(int, (tmp_path / "container").read_text().split())
    assert attempt == 0
    os.kill(container, signal.SIGTERM)
    assert job.wait(timeout=300) == 0
    log = (tmp_path / "job.log").read_text()
    assert log.count("Stopped by SIGTERM") == log.count("Resuming from") == 1
    assert (tmp_path / "container").read_text().startswith("1 "), "the second attempt was the last"
    for name in ("model.safetensors", "predictions.parquet"):
        assert (runs / "cut" / name).read_bytes() == (runs / "whole" / name).read_bytes(), name
    said = json.loads((tmp_path / "job.json").read_text())
    assert said == {
        "image": "ghcr.io/astral-sh/uv:python3.11-bookworm", "flavor": "a10g-large", "timeout": "4h",
        "secrets": {"HF_TOKEN": "hf_secret"}, "mounted": ["/runs", "/code"],
    }  # fmt: skip
    assert json.loads((runs / "cut/results.json").read_text())["train"]["processes"] == 2


@pytest.mark.parametrize(
    ("arguments", "bucket", "sentence"),
    [
        ([], "me/runs", "Usage: BUCKET=me/runs"),
        (["tiny.yaml", "--output_dir", "/runs/x"], "", "Usage: BUCKET=me/runs"),
        (["tiny.yaml"], "me/runs", "Add --output_dir /runs/NAME"),
        (["tiny.yaml", "--output_dir=runs/x"], "me/runs", "Add --output_dir /runs/NAME"),
    ],
)
def test_mistakes_are_told_before_anything_is_built(tmp_path, settings, arguments, bucket, sentence):
    environment = settings | {"BUCKET": bucket}
    done = subprocess.run([str(SCRIPT), *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith(sentence) and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "job.json").exists()
