"""`convert`: the authors' weights -> a folder that the Auto classes and the pipelines load."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, pipeline

from irmas_dataset.errors import UserError
from irmas_dataset.labels import AUDIOSET_LABELS
from irmas_recipe.commands import convert
from irmas_recipe.models.audioset import audioset_labels
from tests.tiny import authors_file

ROOT = Path(__file__).parents[2]
MN04 = ROOT.parent / "shared" / "weights" / "mn04_as_mAP_432.pt"
IRMAS_IN_AUDIOSET = {
    "cello": 193,
    "clarinet": 198,
    "flute": 196,
    "acoustic guitar": 143,
    "electric guitar": 141,
    "organ": 155,
    "piano": 153,
    "saxophone": 197,
    "trumpet": 187,
    "violin": 191,
    "voice": 27,
}


@pytest.fixture
def passt_checkpoint(tmp_path) -> Path:
    """Return the path of a small PaSST in the authors' format, 527 classes."""
    return authors_file("passt", tmp_path / "passt.pt")


def run_irmas(*arguments: object) -> subprocess.CompletedProcess:
    """Run `run_irmas.py` as a user does, away from any network."""
    return subprocess.run(
        [sys.executable, str(ROOT / "run_irmas.py"), *map(str, arguments)],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_audioset_classes_are_in_the_order_of_every_checkpoint():
    labels = audioset_labels()
    assert len(labels) == len(set(labels)) == 527
    assert labels[0] == ("/m/09x0r", "Speech")
    names = [name for _, name in labels]
    assert {ours: names.index(theirs) for ours, theirs in AUDIOSET_LABELS.items()} == IRMAS_IN_AUDIOSET


def test_converted_folder_loads_and_scores(passt_checkpoint, tmp_path, capsys):
    output_dir = tmp_path / "new" / "passt"
    convert.main(["passt", str(passt_checkpoint), str(output_dir)])
    assert str(output_dir) in capsys.readouterr().out
    model = AutoModelForAudioClassification.from_pretrained(output_dir)
    extractor = AutoFeatureExtractor.from_pretrained(output_dir)
    waveform = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    with torch.no_grad():
        logits = model(**extractor(waveform, sampling_rate=32000, return_tensors="pt")).logits[0]
    found = pipeline("audio-classification", model=model, feature_extractor=extractor)(waveform, top_k=3)
    expected = logits.sigmoid().topk(3)
    assert [score["label"] for score in found] == [audioset_labels()[index][1] for index in expected.indices]
    assert [score["score"] for score in found] == pytest.approx(expected.values.tolist(), abs=1e-5)


def test_converted_folder_carries_the_models_code_but_not_the_converter(passt_checkpoint, tmp_path):
    convert.main(["passt", str(passt_checkpoint), str(tmp_path / "model")])
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"configuration_passt.py", "modeling_passt.py", "feature_extraction_passt.py"} <= names
    assert "convert_passt.py" not in names
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["custom_pipelines"]["instrument-recognition"]["type"] == "audio"
    assert config["released_as"] == passt_checkpoint.name
    with pytest.raises(UserError, match=r"has a model.*--overwrite_output_dir true"):
        convert.main(["passt", str(passt_checkpoint), str(tmp_path / "model")])
    (tmp_path / "broken.pt").write_bytes(b"broken")
    before = {path: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    with pytest.raises(UserError, match=r"broken\.pt"):
        convert.main(["passt", str(tmp_path / "broken.pt"), str(tmp_path / "model"), "--overwrite_output_dir"])
    assert {path: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before


def test_released_mobilenet_hears_a_sine_wave(tmp_path):
    if not MN04.is_file():
        pytest.skip(f"the released weights are not at {MN04}")
    convert.main(["mobilenet", str(MN04), str(tmp_path)])
    model = AutoModelForAudioClassification.from_pretrained(tmp_path)
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path)
    tagger = pipeline("audio-classification", model=model, feature_extractor=extractor)
    sine = 0.3 * np.sin(2 * np.pi * 440 * np.arange(3 * 32000) / 32000)
    assert tagger(sine.astype(np.float32), top_k=1)[0]["label"] == "Sine wave"


def test_an_output_that_is_a_file_is_refused(passt_checkpoint):
    with pytest.raises(UserError, match=r"passt\.pt is a file"):
        convert.main(["passt", str(passt_checkpoint), str(passt_checkpoint)])


def test_an_unknown_architecture_names_the_known_ones(capsys):
    with pytest.raises(SystemExit) as exit_error:
        convert.main(["resnet", "a.pt", "out"])
    assert exit_error.value.code == 2
    message = capsys.readouterr().err
    assert all(name in message for name in ("beats", "passt", "mobilenet"))


@pytest.mark.parametrize("architecture", ["beats", "passt", "mobilenet"])
def test_a_missing_checkpoint_is_named(architecture, tmp_path):
    with pytest.raises(UserError, match=r"absent\.pt"):
        convert.main([architecture, str(tmp_path / "absent.pt"), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_the_shell_gets_one_sentence_and_code_2(passt_checkpoint, tmp_path):
    finished = run_irmas("convert", "mobilenet", passt_checkpoint, tmp_path / "out")
    assert finished.returncode == 2
    assert "classifier.2.weight is missing" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "out").exists()
