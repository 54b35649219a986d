"""recipes/launch/slurm.sh on a made-up cluster of two nodes with a process each; cluster.py plays Slurm."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from irmas_recipe.training.run_folder import is_finished, last_checkpoint
from tests.robustness.tiny_run import ROOT, environment, write_recipe

SCRIPT = ROOT / "recipes/launch/slurm.sh"
COMMANDS = ("sbatch", "srun", "scancel", "scontrol")
FIELDS = {"metric_for_best_model": "loss", "disable_tqdm": True, "max_steps": 300, "save_steps": 50, "eval_steps": 50}


class Cluster:
    """A working folder with the tiny recipe, and Slurm's commands first on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / "cluster"
        programs = self.state / "bin"
        programs.mkdir(parents=True)
        for name in COMMANDS:
            write_program(programs / name, f'"{sys.executable}" "{ROOT}/tests/launch/cluster.py" {name}')
        write_program(programs / "irmas", f'"{sys.executable}" "{ROOT}/run_irmas.py"')
        path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
        self.settings = environment(folder, PATH=path, CLUSTER=str(self.state), PYTHONPATH=str(ROOT))
        write_recipe(folder, **FIELDS)

    def submit(self, *arguments: str) -> subprocess.Popen:
        """Start a job of two nodes."""
        command = ["sbatch", "--nodes=2", "--gpus-per-node=0", str(SCRIPT), *arguments]
        return subprocess.Popen(command, cwd=self.folder, env=self.settings)

    def wait_for_checkpoint(self, job: subprocess.Popen, run: str, after: int = 0) -> None:
        """Wait until a run has a checkpoint of a later step."""
        while (found := last_checkpoint(self.folder / run)) is None or int(found.name[11:]) <= after:
            assert job.poll() is None, self.log()[-5000:]
            time.sleep(0.02)

    def end_of_time(self) -> None:
        """Do what `--signal=B:TERM@300` asks for."""
        os.kill(int((self.state / "batch").read_text()), signal.SIGTERM)

    def preempt(self) -> None:
        """Signal the step alone."""
        subprocess.run(["scancel", "--signal=TERM", "7"], env=self.settings, check=True)

    def cancel(self) -> None:
        subprocess.run(["scancel", "7"], env=self.settings, check=True)

    def log(self) -> str:
        return (self.folder / "job.log").read_text()


def write_program(path: Path, command: str) -> None:
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    path.chmod(0o755)


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


@pytest.mark.slow
def test_a_job_that_is_requeued_twice_ends_with_the_weights_of_an_unbroken_one(cluster):
    assert cluster.submit("tiny.yaml", "--output_dir", "runs/whole").wait(timeout=300) == 0, cluster.log()
    job = cluster.submit("tiny.yaml", "--output_dir", "runs/cut")
    cluster.wait_for_checkpoint(job, "runs/cut")
    cluster.end_of_time()
    while cluster.log().count("Stopped by SIGTERM") < 1:
        assert job.poll() is None, cluster.log()
        time.sleep(0.1)
    stopped_at = int(last_checkpoint(cluster.folder / "runs/cut").name[11:])
    assert stopped_at % 50, "not a step at which the recipe saves"
    cluster.wait_for_checkpoint(job, "runs/cut", after=stopped_at)
    cluster.preempt()
    assert job.wait(timeout=300) == 0, cluster.log()
    log = cluster.log()
    assert log.count("Stopped by SIGTERM") == log.count("Resuming from") == 2
    for name in ("model.safetensors", "predictions.parquet"):
        whole, cut = ((cluster.folder / f"runs/{run}" / name).read_bytes() for run in ("whole", "cut"))
        assert whole == cut, name


@pytest.mark.slow
def test_a_job_that_is_cancelled_does_not_come_back(cluster):
    job = cluster.submit("tiny.yaml")
    cluster.wait_for_checkpoint(job, "runs/tiny")
    cluster.cancel()
    assert job.wait(timeout=120) == 143, cluster.log()
    assert "Stopped by SIGTERM" in cluster.log() and not is_finished(cluster.folder / "runs/tiny")
    kept = last_checkpoint(cluster.folder / "runs/tiny")
    assert cluster.submit("tiny.yaml", "--learning_rate", "0.1").wait(timeout=120) != 0
    assert "an unfinished run of another recipe (it differs in learning_rate)" in cluster.log()
    assert last_checkpoint(cluster.folder / "runs/tiny") == kept


@pytest.mark.slow
def test_a_job_with_a_mistake_is_not_requeued(cluster):
    job = cluster.submit("tiny.yaml", "--max_stepz", "3")
    assert job.wait(timeout=120) != 0
    assert "did you mean `max_steps`?" in cluster.log() and not (cluster.state / "requeue").exists()


def test_without_a_recipe_a_job_ends_in_a_sentence(cluster):
    assert cluster.submit().wait(timeout=60) == 2
    assert cluster.log() == "Usage: sbatch [OPTION...] recipes/launch/slurm.sh RECIPE [--field value ...]\n"


def test_without_the_program_a_job_ends_in_a_sentence(cluster):
    (cluster.state / "bin/irmas").unlink()
    cluster.settings["PATH"] = os.pathsep.join([str(cluster.state / "bin"), "/usr/bin", "/bin"])
    assert cluster.submit("tiny.yaml").wait(timeout=60) == 2
    assert cluster.log() == "irmas is not installed here: activate its environment, then run sbatch again.\n"
