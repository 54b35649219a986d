"""The point estimates: equal to scikit-learn's, and defined where scikit-learn's are not."""

import warnings

import numpy as np
import pytest
from sklearn import metrics

from irmas_metric.figures import decision_figures, figures


@pytest.fixture
def labels_and_scores():
    generator = np.random.default_rng(0)
    labels = generator.random((60, 5)) < 0.3
    scores = np.round(np.clip(0.25 + 0.3 * labels + 0.2 * generator.normal(size=labels.shape), 0, 1), 1)  # with ties
    return labels.astype(int), scores


def test_every_figure_equals_scikit_learn(labels_and_scores):
    labels, scores = labels_and_scores
    thresholds = [0.3, 0.4, 0.5, 0.6, 0.35]
    predictions = (scores >= thresholds).astype(int)
    result = figures(labels, scores, thresholds, class_names=list("abcde"))

    assert result["lrap"] == metrics.label_ranking_average_precision_score(labels, scores)
    assert result["map"] == pytest.approx(metrics.average_precision_score(labels, scores, average="macro"))
    assert list(result["per_class_ap"].values()) == pytest.approx(
        metrics.average_precision_score(labels, scores, average=None)
    )
    assert result["micro_f1"] == metrics.f1_score(labels, predictions, average="micro")
    assert result["macro_f1"] == pytest.approx(metrics.f1_score(labels, predictions, average="macro"))
    assert result["samples_f1"] == metrics.f1_score(labels, predictions, average="samples", zero_division=1)
    assert result["exact_match"] == metrics.accuracy_score(labels, predictions)
    assert result["hamming"] == 1 - metrics.hamming_loss(labels, predictions)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(labels, predictions)
    assert list(result["per_class"]) == list("abcde")
    for column, entry in enumerate(result["per_class"].values()):
        expected = [precision[column], recall[column], f1[column], thresholds[column], support[column], len(labels)]
        assert list(entry.values()) == expected
        assert list(entry) == ["precision", "recall", "f1", "threshold", "support", "known"]


def test_a_score_at_the_threshold_is_a_prediction():
    assert decision_figures([[1, 0]], [[0.5, 0.499999]], 0.5)["exact_match"] == 1.0


def test_macro_averages_leave_out_a_class_that_no_clip_carries(labels_and_scores):
    labels, scores = labels_and_scores
    with_absent = np.column_stack([labels, np.zeros(len(labels), dtype=int)])
    scores_of_absent = np.column_stack([scores, np.full(len(labels), 0.9)])
    with pytest.warns(UserWarning, match="No clip carries tuba"):
        result = figures(with_absent, scores_of_absent, 0.5, [*"abcde", "tuba"])
    expected = figures(labels, scores, 0.5)
    assert result["map"] == expected["map"]
    assert result["macro_f1"] == pytest.approx(expected["macro_f1"])
    assert result["micro_f1"] < expected["micro_f1"]  # claims of the absent class stay false alarms
    assert result["per_class"]["tuba"]["support"] == 0
    assert result["per_class"]["tuba"]["f1"] == 0.0
    assert result["per_class_ap"]["tuba"] == 0.0


def test_the_warning_of_an_absent_class_comes_once():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            figures([[1, 0], [1, 0]], [[0.9, 0.1], [0.8, 0.3]], class_names=["harp", "lute"])
    assert len(caught) == 1


def test_a_clip_rightly_left_without_labels_counts_as_right():
    result = figures([[0, 0], [1, 1]], [[0.1, 0.2], [0.9, 0.4]])
    assert result["samples_f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert result["exact_match"] == 0.5


def test_no_label_at_all_is_no_crash():
    with pytest.warns(UserWarning, match="No clip carries"):
        result = figures(np.zeros((3, 2)), np.full((3, 2), 0.7), class_names=["oboe", "horn"])
    assert (result["map"], result["macro_f1"], result["micro_f1"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("labels", "scores", "thresholds", "sentence"),
    [
        (np.zeros((0, 3)), np.zeros((0, 3)), 0.5, "no clip"),
        ([[1, 0]], [[0.1, 0.2, 0.3]], 0.5, r"shape \(clips, classes\)"),
        ([[1]], [[0.5]], 0.5, "at least two classes"),
        ([[1, 0]], [[np.nan, 0.5]], 0.5, "NaN"),
        ([[2, 0]], [[0.5, 0.5]], 0.5, "multi-hot"),
        ([[1, 0], [0, 1]], [[0.5, 0.5]] * 2, [0.5] * 3, "3 thresholds for 2 classes"),
    ],
)
def test_a_wrong_input_is_named(labels, scores, thresholds, sentence):
    with pytest.raises(ValueError, match=sentence):
        figures(labels, scores, thresholds)
