"""Confident learning on made-up clips whose wrong labels are known."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from irmas_dataset.audit import label_errors
from irmas_dataset.audit.label_errors import missing_labels, out_of_fold_scores, split_figures, usual_scores

CLASSES = ["cel", "pia", "voi", "flu"]
CLIPS = 160


@pytest.fixture(scope="module", autouse=True)
def few_trees():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_errors, "TREES", 40)
        yield


@pytest.fixture(scope="module")
def clips():
    """Return features, labels with flipped ones, the flipped rows, and recordings of four clips each that sound alike."""
    rng = np.random.default_rng(0)
    recordings = np.repeat(np.arange(CLIPS // 4), 4)
    true = recordings % 4
    features = 3 * np.eye(4)[true] @ rng.standard_normal((4, 12)) + rng.standard_normal((CLIPS // 4, 12))[recordings]
    features += 0.2 * rng.standard_normal((CLIPS, 12))
    flipped = np.isin(recordings, (3, 17, 26))
    given = np.where(flipped, (true + 1) % 4, true)
    return features.astype(np.float32), np.eye(4, dtype=int)[given], flipped, recordings


@pytest.fixture(scope="module")
def scores(clips):
    features, labels, _, recordings = clips
    return out_of_fold_scores(features, labels, recordings)


def test_flipped_labels_rank_first(clips, scores):
    pytest.importorskip("cleanlab", reason="cleanlab is not installed")
    from irmas_dataset.audit.label_errors import doubt_labels

    _, labels, flipped, _ = clips
    doubts = doubt_labels(scores, labels, CLASSES)
    assert average_precision_score(flipped, doubts["suspicion"]) > 6 * flipped.mean()
    assert flipped[doubts["flagged"]].mean() > 0.7
    true = [(CLASSES[label],) for label in (labels.argmax(axis=1) - 1) % 4]
    assert (doubts["suggested"] == pd.Series(true))[flipped].mean() > 0.8


def test_clips_of_several_labels_are_doubted_class_by_class():
    pytest.importorskip("cleanlab", reason="cleanlab is not installed")
    from irmas_dataset.audit.label_errors import doubt_labels

    rng = np.random.default_rng(1)
    labels = (rng.uniform(size=(80, 4)) < 0.4).astype(int)
    labels[labels.sum(axis=1) == 0, 0] = 1
    scores = np.clip(0.85 * labels + 0.05 + 0.05 * rng.uniform(size=labels.shape), 0, 1)
    wrong = labels.copy()
    wrong[:5] = 1 - wrong[:5]
    wrong[:5, 0] |= wrong[:5].sum(axis=1) == 0
    doubts = doubt_labels(scores, wrong, CLASSES)
    assert set(np.argsort(-doubts["suspicion"])[:5]) == set(range(5))
    assert doubts["suggested"][0] == tuple(code for code, is_on in zip(CLASSES, labels[0], strict=True) if is_on)


def test_no_clips_give_no_doubts():
    pytest.importorskip("cleanlab", reason="cleanlab is not installed")
    from irmas_dataset.audit.label_errors import doubt_labels

    assert len(doubt_labels(np.zeros((0, 4)), np.zeros((0, 4), dtype=int), CLASSES)) == 0


def test_scores_of_single_labels_are_a_distribution(scores):
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-9)


def test_a_split_by_clip_flatters(clips, scores):
    features, labels, _, _ = clips
    leaky = split_figures(out_of_fold_scores(features, labels, None), labels)
    honest = split_figures(scores, labels)
    assert leaky["accuracy"] > honest["accuracy"] + 0.02
    assert leaky["map"] > honest["map"]


def test_no_recording_scores_itself(clips):
    """With labels that only the recording tells, a split by recording knows nothing."""
    features, _, _, recordings = clips
    random = np.eye(4, dtype=int)[np.random.default_rng(3).integers(0, 4, recordings.max() + 1)[recordings]]
    by_recording = split_figures(out_of_fold_scores(features, random, recordings), random)["accuracy"]
    by_clip = split_figures(out_of_fold_scores(features, random, None), random)["accuracy"]
    assert by_recording < 0.45
    assert by_clip > 0.9


def test_one_recording_cannot_be_divided():
    assert out_of_fold_scores(np.zeros((3, 2)), np.eye(3, dtype=int), np.zeros(3)) is None


def test_usual_scores_are_the_mean_of_a_classes_own_clips():
    labels = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]])
    scores = np.array([[0.9, 0.1, 0], [0.7, 0.6, 0], [0.1, 0.8, 0]])
    assert usual_scores(scores, labels) == pytest.approx([0.8, 0.8, 1.0])


def test_a_missing_label_scores_more_than_its_confusion_explains():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.eye(3, dtype=int), 20, axis=0)
    scores = 0.8 * labels + rng.uniform(0, 0.1, labels.shape)
    scores[:20, 1] += 0.5 * rng.uniform(0.8, 1.2, 20)  # class 0 is always taken for class 1 too: nothing is missing
    assert missing_labels(scores, labels, np.zeros(60, dtype=bool)).empty
    scores[[3, 25, 45], [2, 0, 0]] = 0.7, 0.6, 0.3  # the last is below half of what is usual
    scores[30, 2] = 0.9
    flagged = np.arange(60) == 30  # its label is wrong, not incomplete
    found = missing_labels(scores, labels, flagged)
    assert sorted(found[["row", "label"]].to_numpy().tolist()) == [[3, 2], [25, 0]]
    assert (found["strength"] > 3).all() and found["strength"].is_monotonic_decreasing


def test_a_label_is_missing_by_comparison_with_what_was_judged_alone():
    generator = np.random.default_rng(0)
    labels = np.eye(4, dtype=int)[np.arange(400) % 4]
    scores = 0.35 + 0.25 * labels + 0.05 * generator.normal(size=labels.shape)
    scores[0, 1] = 0.6  # of a clip of the first class
    known = (generator.random(labels.shape) < 0.1) | (labels == 1)
    known[0, 1], known[:, 3] = True, labels[:, 3] == 1  # nobody has said where the last one is absent
    heard, nobody = np.where(known, scores, 0.0), np.zeros(400, dtype=bool)
    found = missing_labels(heard, labels, nobody, known)
    assert (found["row"][0], found["label"][0]) == (0, 1)
    assert len(found) < 0.1 * (known & (labels == 0)).sum()
    alike = scores[(labels[:, 0] == 1) & known[:, 1], 1]
    assert found["strength"][0] == pytest.approx((0.6 - alike.mean()) / (alike.std() + 0.02))


def test_wrong_labels_are_found_where_most_are_unknown():
    pytest.importorskip("cleanlab")
    from irmas_dataset.audit.label_errors import doubt_labels

    generator = np.random.default_rng(0)
    labels = np.eye(6, dtype=int)[generator.integers(0, 6, 600)]
    labels[:50, :2] = 1
    scores = np.clip(0.15 + 0.7 * labels + 0.08 * generator.normal(size=labels.shape), 0.01, 0.99)
    wrong = np.arange(600) >= 570
    labels[wrong] = np.roll(labels[wrong], 1, axis=1)
    known = (generator.random(labels.shape) < 0.3) | (labels == 1)
    flagged = doubt_labels(np.where(known, scores, 0.0), labels, list("abcdef"), known)["flagged"].to_numpy(dtype=bool)
    assert flagged[wrong].mean() > 0.8 and not flagged[~wrong].any()
