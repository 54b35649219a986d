"""The figures of the protocol for one set of scores, computed by scikit-learn wherever it has them."""

import functools
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    label_ranking_average_precision_score,
    precision_recall_fscore_support,
)

DECISION_FIGURES = ("micro_f1", "macro_f1", "samples_f1", "exact_match", "hamming")
"""Figures of the decisions, made by comparing scores with thresholds; `lrap` and `map` need only the scores."""


def figures(
    labels: ArrayLike, scores: ArrayLike, thresholds: ArrayLike = 0.5, class_names: Sequence[str] | None = None
) -> dict:
    """Return every figure of the protocol, with the keys of `ranking_figures` and `decision_figures`.

    labels: multi-hot, (clips, classes), with -1 where it is not known whether the clip has the class: such an entry takes
    part in no figure. scores: (clips, classes).
    thresholds: one float, or one per class; a class is predicted if its score is at least its threshold.
    A class without clips is excluded from the macro averages (`map`, `macro_f1`) with one warning; its per-class entries
    are 0.0, with `support` 0.
    Raises ValueError for no clips, fewer than two classes, or shapes that differ.
    """
    labels, scores = as_arrays(labels, scores)
    class_names = names_of_classes(class_names, labels.shape[1])
    absent = [name for name, support in zip(class_names, (labels == 1).sum(axis=0), strict=True) if support == 0]
    if absent:
        _warn_once_of_absent(tuple(absent))
    return ranking_figures(labels, scores, class_names) | decision_figures(labels, scores, thresholds, class_names)


@functools.cache
def _warn_once_of_absent(class_names: tuple[str, ...]) -> None:
    # Not with Python's filter "once": scikit-learn resets it at every call.
    warnings.warn(
        f"No clip carries {', '.join(class_names)}: macro averages exclude classes without clips.", stacklevel=3
    )


def ranking_figures(labels: ArrayLike, scores: ArrayLike, class_names: Sequence[str] | None = None) -> dict:
    """Return `lrap`, `map` and `per_class_ap`, which need no threshold.

    labels: multi-hot, (clips, classes). scores: (clips, classes).
    `lrap` is label-ranking average precision; a clip without labels counts as 1, as in scikit-learn. `map` is the mean
    of the average precisions of the classes that have clips.
    """
    labels, scores = as_arrays(labels, scores)
    class_names = names_of_classes(class_names, labels.shape[1])
    true, known = labels == 1, labels >= 0
    average_precisions = [
        float(average_precision_score(true[rows, column], scores[rows, column])) if true[:, column].any() else 0.0
        for column, rows in enumerate(known.T)
    ]
    judged = known.any(axis=1)
    last = np.where(known, scores, scores.min() - 1)  # of a clip's ranking: what is not known is above no label
    return {
        "lrap": float(label_ranking_average_precision_score(true[judged], last[judged])) if judged.any() else 0.0,
        "map": _mean_over_present(average_precisions, true),
        "per_class_ap": dict(zip(class_names, average_precisions, strict=True)),
    }


def decision_figures(
    labels: ArrayLike, scores: ArrayLike, thresholds: ArrayLike = 0.5, class_names: Sequence[str] | None = None
) -> dict:
    """Return `micro_f1`, `macro_f1`, `samples_f1`, `exact_match`, `hamming` and `per_class` of the thresholded scores.

    labels: multi-hot, (clips, classes). scores: (clips, classes). thresholds: one float, or one per class.
    `hamming` is the share of correct entries among the known ones of the (clips, classes) table: 1 - scikit-learn's
    Hamming loss.
    `samples_f1` counts a clip without labels and without predictions as 1; every other 0/0 is 0.
    `per_class` has precision, recall, f1, threshold, support (clips) and known (clips that have the class or not) of each.
    """
    labels, scores = as_arrays(labels, scores)
    class_names = names_of_classes(class_names, labels.shape[1])
    thresholds = threshold_per_class(thresholds, labels.shape[1])
    known = labels >= 0
    judged = known.any(axis=1)
    predictions, labels = ((scores >= thresholds) & known).astype(np.int64), (labels == 1).astype(np.int64)
    precision, recall, f1, support = precision_recall_fscore_support(labels, predictions, average=None, zero_division=0)
    return {
        "micro_f1": float(f1_score(labels, predictions, average="micro", zero_division=0)),
        "macro_f1": _mean_over_present(f1, labels),
        "samples_f1": _of_judged(f1_score, labels[judged], predictions[judged], average="samples", zero_division=1),
        "exact_match": _of_judged(accuracy_score, labels[judged], predictions[judged]),
        "hamming": 1.0 - float(np.mean(labels[known] != predictions[known])) if known.any() else 0.0,
        "per_class": {
            name: {
                "precision": float(precision[column]),
                "recall": float(recall[column]),
                "f1": float(f1[column]),
                "threshold": float(thresholds[column]),
                "support": int(support[column]),
                "known": int(known[:, column].sum()),
            }
            for column, name in enumerate(class_names)
        },
    }


