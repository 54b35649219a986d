"""`--report_to`: TensorBoard's own reader finds the run's figures and pictures; without it nothing is written."""

import importlib.util
import json
import os
import sqlite3
from pathlib import Path

import pytest
import yaml

import run_irmas
from tests.test_run import TINY

event_accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a recipe, which is the working folder while this module's tests run."""
    path = tmp_path_factory.mktemp("tracking")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setenv("HF_DATASETS_CACHE", str(path / "cache"))
        patch.setenv("TRACKIO_DIR", str(path / "trackio"))
        (path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
        yield path


def events(run: Path):
    """Return what TensorBoard reads of a run: (scalars, pictures), each tag -> the last value."""
    scalars, pictures = {}, {}
    for file in run.rglob("events.out.tfevents.*"):
        reader = event_accumulator.EventAccumulator(str(file))
        reader.Reload()
        scalars |= {tag: reader.Scalars(tag)[-1].value for tag in reader.Tags()["scalars"]}
        pictures |= {tag: reader.Images(tag)[-1] for tag in reader.Tags()["images"]}
    return scalars, pictures


@pytest.mark.parametrize("epochs", ["trained", "not trained"])
def test_tensorboard_gets_the_figures_and_the_pictures(folder, epochs):
    options = ["--report_to", "tensorboard", "--output_dir", f"runs/{epochs}"]
    if epochs == "not trained":
        options += ["--model_name_or_path", "runs/trained", "--num_train_epochs", "0", "--max_steps", "-1"]
    run_irmas.main(["tiny.yaml", *options])
    run = folder / "runs" / epochs
    scalars, pictures = events(run)
    test = json.loads((run / "results.json").read_text())["test"]
    assert scalars["test/lrap"] == pytest.approx(test["lrap"]) and scalars["test/map"] == pytest.approx(test["map"])
    for name in ("micro_f1", "macro_f1"):
        assert scalars[f"test/{name}"] == pytest.approx(test["tuned"][name])
    assert ("train/loss" in scalars) == ("eval/map" in scalars) == (epochs == "trained")
    assert set(pictures) == {f"test/{path.stem}" for path in (run / "figures").glob("*.png")}
    assert len(pictures) >= 3 and all(picture.width > 300 for picture in pictures.values())
    assert list(folder.glob("runs/events*")) == [], "nothing lands outside the run's folder"


def test_nothing_is_written_or_sent_by_default(folder):
    run_irmas.main(["tiny.yaml", "--output_dir", "runs/silent"])
    assert list((folder / "runs/silent").rglob("events.out.tfevents.*")) == []


@pytest.mark.skipif(importlib.util.find_spec("trackio") is None, reason="trackio is optional and not installed")
def test_trackio_gets_them_on_this_machine(folder):
    run_irmas.main(["tiny.yaml", "--report_to", "trackio", "--project", "tiny", "--run_name", "one", "--output_dir", "runs/trackio"])  # fmt: skip
    stored = list((folder / "trackio").rglob("*.db"))
    assert stored, os.listdir(folder)
    with sqlite3.connect(stored[0]) as database:
        rows = database.execute("SELECT CAST(metrics AS TEXT) FROM metrics").fetchall()
    logged = " ".join(row[0] for row in rows)
    assert "test/micro_f1" in logged and "test/per_class_f1" in logged
