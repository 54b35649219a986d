"""The song bootstrap: each vectorised resample equals scikit-learn on that resample's clips."""

import time

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from irmas_metric.bootstrap import (
    paired_song_bootstrap,
    resampled_decisions,
    resampled_ranking,
    song_bootstrap,
    song_indices,
    song_weights,
    weighted_average_precision,
)
from irmas_metric.figures import figures

NUM_CLASSES = 4
THRESHOLDS = [0.4, 0.5, 0.45, 0.6]


def example(num_clips=80, num_songs=9, num_classes=NUM_CLASSES, seed=0):
    generator = np.random.default_rng(seed)
    labels = (generator.random((num_clips, num_classes)) < 0.3).astype(int)
    labels[:2] = 0  # clips without a label too
    scores = np.round(np.clip(0.3 + 0.3 * labels + 0.2 * generator.normal(size=labels.shape), 0, 1), 1)  # with ties
    return labels, scores, [f"song {index}" for index in generator.integers(0, num_songs, num_clips)]


@pytest.mark.filterwarnings("ignore:No clip carries")
def test_each_resample_equals_scikit_learn_on_its_clips():
    labels, scores, songs = example()
    weights = song_weights(songs, resamples=12, seed=3)
    resampled = resampled_ranking(labels, scores, weights) | resampled_decisions(labels, scores, THRESHOLDS, weights)
    for resample, column in enumerate(weights.T.astype(int)):
        clips = np.repeat(np.arange(len(labels)), column)
        expected = figures(labels[clips], scores[clips], THRESHOLDS)
        for name in ("lrap", "map", "micro_f1", "macro_f1", "samples_f1", "exact_match", "hamming"):
            assert resampled[name][resample] == pytest.approx(expected[name], abs=1e-12), name
        f1_expected = [entry["f1"] for entry in expected["per_class"].values()]
        assert np.nan_to_num(resampled["per_class_f1"][:, resample]) == pytest.approx(f1_expected)


def test_weighted_average_precision_equals_scikit_learn_with_sample_weight():
    labels, scores, songs = example(num_clips=200, num_songs=5, seed=1)
    weights = song_weights(songs, resamples=20, seed=0)
    assert (weights == 0).any()
    result = weighted_average_precision(labels[:, 0], scores[:, 0], weights)
    expected = [average_precision_score(labels[:, 0], scores[:, 0], sample_weight=column) for column in weights.T]
    assert result == pytest.approx(expected, abs=1e-12)


def test_songs_are_drawn_whole_and_as_many_as_there_are():
    songs = ["a", "b", "a", "c", "b"]
    weights = song_weights(songs, resamples=50, seed=0)
    assert np.array_equal(weights[0], weights[2])
    assert np.array_equal(weights[1], weights[4])
    assert (weights[[0, 1, 3]].sum(axis=0) == 3).all()


def test_a_clip_without_song_is_a_song_of_its_own():
    assert song_indices([None, "a", None, "", "a"]).tolist() == [0, 1, 2, 3, 1]


def test_the_interval_holds_the_point_and_follows_the_seed():
    labels, scores, songs = example(num_clips=300, num_songs=60)
    interval = song_bootstrap(labels, scores, THRESHOLDS, songs, resamples=200, seed=0)
    point = figures(labels, scores, THRESHOLDS)
    for name in ("lrap", "map", "micro_f1", "macro_f1", "samples_f1", "exact_match", "hamming"):
        lo, hi = interval[name]
        assert lo < point[name] < hi
    assert len(interval["per_class_f1"]) == NUM_CLASSES
    assert interval == song_bootstrap(labels, scores, THRESHOLDS, songs, resamples=200, seed=0)
    assert interval != song_bootstrap(labels, scores, THRESHOLDS, songs, resamples=200, seed=1)


def test_one_song_gives_an_interval_without_width():
    labels, scores, _ = example()
    interval = song_bootstrap(labels, scores, THRESHOLDS, ["one song"] * len(labels), resamples=10)
    point = figures(labels, scores, THRESHOLDS)["micro_f1"]
    assert interval["micro_f1"] == pytest.approx((point, point))


def test_a_class_that_no_clip_carries_has_an_empty_interval():
    labels, scores, songs = example()
    labels[:, 2] = 0
    interval = song_bootstrap(labels, scores, THRESHOLDS, songs, resamples=20)
    assert interval["per_class_f1"][2] == (0.0, 0.0)
    assert all(np.isfinite(interval[name]).all() for name in ("map", "macro_f1"))


def test_the_paired_difference_is_narrower_than_the_two_intervals():
    labels, scores, songs = example(num_clips=400, num_songs=50)
    worse = scores.copy()
    worse[::10] = 0.5
    difference = paired_song_bootstrap(labels, scores, 0.5, worse, 0.5, songs, resamples=300)
    expected = f1_score(labels, scores >= 0.5, average="micro") - f1_score(labels, worse >= 0.5, average="micro")
    assert difference["micro_f1"]["difference"] == pytest.approx(expected)
    lo, hi = difference["micro_f1"]["ci95"]
    assert lo < expected < hi
    own_lo, own_hi = song_bootstrap(labels, scores, 0.5, songs, resamples=300)["micro_f1"]
    assert hi - lo < own_hi - own_lo
    same = paired_song_bootstrap(labels, scores, 0.5, scores, 0.5, songs, resamples=30)
    assert all(entry == {"difference": 0.0, "ci95": (0.0, 0.0)} for entry in same.values())


def test_what_only_rounding_tells_apart_does_not_differ():
    labels = np.array([[1, 1, 1, 0, 0]])
    scores = np.array([[[0.1, 0.3, 0.5, 0.7, 0.9]], [[0.3, 0.5, 0.1, 0.7, 0.9]]])  # the labels' ranks are 3, 4 and 5
    found = paired_song_bootstrap(labels, scores[0], 0.5, scores[1], 0.5, ["a"], resamples=5)
    assert found["lrap"] == {"difference": 0.0, "ci95": (0.0, 0.0)}


def test_a_thousand_resamples_of_a_test_set_of_irmas_size_take_seconds():
    labels, scores, songs = example(num_clips=2874, num_songs=208, num_classes=11)
    start = time.process_time()
    song_bootstrap(labels, scores, 0.5, songs, resamples=1000)
    assert time.process_time() - start < 6  # about 0.7 s on one core
