"""The best single threshold for a set of scores, found among the gaps between neighbouring scores."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from .figures import as_arrays


def best_single_threshold(labels: ArrayLike, scores: ArrayLike, figure: str = "micro_f1") -> float:
    """Return the threshold in (0, 1), the same for all classes, with the best `figure`: "micro_f1" or "macro_f1".

    labels: multi-hot, (clips, classes). scores: (clips, classes). Raises ValueError for another figure.
    """
    labels, scores = as_arrays(labels, scores)
    if figure not in ("micro_f1", "macro_f1"):
        raise ValueError(f"A threshold can be chosen for micro_f1 or macro_f1, not for {figure}.")
    return middle_of_best_plateau(scores, lambda thresholds: _f1_at(labels, scores, thresholds, figure))


def middle_of_best_plateau(scores: np.ndarray, figure_at: Callable[[np.ndarray], np.ndarray]) -> float:
    """Return the middle of the widest interval of thresholds in (0, 1) on which `figure_at` is highest.

    scores: any shape. figure_at: thresholds (gaps,) -> figures (gaps,). All thresholds between two neighbouring scores
    give the same decisions, so it is evaluated once per gap.
    """
    edges = np.concatenate([[0.0], np.unique(scores[(scores > 0) & (scores < 1)]), [1.0]])
    figures = figure_at((edges[:-1] + edges[1:]) / 2)
    best = np.concatenate([[False], figures >= figures.max() - 1e-12, [False]])
    first_gap = np.flatnonzero(best[1:] & ~best[:-1])  # of each run of equally good gaps
    past_last_gap = np.flatnonzero(best[:-1] & ~best[1:])
    lower, upper = edges[first_gap], edges[past_last_gap]
    widest = np.argmax(upper - lower)
    return float((lower[widest] + upper[widest]) / 2)


def count_at_least(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return how many of `scores` (clips,) are at least each of `thresholds` (thresholds,)."""
    return len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")


def _f1_at(labels: np.ndarray, scores: np.ndarray, thresholds: np.ndarray, figure: str) -> np.ndarray:
    columns = range(labels.shape[1])
    hits = np.stack([count_at_least(scores[labels[:, column] == 1, column], thresholds) for column in columns])
    claims = np.stack([count_at_least(scores[labels[:, column] >= 0, column], thresholds) for column in columns])
    support = (labels == 1).sum(axis=0)
    if figure == "micro_f1" or not support.any():
        return 2 * hits.sum(axis=0) / np.maximum(support.sum() + claims.sum(axis=0), 1)
    present = support > 0
    return (2 * hits[present] / (support[present, None] + claims[present])).mean(axis=0)
