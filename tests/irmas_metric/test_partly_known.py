"""Labels that are partly known: every figure is scikit-learn's on what is known, class by class and clip by clip."""

import itertools

import evaluate
import numpy as np
import pytest
from sklearn import metrics

from irmas_metric.bootstrap import resampled_decisions, resampled_ranking, song_bootstrap, song_weights
from irmas_metric.calibration import reliability
from irmas_metric.figures import decision_figures, figures, with_unknown
from irmas_metric.openmic import openmic_figures
from irmas_metric.protocol import test_results
from irmas_metric.single_threshold import best_single_threshold
from irmas_metric.trivial import trivial_figures

THRESHOLDS = np.array([0.4, 0.5, 0.45, 0.6])


@pytest.fixture
def example():
    """Return labels with -1 (clips, classes), the same without, the mask and scores; the last clip is not known at all."""
    rng = np.random.default_rng(0)
    labels = (rng.random((120, 4)) < 0.4).astype(int)
    known = rng.random(labels.shape) < 0.5
    known[:-1][~known[:-1].any(axis=1), 0] = True
    known[-1] = False
    scores = np.round(np.clip(0.3 + 0.3 * labels + 0.2 * rng.normal(size=labels.shape), 0, 1), 2)
    return with_unknown(labels, known), labels, known, scores


def test_every_class_equals_scikit_learn_on_its_known_clips(example):
    labels, true, known, scores = example
    result = figures(labels, scores, THRESHOLDS)
    f1 = []
    for column, (name, entry) in enumerate(result["per_class"].items()):
        rows = known[:, column]
        answers = scores[rows, column] >= THRESHOLDS[column]
        expected = metrics.precision_recall_fscore_support(true[rows, column], answers, average="binary")[:3]
        assert (entry["precision"], entry["recall"], entry["f1"]) == pytest.approx(expected)
        assert entry["support"] == true[rows, column].sum() and entry["known"] == rows.sum()
        precision = metrics.average_precision_score(true[rows, column], scores[rows, column])
        assert result["per_class_ap"][name] == pytest.approx(precision)
        f1.append(entry["f1"])
    assert result["macro_f1"] == pytest.approx(np.mean(f1))
    assert result["map"] == pytest.approx(np.mean(list(result["per_class_ap"].values())))


def test_figures_over_all_entries_and_clips_leave_the_unknown_out(example):
    labels, true, known, scores = example
    result, answers = figures(labels, scores, THRESHOLDS), (scores >= THRESHOLDS).astype(int)
    assert result["micro_f1"] == pytest.approx(metrics.f1_score(true[known], answers[known]))
    assert result["hamming"] == pytest.approx(metrics.accuracy_score(true[known], answers[known]))
    clips = [row for row in range(len(true)) if known[row].any()]
    exact = [np.array_equal(true[row, known[row]], answers[row, known[row]]) for row in clips]
    assert len(clips) == 119 and result["exact_match"] == pytest.approx(np.mean(exact))
    samples = [metrics.f1_score(true[row, known[row]], answers[row, known[row]], zero_division=1) for row in clips]
    assert result["samples_f1"] == pytest.approx(np.mean(samples))
    ranking = [
        metrics.label_ranking_average_precision_score(true[row, known[row]][None], scores[row, known[row]][None])
        if known[row].sum() > 1
        else 1.0
        for row in clips
    ]
    assert result["lrap"] == pytest.approx(np.mean(ranking))


def test_what_an_unknown_label_is_scored_changes_nothing(example):
    labels, _, known, scores = example
    other = np.where(known, scores, 1 - scores)
    songs = [f"song {row % 9}" for row in range(len(labels))]
    for measure in (
        lambda s: figures(labels, s, THRESHOLDS),
        lambda s: test_results(labels, s, songs, list("abcd"), THRESHOLDS, resamples=20),
        lambda s: reliability(labels, s, songs, resamples=20),
        lambda s: openmic_figures(labels, s),
        lambda s: song_bootstrap(labels, s, THRESHOLDS, songs, resamples=20),
    ):
        assert measure(scores) == measure(other)
    assert trivial_figures(labels)["constant"]["micro_f1"] > 0
    assert 0 < best_single_threshold(labels, scores) < 1


