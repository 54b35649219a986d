"""`predict` without a model, and with a released one: from an empty cache to the instruments of a recording."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from experiments import released_thresholds
from irmas_dataset.errors import UserError
from irmas_dataset.labels import AUDIOSET_LABELS, INSTRUMENT_CODES, INSTRUMENT_NAMES
from irmas_recipe.commands.predict import main as predict
from irmas_recipe.commands.predict.arguments import parse_arguments
from irmas_recipe.commands.predict.rows import FIXED_COLUMNS
from irmas_recipe.models.audioset import audioset_labels, musical_instruments
from irmas_recipe.training import released_answers
from irmas_recipe.training.conversion import convert
from irmas_recipe.training.recogniser import load_recogniser
from irmas_recipe.training.released import DEFAULT_MODEL, RELEASED
from irmas_recipe.training.released_answers import PROTOCOL, answer_with, read_measurements
from tests.irmas_dataset.record_server import serve
from tests.tiny import authors_file, build, saved_run

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
MN04 = RELEASED["mn04"]
LABELS = list(INSTRUMENT_NAMES.values())


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A cache in which a narrow, random MobileNet stands for mn04 and mn10."""
    home = tmp_path_factory.mktemp("home")
    file = authors_file("mobilenet", home / MN04.file_name)
    for name in ("mn04", "mn10"):
        convert("mobilenet", file, home / "irmas" / name, RELEASED[name].file_name)
    return home


@pytest.fixture
def here(home, tmp_path, monkeypatch):
    """A working folder with a song, a run and the filled cache."""
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    Path("music").mkdir()
    noise = 0.1 * np.random.default_rng(0).standard_normal(5 * 16000)
    soundfile.write("music/song.wav", noise, 16000)
    saved_run(Path("runs/mine"), LABELS, [0.5] * 11)
    return tmp_path


def rows_of(*arguments: str) -> pd.DataFrame:
    Path("tags.csv").unlink(missing_ok=True)
    predict.main([*arguments, "--output", "tags.csv", "--device", "cpu"])
    return pd.read_csv("tags.csv")


@pytest.mark.parametrize("music", ["music/song.wav", "music"])
def test_music_alone_is_heard_by_the_default_model(here, music, capsys):
    rows = rows_of(music)
    assert list(rows.columns) == [*FIXED_COLUMNS, *(f"score_{label}" for label in LABELS)]
    assert f"No MODEL is named: {DEFAULT_MODEL} answers" in capsys.readouterr().err
    pd.testing.assert_frame_equal(rows, rows_of(DEFAULT_MODEL, music))
    assert "No MODEL" not in capsys.readouterr().err


def test_all_classes_are_audiosets_instruments_and_its_singing(here):
    rows, eleven = rows_of("music", "--classes", "all"), rows_of("music")
    assert list(rows.columns[5:]) == [f"score_{name}" for name in (*musical_instruments(), "Singing")]
    for label, name in AUDIOSET_LABELS.items():
        assert rows[f"score_{name}"].tolist() == eleven[f"score_{label}"].tolist()


def test_the_instruments_are_one_branch_of_audioset_in_its_order():
    names, branch = [name for _, name in audioset_labels()], musical_instruments()
    first = names.index("Musical instrument")
    assert branch == names[first : names.index("Pop music")] and len(branch) == 78
    assert set(AUDIOSET_LABELS.values()) - set(branch) == {"Singing"}


def test_thresholds_are_those_that_were_measured():
    measured = read_measurements()[DEFAULT_MODEL.removeprefix("released/")]
    assert list(measured["thresholds"]) == LABELS and all(0 < value < 1 for value in measured["thresholds"].values())
    assert {name: measured[name] for name in PROTOCOL} == PROTOCOL and not measured["commit"].endswith("dirty")


def test_a_released_checkpoint_listens_as_it_was_measured(here, caplog):
    measured = read_measurements()["mn04"]
    config = load_recogniser("released/mn04", device="cpu").model.config
    assert config.thresholds == list(measured["thresholds"].values()) and config.window_seconds == 3.0
    every = load_recogniser("released/mn04", device="cpu", classes="all")
    by_label = dict(zip(every.labels, every.model.config.thresholds, strict=True))
    assert by_label["Violin, fiddle"] == measured["thresholds"]["violin"]
    assert by_label["Harp"] == measured["single_threshold"]
    assert not caplog.text
    assert load_recogniser("released/mn10", device="cpu").resolve_thresholds() == [0.5] * 11
    assert "No thresholds have been measured for released/mn10" in caplog.text


