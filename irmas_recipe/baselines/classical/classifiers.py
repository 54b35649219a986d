"""Classifiers of feature rows: one per class against the rest, searched over recordings, with calibrated probabilities."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import BaggingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_selection import SelectorMixin
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import ParameterGrid, StratifiedGroupKFold
from sklearn.multiclass import OneVsRestClassifier, _fit_binary
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import LabelBinarizer, PowerTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from tqdm import tqdm

from irmas_dataset.errors import UserError

SMALLEST_PROBABILITY = 1e-4  # a forest's 0 of 300 trees is no certainty

# Where `build` keeps the parameters of the classifier and of the selection.
CLASSIFIER_PATH, SELECTION_PATH = "classes__estimator__classifier__", "classes__estimator__selection__"

# One class is a tenth of the clips: without balanced weights most classifiers would answer no to all of them.
BALANCED = {"class_weight": "balanced"}

CLASSIFIERS: dict[str, tuple[Callable[[int], BaseEstimator], dict]] = {
    "random_forest": (
        lambda seed: RandomForestClassifier(300, class_weight="balanced_subsample", random_state=seed),
        {"min_samples_leaf": [1, 3], "max_features": ["sqrt", 0.3]},
    ),
    "bagging": (
        lambda seed: BaggingClassifier(DecisionTreeClassifier(**BALANCED), n_estimators=100, random_state=seed),
        {"estimator__min_samples_leaf": [1, 4], "max_features": [0.4, 1.0]},
    ),
    "decision_tree": (
        lambda seed: DecisionTreeClassifier(**BALANCED, random_state=seed),
        {"min_samples_leaf": [5, 15, 40], "criterion": ["gini", "log_loss"]},
    ),
    "nearest_neighbours": (
        lambda seed: KNeighborsClassifier(weights="distance"),
        {"n_neighbors": [5, 15, 40], "p": [1, 2]},
    ),
    "naive_bayes": (lambda seed: GaussianNB(), {"var_smoothing": [1e-9, 1e-2, 1e-1, 1.0]}),
    "svm": (
        lambda seed: SVC(kernel="rbf", cache_size=500, **BALANCED),
        {"C": [1.0, 8.0, 64.0], "gamma": ["scale", 8e-4, 2.5e-4]},
    ),
    "gradient_boosting": (
        # 31 bins of a column are plenty for some thousand rows, and seven times faster than the default 255.
        lambda seed: HistGradientBoostingClassifier(
            max_iter=100,
            max_bins=31,
            l2_regularization=1.0,
            max_features=0.3,
            early_stopping=False,
            random_state=seed,
            **BALANCED,
        ),
        {"max_leaf_nodes": [8, 24]},
    ),
}
"""Name -> (the classifier of one class from a seed, the values that are searched)."""


class L1Selection(SelectorMixin, BaseEstimator):
    """Keep the columns to which an L1 linear SVM gives a weight; all of them where it gives none."""

    def __init__(self, C: float = 0.1) -> None:
        self.C = C

    def fit(self, features: np.ndarray, target: np.ndarray) -> Self:
        svm = LinearSVC(penalty="l1", dual=False, C=self.C, class_weight="balanced", random_state=0, max_iter=5000)
        chosen = np.abs(svm.fit(features, target).coef_[0]) > 1e-5
        self.chosen_ = chosen if chosen.any() else np.ones_like(chosen)
        self.n_features_in_ = features.shape[1]
        return self

    def _get_support_mask(self) -> np.ndarray:
        return self.chosen_


class OneVsRestOfKnown(OneVsRestClassifier):
    """One classifier per class against the rest, each fitted on the rows in which its class is known."""

    def fit(self, features: np.ndarray, labels: np.ndarray) -> Self:
        """Fit on features (rows, columns) and labels (rows, classes): 1 present, 0 absent, -1 not known."""
        self.label_binarizer_ = LabelBinarizer(sparse_output=True).fit(np.maximum(labels, 0))
        self.classes_ = self.label_binarizer_.classes_
        self.n_features_in_ = features.shape[1]
        known = [np.flatnonzero(column >= 0) for column in labels.T]
        tasks = (  # a class that nobody has judged is taken for absent
            delayed(_fit_binary)(
                self.estimator, features[rows], column[rows] if len(rows) else np.zeros(1, int), fit_params={}
            )
            for column, rows in zip(labels.T, known, strict=True)
        )
        self.estimators_ = Parallel(n_jobs=self.n_jobs)(tasks)
        return self


@dataclass
class CalibratedClassifiers:
    """Fitted classifiers whose sigmoid(logit) is a probability: logit = slope * raw score + offset, by class."""

    classifiers: Pipeline
    slopes: np.ndarray
    offsets: np.ndarray
    chosen: dict = field(default_factory=dict)
    search: list[dict] = field(default_factory=list)

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return logits (rows, classes) of features (rows, columns)."""
        return self.slopes * raw_scores(self.classifiers, features) + self.offsets


def build(name: str, feature_selection: str, seed: int) -> Pipeline:
    """Return the unfitted system: scaling, then selection and classifier once a class.

    Naive Bayes takes every column for a Gaussian, so its columns are made as Gaussian as a power transform can.
    """
    scaling = PowerTransformer() if name == "naive_bayes" else StandardScaler()
    selection = [("selection", L1Selection())] if feature_selection == "l1" else []
    classifier = CLASSIFIERS[name][0](seed)
    one_class = Pipeline([*selection, ("classifier", classifier)])
    return Pipeline([("scaling", scaling), ("classes", OneVsRestOfKnown(one_class))])


