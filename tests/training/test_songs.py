"""Validation songs, and what a timeline's thresholds are tuned on."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from irmas_recipe.models.pipeline.windows import TimelineRules
from irmas_recipe.training.fields import DataArguments
from irmas_recipe.training.songs import SECTION_SECONDS, SECTIONS, Moments, labels_of, tune_timeline, validation_songs
from irmas_recipe.training.thresholds import tune_thresholds

RATE = 100  # of noise that nothing listens to
CLASSES = ["a", "b", "c", "d", "e"]


@pytest.fixture
def validation():
    """Four clips of 3 s of each class, two of each recording."""
    noise = np.random.default_rng(0)
    columns = {
        "waveform": [noise.integers(-9000, 9000, 3 * RATE).astype(np.int16) for _ in range(20)],
        "instruments": [[number // 4] for number in range(20)],
        "recording": [f"recording {number // 2}" for number in range(20)],
    }
    features = {
        "waveform": List(Value("int16")),
        "instruments": List(ClassLabel(names=CLASSES)),
        "recording": Value("string"),
    }
    return Dataset.from_dict(columns, Features(features))


def test_a_song_is_played_by_a_band_that_comes_back(validation):
    data = DataArguments(data_dir="music", preparation_processes=1)
    songs = validation_songs(validation, data, RATE, RATE, RATE)
    assert len(songs.labels) == len(songs.windows.clips) == len(validation)
    played = np.array([sections.sum(axis=1) for sections in songs.labels])
    assert played.shape == (20, SECTIONS) and {1, 2, 3} == set(played.ravel().astype(int))
    bands = np.array([sections.any(axis=0).sum() for sections in songs.labels])
    assert bands.max() == 4, "who plays changes"
    assert any((sections.sum(axis=0) > 1).any() for sections in songs.labels), "players come back"
    assert all(len(song) == SECTIONS * SECTION_SECONDS * RATE for song in songs.windows.clips)
    alone = validation_songs(validation, DataArguments(data_dir="music", validation_clips="single"), RATE, RATE, RATE)
    assert {1} == {int(count) for sections in alone.labels for count in sections.sum(axis=1)}
    again = validation_songs(validation, data, RATE, RATE, RATE)
    assert all((first == second).all() for first, second in zip(songs.labels, again.labels, strict=True))


@pytest.mark.parametrize(("window", "section"), [(2, SECTION_SECONDS), (30, 30)])
def test_moments_know_who_plays_in_their_section(validation, window, section):
    songs = validation_songs(validation, DataArguments(data_dir="music"), window * RATE, RATE, RATE)
    count = sum(songs.windows.windows_per_clip)
    heard = songs.moments(np.zeros((count, len(CLASSES)), np.float32), "mean")
    for moments, sections in zip(heard, songs.labels, strict=True):
        assert moments.edges[[0, -1]].tolist() == [0, SECTIONS * section]
        np.testing.assert_array_equal(moments.labels, sections[(moments.edges[:-1] // section).astype(int)])
        np.testing.assert_allclose(moments.scores, 0.5)


def song(*spans: tuple[float, int, float]) -> Moments:
    """A song of spans (seconds, label, score) of one class, in moments of 1 s; a second one plays throughout."""
    columns = (np.concatenate([np.full(round(span[0]), span[place], float) for span in spans]) for place in (1, 2))
    labels, scores = (np.stack([column, np.ones(len(column))], axis=1) for column in columns)
    return Moments(np.arange(len(labels) + 1.0), labels, scores)


def threshold(songs: list[Moments]) -> float:
    return tune_timeline(songs)["window_thresholds"][0]


def test_thresholds_are_those_of_the_answers_about_songs():
    songs = [
        song((20, 1, 0.8), (40, 0, 0.1)),  # kept up: .8
        song((10, 1, 0.6), (2, 1, 0.2), (48, 0, 0.1)),  # .6
        song((60, 0, 0.3)),  # .3 and no instrument
        song((5, 0, 0.9), (55, 0, 0.1)),  # too short to be heard at .9
        song((5, 1, 0.9), (55, 0, 0.1)),  # too short to be in the answer
    ]
    of_songs = np.array([1, 1, 0, 0, 0]), np.array([0.8, 0.6, 0.3, 0.1, 0.1])
    expected = tune_thresholds(*(np.stack([column, np.ones(5)], axis=1) for column in of_songs))[0]
    assert threshold(songs) == expected and 0.3 < expected <= 0.6
    tenths = [
        Moments(np.arange(601) / 10, np.repeat(one.labels, 10, axis=0), np.repeat(one.scores, 10, axis=0))
        for one in songs
    ]
    assert threshold(tenths) == expected, "a song counts once, however many moments it has"


def test_what_may_play_is_neither_right_nor_wrong():
    known = [song((20, 1, 0.8)), song((20, 0, 0.3))]
    unsure = [song((20, -1, 0.9)), song((10, 0, 0.1), (10, -1, 0.9))]
    assert [labels_of(one, TimelineRules())[0] for one in known + unsure] == [1, 0, -1, -1]
    short = song((16, 0, 0.9), (4, -1, 0.9))  # at most 4 s are not known: it does not play for long enough
    assert labels_of(short, TimelineRules())[0] == 0
    assert labels_of(song((10, 1, 0.9), (10, -1, 0.9)), TimelineRules())[0] == 1
    assert np.isfinite(threshold(known + unsure))
