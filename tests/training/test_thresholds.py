"""Thresholds against an exhaustive search, and validation mixtures against their promises."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import f1_score

from irmas_recipe.models.pipeline.instrument_recognition import PER_LABEL
from irmas_recipe.training.evaluation import remember_protocol
from irmas_recipe.training.fields import DataArguments
from irmas_recipe.training.thresholds import (
    POOLED_POSITIVES,
    best_single_threshold,
    tune_thresholds,
    validation_mixtures,
)
from tests.tiny import build


def example(num_clips=80, num_classes=4, seed=0):
    generator = np.random.default_rng(seed)
    labels = (generator.random((num_clips, num_classes)) < 0.35).astype(int)
    offsets = np.linspace(-2, 1, num_classes)  # every class wants another threshold
    scores = 1 / (1 + np.exp(-(2 * labels + offsets + generator.normal(size=labels.shape))))
    return labels, scores


def smoothed_f1(labels, scores, column, threshold):
    """The definition, one threshold at a time: the class's counts and POOLED_POSITIVES clips' share of all counts."""
    share = POOLED_POSITIVES / labels.sum()
    predicted = scores >= threshold
    hits = (labels * predicted)[:, column].sum() + share * (labels * predicted).sum()
    claims = predicted[:, column].sum() + share * predicted.sum()
    return 2 * hits / (labels[:, column].sum() + POOLED_POSITIVES + claims)


def test_no_threshold_of_any_class_is_better():
    labels, scores = example()
    thresholds = tune_thresholds(labels, scores)
    for column in range(labels.shape[1]):
        tuned = smoothed_f1(labels, scores, column, thresholds[column])
        best = max(smoothed_f1(labels, scores, column, threshold) for threshold in [0.0, *np.unique(scores)])
        assert tuned == pytest.approx(best)


def test_a_class_of_many_clips_gets_its_own_best_threshold():
    labels, scores = example(num_clips=4000)
    thresholds = tune_thresholds(labels, scores)
    for column in range(labels.shape[1]):
        tuned = f1_score(labels[:, column], scores[:, column] >= thresholds[column])
        candidates = np.linspace(0.02, 0.98, 97)
        assert tuned > max(f1_score(labels[:, column], scores[:, column] >= t) for t in candidates) - 0.005
    assert np.ptp(thresholds) > 0.3


def test_a_class_of_few_clips_leans_on_the_others():
    labels, scores = example(num_clips=4000)
    few = np.concatenate([np.flatnonzero(labels[:, 0])[:2], np.flatnonzero(labels[:, 0] == 0)])
    lone, pooled = tune_thresholds(labels[few], scores[few])[0], best_single_threshold(labels[few], scores[few])
    own = tune_thresholds(labels, scores)[0]
    assert abs(lone - pooled) < abs(own - pooled)


def test_a_threshold_lies_midway_between_two_scores():
    labels = np.array([[1, 0], [1, 1], [0, 1], [0, 0]])
    scores = np.array([[0.9, 0.3], [0.7, 0.6], [0.3, 0.6], [0.1, 0.1]])
    assert tune_thresholds(labels, scores) == pytest.approx([0.45, 0.45])


def test_a_class_without_positives_takes_the_threshold_of_all():
    labels, scores = example()
    labels[:, 1] = 0
    thresholds = tune_thresholds(labels, scores)
    micro = [f1_score(labels, scores >= t, average="micro") for t in np.unique(scores)]
    assert f1_score(labels, scores >= thresholds[1], average="micro") == pytest.approx(max(micro))


@pytest.mark.parametrize("value", [0.0, 1.0, 0.5])
def test_constant_scores_give_thresholds_inside_zero_and_one(value):
    labels, _ = example()
    thresholds = tune_thresholds(labels, np.full(labels.shape, value))
    assert ((thresholds > 0) & (thresholds < 1)).all()


def irmas_like(num_clips=1000, seed=0):
    generator = np.random.default_rng(seed)
    classes = generator.choice(11, num_clips, p=np.linspace(0.06, 0.1218, 11) / np.linspace(0.06, 0.1218, 11).sum())
    return [[int(number)] for number in classes], [f"recording {clip // 3}" for clip in range(num_clips)]


def test_mixtures_come_in_the_proportions_of_the_test_set():
    labels, groups = irmas_like()
    sizes = Counter(len(mixture) for mixture in validation_mixtures(labels, groups, seed=0))
    assert sizes == {1: 430, 2: 445, 3: 125}


def test_the_clips_of_a_mixture_share_no_class_and_no_recording():
    labels, groups = irmas_like(300)
    for mixture in validation_mixtures(labels, groups, seed=1):
        assert len({labels[clip][0] for clip in mixture}) == len(mixture)
        assert len({groups[clip] for clip in mixture}) == len(mixture)


def test_every_clip_is_used_about_equally():
    labels, groups = irmas_like()
    used = Counter(clip for mixture in validation_mixtures(labels, groups, seed=0) for clip in mixture)
    assert len(used) == len(labels)
    assert max(used.values()) - min(used.values()) <= 1


def test_the_seed_alone_decides():
    labels, groups = irmas_like(60)
    draws = [validation_mixtures(labels, groups, seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_mixtures_are_not_sorted_by_size():
    labels, groups = irmas_like(100)
    sizes = [len(mixture) for mixture in validation_mixtures(labels, groups, seed=0)]
    assert any(later < earlier for earlier, later in pairwise(sizes))


@pytest.mark.parametrize(("num_classes", "largest"), [(1, 1), (2, 2), (3, 3)])
def test_few_classes_give_smaller_mixtures(num_classes, largest):
    labels = [[f"class {clip % num_classes}"] for clip in range(30)]
    mixtures = validation_mixtures(labels, [None] * 30, seed=0)
    assert len(mixtures) == 30
    assert max(map(len, mixtures)) == largest


def test_clips_of_several_labels_are_mixed_only_where_disjoint():
    labels = [["a", "b"], ["b", "c"], ["c", "a"], ["d"], ["e"]] * 6
    for mixture in validation_mixtures(labels, [None] * 30, seed=0):
        union = [label for clip in mixture for label in labels[clip]]
        assert len(union) == len(set(union))


def test_copies_of_one_recording_under_two_labels_are_not_mixed():
    mixtures = validation_mixtures([["gac"], ["gel"]], ["same", "same"], seed=0, proportions=(0, 1))
    assert sorted(mixtures) == [(0,), (1,)]


def test_no_clips_give_no_mixtures():
    assert validation_mixtures([], [], seed=0) == []


def test_mixtures_of_many_clips_take_time_in_proportion_to_their_number():
    def entries(clips: int) -> int:
        """Return how many lookups of a recording the choice of mixtures takes."""
        looked_up = CountingList(range(clips))
        validation_mixtures([{clip % 11} for clip in range(clips)], looked_up, seed=0)
        return looked_up.lookups

    assert entries(8000) < 9 * entries(1000)


class CountingList(list):
    """A list that counts how often its items are read."""

    lookups = 0

    def __getitem__(self, index):
        self.lookups += 1
        return super().__getitem__(index)


def test_what_a_starting_checkpoint_had_tuned_for_the_timeline_is_forgotten():
    model, _ = build("cnn")
    for name in PER_LABEL:
        setattr(model.config, name, [0.1] * model.config.num_labels)
    remember_protocol(model, DataArguments(), {"thresholds": np.full(model.config.num_labels, 0.3)})
    assert {name: getattr(model.config, name) for name in PER_LABEL} == dict.fromkeys(PER_LABEL) | {
        "thresholds": [0.3] * model.config.num_labels
    }
