"""The report of one evaluation, the oracle threshold and the trivial figures."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from irmas_dataset.labels import INSTRUMENT_CODES
from irmas_metric import protocol
from irmas_metric.figures import figures
from irmas_metric.single_threshold import best_single_threshold, middle_of_best_plateau
from irmas_metric.trivial import trivial_figures

IRMAS_LABELS = Path(__file__).parents[2].parent / "shared" / "irmas"


def example(num_clips=120, num_classes=3, seed=0):
    generator = np.random.default_rng(seed)
    labels = (generator.random((num_clips, num_classes)) < 0.4).astype(int)
    scores = 1 / (1 + np.exp(-(2 * labels - 1 + generator.normal(size=labels.shape))))
    return labels, scores, [f"song {index}" for index in generator.integers(0, 20, num_clips)]


def test_the_report_has_the_structure_of_results_json():
    labels, scores, songs = example()
    result = protocol.test_results(labels, scores, songs, ["a", "b", "c"], [0.3, 0.4, 0.5], resamples=50)
    assert list(result) == ["lrap", "map", "per_class_ap", "ci95", "fixed", "tuned", "oracle"]
    assert list(result["ci95"]) == ["lrap", "map"]
    for regime, thresholds in {"fixed": 0.5, "tuned": [0.3, 0.4, 0.5]}.items():
        expected = figures(labels, scores, thresholds, ["a", "b", "c"])
        names = ["micro_f1", "macro_f1", "samples_f1", "exact_match", "hamming"]
        assert list(result[regime]) == [*names, "per_class", "ci95"]
        assert list(result[regime]["ci95"]) == names
        for name in names:
            lo, hi = result[regime]["ci95"][name]
            assert lo < result[regime][name] < hi
            assert result[regime][name] == expected[name]
        for column, (code, entry) in enumerate(result[regime]["per_class"].items()):
            assert {key: entry[key] for key in expected["per_class"][code]} == expected["per_class"][code]
            carrying = {song for song, label in zip(songs, labels[:, column], strict=True) if label}
            assert entry["songs"] == len(carrying)
            assert entry["f1_ci95"][0] < entry["f1"] < entry["f1_ci95"][1]
    assert result["oracle"]["micro_f1"] >= max(result["fixed"]["micro_f1"], result["tuned"]["micro_f1"] - 0.05)
    assert json.loads(json.dumps(result)) == result


def test_without_tuned_thresholds_there_is_no_tuned_regime():
    labels, scores, songs = example()
    assert "tuned" not in protocol.test_results(labels, scores, songs, None, resamples=5)


@pytest.mark.parametrize("figure", ["micro_f1", "macro_f1"])
def test_no_other_single_threshold_is_better(figure):
    labels, scores, _ = example(num_clips=60)
    threshold = best_single_threshold(labels, scores, figure)
    average = figure.removesuffix("_f1")
    best = f1_score(labels, scores >= threshold, average=average)
    others = [f1_score(labels, scores >= other, average=average) for other in np.unique(scores)]
    assert best == pytest.approx(max(others))


def test_the_threshold_is_the_middle_of_the_widest_best_plateau():
    # Both classes split cleanly anywhere between 0.2 and 0.8; the middle is taken.
    assert best_single_threshold([[1, 0], [0, 1]], [[0.8, 0.2], [0.1, 0.9]]) == pytest.approx(0.5)
    scores = np.array([0.1, 0.2, 0.6])
    flat = middle_of_best_plateau(scores, lambda thresholds: np.isclose(thresholds, [0.05, 0.15, 0.4, 0.8]) * 1.0)
    assert flat == pytest.approx(0.5)  # all four gaps are equally good
    two_runs = middle_of_best_plateau(scores, lambda thresholds: np.array([1.0, 0.0, 1.0, 1.0]))
    assert two_runs == pytest.approx(0.6)


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_a_threshold_stays_inside_zero_and_one(score):
    threshold = best_single_threshold([[1, 0], [0, 1]], np.full((2, 2), score))
    assert 0 < threshold < 1


def test_only_f1_can_choose_a_threshold():
    with pytest.raises(ValueError, match="micro_f1 or macro_f1"):
        best_single_threshold([[1, 0]], [[0.5, 0.5]], "hamming")


def test_the_constant_answer_is_the_best_set_of_all_sets():
    labels, _, _ = example(num_clips=50, num_classes=4)
    result = trivial_figures(labels, list("abcd"))["constant"]
    answers = [np.tile([(number >> bit) & 1 for bit in range(4)], (50, 1)) for number in range(1, 16)]
    assert result["micro_f1"] == pytest.approx(max(f1_score(labels, answer, average="micro") for answer in answers))
    as_answer = np.tile([name in result["classes"] for name in "abcd"], (50, 1))
    assert f1_score(labels, as_answer, average="micro") == result["micro_f1"]


def test_the_published_trivial_figures_come_from_the_labels_alone():
    if not IRMAS_LABELS.is_dir():
        pytest.skip("the lists of IRMAS's files and labels are not beside the repository")
    with open(IRMAS_LABELS / "test.csv", encoding="utf-8") as file:
        clips = [row["instruments"].split() for row in csv.DictReader(file)]
    with open(IRMAS_LABELS / "train.csv", encoding="utf-8") as file:
        training = [row["instrument"] for row in csv.DictReader(file)]
    labels = np.array([[code in clip for code in INSTRUMENT_CODES] for clip in clips]).astype(int)
    training_counts = [training.count(code) for code in INSTRUMENT_CODES]
    result = trivial_figures(labels, INSTRUMENT_CODES, training_counts)
    assert result["constant"]["classes"] == ["voi", "pia", "gel"]
    assert result["constant"]["micro_f1"] == pytest.approx(0.440, abs=5e-4)
    assert result["all"]["micro_f1"] == pytest.approx(0.269, abs=5e-4)
    assert result["nothing"]["hamming"] == pytest.approx(0.8445, abs=5e-5)
    assert result["one_label"]["micro_f1"] == pytest.approx(0.738, abs=5e-4)
    assert result["one_label"]["macro_f1"] == pytest.approx(0.661, abs=5e-4)
    assert result["prior"]["lrap"] == pytest.approx(0.539, abs=5e-4)
