"""Classifiers on rows whose classes are known: every family learns, nothing leaks between folds, scores are calibrated."""

import re

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import average_precision_score

from irmas_dataset.errors import UserError
from irmas_recipe.baselines.classical.classifiers import (
    CLASSIFIERS,
    L1Selection,
    build,
    calibrate,
    candidates,
    fold_of_clip,
    mean_average_precision,
    raw_scores,
    search_and_fit,
)
from irmas_recipe.baselines.classical.importance import permutation_importance

QUICK = {
    "random_forest": {"n_estimators": [20]},
    "bagging": {"n_estimators": [8]},
    "decision_tree": {"min_samples_leaf": [5, 15]},
    "nearest_neighbours": {"n_neighbors": [7]},
    "naive_bayes": {"var_smoothing": [1e-2]},
    "svm": {"C": [4.0]},
    "gradient_boosting": {"max_iter": [15]},
}


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels and folds: class k lifts column k; columns are of very different size; 5 of 8 are noise."""
    generator = np.random.default_rng(0)
    labels = np.eye(3, dtype=int)[generator.integers(0, 3, 240)]
    features = generator.normal(size=(240, 8))
    features[:, :3] += 3 * labels
    recordings = [f"recording {clip // 3}" for clip in range(240)]
    fold = fold_of_clip(labels, recordings, 3, seed=0)
    return (features * 10.0 ** np.arange(-4, 4)).astype(np.float32), labels, fold


@pytest.mark.parametrize("selection", ["none", "l1"])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_family_learns_columns_of_any_size(rows, name, selection):
    features, labels, fold = rows
    grid = QUICK[name] | ({"selection_C": [0.1]} if selection == "l1" else {})
    settings = candidates(name, selection, grid)
    known, unknown = fold < 2, fold == 2
    system = search_and_fit(build(name, selection, 0), settings, features[known], labels[known], fold[known], 1)
    logits = system.logits(features[unknown])
    assert logits.shape == (unknown.sum(), 3)
    assert mean_average_precision(labels[unknown], logits) > 0.85
    assert set(system.chosen) == set(grid)
    assert all(0.3 < tried["map"] <= 1 for tried in system.search)
    said = 1 / (1 + np.exp(-logits))
    assert abs(said.mean() - labels[unknown].mean()) < 0.08  # calibrated: a third, on average


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_default_grids_name_real_parameters(name):
    settings = candidates(name, "l1", None)
    assert len(settings) >= 6
    system = build(name, "l1", 0)
    for setting in settings:
        system.set_params(**setting)


def test_an_unknown_parameter_is_refused():
    with pytest.raises(UserError, match="trees is no parameter of random_forest"):
        candidates("random_forest", "none", {"trees": [1]})


@pytest.mark.parametrize(
    ("name", "grid", "sentence"),
    [
        (
            "naive_bayes",
            {"var_smoothing": ["a"]},
            "{'var_smoothing': 'a'}: The 'var_smoothing' parameter of GaussianNB",
        ),
        ("nearest_neighbours", {"n_neighbors": [1000]}, "{'n_neighbors': 1000}: Expected n_neighbors"),
    ],
)
def test_a_value_that_scikit_learn_refuses_is_named(rows, name, grid, sentence):
    features, labels, fold = rows
    with pytest.raises(UserError, match=re.escape(f"--grid: scikit-learn refuses {sentence}")):
        search_and_fit(build(name, "none", 0), candidates(name, "none", grid), features, labels, fold, 1)


def test_folds_hold_whole_recordings_and_every_class():
    labels = np.eye(4, dtype=int)[np.repeat(np.arange(4), 30)]
    recordings = [f"recording {clip // 3}" for clip in range(120)]
    fold = fold_of_clip(labels, recordings, 3, seed=1)
    for recording in set(recordings):
        assert len({fold[clip] for clip in range(120) if recordings[clip] == recording}) == 1
    for number in range(3):
        assert (labels[fold == number].sum(axis=0) >= 6).all()
    assert (fold == fold_of_clip(labels, recordings, 3, seed=1)).all()
    assert (fold != fold_of_clip(labels, recordings, 3, seed=2)).any()


def test_copies_in_one_fold_do_not_flatter_the_search():
    """Clips of one recording are near-copies, and labels are drawn by coin: only a leak could score above chance."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.eye(2, dtype=int)[generator.integers(0, 2, 80)], 3, axis=0)
    features = np.repeat(generator.normal(size=(80, 5)), 3, axis=0) + 0.001 * generator.normal(size=(240, 5))
    grouped = fold_of_clip(labels, [f"{clip // 3}" for clip in range(240)], 3, seed=0)
    settings = candidates("nearest_neighbours", "none", {"n_neighbors": [3]})
    system = build("nearest_neighbours", "none", 0)
    honest = search_and_fit(system, settings, features, labels, grouped, 1).search[0]["map"]
    leaking = search_and_fit(system, settings, features, labels, np.arange(240) % 3, 1).search[0]["map"]
    assert honest < 0.65 < 0.9 < leaking


def test_a_class_missing_from_a_fold_is_no_obstacle(rows):
    features, labels, fold = rows
    rare = np.concatenate([labels, np.zeros((240, 2), dtype=int)], axis=1)
    rare[fold == 1, 3] = 1  # all of them in one fold; class 4 is nowhere
    for name in ("svm", "decision_tree"):
        system = search_and_fit(build(name, "none", 0), candidates(name, "none", QUICK[name]), features, rare, fold, 1)
        assert np.isfinite(system.logits(features)).all()


