"""The synthetic IRMAS: layout and names of the real one, the same bytes for the same arguments."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from irmas_dataset.errors import UserError
from irmas_dataset.files import SYNTHETIC_MARKER, list_irmas
from irmas_dataset.labels import INSTRUMENT_CODES
from irmas_dataset.synthetic import UNFINISHED_MARKER, song_clip, synthesize, training_excerpt
from irmas_dataset.synthetic_music import SAMPLE_RATE

TRAINING_NAME = re.compile(
    r"^(?:(\d+)__)?\[(\w{3})\](?:\[(dru|nod|---)\])?\[(pop_roc|jaz_blu|cla|cou_fol|lat_sou)\](\d{4})__(\d)\.wav$"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "synthetic"
    synthesize(folder, train=11, test=7, seed=3)
    return folder


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.md5(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.suffix in (".wav", ".txt")
    }


def test_training_files_look_like_those_of_irmas(folder):
    paths = sorted((folder / "IRMAS-TrainingData").rglob("*.wav"))
    assert sorted(path.parent.name for path in paths) == sorted(INSTRUMENT_CODES)
    for path in paths:
        match = TRAINING_NAME.match(path.name)
        assert match and match[2] == path.parent.name
        assert bool(match[1]) == bool(match[3]), "a drum tag goes with a numeric prefix"
        info = soundfile.info(path)
        assert (info.frames, info.samplerate, info.channels, info.subtype) == (132_299, SAMPLE_RATE, 2, "PCM_16")


def test_test_files_look_like_those_of_irmas(folder):
    paths = sorted(folder.glob("IRMAS-TestingData-Part*/*/*.wav"))
    assert len(paths) == 7
    assert {path.parent.name for path in paths} == {"Part1", "IRTestingData-Part2"}
    for path in paths:
        info = soundfile.info(path)
        assert 5 <= info.duration <= 20 and info.channels == 2 and info.subtype == "PCM_16"
        lines = path.with_suffix(".txt").read_bytes().decode().splitlines(keepends=True)
        assert 1 <= len(lines) <= 3
        assert all(re.fullmatch(r"[a-z]{3}\t\n", line) and line[:3] in INSTRUMENT_CODES for line in lines)


def test_the_project_reads_it_as_irmas(folder):
    listing = list_irmas(folder)
    assert listing.title.startswith("synthetic") and not listing.warnings
    assert [sum(clip.split == split for clip in listing.clips) for split in ("train", "test")] == [11, 7]
    assert len({clip.song for clip in listing.clips if clip.split == "test"}) == 2


def test_every_file_sounds_without_clipping(folder):
    for path in folder.rglob("*.wav"):
        waveform, _ = soundfile.read(path)
        assert 0.2 < np.abs(waveform).max() < 1
        seconds = waveform[: len(waveform) // SAMPLE_RATE * SAMPLE_RATE].reshape(-1, SAMPLE_RATE, 2)
        assert np.sqrt((seconds**2).mean((1, 2))).min() > 1e-3, f"{path.name} has a silent second"


def test_same_arguments_give_the_same_bytes_whatever_the_counts(folder, tmp_path):
    synthesize(tmp_path / "more", train=13, test=8, seed=3)
    synthesize(tmp_path / "other seed", train=2, test=1, seed=4)
    first, more = digests(folder), digests(tmp_path / "more")
    assert len(more) == len(first) + 4  # two excerpts, one clip and its labels
    assert {path: more[path] for path in first} == first
    assert not set(digests(tmp_path / "other seed").values()) & set(first.values()) - label_digests(folder)


def label_digests(folder):
    return {hashlib.md5(path.read_bytes()).hexdigest() for path in folder.rglob("*.txt")}


def test_recordings_and_songs_have_their_sizes():
    excerpts = [training_excerpt(index, seed=0) for index in range(11 * 12)]
    recordings = {}
    for excerpt in excerpts:
        recordings.setdefault(excerpt.path.rsplit("__", 1)[0], []).append(excerpt)
    assert len({excerpt.path for excerpt in excerpts}) == 132
    assert {len(members) for members in recordings.values()} == {3}
    assert len(recordings) == 44
    forms = [TRAINING_NAME.match(excerpt.path.rsplit("/", 1)[1])[3] for excerpt in excerpts]
    assert set(forms) == {"dru", "nod", "---", None}

    clips = [song_clip(index, seed=0) for index in range(66)]
    songs = {}
    for clip in clips:
        songs.setdefault(clip.path.rsplit("-", 1)[0], []).append(clip)
    assert {len(members) for members in songs.values()} == {6}
    assert {label for clip in clips[:24] for label in clip.labels} == set(INSTRUMENT_CODES)
    assert {len(clip.labels) for clip in clips} == {1, 2, 3}
    assert any(not clip.path.isascii() for clip in clips)


def test_finished_folder_is_left_alone(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.wav")}
    synthesize(folder, train=11, test=7, seed=3)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.wav")} == before
    marker = json.loads((folder / SYNTHETIC_MARKER).read_text())
    assert (marker["train"], marker["test"], marker["seed"]) == (11, 7, 3)


def test_interrupted_folder_is_completed(tmp_path):
    folder = tmp_path / "synthetic"
    synthesize(folder, train=2, test=1)
    complete = digests(folder)
    (folder / SYNTHETIC_MARKER).rename(folder / UNFINISHED_MARKER)
    victim = next(folder.rglob("*__1.wav"))
    victim.with_name(f"{victim.name}.unfinished").write_bytes(victim.read_bytes()[:1000])
    victim.unlink()
    synthesize(folder, train=2, test=1)
    assert digests(folder) == complete
    assert (folder / SYNTHETIC_MARKER).exists() and not (folder / UNFINISHED_MARKER).exists()
    assert not list(folder.rglob("*.unfinished"))


def test_two_processes_at_once_make_one_folder(tmp_path):
    root = Path(__file__).parents[2]
    code = f"from irmas_dataset.synthetic import synthesize; synthesize({str(tmp_path / 'data')!r}, train=3, test=1)"
    processes = [subprocess.Popen([sys.executable, "-c", code], cwd=root, stderr=subprocess.PIPE) for _ in range(2)]
    errors = [process.communicate(timeout=100)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert sum("Synthesising" in text for text in errors) == 1
    assert len(digests(tmp_path / "data")) == 5


def test_other_contents_and_bad_counts_are_refused(tmp_path, folder):
    (tmp_path / "song.wav").write_bytes(b"")
    with pytest.raises(UserError, match="other files"):
        synthesize(tmp_path, train=1, test=1)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".wav") == ["song.wav"]
    with pytest.raises(UserError, match="made with other arguments"):
        synthesize(folder, train=12, test=7, seed=3)
    with pytest.raises(UserError, match="--train 0"):
        synthesize(tmp_path / "new", train=0, test=1)
    with pytest.raises(UserError, match="Cannot write"):
        synthesize(tmp_path / "song.wav", train=1, test=1)


def mel_statistics(path):
    """Mean, deviation and mean step of each log-mel band: (3 * 64,)."""
    waveform, sampling_rate = soundfile.read(path, dtype="float32")
    mono = torch.from_numpy(waveform.mean(1))
    mel = torchaudio.transforms.MelSpectrogram(sampling_rate, n_fft=2048, hop_length=1024, n_mels=64, f_max=11_000)
    bands = (mel(mono / mono.square().mean().sqrt()) + 1e-4).log()
    return torch.cat([bands.mean(1), bands.std(1), bands.diff().abs().mean(1)]).numpy()


@pytest.mark.slow
def test_instruments_can_be_told_apart_but_not_perfectly(tmp_path):
    """A linear model on coarse features, trained on other recordings: far above chance (0.09), far below certainty."""
    synthesize(tmp_path / "data", train=11 * 6 * 8, test=1)
    paths = sorted((tmp_path / "data" / "IRMAS-TrainingData").rglob("*.wav"))
    features = np.stack([mel_statistics(path) for path in paths])
    instruments = np.array([path.parent.name for path in paths])
    held_out = np.array([int(path.stem.rsplit("__", 1)[0][-4:]) > 12 for path in paths])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.02, max_iter=1000))
    model.fit(features[~held_out], instruments[~held_out])
    accuracy = model.score(features[held_out], instruments[held_out])
    assert held_out.sum() == 11 * 4 * 3
    assert 0.6 < accuracy < 0.97, accuracy
