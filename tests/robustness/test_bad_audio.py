"""Every kind of audio file through training, evaluation, prediction and the pipeline: an answer that is right, or a sentence."""

import json
import logging
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import Dataset
from transformers import ASTFeatureExtractor, ASTForAudioClassification

import run_irmas
from irmas_dataset import WaveformColumn, decode, describe, load_irmas, prepare, resample
from irmas_dataset.audit.clips import read_frames as read_audit_frames
from irmas_dataset.builder import read_facts
from irmas_dataset.errors import UserError
from irmas_dataset.files import to_text
from irmas_recipe.models.pipeline.audio_blocks import read_blocks, resample_blocks
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline
from tests.robustness.bad_audio import RATE, Kind, encoded, tone, write_bad_audio
from tests.robustness.tiny_run import ROOT, write_recipe
from tests.tiny import saved_run

LABELS = ["cello", "piano"]


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A tiny random AST of two labels that looks at 1 s every 0.5 s, saved as a run is."""
    return saved_run(tmp_path_factory.mktemp("bad-audio-model") / "model", LABELS, [0.5, 0.5])


@pytest.fixture(scope="session")
def kinds(tmp_path_factory) -> list[Kind]:
    return write_bad_audio(tmp_path_factory.mktemp("bad-audio") / "files")


@pytest.fixture(scope="session")
def recognise(model) -> InstrumentRecognitionPipeline:
    return InstrumentRecognitionPipeline(
        model=ASTForAudioClassification.from_pretrained(model), feature_extractor=ASTFeatureExtractor.from_pretrained(model)
    )  # fmt: skip


def error_of(waveform: np.ndarray, kind: Kind) -> float:
    """Return the root-mean-square error of a waveform at `RATE`, relative to the level of what it should be."""
    wanted = resample(kind.samples.astype(np.float32), kind.rate, RATE)
    assert abs(len(waveform) - len(wanted)) <= max(2, 0.03 * len(wanted) * (kind.tolerance > 0.1)), "another duration"
    length = min(len(waveform), len(wanted))
    level = max(float(np.sqrt(np.mean(wanted**2))), 1e-3)
    return float(np.sqrt(np.mean((waveform[:length] - wanted[:length]) ** 2))) / level


def test_there_are_at_least_sixty_kinds(kinds):
    assert len({kind.path for kind in kinds}) == len(kinds) >= 60


def test_predict_answers_for_every_sound_file_and_counts_every_other(kinds, model, tmp_path, capsys):
    """The verb over the folder: it ends with code 1, a finite row for each sound file, and every other counted in few lines."""
    with pytest.raises(SystemExit) as ended:
        run_irmas.main(["predict", str(model), str(kinds[0].path.parent), "--output", str(tmp_path / "table.json")])
    assert ended.value.code == 1
    rows = {row["path"]: row for row in json.loads((tmp_path / "table.json").read_text())["files"]}
    assert set(rows) == {to_text(kind.path) for kind in kinds if kind.is_sound}
    for kind in kinds:
        if kind.is_sound:
            row = rows[to_text(kind.path)]
            assert all(0 <= row["scores"][label] <= 1 for label in LABELS), row
            assert row["duration_seconds"] == pytest.approx(len(kind.samples) / kind.rate, rel=0.05, abs=0.01)
    said = capsys.readouterr().err
    refused = [kind for kind in kinds if not kind.is_sound and kind.is_listed]
    assert f"{len(refused)} of {len(rows) + len(refused)} files could not be read" in said
    lines = said[said.index("could not be read:") :].splitlines()[1:]
    told = sum(int(more[1]) for line in lines if (more := re.search(r"(\d+) more", line))) + len(lines)
    assert told - lines[-1].startswith("  and ") == len(refused) and "Traceback" not in said


def test_the_pipeline_hears_what_is_in_the_file_or_says_why_not(kinds, recognise):
    """File by file, also those that a folder's list leaves out: the right samples, or one sentence with the name."""
    wrong = []
    for kind in kinds:
        try:
            rate, blocks = read_blocks(str(kind.path))
            if not kind.is_sound:
                list(recognise.preprocess(str(kind.path)))
            waveform = np.concatenate(list(resample_blocks(blocks, rate, RATE)))
            if not kind.is_sound:
                wrong.append(f"{kind.path.name} was read")
            elif (error := error_of(waveform, kind)) > kind.tolerance:
                wrong.append(f"{kind.path.name} is off by {error}")
        except (OSError, ValueError) as error:
            if kind.is_sound or kind.path.name not in str(error):
                wrong.append(f"{kind.path.name}: {error}")
    assert not wrong, "\n".join(wrong)