def test_selection_keeps_what_tells_and_never_nothing(rows):
    features, labels, _ = rows
    scaled = features / features.std(axis=0)
    assert L1Selection(0.02).fit(scaled, labels[:, 1]).get_support()[1]
    assert L1Selection(0.02).fit(scaled, labels[:, 1]).get_support().sum() < 8
    assert L1Selection(1e-9).fit(scaled, labels[:, 1]).get_support().all()


def test_calibration_is_platts():
    """Scores that are true log-odds, stretched and shifted, come back."""
    generator = np.random.default_rng(0)
    truth = generator.normal(-1, 2, size=(20_000, 1))
    labels = (generator.random(truth.shape) < 1 / (1 + np.exp(-truth))).astype(int)
    slopes, offsets = calibrate(5 * truth + 3, labels)
    np.testing.assert_allclose(slopes, [0.2], rtol=0.05)
    np.testing.assert_allclose(offsets, [-0.6], atol=0.05)
    slopes, offsets = calibrate(np.stack([truth[:, 0], -truth[:, 0]], axis=1), np.zeros((20_000, 2), dtype=int))
    assert slopes.tolist() == [1, 1] and offsets.tolist() == [0, 0]


def test_shuffling_finds_the_columns_that_tell(rows):
    features, labels, fold = rows
    known, unknown = fold < 2, fold == 2
    settings = candidates("svm", "none", QUICK["svm"])
    system = search_and_fit(build("svm", "none", 0), settings, features[known], labels[known], fold[known], 1)
    found = permutation_importance(
        system.logits, features[unknown], labels[unknown], {"tells": [0, 1, 2], "noise": [3, 4, 5, 6, 7]}, 3, 0
    )
    assert found["tells"]["mean"] > 0.3
    assert abs(found["noise"]["mean"]) < 0.1
    assert average_precision_score(labels[unknown][:, 0], raw_scores(system.classifiers, features[unknown])[:, 0]) > 0.9


def test_too_few_clips_for_the_folds_are_refused():
    with pytest.raises(UserError, match=r"--search_folds 3 is too many for .* 4 recordings, at most 2 of a class"):
        fold_of_clip(np.eye(2, dtype=int).repeat(2, axis=0), ["a", "b", "c", "d"], 3, seed=0)
    with pytest.raises(UserError, match=r"--search_folds 3 is too many for .* 2 recordings, at most 9 of a class"):
        fold_of_clip(np.eye(2, dtype=int).repeat(9, axis=0), ["a"] * 9 + ["b"] * 9, 3, seed=0)


def test_a_fold_in_which_nothing_is_known_to_play_does_not_decide_the_search(rows):
    features, labels, fold = rows
    labels = np.where((fold == 2)[:, None], np.minimum(labels, 0), labels)
    settings = candidates("decision_tree", "none", {"max_depth": [1, 8]})
    system = search_and_fit(build("decision_tree", "none", 0), settings, features, labels, fold, 1)
    assert np.isfinite([tried["map"] for tried in system.search]).all()
    assert system.chosen == {
        name: value for name, value in max(system.search, key=lambda t: t["map"]).items() if name != "map"
    }


@pytest.mark.parametrize("name", ["decision_tree", "svm", "naive_bayes"])
def test_each_class_is_learned_from_the_rows_in_which_it_is_known(rows, name):
    """Every class's classifier, calibration and figure are those of scikit-learn on its known rows alone."""
    features, labels, fold = rows
    labels = np.where(np.random.default_rng(1).random(labels.shape) < 0.4, -1, labels)
    labels[:, 2] = np.where(labels[:, 2] == 1, -1, labels[:, 2])  # nobody has heard the last one
    [setting] = candidates(name, "none", {field: values[:1] for field, values in QUICK[name].items()})
    system = search_and_fit(build(name, "none", 0), [setting], features, labels, fold, 1)
    prepared = clone(build(name, "none", 0)["scaling"]).fit(features).transform(features)
    for column in range(2):
        known = labels[:, column] >= 0
        alone = clone(build(name, "none", 0).set_params(**setting)["classes"].estimator)
        alone.fit(prepared[known], labels[known, column])
        score = alone.decision_function if hasattr(alone, "decision_function") else alone.predict_proba
        expected = score(prepared)
        found = system.classifiers["classes"].estimators_[column]
        found = (found.decision_function if hasattr(found, "decision_function") else found.predict_proba)(prepared)
        np.testing.assert_allclose(found, expected)
    known = labels >= 0
    logits = system.logits(features)
    expected = [average_precision_score(labels[known[:, k], k], logits[known[:, k], k]) for k in range(2)]
    assert mean_average_precision(labels, logits) == pytest.approx(np.mean(expected))
    assert np.ptp(logits[:, 2]) == 0


def test_calibration_is_of_the_known_rows():
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(400, 1))
    labels = (generator.random(scores.shape) < 1 / (1 + np.exp(-2 * scores))).astype(int)
    hidden = np.where(generator.random(labels.shape) < 0.5, -1, labels)
    rows = hidden[:, 0] >= 0
    assert np.allclose(calibrate(scores, hidden), calibrate(scores[rows], labels[rows]))
