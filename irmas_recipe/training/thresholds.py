"""Per-class thresholds from validation music that carries as many labels at once as the test set does."""

from collections.abc import Hashable, Iterable, Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from irmas_metric.figures import as_arrays
from irmas_metric.single_threshold import best_single_threshold, count_at_least, middle_of_best_plateau

__all__ = ["best_single_threshold", "tune_thresholds", "validation_mixtures"]

LABELS_PER_TEST_CLIP = (1236, 1278, 360)
"""How many of IRMAS's 2,874 test clips carry one label, two, and three or more."""


POOLED_POSITIVES = 20
"""How many positive clips the pooled curve of all classes counts for when a class's threshold is chosen."""


def tune_thresholds(labels: ArrayLike, scores: ArrayLike) -> np.ndarray:
    """Return the threshold of each class (classes,), inside (0, 1), with the best F1 of that class.

    A class with few validation clips would be tuned to chance. So each class's curve of F1 against threshold is
    smoothed with the curve of all classes together, which counts as POOLED_POSITIVES clips (partial pooling, measured in
    RESULTS.md): it hardly changes a class with a hundred clips, and a class without any takes the single threshold of
    the best micro-F1. A threshold lies in the middle of the widest interval with the best F1.

    Args:
        labels: multi-hot (clips, classes) of validation mixtures, never of the test set.
        scores: (clips, classes) in [0, 1].
    """
    labels, scores = as_arrays(labels, scores)
    positives = max(labels.sum(), 1)
    weight = POOLED_POSITIVES / positives

    def pooled_f1(column: int, thresholds: np.ndarray) -> np.ndarray:
        own = labels[:, column] == 1
        if not own.any():
            return pooled_hits(thresholds) / (positives + pooled_claims(thresholds))
        hits = count_at_least(scores[own, column], thresholds) + weight * pooled_hits(thresholds)
        claims = count_at_least(scores[:, column], thresholds) + weight * pooled_claims(thresholds)
        return 2 * hits / (own.sum() + POOLED_POSITIVES + claims)

    pooled_hits = partial(count_at_least, scores[labels == 1])
    pooled_claims = partial(count_at_least, scores.ravel())
    return np.array([middle_of_best_plateau(scores, partial(pooled_f1, column)) for column in range(labels.shape[1])])


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
    classes = {label: column for column, label in enumerate(dict.fromkeys(label for clip in labels for label in clip))}
    carries = np.zeros((len(labels), len(classes)), dtype=bool)
    for clip, clip_labels in enumerate(labels):
        carries[clip, [classes[label] for label in clip_labels]] = True
    recordings = _recording_indices(groups)
    times_used = np.zeros(len(labels), dtype=int)
    mixtures = []
    for size in generator.permutation(_mixture_sizes(len(labels), proportions)):
        mixture, allowed = [], np.ones(len(labels), dtype=bool)
        while len(mixture) < size and allowed.any():
            least_used_first = np.where(allowed, times_used + generator.random(len(labels)), np.inf)
            clip = int(np.argmin(least_used_first))
            mixture.append(clip)
            times_used[clip] += 1
            allowed &= ~carries[:, carries[clip]].any(axis=1) & (recordings != recordings[clip])
        mixtures.append(tuple(mixture))
    return mixtures


def _recording_indices(groups: Sequence[Hashable | None]) -> np.ndarray:
    """Return each clip's recording as an index (clips,); a clip whose recording is None is alone in its own."""
    keys = [("clip", clip) if group is None else ("recording", group) for clip, group in enumerate(groups)]
    index = {key: position for position, key in enumerate(dict.fromkeys(keys))}
    return np.array([index[key] for key in keys], dtype=int)


def _mixture_sizes(count: int, proportions: Sequence[int]) -> np.ndarray:
    """Return `count` sizes (count,), 1 for the first proportion, in the proportions as closely as whole numbers can."""
    ends = np.round(np.cumsum(proportions) / np.sum(proportions) * count).astype(int)
    return np.repeat(np.arange(1, len(proportions) + 1), np.diff(ends, prepend=0))