def test_a_checkpoint_without_audiosets_classes_is_refused():
    model, _ = build("passt")
    model.config.id2label = {index: f"LABEL_{index}" for index in range(11)}
    with pytest.raises(UserError, match=r"passt-openmic .*has no output for cello and 10 more: start a recipe"):
        answer_with(model, RELEASED["passt-openmic"], "irmas")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["runs", "music"], "runs has no config.json: did you mean runs/mine?"),
        (["runs/damaged", "music"], "runs/damaged/recipe.yaml is not a recipe"),
        (["runs/weights_left", "music"], "runs/weights_left has no config.json: give the folder of a finished run."),
        (["weights.safetensors", "music"], "weights.safetensors is a file"),
        (["runs/mine"], "Name audio files, or folders of them, after MODEL runs/mine."),
        (["released/mn04"], "Name audio files, or folders of them, after MODEL released/mn04."),
        (["released/mn4", "music"], "There is no released checkpoint mn4: did you mean released/mn04?"),
        (["sogn.mp3"], "There is no file or folder sogn.mp3."),
        (["empty"], "empty has no audio files"),
        (["runs/mine", "music", "--classes", "all"], "--classes is for released checkpoints"),
    ],
)
def test_a_model_is_never_taken_for_music_nor_music_for_a_model(here, arguments, sentence):
    Path("runs/damaged").mkdir()
    Path("runs/damaged/recipe.yaml").touch()
    Path("runs/weights_left").mkdir()
    Path("runs/weights_left/model.safetensors").touch()
    Path("weights.safetensors").touch()
    Path("empty").mkdir()
    with pytest.raises(UserError) as error:
        predict.main([*arguments, "--device", "cpu"])
    assert str(error.value).startswith(sentence) and "\n" not in str(error.value)


def test_a_run_and_an_id_on_the_hub_are_models(here):
    for model in ("runs/mine", "someone/model", DEFAULT_MODEL):
        arguments = parse_arguments([model, "music"])
        assert (arguments.model, arguments.paths, arguments.is_default) == (model, [Path("music")], False)


def write_phrases(folder: Path, classes: tuple[str, ...]) -> Path:
    generator = np.random.default_rng(0)
    for name in classes:
        (folder / "train" / name).mkdir(parents=True)
        for clip in range(2):
            soundfile.write(folder / f"train/{name}/{clip}.wav", 0.1 * generator.standard_normal(16000), 16000)
    return folder


def test_the_measurement_writes_what_predict_reads(here, monkeypatch, capsys):
    folder = write_phrases(here / "phrases", INSTRUMENT_CODES)
    written = here / "thresholds.json"
    released_thresholds.main(["mn10", str(folder), "--data", "noise", "--output", str(written)])
    monkeypatch.setattr(released_answers, "FILE", written)
    measured = read_measurements()["mn10"]
    assert measured["data"] == {"what": "noise", "clips": dict.fromkeys(INSTRUMENT_CODES, 2), "mixtures": 22}
    assert set(measured["figures"]) == {"tuned", "0.5"}
    config = load_recogniser("released/mn10", device="cpu").model.config
    assert config.thresholds == list(measured["thresholds"].values())
    with pytest.raises(UserError, match="has the classes cel, flu: IRMAS's cel, cla"):
        released_thresholds.main(["mn10", str(write_phrases(here / "two", ("cel", "flu"))), "--data", "noise"])


def test_from_an_empty_cache_to_the_instruments_of_a_real_recording(tmp_path):
    weights = SHARED / "weights" / MN04.file_name
    recording = SHARED / "audio/recordings/pia/bytedance_piano__cut_bach.flac"
    if not (weights.is_file() and recording.is_file()):
        pytest.skip(f"the released weights or the recordings are not in {SHARED}")
    with serve({MN04.file_name: weights.read_bytes()}) as record:
        record.breaks_after = [1_000_000]
        own = {"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home"), "IRMAS_MIRROR": record.url}
        command = [sys.executable, str(ROOT / "run_irmas.py"), "predict", str(recording)]
        options = {"env": os.environ | own, "capture_output": True, "text": True, "cwd": tmp_path}
        first = subprocess.run(command, **options)
        again = subprocess.run(command, **options)
        assert len(record.requests) == 2, "one that broke off, and the rest"
    assert first.returncode == 0 and "Traceback" not in first.stderr, first.stderr
    assert first.stdout.splitlines()[1].startswith("* piano ") and first.stdout == again.stdout
    assert "Fetching released/mn04 (4.1 MB, mit licence) once." in first.stderr
    assert "Fetching" not in again.stderr and "No MODEL is named: released/mn04" in again.stderr
