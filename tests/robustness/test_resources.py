"""Full disks, read-only data, no home, no network, many processes at once, and files of ten hours."""

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from irmas_dataset.export.layout import is_exported
from irmas_dataset.synthetic import synthesize
from irmas_recipe.training.run_folder import is_finished
from tests.robustness.tiny_run import ROOT, command, environment, start, write_recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with the tiny recipe, its music and a finished run of it."""
    folder = tmp_path_factory.mktemp("resources")
    write_recipe(folder)
    done = start(folder, "tiny.yaml")
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@contextmanager
def small_disk(folder: Path, kilobytes: int):
    """Mount a disk of that size; only root can."""
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def enlarge(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=200m", str(folder)], check=True)


def sentence_of(done: subprocess.CompletedProcess) -> str:
    """Return the sentence that a command ended with; it has to be one, with exit code 2 and no traceback."""
    assert done.returncode == 2, done.stderr[-3000:]
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    lines = [line for line in done.stderr.strip().splitlines() if not line.startswith(("nanobind", " - "))]
    return lines[-1]  # soxr's binding adds lines of its own where a thread was still decoding


@pytest.mark.parametrize("kilobytes", [4, 40, 120, 300, 500, 700])
def test_a_run_folder_on_a_full_disk(folder, tmp_path, kilobytes):
    """However far the run comes: one sentence, nothing that looks finished; with more room the next start ends as ever."""
    with small_disk(tmp_path / "disk", kilobytes) as disk:
        done = start(folder, "tiny.yaml", "--output_dir", disk / "run")
        assert "room" in sentence_of(done) or "Cannot write" in done.stderr
        assert not is_finished(disk / "run")
        enlarge(disk)
        done = start(folder, "tiny.yaml", "--output_dir", disk / "run")
        assert done.returncode == 0, done.stderr[-3000:]
        for name in ("model.safetensors", "predictions.parquet"):
            assert (disk / "run" / name).read_bytes() == (folder / "runs/tiny" / name).read_bytes()


@pytest.mark.parametrize("kilobytes", [8, 1000])
def test_a_cache_on_a_full_disk(folder, tmp_path, kilobytes):
    """The prepared data does not fit; with more room the next start makes the same."""
    with small_disk(tmp_path / "disk", kilobytes) as disk:
        options = ("tiny.yaml", "--output_dir", f"runs/cache-{kilobytes}")
        sentence_of(start(folder, *options, HF_DATASETS_CACHE=str(disk)))
        enlarge(disk)
        done = start(folder, *options, HF_DATASETS_CACHE=str(disk))
        assert done.returncode == 0, done.stderr[-3000:]
        weights = (folder / f"runs/cache-{kilobytes}/model.safetensors").read_bytes()
        assert weights == (folder / "runs/tiny/model.safetensors").read_bytes()


def test_other_commands_on_a_full_disk(folder, tmp_path):
    """Synthesising, exporting, tables of predictions, measuring: one sentence each, and then with more room it works."""
    music = next(folder.glob("data/synthetic-*"))
    with small_disk(tmp_path / "disk", 16) as disk:
        commands = {
            "synthesize": ("synthesize", disk / "music", "--train", 4, "--test", 1),
            "export": ("export", "--data_dir", music, "--output_dir", disk / "exported"),
            "predict": ("predict", "runs/tiny", music, "--output", disk / "table.parquet", "--resume"),
            "pictures": ("predict", "runs/tiny", music, "--output", folder / "table.csv", "--resume", "--timeline", disk / "pictures"),
            "evaluate": ("evaluate", "runs/tiny", "--data_dir", music, "--output_dir", disk / "measured"),
        }  # fmt: skip
        for name, arguments in commands.items():
            said = sentence_of(start(folder, *arguments))
            assert "No space left" in said or "full" in said or "Cannot write" in said, (name, said)
        assert not is_exported(disk / "exported")
        enlarge(disk)
        for arguments in commands.values():
            done = start(folder, *arguments)
            assert done.returncode == 0, done.stderr[-3000:]
        assert len(pd.read_parquet(disk / "table.parquet")) == 56 and is_exported(disk / "exported")


def test_a_read_only_data_folder_and_no_home(folder, tmp_path):
    """Music on a read-only mount, and no HOME: a run needs to write nowhere but its caches and its folder."""
    music = tmp_path / "music"
    with small_disk(music, 200_000):
        synthesize(music, train=22, test=6)
        subprocess.run(["mount", "-o", "remount,ro", str(music)], check=True)
        write_recipe(tmp_path, data_dir=str(music), max_steps=3)
        settings = environment(tmp_path)
        settings.pop("HOME", None)
        done = subprocess.run(command("tiny.yaml"), cwd=tmp_path, env=settings, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]


def test_no_network(folder, tmp_path):
    """Every way to the Hub and to the record, with nobody there: one sentence each, soon."""
    away = {
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path),
        "HF_HUB_DOWNLOAD_TIMEOUT": "2",
    }
    music = next(folder.glob("data/synthetic-*"))
    for arguments in (
        ("tiny.yaml", "--model_name_or_path", "nobody/nothing", "--output_dir", "runs/away"),
        ("predict", "nobody/nothing", music),
        ("evaluate", "nobody/nothing"),
        ("download", "--data_dir", tmp_path / "irmas", "--base_url", "http://127.0.0.1:9"),
        ("export", "--data_dir", music, "--output_dir", tmp_path / "exported", "--push_to_hub", "nobody/nothing"),
    ):
        options = {"model_config": "{}"} if arguments[0] == "tiny.yaml" else {}
        write_recipe(folder, **options)
        assert sentence_of(start(folder, *arguments, **away)).endswith("."), arguments
    write_recipe(folder)


def test_eight_processes_on_a_cold_cache(folder):
    """They make the same data once and all end well."""
    settings = environment(folder, HF_DATASETS_CACHE=str(folder / "cold"))
    code = (
        "import sys; from irmas_dataset import load_irmas, prepare, WaveformColumn; import hashlib;"
        "data = load_irmas(sys.argv[1]); found = hashlib.sha256();"
        "[found.update(w) for name in data for w in map(bytes, WaveformColumn(prepare(data[name], 16000, num_proc=1)))];"
        "print(found.hexdigest())"
    )
    music = next(folder.glob("data/synthetic-*"))
    starts = [
        subprocess.Popen([sys.executable, "-c", code, str(music)], cwd=ROOT, env=settings, stdout=subprocess.PIPE, text=True)
        for _ in range(8)
    ]  # fmt: skip
    said = {process.communicate(timeout=300)[0].strip() for process in starts}
    assert len(said) == 1 and len(said.pop()) == 64 and all(process.returncode == 0 for process in starts)


PEAK = """
import resource, sys, run_irmas
run_irmas.main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_ten_hours_take_no_more_memory_than_ten_minutes(folder, tmp_path):
    """`predict` over a flac of ten hours: its peak memory is at most 100 MB above that for ten minutes."""
    peaks = {}
    for name, minutes in (("short", 10), ("long", 600)):
        rng = np.random.default_rng(0)
        minute = (0.1 * np.sin(np.arange(60 * 8000) * 0.3) + 1e-4 * rng.normal(size=60 * 8000)).astype(np.float32)
        with soundfile.SoundFile(tmp_path / f"{name}.flac", "w", 8000, 1) as file:
            for _ in range(minutes):
                file.write(minute)
        arguments = [
            "predict",
            str(folder / "runs/tiny"),
            str(tmp_path / f"{name}.flac"),
            "--output",
            str(tmp_path / f"{name}.json"),
            "--hop_seconds",
            "3",  # as the window: half the windows, and half the time
        ]
        settings = environment(tmp_path) | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *arguments], env=settings, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        peaks[name] = int(done.stdout.split()[-1]) / 1024
        (row,) = json.loads((tmp_path / f"{name}.json").read_text())["files"]
        assert row["duration_seconds"] == pytest.approx(60 * minutes, abs=0.01)
    print(f"peak memory: {peaks}")
    assert peaks["long"] - peaks["short"] < 100
