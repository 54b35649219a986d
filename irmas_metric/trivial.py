"""Trivial baselines: the figures of answers given without listening, which any system must beat."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from .figures import DECISION_FIGURES, as_arrays, decision_figures, names_of_classes, ranking_figures


def trivial_figures(
    labels: ArrayLike, class_names: Sequence[str] | None = None, training_counts: ArrayLike | None = None
) -> dict:
    """Return the figures of answers given without listening, from the test labels alone.

    labels: multi-hot, (clips, classes). training_counts: (classes,), clips of each class in the training set; None uses
    the counts of the test set.
    `constant`: the same set of classes for every clip, the best one by micro-F1 (`classes` names it). `all`: every class
    for every clip. `nothing`: no class for any clip. `prior`: classes always ranked by `training_counts` (`lrap`,
    `map`). `one_label`: one of the true labels of each clip, the first column, as a perfect single-label classifier
    would answer.
    """
    prior = np.sum(np.asarray(labels) == 1, axis=0) if training_counts is None else training_counts
    labels, prior_scores = as_arrays(labels, np.broadcast_to(prior, np.shape(labels)))
    num_clips, num_classes = labels.shape
    class_names = names_of_classes(class_names, num_classes)
    hits, known = (labels == 1).sum(axis=0), (labels >= 0).sum(axis=0)
    by_share = np.argsort(-hits / np.maximum(known, 1), kind="stable")
    # Micro-F1 of a set is 2 * its hits / (all positives + its known labels): the best set has every class whose hits
    # per known label exceed half of that, so one set per size is enough.
    constants = [
        _figures_of_answers(labels, np.tile(np.isin(np.arange(num_classes), by_share[:size]), (num_clips, 1)))
        for size in range(1, num_classes + 1)
    ]
    best = int(np.argmax([constant["micro_f1"] for constant in constants]))
    ranking = ranking_figures(labels, prior_scores)
    return {
        "constant": constants[best] | {"classes": [class_names[column] for column in by_share[: best + 1]]},
        "all": constants[-1],
        "nothing": _figures_of_answers(labels, np.zeros_like(labels)),
        "one_label": _figures_of_answers(labels, (labels == 1) & (np.cumsum(labels == 1, axis=1) == 1)),
        "prior": {name: ranking[name] for name in ("lrap", "map")},
    }


def _figures_of_answers(labels: np.ndarray, answers: np.ndarray) -> dict[str, float]:
    result = decision_figures(labels, answers)
    return {name: result[name] for name in DECISION_FIGURES}
