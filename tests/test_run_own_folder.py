"""Folders of one's own, by class and by a table, through training, thresholds, card, prediction, evaluation and audit."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

import run_irmas
from irmas_dataset.errors import UserError
from tests.test_run import TINY

PITCHES = {"kora": 220.0, "oud": 330.0, "ney flute": 700.0}


def write_clip(path: Path, instruments: list[str], seed: int, seconds: float = 3.0) -> None:
    """Write one tone an instrument, and noise, in the file's own format and a rate that depends on the seed."""
    rng, rate = np.random.default_rng(seed), (16_000, 44_100, 22_050)[seed % 3]
    time = np.arange(round(seconds * rate)) / rate
    clip = 0.01 * rng.standard_normal(len(time))
    for name in instruments:
        pitch = PITCHES[name] * rng.uniform(0.9, 1.1)
        clip += 0.2 * sum(np.sin(2 * np.pi * pitch * k * time) / k for k in (1, 2, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.stack([clip, 0.8 * clip], axis=1) if seed % 2 else clip, rate)


def write_recipe(data_dir: str, **fields) -> None:
    recipe = {name: value for name, value in TINY.items() if not name.startswith("synthetic")}
    Path("own.yaml").write_text(yaml.safe_dump(recipe | {"data_dir": data_dir, "validation_fraction": 0.3} | fields))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with a folder by class (nested, odd names) and one with a table."""
    path = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setattr("datasets.config.HF_DATASETS_CACHE", path / "cache")
        for number in range(30):
            name = list(PITCHES)[number % 3]
            seconds = 9.5 if number == 4 else 3.0  # a long one is cut into pieces
            write_clip(
                Path(f"by class/train/{name}/disc {number % 2}/take{number // 6}_{number}.wav"), [name], number, seconds
            )
        Path("by class/train/oud/notes.txt").write_text("not audio")
        lines = ["path,instruments,recording"]
        for number in range(30):
            names = list(PITCHES)[number % 3 :][: 1 + number % 2]
            file = f"{'test' if number % 5 == 0 else 'clips'}/é {number}.{'flac' if number % 2 else 'ogg'}"
            write_clip(Path("table", file), names, 100 + number, 4.0)
            lines.append(f"{file},{';'.join(names)},session {number // 2 if number % 5 else 100 + number}")
        Path("table/labels.csv").write_text("\n".join(lines), encoding="utf-8")
        yield path


def results_of(run: str) -> dict:
    return json.loads(Path(run, "results.json").read_text())


def test_a_folder_by_class_with_recordings_by_a_pattern(folder, capsys):
    write_recipe("by class", recording_pattern="take[0-9]+")
    run_irmas.main(["own.yaml", "--output_dir", "runs/by class"])
    line = next(line for line in capsys.readouterr().out.splitlines() if " predict " in line)
    *_, run, clip = shlex.split(line)
    assert run == "runs/by class" and Path(clip).is_file()
    results = results_of("runs/by class")
    assert results["dataset"]["classes"] == sorted(PITCHES) and results["dataset"]["test_is_held_out"]
    assert results["dataset"]["name"] == "own folder by class"
    assert set(results["test"]["tuned"]["per_class"]) == set(PITCHES)
    config = json.loads(Path("runs/by class/config.json").read_text())
    assert list(config["id2label"].values()) == sorted(PITCHES) and len(config["thresholds"]) == 3
    assert len(config["window_thresholds"]) == len(config["confidence_slopes"]) == 3
    card = Path("runs/by class/README.md").read_text()
    assert "Not IRMAS" in card and "ney flute" in card and "clarinet" not in card
    frame = pd.read_parquet("runs/by class/predictions.parquet")
    assert len({song for song in frame["song"]}) < len(frame), "a recording is held out as a whole"
    capsys.readouterr()
    run_irmas.main(["evaluate", "runs/by class", "--output_dir", "again"])
    assert results_of("again")["test"]["lrap"] == results["test"]["lrap"]
    run_irmas.main(["predict", "runs/by class", "by class/train/oud", "--format", "csv", "--output", "tags.csv"])
    assert {f"score_{label}" for label in PITCHES} <= set(pd.read_csv("tags.csv").columns)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["train/kora", "train/zither"], "the classes kora, ney flute, oud then, ney flute, oud, zither now"),
        (["train/oud/disc 1", "elsewhere"], "other train clips or labels"),
    ],
)
def test_a_run_is_not_resumed_with_other_data(folder, change, said):
    shutil.rmtree("changing", ignore_errors=True)
    shutil.rmtree("runs/changing", ignore_errors=True)
    shutil.copytree("by class", "changing")
    write_recipe("changing")
    run_irmas.main(["own.yaml", "--output_dir", "runs/changing"])
    Path("runs/changing/README.md").unlink()
    source, target = (Path("changing", name) if "/" in name else Path(folder, name) for name in change)
    source.rename(target)
    with pytest.raises(UserError, match=said):
        run_irmas.main(["own.yaml", "--output_dir", "runs/changing"])
    target.rename(source)
    run_irmas.main(["own.yaml", "--output_dir", "runs/changing"])
    assert results_of("runs/changing")["train"]["resumed"]


def test_a_table_with_several_labels_recordings_and_corrections(folder, capsys):
    write_recipe("table")
    Path("fixes.csv").write_text(
        "path,instruments,drop\nclips/é 1.flac,oud;kora,\nclips/é 2.ogg,,yes\n", encoding="utf-8"
    )
    run_irmas.main(["own.yaml", "--output_dir", "runs/table"])
    run_irmas.main(["own.yaml", "--output_dir", "runs/corrected", "--corrections", "fixes.csv"])
    before, after = (results_of(run)["dataset"]["clips"] for run in ("runs/table", "runs/corrected"))
    assert before["test"] == after["test"] == 6
    assert before["train"] + before["validation"] == 24 and after["train"] + after["validation"] == 23
    capsys.readouterr()
    run_irmas.main(["compare", "runs/table", "runs/corrected"])
    assert "corrected" in capsys.readouterr().out
    frame = pd.read_parquet("runs/table/predictions.parquet")
    assert max(map(len, frame["instruments"])) == 2


@pytest.mark.slow
@pytest.mark.parametrize("data_dir", ["by class", "table"])
def test_the_audit_of_a_folder_of_ones_own_writes_corrections_that_its_recipe_takes(folder, data_dir, capsys):
    twin = Path(data_dir, "train/oud/copy.wav" if data_dir == "by class" else "clips/é 1.flac")
    if data_dir == "by class":
        twin.write_bytes(next(Path(data_dir, "train/kora").glob("**/*.wav")).read_bytes())
    out = Path("audit", data_dir)
    run_irmas.main(["audit", "--data_dir", data_dir, "--output_dir", str(out), "--processes", "1"])
    assert "kora" in (out / "report.html").read_text()
    assert "ney flute" in capsys.readouterr().out + (out / "report.html").read_text()
    if data_dir == "by class":
        corrections = pd.read_csv(out / "corrections.csv")
        assert any("copy.wav" in path or "train/kora" in path for path in corrections["path"])
        write_recipe(data_dir)
        run_irmas.main(["own.yaml", "--output_dir", "runs/audited", "--corrections", str(out / "corrections.csv")])
        assert Path("runs/audited/README.md").is_file()
