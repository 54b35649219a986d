"""The figures of OpenMIC-2018, on the labels that somebody has judged."""

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score, f1_score

from .figures import as_arrays


def openmic_figures(labels: ArrayLike, scores: ArrayLike) -> dict[str, float]:
    """Return `map`, the mean over classes of average precision, and `f1`, the mean over classes of F1 at 0.5.

    labels: (clips, classes), 1, 0, or -1 where nobody has judged. scores: (clips, classes) in [0, 1].
    `map` is that of PaSST's ex_openmic.py: scikit-learn's average precision of each class with the mask as weights.
    `f1` averages, for each class, the F1 of its presence and that of its absence (scikit-learn's macro average over the
    two answers); `f1_present` is the mean of the F1 of presence alone. A class that
    was judged in no clip, or found in none, takes no part.
    """
    labels, scores = as_arrays(labels, scores)
    precisions, both, present = [], [], []
    for column in np.flatnonzero((labels == 1).any(axis=0)):
        known = labels[:, column] >= 0
        truth, of_class = labels[:, column] == 1, scores[:, column]
        precisions.append(average_precision_score(truth, of_class, sample_weight=known))
        truth, answers = truth[known], of_class[known] >= 0.5
        both.append(f1_score(truth, answers, average="macro", labels=[False, True], zero_division=0))
        present.append(f1_score(truth, answers, zero_division=0))
    means = {"map": precisions, "f1": both, "f1_present": present}
    return {name: float(np.mean(values)) if values else 0.0 for name, values in means.items()}
