"""Clips of another folder join the training set and nothing else."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from irmas_dataset import load_irmas
from irmas_dataset.audio import resample
from irmas_dataset.errors import UserError
from irmas_dataset.extra import add_training_clips, without_extra


def write_tones(folder: Path, split: str, pitches: dict[str, list[int]]) -> Path:
    """Write a tone of a second for each pitch: <folder>/<split>/<class>/<pitch>.wav."""
    for name, of_class in pitches.items():
        for hertz in of_class:
            path = folder / split / name / f"{hertz}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.3 * np.sin(2 * np.pi * hertz * np.arange(8000) / 8000), 8000)
    return folder


@pytest.fixture
def splits(tmp_path):
    folder = write_tones(tmp_path / "music", "train", {"harp": [200, 210, 220, 230], "horn": [300, 310, 320, 330]})
    write_tones(folder, "test", {"harp": [250], "horn": [350]})
    return load_irmas(folder, validation_fraction=0.25, cache_dir=tmp_path / "cache")


def test_they_join_the_training_set_with_the_data_sets_classes(tmp_path, splits):
    extra = write_tones(tmp_path / "made", "train", {"horn": [400, 410]})
    write_tones(extra, "test", {"horn": [420]})
    splits.damaged = ("train/harp/0.wav (is empty)",)
    joined = add_training_clips(splits, extra)
    assert joined.damaged == splits.damaged
    assert {name: len(split) for name, split in joined.items()} == {"train": 8, "validation": 2, "test": 2}
    assert joined["train"].features == splits["train"].features
    last = joined["train"][7]
    assert last["instruments"] == [splits["train"].features["instruments"].feature.str2int("horn")]
    assert last["path"].startswith(str(tmp_path / "made")) and last["recording"] not in splits["train"]["recording"][:]
    assert len(set(joined["train"]["recording"][:])) == 8
    assert without_extra(joined["train"], extra)["path"][:] == splits["train"]["path"][:]
    assert add_training_clips(splits, extra)["train"]._fingerprint == joined["train"]._fingerprint, (
        "or nothing is cached"
    )


def test_extra_clips_are_told_apart_wherever_the_other_data_lies(tmp_path, splits):
    extra = write_tones(tmp_path, "train", {"horn": [400, 410]})  # around the folder of the data
    joined = add_training_clips(splits, extra)
    assert len(joined["train"]) == len(splits["train"]) + 2
    assert without_extra(joined["train"], extra)["path"][:] == splits["train"]["path"][:]


def test_irmas_classes_join_by_code_or_by_readable_name(tmp_path):
    folder = write_tones(tmp_path / "music", "train", {"flu": [200, 210, 220], "violin": [300, 310, 320]})
    splits = load_irmas(folder, cache_dir=tmp_path / "cache")
    extra = write_tones(tmp_path / "heard", "train", {"flute": [400], "vio": [410], "violin": [420]})
    joined = add_training_clips(splits, extra)["train"]
    assert joined["instruments"][-3:] == [[0], [1], [1]]
    both = write_tones(tmp_path / "both", "train", {"flu": [200, 210, 220], "flute": [300, 310, 320]})
    splits = load_irmas(both, cache_dir=tmp_path / "cache")
    joined = add_training_clips(splits, write_tones(tmp_path / "more", "train", {"flu": [400], "flute": [410]}))[
        "train"
    ]
    assert joined["instruments"][-2:] == [[0], [1]], "a class of that very name comes first"


def test_a_recording_of_the_same_name_is_another_one(tmp_path, splits):
    name = Path(splits["train"]["path"][0])
    extra = write_tones(tmp_path / "made", "train", {name.parent.name: [500]})
    (extra / "train" / name.parent.name / "500.wav").rename(extra / "train" / name.parent.name / name.name)
    joined = add_training_clips(splits, extra)["train"]
    assert len(set(joined["recording"][:])) == len(joined)


def test_a_clip_of_validation_or_test_is_left_out(tmp_path, splits, caplog):
    held = Path(splits["validation"]["path"][0])
    extra = write_tones(tmp_path / "made", "train", {"harp": [440]})
    (extra / "train/harp/copy.wav").write_bytes(held.read_bytes())
    joined = add_training_clips(splits, extra)
    assert len(joined["train"]) == len(splits["train"]) + 1
    assert "will not be used for training" in caplog.text


def test_what_cannot_join_is_refused_in_a_sentence(tmp_path, splits):
    with pytest.raises(UserError, match="no such folder"):
        add_training_clips(splits, tmp_path / "absent")
    with pytest.raises(UserError, match="has no class kazoo; its classes are harp, horn"):
        add_training_clips(splits, write_tones(tmp_path / "other", "train", {"kazoo": [440]}))


def write_phrase(path: Path, seed: int, **changes) -> None:
    """Write 4 s of notes; `changes`: start (seconds cut off), gain, rate, and the options of soundfile."""
    rng, rate = np.random.default_rng(seed), 16_000
    notes = [
        np.sin(2 * np.pi * hertz * np.arange(rate // 5) / rate) * np.linspace(1, 0.2, rate // 5)
        for hertz in rng.uniform(320, 2500, 20)
    ]
    waveform = 0.3 * np.concatenate(notes)[int(changes.pop("start", 0) * rate) :] * changes.pop("gain", 1)
    new_rate = changes.pop("rate", rate)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, resample(waveform.astype(np.float32), rate, new_rate), new_rate, **changes)


def test_copies_of_held_out_clips_are_found_by_their_sound(tmp_path, caplog):
    folder = tmp_path / "music"
    for number in range(8):
        write_phrase(folder / f"train/{'harp' if number % 2 else 'horn'}/{number}.wav", number)
    for number in range(4):
        write_phrase(folder / f"test/{'harp' if number % 2 else 'horn'}/t{number}.wav", 100 + number)
    splits = load_irmas(folder, validation_fraction=0.25, cache_dir=tmp_path / "cache")
    extra = tmp_path / "extra/train/harp"
    write_phrase(extra / "a.mp3", 100, format="MP3", subtype="MPEG_LAYER_III", gain=0.4)
    write_phrase(extra / "b.ogg", 101, format="OGG", subtype="VORBIS", start=0.3)
    write_phrase(extra / "c.wav", 102, rate=22_050, gain=0.7, start=0.11)
    write_phrase(extra / "d.flac", 103)
    write_phrase(extra / "new.wav", 200)
    joined = add_training_clips(splits, tmp_path / "extra")["train"]
    assert [Path(path).name for path in joined["path"][len(splits["train"]) :]] == ["new.wav"]
    assert "4 files have the sound of a validation or test clip and will not be used for training" in caplog.text
    every = add_training_clips(splits, tmp_path / "extra", by_sound=False)["train"]
    assert len(every) == len(joined) + 4