def test_the_pipeline_goes_on_after_a_bad_file(kinds, recognise):
    paths = [str(kind.path) for kind in kinds if kind.path.name in ("nan_float.wav", "silence.wav", "text.wav")]
    results = recognise([*paths, {"array": tone(), "sampling_rate": RATE}], all_labels=True, skip_unreadable=True)
    assert ["error" in result for result in results] == [
        name.endswith(("nan_float.wav", "text.wav")) for name in [*paths, ""]
    ]


def test_training_and_the_pipeline_decode_with_the_same_file():
    """What travels with a model imports nothing of this repository, so there are two copies: of the same bytes."""
    inside = ROOT / "irmas_recipe/models/pipeline/decoding.py"
    assert inside.read_bytes() == (ROOT / "irmas_dataset/decoding.py").read_bytes()


def test_every_part_decodes_the_same_samples(kinds):
    """`decode` and the pipeline's blocks, the audit's frames and the builder's duration."""
    wrong = []
    for kind in kinds:
        try:
            waveform, rate = decode(kind.path)
        except UserError as error:
            if kind.is_sound or kind.path.name not in to_text(str(error)):
                wrong.append(f"{kind.path.name}: {error}")
            continue
        if not kind.is_sound:
            wrong.append(f"{kind.path.name} was read")
        elif (error := error_of(resample(waveform, rate, RATE), kind)) > kind.tolerance:
            wrong.append(f"{kind.path.name} is off by {error}")
        blocks, frames = read_blocks(str(kind.path)), read_audit_frames(str(kind.path))
        assert (rate, rate) == (blocks[0], frames[1]), kind.path.name
        np.testing.assert_array_equal(np.concatenate(list(blocks[1])), waveform, err_msg=kind.path.name)
        np.testing.assert_allclose(frames[0].mean(axis=1), waveform, atol=1e-6, err_msg=kind.path.name)
        facts = read_facts(str(kind.path))
        assert facts["duration"] == len(waveform) / rate and facts["problem"] is None
        assert facts["cancelled"] == (kind.path.name == "opposite_channels.wav"), kind.path.name
    assert not wrong, "\n".join(wrong)


def test_the_model_hears_in_the_pipeline_what_it_heard_in_training(kinds, recognise, tmp_path):
    """Windows of the pipeline against the prepared clip: 16 bits, clipped at full scale, whatever the file."""
    sound = [kind.path for kind in kinds if kind.is_sound]
    prepared = WaveformColumn(prepare(Dataset.from_dict({"path": [to_text(path) for path in sound]}), RATE, num_proc=1))
    for path, trained in zip(sound, prepared, strict=True):
        for window in recognise.preprocess(str(path), hop_seconds=1.0):
            start, stop = window["start"], window["stop"]
            heard = window["waveform"][: stop - start] * 2**15
            np.testing.assert_allclose(heard, trained[start:stop], atol=1, err_msg=path.name)
        assert stop == len(trained), path.name


@pytest.fixture(scope="module")
def own_folder(tmp_path_factory) -> tuple[Path, list[Kind]]:
    """A folder of one's own: sound clips of two classes, every bad kind among the pianos, some of them in the test set."""
    root = tmp_path_factory.mktemp("bad-training") / "music"
    bad = write_bad_audio(root / "train/piano") + write_bad_audio(root / "test/piano")
    for split, count in (("train", 12), ("test", 3)):
        for label in LABELS:
            (root / split / label).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                noise = np.random.default_rng((number, len(label))).normal(0, 0.1, 16000)
                soundfile.write(root / split / label / f"good {number}.wav", noise, 16000)
    return root, bad


def test_training_data_leaves_out_what_is_damaged_and_counts_it(own_folder, tmp_path, caplog):
    """`load_irmas` and `prepare`: every sound file with the right samples, every other one named in one warning."""
    root, bad = own_folder
    with caplog.at_level(logging.WARNING):
        data = load_irmas(root, cache_dir=tmp_path)
    paths = {path for split in data.values() for path in split["path"][:]}
    refused = [kind for kind in bad if not kind.is_sound and to_text(kind.path) not in paths]
    damaged = describe(data)["damaged"]
    listed = [kind for kind in refused if kind.is_listed or kind.path.name != "folder.wav"]
    assert {line.split(" (")[0] for line in damaged} == {to_text(kind.path.relative_to(root)) for kind in listed}
    assert f"{len(damaged) // 2} files are damaged and will be skipped" in caplog.text
    prepared = {}
    for split in data.values():
        rows = prepare(split, RATE, segment_seconds=None)
        waveforms = WaveformColumn(rows)
        prepared |= {path: waveforms[row] for row, path in enumerate(rows["path"][:])}
    wrong = []
    for kind in bad:
        waveform = prepared.get(to_text(kind.path))
        if kind.is_sound and waveform is not None:  # copies of a training clip in the test set stay out of training
            clipped = Kind(kind.path, np.clip(kind.samples, -1, 1), kind.rate, kind.tolerance)
            if (error := error_of(waveform / 2**15, clipped)) > kind.tolerance:
                wrong.append(f"{kind.path} is off by {error}")
        elif not kind.is_sound and waveform is not None:
            wrong.append(f"{kind.path} was read")
    assert not wrong, "\n".join(wrong)
    heard = [path for path in prepared if "/test/piano/" in path and "good" not in path]
    assert len(heard) == sum(kind.is_sound and "/test/" in str(kind.path) for kind in bad)