@pytest.mark.filterwarnings("error")
def test_a_resample_of_songs_that_nobody_has_judged_leaves_the_interval_finite():
    labels = np.array([[1, 0], [0, 1], [-1, -1]])
    found = reliability(labels, np.full(labels.shape, 0.75), ["a", "b", "c"], resamples=200)
    assert found["ece"] == 0.25 and found["ece_ci95"] == [0.25, 0.25]


def test_each_resample_equals_the_figures_of_its_clips(example):
    labels, _, _, scores = example
    weights = song_weights([f"song {row % 9}" for row in range(len(labels))], resamples=6, seed=0)
    resampled = resampled_ranking(labels, scores, weights) | resampled_decisions(labels, scores, THRESHOLDS, weights)
    for resample, column in enumerate(weights.T.astype(int)):
        clips = np.repeat(np.arange(len(labels)), column)
        expected = figures(labels[clips], scores[clips], THRESHOLDS)
        for name in ("lrap", "map", "micro_f1", "macro_f1", "samples_f1", "exact_match", "hamming"):
            assert resampled[name][resample] == pytest.approx(expected[name], abs=1e-12), name


def test_a_mask_of_ones_changes_no_figure(example):
    _, true, _, scores = example
    songs = [f"song {row % 9}" for row in range(len(true))]
    assert figures(with_unknown(true, np.ones_like(true)), scores, THRESHOLDS) == figures(true, scores, THRESHOLDS)
    masked = song_bootstrap(with_unknown(true, np.ones_like(true)), scores, THRESHOLDS, songs, resamples=10)
    assert masked == song_bootstrap(true, scores, THRESHOLDS, songs, resamples=10)


def test_the_figures_of_openmic_are_those_of_its_papers(example):
    labels, true, known, scores = example
    found = openmic_figures(labels, scores)
    weighted = [metrics.average_precision_score(true[:, i], scores[:, i], sample_weight=known[:, i]) for i in range(4)]
    assert found["map"] == pytest.approx(np.mean(weighted)) == pytest.approx(figures(labels, scores)["map"])
    both = [metrics.f1_score(true[known[:, i], i], scores[known[:, i], i] >= 0.5, average="macro") for i in range(4)]
    assert found["f1"] == pytest.approx(np.mean(both))


def test_the_evaluate_module_takes_a_mask(example, tmp_path):
    labels, true, known, scores = example
    metric = evaluate.load("./irmas_metric", cache_dir=str(tmp_path))
    songs = [f"song {row % 9}" for row in range(len(labels))]
    options = {"thresholds": THRESHOLDS, "songs": songs, "bootstrap_resamples": 10}
    masked = metric.compute(predictions=scores, references=true, known=known, **options)
    assert masked == metric.compute(predictions=scores, references=labels, **options)
    assert masked["map"] == pytest.approx(figures(labels, scores)["map"])
    with pytest.raises(ValueError, match=r"The mask \(120, 3\) must be of the labels' shape"):
        metric.compute(predictions=scores, references=true, known=known[:, :3])


@pytest.mark.parametrize("seed", range(20))
def test_the_constant_answer_is_the_best_of_all_sets(seed):
    """Classes of which little is known have few hits, and may be the best to answer all the same."""
    rng = np.random.default_rng(seed)
    known = rng.random((60, 5)) < [0.1, 0.3, 0.5, 0.8, 0.0 if seed % 2 else 1.0]
    labels = with_unknown((rng.random((60, 5)) < rng.permutation([0.9, 0.7, 0.5, 0.3, 0.1])).astype(int), known)
    sets = [np.array(chosen) for chosen in itertools.product([False, True], repeat=5)]
    best = max(decision_figures(labels, np.tile(chosen, (60, 1)))["micro_f1"] for chosen in sets)
    assert trivial_figures(labels)["constant"]["micro_f1"] == pytest.approx(best)
