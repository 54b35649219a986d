"""Validation mixtures of a run that hears only a part of the music: summed first, separated then, as test music is."""

import numpy as np
import pytest
import soundfile
from datasets import ClassLabel, Dataset, Features, List, Value

from irmas_dataset import WaveformColumn, load_irmas, prepare
from irmas_dataset.separation import Separation, harmonic
from irmas_recipe.baselines.classical.feature_table import cache_path
from irmas_recipe.training.clips import Mixtures, multi_hot
from irmas_recipe.training.data import prepare_splits
from irmas_recipe.training.evaluation import windows_of_mixtures
from irmas_recipe.training.fields import DataArguments
from irmas_recipe.training.separated import separated, training_members, training_mixtures
from irmas_recipe.training.songs import Lengthened, validation_songs

RATE = 22_050


@pytest.fixture
def splits(tmp_path):
    """A folder of two classes, tones and clicks, eight recordings each, half of them validation."""
    seconds = np.arange(RATE) / RATE
    for recording in range(8):
        clicks = np.zeros(RATE)
        clicks[500 + 100 * recording :: 3000] = 0.8
        for name, waveform in {
            "tone": 0.3 * np.sin(2 * np.pi * 40 * (9 + recording) * seconds),
            "clicks": clicks,
        }.items():
            path = tmp_path / "music" / "train" / name / f"{name}{recording}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, waveform, RATE)
    return load_irmas(tmp_path / "music", cache_dir=tmp_path / "cache", validation_fraction=0.5)


def test_a_mixture_is_the_separation_of_the_sum(splits):
    data = DataArguments(data_dir="music", separation="harmonic", window_seconds=1.0, preparation_processes=1)
    whole = prepare(splits["validation"], RATE, num_proc=1)
    prepared = prepare_splits(splits, data, RATE)["validation"]
    np.testing.assert_array_equal(WaveformColumn(prepared)[0], WaveformColumn(whole)[0])
    windows = windows_of_mixtures(prepared, data, RATE)
    sums = Mixtures(WaveformColumn(whole), windows.clips.members)
    assert len(sums) == len(prepared)
    assert {len(members) for members in windows.clips.members} == {1, 2}
    apart = Mixtures(WaveformColumn(prepare(splits["validation"], RATE, num_proc=1, transform=Separation("harmonic"))), sums.members)  # fmt: skip
    for index, members in enumerate(sums.members):
        expected = harmonic(sums[index].astype(np.float32) / 2**15, RATE)
        np.testing.assert_allclose(windows.clips[index] / 2**15, expected, atol=1e-4)
        if len(members) == 2:
            assert np.abs(windows.clips[index].astype(int) - apart[index]).max() > 300, "a sum of parts is another"


def test_it_is_separated_once_and_anew_for_other_mixtures(splits):
    whole = prepare(splits["validation"], RATE, num_proc=1)
    clips, members = WaveformColumn(whole), [(0,), (0, 5), (1, 6)]

    def table(mixtures: Mixtures, part: str, processes: int) -> str:
        found = separated(mixtures, whole, Separation(part), RATE, processes)
        return found.waveforms.dataset.cache_files[0]["filename"]

    first = table(Mixtures(clips, members), "harmonic", 1)
    assert table(Mixtures(clips, members), "harmonic", 2) == first
    longer = Lengthened(clips, ["one"] * len(whole), [{0}] * len(whole), 2 * RATE)
    others = [
        table(Mixtures(clips, members), "percussive", 1),
        table(Mixtures(clips, members[::-1]), "harmonic", 1),
        table(Mixtures(longer, members), "harmonic", 1),
    ]
    assert len({first, *others}) == 4
    assert separated(Mixtures(clips, members), whole, None, RATE).clips is clips