def as_arrays(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (clips, classes) as integers 0 and 1 and scores (clips, classes) as float64.

    -1 stands for a label that is not known.
    Raises ValueError for no clips, fewer than two classes, shapes that differ, or values that are not finite or not 0/1/-1.
    """
    labels = np.asarray(labels)
    scores = np.asarray(scores, dtype=np.float64)
    if len(labels) == 0:
        raise ValueError("There are no clips to measure: give at least one row of scores and labels.")
    if labels.shape != scores.shape or labels.ndim != 2:
        raise ValueError(f"Labels {labels.shape} and scores {scores.shape} must both be of shape (clips, classes).")
    if labels.shape[1] < 2:
        raise ValueError("The protocol's figures need at least two classes; a single class has no ranking.")
    if not np.isfinite(scores).all():
        raise ValueError(
            "The scores contain NaN or infinite values: the training may have diverged, or a clip may be empty."
        )
    if not np.isin(labels, (0, 1, -1)).all():
        raise ValueError(
            "Labels must be multi-hot: 1 for each class of a clip, otherwise 0, or -1 where that is not known."
        )
    return labels.astype(np.int64), scores


def with_unknown(labels: ArrayLike, known: ArrayLike | None) -> np.ndarray:
    """Return labels (clips, classes) with -1 where the mask `known` of the same shape says that they are not known.

    Raises ValueError for a mask of another shape.
    """
    labels = np.asarray(labels)
    if known is None:
        return labels
    known = np.asarray(known, dtype=bool)
    if known.shape != labels.shape:
        raise ValueError(f"The mask {known.shape} must be of the labels' shape {labels.shape}.")
    return np.where(known, labels, -1)


def names_of_classes(class_names: Sequence[str] | None, num_classes: int) -> list[str]:
    """Return one name per class: those given, or the column numbers as strings."""
    if class_names is None:
        return [str(column) for column in range(num_classes)]
    if len(class_names) != num_classes:
        raise ValueError(f"There are {len(class_names)} class names for {num_classes} columns of scores.")
    names = [str(name) for name in class_names]
    if len(set(names)) < num_classes:
        raise ValueError(f"Two classes have the same name, in {', '.join(names)}: give each its own.")
    return names


def threshold_per_class(thresholds: ArrayLike, num_classes: int) -> np.ndarray:
    """Return thresholds (classes,) from one float, or from one per class."""
    thresholds = np.asarray(thresholds, dtype=np.float64)
    if thresholds.shape not in ((), (num_classes,)):
        raise ValueError(
            f"There are {thresholds.size} thresholds for {num_classes} classes: give one, or one per class."
        )
    return np.broadcast_to(thresholds, (num_classes,))


def _of_judged(figure: Callable, labels: np.ndarray, predictions: np.ndarray, **options: object) -> float:
    """Return scikit-learn's figure of the entries or clips that are known; 0 where there are none."""
    return float(figure(labels, predictions, **options)) if len(labels) else 0.0


def _mean_over_present(per_class: ArrayLike, labels: np.ndarray) -> float:
    present = labels.any(axis=0)
    return float(np.mean(np.asarray(per_class)[present])) if present.any() else 0.0