@pytest.mark.slow
def test_a_run_and_evaluate_on_such_a_folder_end_and_count_what_was_left_out(own_folder, tmp_path, monkeypatch):
    """Two steps through run_irmas.py, and `evaluate` with the result: both say how many clips were damaged."""
    root, bad = own_folder
    monkeypatch.chdir(tmp_path)
    fields = {"max_steps": 2, "eval_steps": 2, "save_steps": 2, "window_seconds": 1.0, "weight_averaging": "none"}
    recipe = write_recipe(tmp_path, data_dir=str(root), disable_tqdm=True, **fields)
    run_irmas.main([str(recipe), "--output_dir", "run"])
    run_irmas.main(["evaluate", "run", "--data_dir", str(root), "--output_dir", "measured"])
    for folder in ("run", "measured"):
        results = json.loads((tmp_path / folder / "results.json").read_text())
        damaged = results["dataset"]["damaged"]
        assert any(line.startswith("train/piano/nan_float.wav (") for line in damaged)
        assert any(line.startswith("test/piano/text.wav (") for line in damaged)
        assert results["dataset"]["clips"]["test"] == 6 + sum(
            kind.is_sound and "/test/" in str(kind.path) for kind in bad
        )
        assert 0 <= results["test"]["lrap"] <= 1


AS_NOBODY = """
import os, sys
sys.path.insert(0, {root!r})
from irmas_dataset.audio import decode
from irmas_dataset.builder import read_facts
from irmas_recipe.models.pipeline.audio_blocks import read_blocks
os.setgroups([]); os.setgid(65534); os.setuid(65534)  # after the imports, which nobody need not be allowed
print(read_facts({path!r})["problem"])
for read in (decode, lambda path: list(read_blocks(path)[1])):
    try:
        read({path!r})
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become nobody")
def test_a_file_that_may_not_be_read_is_named(tmp_path):
    """As the user nobody, since permissions do not stop root."""
    folder = Path("/tmp") / f"irmas-nobody-{os.getpid()}"
    folder.mkdir(mode=0o755)
    try:
        path = folder / "secret.wav"
        path.write_bytes(encoded(tone()))
        path.chmod(0)
        code = AS_NOBODY.format(root=str(ROOT), path=str(path))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)
        lines = done.stdout.splitlines()
        assert len(lines) == 3 and "ermission" in lines[0], done.stdout + done.stderr
        assert lines[1].startswith("UserError") and "secret.wav" in lines[1]
        assert lines[2].startswith(("ValueError", "PermissionError")) and "secret.wav" in lines[2]
    finally:
        (folder / "secret.wav").unlink(missing_ok=True)
        folder.rmdir()


def test_notes_of_c_libraries_on_damaged_frames_stay_off_the_screen(tmp_path, capfd):
    noise = 0.1 * np.random.default_rng(0).standard_normal(64_000)
    soundfile.write(tmp_path / "hurt.mp3", noise, 16_000)
    damaged = bytearray((tmp_path / "hurt.mp3").read_bytes())
    for start in range(2000, len(damaged), 700):
        damaged[start : start + 40] = bytes(40)
    (tmp_path / "hurt.mp3").write_bytes(damaged)
    with ThreadPoolExecutor(4) as pool:
        heard = list(pool.map(decode, [tmp_path / "hurt.mp3"] * 8))
    assert all(len(waveform) > 30_000 for waveform, _ in heard)
    os.write(2, b"the screen is back")
    assert capfd.readouterr().err == "the screen is back"


def test_a_process_without_a_screen_hears_files_too(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(1000), 16_000)
    code = (
        f"import os; os.close(2); from irmas_dataset import decode; print(len(decode({str(tmp_path / 'a.wav')!r})[0]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.strip() == "1000"
