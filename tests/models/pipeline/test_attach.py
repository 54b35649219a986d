"""A saved model brings its pipeline: to us, to a stranger with the folder alone, and from the Hub."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from transformers import ASTForAudioClassification, AutoFeatureExtractor, AutoModelForAudioClassification, pipeline

from irmas_recipe.models import ARCHITECTURES
from irmas_recipe.models.pipeline.attach import attach_pipeline, pipeline_files
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline
from tests.models.pipeline.sound import RATE, music


def test_both_pipelines_work_from_the_folder_inside_the_repository(folder):
    custom = pipeline("instrument-recognition", model=str(folder), trust_remote_code=True, device="cpu")
    assert len(custom(music(1.5), sampling_rate=RATE, all_labels=True)) == 3
    plain = pipeline("audio-classification", model=str(folder), device="cpu")
    assert len(plain({"raw": music(1), "sampling_rate": RATE})) == 3


STRANGER = """
import json, sys
from transformers import pipeline
sys.modules["soxr"] = None  # a stranger may not have it
clip, *models = sys.argv[1:]
results = []
for model in models:
    recognise = pipeline("instrument-recognition", model=model, trust_remote_code=True, device="cpu")
    assert type(recognise).__module__.startswith("transformers_modules."), type(recognise)
    results.append(recognise(clip, all_labels=True, return_timeline=True))
plain = pipeline("audio-classification", model=models[0], device="cpu", trust_remote_code=False)
assert not any(name.split(".")[0] in ("irmas_recipe", "irmas_dataset") for name in sys.modules)
print(json.dumps(results))
"""


@pytest.fixture
def clip(tmp_path) -> Path:
    path = tmp_path / "clip.wav"
    soundfile.write(path, music(2.2, 44_100, 2), 44_100)
    return path


def results_of_a_stranger(clip: Path, models: list[str]) -> list[dict]:
    """Return what a process in another directory, with an empty cache of code, hears with these models; AST is first."""
    home = clip.parent
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", STRANGER, str(clip), *models]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def check_against_ours(theirs: dict, clip: Path, folder: Path) -> None:
    """Compare a stranger's result with that of our own classes; a stranger resamples with torchaudio."""
    recognise = InstrumentRecognitionPipeline(
        model=AutoModelForAudioClassification.from_pretrained(folder),
        feature_extractor=AutoFeatureExtractor.from_pretrained(folder),
        device="cpu",
    )
    ours = recognise(str(clip), all_labels=True)
    assert len(ours) == 11
    assert {entry["label"]: entry["score"] for entry in theirs["instruments"]} == pytest.approx(
        {entry["label"]: entry["score"] for entry in ours}, abs=0.02
    ), folder.name
    assert theirs["duration_seconds"] == pytest.approx(2.2, abs=1e-3)


def test_a_stranger_with_the_folder_gets_the_same_as_we_do_from_every_model(every_model, clip):
    folders = [every_model / name for name in sorted(ARCHITECTURES)]
    for theirs, folder in zip(results_of_a_stranger(clip, list(map(str, folders))), folders, strict=True):
        check_against_ours(theirs, clip, folder)


def publish(folder: Path, home: Path, name: str) -> str:
    """Lay a folder into a home's cache of the Hub as a download does, with links into blobs; return its id."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = home / f".cache/huggingface/hub/models--someone--{name}"
    for part in ("refs", "blobs", f"snapshots/{commit}"):
        (repository / part).mkdir(parents=True)
    (repository / "refs/main").write_text(commit)
    for number, file in enumerate(sorted(folder.iterdir())):
        (repository / f"blobs/{number:040x}").write_bytes(file.read_bytes())
        (repository / f"snapshots/{commit}/{file.name}").symlink_to(f"../../blobs/{number:040x}")
    return f"someone/{name}"


def test_a_stranger_gets_the_same_from_the_hub(every_model, clip):
    names = ["ast", "cnn"]
    results = results_of_a_stranger(clip, [publish(every_model / name, clip.parent, name) for name in names])
    for theirs, name in zip(results, names, strict=True):
        check_against_ours(theirs, clip, every_model / name)


def test_the_pipelines_files_are_exactly_those_that_it_imports(folder):
    names = {
        "instrument_recognition.py",
        "audio_blocks.py",
        "decoding.py",
        "decoding_processes.py",
        "separation.py",
        "windows.py",
    }
    assert {file.name for file in pipeline_files()} == names
    assert {file.name for file in folder.glob("*.py")} == names, "an AST brings no other code"
    for file in pipeline_files():
        assert (folder / file.name).read_text() == file.read_text()


def test_attaching_twice_changes_nothing_and_a_folder_without_a_model_is_refused(folder, tmp_path):
    before = (folder / "config.json").read_text()
    attach_pipeline(folder)
    assert (folder / "config.json").read_text() == before
    with pytest.raises(FileNotFoundError, match="no saved model"):
        attach_pipeline(tmp_path)


def test_saving_the_model_again_keeps_the_entry(folder, tmp_path):
    ASTForAudioClassification.from_pretrained(folder).save_pretrained(tmp_path)
    assert "instrument-recognition" in json.loads((tmp_path / "config.json").read_text())["custom_pipelines"]
