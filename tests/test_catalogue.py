"""The step of DataTrove, run by its local executor with two workers, killed and relaunched; other executors are made."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
import soundfile

from irmas_recipe.models.pipeline.attach import attach_pipeline
from tests.tiny import build

pytest.importorskip("datatrove", reason="the extra `catalogue` is not installed")
ROOT = Path(__file__).parents[1]
SCRIPT = """
from datatrove.executor import LocalPipelineExecutor
from irmas_recipe.catalogue import TagMusic

if __name__ == "__main__":
    step = TagMusic("model", lists=["songs.txt"], parts="tags", part_files=10, device="cpu")
    LocalPipelineExecutor(pipeline=[step], tasks=4, workers=2, logging_dir="logs").run()
"""


def start(folder: Path) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "tag.py"], cwd=folder, env=environment, start_new_session=True,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip


@pytest.mark.slow
def test_a_killed_and_relaunched_executor_loses_and_doubles_nothing(tmp_path):
    model, extractor = build("mobilenet")
    model.config.update({"window_seconds": 1.0, "hop_seconds": 0.5})
    model.save_pretrained(tmp_path / "model")
    extractor.save_pretrained(tmp_path / "model")
    attach_pipeline(tmp_path / "model")
    for index in range(7):
        noise = 0.1 * np.random.default_rng(index).standard_normal(16_000 * (1 + index))
        soundfile.write(tmp_path / f"{index}.wav", noise, 16_000)
    names = [str(tmp_path / f"{index % 7 if index != 5 else 'gone'}.wav") for index in range(200)]
    (tmp_path / "songs.txt").write_text("\n".join(names))
    (tmp_path / "tag.py").write_text(SCRIPT)
    killed = start(tmp_path)
    while len(list(tmp_path.glob("tags/*.done"))) < 3:
        assert killed.poll() is None, killed.stderr.read().decode()[-2000:]
        time.sleep(0.005)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.glob("tags/*.done")}
    assert len(kept) < 20
    again = start(tmp_path)
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said.decode()[-2000:]
    rows = [row for file in tmp_path.glob("tags/*.parquet") for row in parquet.read_table(file).to_pylist()]
    assert sorted(row["path"] for row in rows) == sorted(names)
    assert [row["path"] for row in rows if row["error"]] == [names[5]]
    assert all(file.stat().st_mtime_ns == written for file, written in kept.items())
    assert len(list(tmp_path.glob("logs/completions/*"))) == 4


def tagging_on_a_cluster(folder: Path) -> dict:
    """Return what every executor is given."""
    from irmas_recipe.catalogue import TagMusic

    step = TagMusic("runs/mine", lists=["songs.txt"], parts="tags")
    return {"pipeline": [step], "tasks": 100, "logging_dir": str(folder / "logs")}


def test_slurms_executor_takes_the_step(tmp_path):
    from datatrove.executor import SlurmPipelineExecutor

    slurm = SlurmPipelineExecutor(
        **tagging_on_a_cluster(tmp_path), time="04:00:00", partition="gpu", cpus_per_task=8, job_name="tag",
        sbatch_args={"gres": "gpu:1"},
    )  # fmt: skip
    assert slurm.world_size == 100 and slurm.get_sbatch_args()["gres"] == "gpu:1"


def test_rays_executor_takes_the_step(tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed")
    from datatrove.executor import RayPipelineExecutor

    assert RayPipelineExecutor(**tagging_on_a_cluster(tmp_path)).world_size == 100
