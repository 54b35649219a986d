"""Per-class thresholds from validation music that carries as many labels at once as the test set does."""

import heapq
import math
from collections.abc import Hashable, Iterable, Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from irmas_metric.figures import as_arrays
from irmas_metric.single_threshold import best_single_threshold, count_at_least, middle_of_best_plateau
from irmas_recipe.models.pipeline.windows import log_odds

__all__ = ["best_single_threshold", "fit_slopes", "tune_thresholds", "validation_mixtures"]

LABELS_PER_TEST_CLIP = (1236, 1278, 360)
"""How many of IRMAS's 2,874 test clips carry one label, two, and three or more."""


POOLED_POSITIVES = 20
"""How many positive clips the pooled curve of all classes counts for when a class's threshold is chosen."""


SLOPES = (0.02, 20.0)
SLOPE_SPREAD = 0.5  # how far a class's slope is likely to be from the common one: the deviation of its logarithm


def tune_thresholds(labels: ArrayLike, scores: ArrayLike) -> np.ndarray:
    """Return the threshold of each class (classes,), inside (0, 1), with the best F1 of that class.

    A class with few validation clips would be tuned to chance. So each class's curve of F1 against threshold is
    smoothed with the curve of all classes together, which counts as POOLED_POSITIVES clips (partial pooling, measured in
    RESULTS.md): it hardly changes a class with a hundred clips, and a class without any takes the single threshold of
    the best micro-F1. A threshold lies in the middle of the widest interval with the best F1.

    Args:
        labels: multi-hot (clips, classes) of validation mixtures, never of the test set; -1 where not known.
        scores: (clips, classes) in [0, 1].
    """
    labels, scores = as_arrays(labels, scores)
    positives = max((labels == 1).sum(), 1)
    weight = POOLED_POSITIVES / positives

    def pooled_f1(column: int, thresholds: np.ndarray) -> np.ndarray:
        own = labels[:, column] == 1
        if not own.any():
            return pooled_hits(thresholds) / (positives + pooled_claims(thresholds))
        hits = count_at_least(scores[own, column], thresholds) + weight * pooled_hits(thresholds)
        claims = count_at_least(scores[labels[:, column] >= 0, column], thresholds) + weight * pooled_claims(thresholds)
        return 2 * hits / (own.sum() + POOLED_POSITIVES + claims)

    pooled_hits = partial(count_at_least, scores[labels == 1])
    pooled_claims = partial(count_at_least, scores[labels >= 0])
    return np.array([middle_of_best_plateau(scores, partial(pooled_f1, column)) for column in range(labels.shape[1])])


def fit_slopes(labels: ArrayLike, scores: ArrayLike, thresholds: np.ndarray) -> np.ndarray:
    """Return the slopes (classes, 2) below and above each threshold that make `confidence` of the scores most likely.

    The confidence is 0.5 at the threshold, so that one number is left on either side (Platt's scaling with the threshold
    for its offset). Each class's is drawn towards that of all classes together as if by a normal prior on its logarithm,
    so that a class with few validation clips has the common one.

    Args:
        labels: multi-hot (clips, classes), -1 where not known. scores: (clips, classes) in [0, 1].
    """
    labels, scores = as_arrays(labels, scores)
    distance = log_odds(scores) - log_odds(thresholds)
    slopes = np.ones((labels.shape[1], 2))
    known = labels >= 0
    for side, chosen in enumerate((known & (distance < 0), known & (distance >= 0))):
        common = most_likely_slope(distance[chosen], labels[chosen])
        for column, own in enumerate(chosen.T):
            slopes[column, side] = most_likely_slope(distance[own, column], labels[own, column], around=common)
    return slopes


def most_likely_slope(distance: np.ndarray, labels: np.ndarray, around: float | None = None) -> float:
    """Return the slope of a logistic curve through 0.5 at distance 0 that fits labels (clips,) best."""

    def unlikelihood(logarithm: float) -> float:
        odds = np.exp(logarithm) * distance
        prior = 0.0 if around is None else (logarithm - np.log(around)) ** 2 / (2 * SLOPE_SPREAD**2)
        return float(np.sum(np.logaddexp(0, odds) - labels * odds)) + prior

    if not len(distance):
        return around or 1.0
    return float(np.exp(minimize_scalar(unlikelihood, bounds=np.log(SLOPES), method="bounded").x))


def validation_mixtures(
    labels: Sequence[Iterable[Hashable]],
    groups: Sequence[Hashable | None],
    seed: int,
    proportions: Sequence[int] = LABELS_PER_TEST_CLIP,
) -> list[tuple[int, ...]]:
    """Return which validation clips to sum: as many mixtures as there are clips, each a tuple of their indices.

    Training clips carry one label and test clips several, so a threshold tuned on single clips would not fit. Mixtures
    of 1, 2, 3, ... clips come in the given proportions; the clips of one share no class and no recording, and its labels
    are their union. Every clip is used about equally often. Where the classes do not allow a mixture of the wanted
    size (two classes only, say), it is smaller. The result depends on nothing but the arguments.

    Args:
        labels: the classes of each clip.
        groups: the recording of each clip, None where unknown.
        seed: seed of the choice.
        proportions: how often a mixture has 1, 2, 3, ... clips.
    """
    generator = np.random.default_rng(seed)
    # One heap for each set of labels, least used clips first and in random order among equals.
    heaps: dict[frozenset, list[tuple[float, int]]] = {}
    for clip, clip_labels in enumerate(labels):
        heaps.setdefault(frozenset(clip_labels), []).append((generator.random(), clip))
    for heap in heaps.values():
        heapq.heapify(heap)
    mixtures = []
    for size in generator.permutation(_mixture_sizes(len(labels), proportions)):
        taken: list[tuple[frozenset, float, int]] = []
        while len(taken) < size and (found := _take_least_used(heaps, taken, groups)):
            taken.append(found)
        for carried, times_used, clip in taken:
            heapq.heappush(heaps[carried], (math.floor(times_used) + 1 + generator.random(), clip))
        mixtures.append(tuple(clip for *_, clip in taken))
    return mixtures


def proportions_of(mix_probability: float, mix_max_clips: int) -> tuple[float, ...]:
    """Return how often mixtures have 1, 2, ... clips, where a share of them has several: all these numbers equally often."""
    several = mix_max_clips - 1
    return (1 - mix_probability, *[mix_probability / several] * several)


def _take_least_used(
    heaps: dict[frozenset, list[tuple[float, int]]],
    taken: list[tuple[frozenset, float, int]],
    groups: Sequence[Hashable | None],
) -> tuple[frozenset, float, int] | None:
    """Remove and return the least used clip that shares no class and no recording with those taken, if there is one."""
    recordings = {groups[clip] for *_, clip in taken} - {None}
    blocked, best = [], None
    for carried, heap in heaps.items():
        if any(carried & other for other, *_ in taken):
            continue
        while heap and groups[heap[0][1]] in recordings:
            blocked.append((heap, heapq.heappop(heap)))
        if heap and (best is None or heap[0] < heaps[best][0]):
            best = carried
    found = None if best is None else (best, *heapq.heappop(heaps[best]))
    for heap, entry in blocked:
        heapq.heappush(heap, entry)
    return found


def _mixture_sizes(count: int, proportions: Sequence[int]) -> np.ndarray:
    """Return `count` sizes (count,), 1 for the first proportion, in the proportions as closely as whole numbers can."""
    ends = np.round(np.cumsum(proportions) / np.sum(proportions) * count).astype(int)
    return np.repeat(np.arange(1, len(proportions) + 1), np.diff(ends, prepend=0))
