"""What needs no listening: the figures that any system must beat."""

import numpy as np

from .figures import DECISION_FIGURES, as_arrays, decision_figures, names_of_classes, ranking_figures


def trivial_figures(labels, class_names=None, training_counts=None) -> dict:
    """Return the figures that the test labels (clips, classes) alone give to answers made without listening.

    `constant`: the best set of classes, by micro-F1, that is answered for every clip (`classes` names it);
    `all`: every class for every clip; `nothing`: no class for any; `prior`: classes always ranked by
    `training_counts` (classes,), their clips in the training set, or by the test set's own counts where not given
    (`lrap`, `map`); and `one_label`: one true label a clip, the first column's, and no other: what a flawless
    single-label classifier reaches.
    """
    prior = np.sum(labels, axis=0) if training_counts is None else training_counts
    labels, prior_scores = as_arrays(labels, np.broadcast_to(prior, np.shape(labels)))
    num_clips, num_classes = labels.shape
    class_names = names_of_classes(class_names, num_classes)
    by_frequency = np.argsort(-labels.sum(axis=0), kind="stable")
    # Of all sets of k classes, the k most frequent hit most with as many claims, so one set a size is enough.
    constants = [
        _figures_of_answers(labels, np.tile(np.isin(np.arange(num_classes), by_frequency[:size]), (num_clips, 1)))
        for size in range(1, num_classes + 1)
    ]
    best = int(np.argmax([constant["micro_f1"] for constant in constants]))
    ranking = ranking_figures(labels, prior_scores)
    return {
        "constant": constants[best] | {"classes": [class_names[column] for column in by_frequency[: best + 1]]},
        "all": constants[-1],
        "nothing": _figures_of_answers(labels, np.zeros_like(labels)),
        "one_label": _figures_of_answers(labels, (labels == 1) & (np.cumsum(labels, axis=1) == 1)),
        "prior": {name: ranking[name] for name in ("lrap", "map")},
    }


def _figures_of_answers(labels: np.ndarray, answers: np.ndarray) -> dict[str, float]:
    result = decision_figures(labels, answers)
    return {name: result[name] for name in DECISION_FIGURES}