def test_training_mixtures_are_separations_of_sums_with_all_labels(splits):
    data = DataArguments(
        data_dir="music", separation="harmonic", window_seconds=1.0, preparation_processes=1, separated_mixtures=2
    )
    whole = prepare(splits["train"], RATE, num_proc=1)
    prepared = prepare_splits(splits, data, RATE)["train"]
    np.testing.assert_array_equal(WaveformColumn(prepared)[0], WaveformColumn(whole)[0])
    table = training_mixtures(prepared, data, RATE, probability=0.5, most_clips=2)
    labels = multi_hot(whole)
    members = training_members(prepared, data, probability=0.5, most_clips=2)
    assert {len(clips) for clips in members} == {1, 2} and len(table) == len(members) == 2 * len(whole)
    for row, clips in enumerate(members):
        summed = Mixtures(WaveformColumn(whole), [clips])[0].astype(np.float32) / 2**15
        np.testing.assert_allclose(WaveformColumn(table)[row] / 2**15, harmonic(summed, RATE), atol=1e-4)
        np.testing.assert_array_equal(multi_hot(table)[row], labels[list(clips)].max(axis=0))
        assert table["path"][row] == " + ".join(whole["path"][clip] for clip in clips)


def test_members_of_a_mixture_share_no_class_and_silence_is_mixed_with_none():
    waveforms = [np.full(100, 1000, np.int16)] * 12 + [np.zeros(100, np.int16)]  # the last one is silent
    columns = {
        "waveform": waveforms,
        "instruments": [[number % 4] for number in range(13)],
        "recording": [f"{number}" for number in range(13)],
    }
    features = Features(
        {
            "waveform": List(Value("int16")),
            "instruments": List(ClassLabel(names=["a", "b", "c", "d"])),
            "recording": Value("string"),
        }
    )
    data = DataArguments(data_dir="music", separation="harmonic", separated_mixtures=5)
    members = training_members(Dataset.from_dict(columns, features=features), data, probability=0.5, most_clips=3)
    assert len(members) == 5 * 13 and {len(clips) for clips in members} == {1, 2, 3}
    used = np.bincount(np.concatenate([list(clips) for clips in members]), minlength=13)
    assert (used[:12] >= 5).all(), "every clip is heard"
    assert all(len({clip % 4 for clip in clips}) == len(clips) for clips in members)
    assert all(clips == (12,) for clips in members if 12 in clips) and (12,) in members


def test_sections_of_validation_songs_are_separated_too(splits):
    whole = prepare(splits["validation"], RATE, num_proc=1)
    peaks = []
    for part in ("none", "harmonic", "percussive"):
        data = DataArguments(data_dir="music", separation=part, window_seconds=1.0, preparation_processes=1)
        songs = validation_songs(whole, data, RATE, RATE // 2, RATE)
        peaks.append(sum(float(np.abs(songs.windows.clips[i] / 2**15).mean()) for i in range(len(songs.windows.clips))))
    assert peaks[0] > peaks[1] > 0 and peaks[0] > peaks[2] > 0 and peaks[1] != pytest.approx(peaks[2], rel=0.01)


def test_features_of_separated_mixtures_are_cached_apart(splits):
    whole = prepare(splits["validation"], RATE, num_proc=1)
    names = set()
    for part in ("none", "harmonic", "percussive"):
        data = DataArguments(data_dir="music", separation=part, window_seconds=1.0, preparation_processes=1)
        names.add(cache_path(windows_of_mixtures(whole, data, RATE), "sarwar", whole).name)
    assert len(names) == 3


def test_a_clip_goes_on_with_its_recording_and_ends_with_it():
    clips = [np.full(3, number, np.int16) for number in range(5)]
    recordings, classes = ["a", "a", "b", None, "a"], [{0}, {0}, {0}, {0}, {1}]
    longer = Lengthened(clips, recordings, classes, 5, repeat=False)
    assert longer[0].tolist() == [0, 0, 0, 1, 1] and longer[1].tolist() == [1, 1, 1, 0, 0]
    assert [longer[number].tolist() for number in (2, 3, 4)] == [[2] * 3, [3] * 3, [4] * 3], (
        "alone, or of another class"
    )