def candidates(name: str, feature_selection: str, grid: dict | None) -> list[dict]:
    """Return the settings to search, as parameters of `build`'s system; UserError for a field that it lacks."""
    grid = dict(CLASSIFIERS[name][1] if grid is None else grid)
    known = set(CLASSIFIERS[name][0](0).get_params())
    if unknown := sorted(set(grid) - known - {"selection_C"}):
        raise UserError(f"--grid: {unknown[0]} is no parameter of {name}; it has {', '.join(sorted(known))}.")
    selection = grid.pop("selection_C", [0.003, 0.03, 0.3])
    prefixed = {f"{CLASSIFIER_PATH}{field}": values for field, values in grid.items()}
    if feature_selection == "l1":
        prefixed[f"{SELECTION_PATH}C"] = selection
    return list(ParameterGrid(prefixed))


def fold_of_clip(labels: np.ndarray, groups: list[str], folds: int, seed: int) -> np.ndarray:
    """Return each clip's fold (clips,): whole recordings, classes spread evenly. labels: (clips, classes)."""
    if folds > min(most := np.bincount(labels.argmax(axis=1)).max(), recordings := len(set(groups))):
        raise UserError(
            f"--search_folds {folds} is too many for training clips of {recordings} recordings, at most {most} of a class: "
            "give fewer folds, or add recordings."
        )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    fold = np.zeros(len(labels), dtype=int)
    for number, (_, held_out) in enumerate(splitter.split(labels, labels.argmax(axis=1), groups)):
        fold[held_out] = number
    return fold


def search_and_fit(
    system: Pipeline, settings: list[dict], features: np.ndarray, labels: np.ndarray, fold: np.ndarray,
    processes: int,
) -> CalibratedClassifiers:  # fmt: skip
    """Choose the settings of the best held-out mAP, calibrate on the same held-out scores, and fit on all rows.

    features: (rows, columns). labels: multi-hot (rows, classes), -1 where not known. fold: (rows,), from `fold_of_clip`.
    """
    folds = np.unique(fold)
    tasks = [(number, held_out) for number in range(len(settings)) for held_out in folds]
    jobs = (delayed(held_out_scores)(system, settings[n], features, labels, fold, held_out) for n, held_out in tasks)
    scores = np.zeros((len(settings), *labels.shape))
    with Parallel(n_jobs=processes, return_as="generator") as workers:
        for (number, held_out), found in zip(
            tasks, tqdm(workers(jobs), total=len(tasks), desc="Search", disable=None), strict=True
        ):
            scores[number, fold == held_out] = found
    judged = [fold == held_out for held_out in folds if (labels[fold == held_out] == 1).any()]
    reached = [
        float(np.mean([mean_average_precision(labels[rows], of_one[rows]) for rows in judged])) for of_one in scores
    ]
    best = int(np.argmax(reached))
    slopes, offsets = calibrate(scores[best], labels)
    fitted = fit(system, settings[best] | {"classes__n_jobs": processes}, features, labels)
    fitted.set_params(classes__n_jobs=1)
    search = [short(setting) | {"map": round(value, 6)} for setting, value in zip(settings, reached, strict=True)]
    return CalibratedClassifiers(fitted, slopes, offsets, short(settings[best]), search)


def held_out_scores(
    system: Pipeline, setting: dict, features: np.ndarray, labels: np.ndarray, fold: np.ndarray, held_out: int
) -> np.ndarray:
    """Return the raw scores of one fold's rows by classifiers that never saw its recordings.

    Raises:
        UserError: a value of the grid is one that scikit-learn does not take, or not for so few rows.
    """
    try:
        fitted = fit(system, setting, features[fold != held_out], labels[fold != held_out])
        return raw_scores(fitted, features[fold == held_out])
    except ValueError as error:
        raise UserError(f"--grid: scikit-learn refuses {short(setting)}: {error}") from error


def fit(system: Pipeline, setting: dict, features: np.ndarray, labels: np.ndarray) -> Pipeline:
    """Return a fitted copy of the system; a class without examples is a constant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Label not")  # a class of one recording is in one fold only
        warnings.filterwarnings("ignore", message="Liblinear failed")  # to select columns, nearly there is there
        return clone(system).set_params(**setting).fit(features, labels)


def raw_scores(fitted: Pipeline, features: np.ndarray) -> np.ndarray:
    """Return one score a class that grows with its likelihood: the SVM's distance, else the log-odds."""
    if hasattr(
        fitted["classes"].estimator, "decision_function"
    ):  # the fitted ones may be constants, which have every method
        return fitted.decision_function(features)
    probability = np.clip(fitted.predict_proba(features), SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return np.log(probability / (1 - probability))


def calibrate(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the slope and offset (classes,) that make sigmoid(slope * score + offset) a probability (Platt 1999).

    A class without examples on both sides, or whose score does not grow with its likelihood, keeps its rank alone.
    """
    slopes, offsets = np.ones(labels.shape[1]), np.zeros(labels.shape[1])
    for column in range(labels.shape[1]):
        rows = labels[:, column] >= 0
        if len(np.unique(labels[rows, column])) == 2:
            fitted = LogisticRegression(C=100.0).fit(scores[rows][:, [column]], labels[rows, column])
            slope, offset = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
            if slope > 0:
                slopes[column], offsets[column] = slope, offset
    return slopes, offsets


def mean_average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean of the average precisions of the classes that some row carries, each on the rows that are known."""
    found = [
        average_precision_score(column[column >= 0], of_class[column >= 0])
        for column, of_class in zip(labels.T, scores.T, strict=True)
        if (column == 1).any()
    ]
    return float(np.mean(found))


def short(setting: dict) -> dict:
    """Return a setting's fields without the path through the pipeline: C, selection_C, ..."""
    return {
        name.removeprefix(CLASSIFIER_PATH).replace(SELECTION_PATH, "selection_"): value
        for name, value in setting.items()
    }
