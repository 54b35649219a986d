"""Intervals by resampling whole songs: clips of one song are nearly copies, so they are not independent draws.

Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), percentile interval. All resamples are computed
together: a resample is a column of song weights, and every figure is a ratio of weighted sums.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from .figures import as_arrays, threshold_per_class


def song_bootstrap(
    labels: ArrayLike,
    scores: ArrayLike,
    thresholds: ArrayLike,
    songs: Sequence[str | None],
    resamples: int = 1000,
    seed: int = 0,
) -> dict:
    """Return the 95 % interval (lo, hi) of each figure under resampling of whole songs.

    labels: multi-hot, (clips, classes). scores: (clips, classes). thresholds: one float, or one per class; they are not
    resampled. songs: the song of each clip; a clip whose song is None counts as a song of its own.
    Keys: `lrap`, `map`, the decision figures, and `per_class_f1`, a list with one (lo, hi) per class. A class counts in
    the macro averages of those resamples that contain it. With a single song, lo = hi.
    """
    weights = song_weights(songs, resamples, seed)
    return intervals(_resampled(labels, scores, thresholds, weights))


def paired_song_bootstrap(
    labels: ArrayLike,
    scores_a: ArrayLike,
    thresholds_a: ArrayLike,
    scores_b: ArrayLike,
    thresholds_b: ArrayLike,
    songs: Sequence[str | None],
    resamples: int = 1000,
    seed: int = 0,
) -> dict:
    """Return {figure: {"difference": a - b, "ci95": (lo, hi)}} of two systems on the same clips and the same resamples.

    The arguments are those of `song_bootstrap`. If the interval excludes 0, the choice of songs alone does not explain
    the difference.
    """

    def differences(weights: np.ndarray) -> dict[str, np.ndarray]:
        values_a = _resampled(labels, scores_a, thresholds_a, weights)
        values_b = _resampled(labels, scores_b, thresholds_b, weights)
        # Equal figures can be sums in another order: what is left then is no difference.
        return {name: (values_a[name] - values_b[name]).round(12) + 0.0 for name in values_a if name != "per_class_f1"}

    weights = song_weights(songs, resamples, seed)
    difference = differences(np.ones((len(weights), 1)))
    interval = intervals(differences(weights))
    return {name: {"difference": float(difference[name][0]), "ci95": interval[name]} for name in difference}


def song_weights(songs: Sequence[str | None], resamples: int, seed: int) -> np.ndarray:
    """Return how often the song of each clip is drawn in each resample, float64 (clips, resamples).

    A resample draws as many songs as there are, with replacement.
    """
    song_of_clip = song_indices(songs)
    num_songs = song_of_clip.max() + 1
    draws = np.random.default_rng(seed).multinomial(num_songs, np.full(num_songs, 1 / num_songs), size=resamples)
    return np.ascontiguousarray(draws.T[song_of_clip], dtype=np.float64)


def song_indices(songs: Sequence[str | None]) -> np.ndarray:
    """Return the song of each clip as an index from 0, (clips,); None, NaN and "" are songs of their own."""
    known = [song is not None and song == song and song != "" for song in songs]
    keys = [("song", str(song)) if known[clip] else ("clip", str(clip)) for clip, song in enumerate(songs)]
    index = {key: position for position, key in enumerate(dict.fromkeys(keys))}
    return np.array([index[key] for key in keys])


def intervals(resampled: dict[str, np.ndarray]) -> dict:
    """Return the 2.5 and 97.5 percentiles of each figure: (lo, hi), or a list of them for an array (classes, resamples).

    Resamples in which a figure does not exist (NaN) are ignored; a figure that exists in none gets (0.0, 0.0).
    """
    result = {}
    for name, values in resampled.items():
        pairs = []
        for row in np.atleast_2d(values):
            row = row[~np.isnan(row)]
            lo, hi = np.percentile(row, [2.5, 97.5]) if row.size else (0.0, 0.0)
            pairs.append((float(lo), float(hi)))
        result[name] = pairs if values.ndim == 2 else pairs[0]
    return result


def resampled_decisions(
    labels: ArrayLike, scores: ArrayLike, thresholds: ArrayLike, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the decision figures in each resample, (resamples,), and `per_class_f1`, (classes, resamples).

    weights: (clips, resamples) from `song_weights`.
    """
    labels, scores = as_arrays(labels, scores)
    true, known = labels == 1, labels >= 0
    predicted = (scores >= threshold_per_class(thresholds, labels.shape[1])) & known
    hits = (true & predicted).T.astype(np.float64) @ weights  # (classes, resamples)
    support = true.T.astype(np.float64) @ weights
    claims = predicted.T.astype(np.float64) @ weights
    present = support > 0
    per_class_f1 = np.where(present, _ratio(2 * hits, support + claims), np.nan)

    clip_hits = (true & predicted).sum(axis=1)
    clip_entries = true.sum(axis=1) + predicted.sum(axis=1)
    clip_f1 = np.where(clip_entries > 0, 2 * clip_hits / np.maximum(clip_entries, 1), 1.0)
    right, entries = ((true == predicted) & known).sum(axis=1), known.sum(axis=1)
    judged = (entries > 0).astype(np.float64)
    clips = judged @ weights
    return {
        "micro_f1": _ratio(2 * hits.sum(axis=0), (support + claims).sum(axis=0)),
        "macro_f1": _mean_over_present(per_class_f1, present),
        "samples_f1": _ratio((clip_f1 * judged) @ weights, clips),
        "exact_match": _ratio(((right == entries) * judged) @ weights, clips),
        "hamming": _ratio(right.astype(np.float64) @ weights, entries.astype(np.float64) @ weights),
        "per_class_f1": per_class_f1,
    }


def resampled_ranking(labels: ArrayLike, scores: ArrayLike, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return `lrap` and `map` in each resample, (resamples,); weights: (clips, resamples) from `song_weights`."""
    labels, scores = as_arrays(labels, scores)
    true, known = labels == 1, labels >= 0
    average_precisions = np.stack(
        [
            weighted_average_precision(true[rows, column], scores[rows, column], weights[rows])
            for column, rows in enumerate(known.T)
        ]
    )
    present = true.T.astype(np.float64) @ weights > 0
    judged = known.any(axis=1).astype(np.float64)
    return {
        "lrap": _ratio((clip_ranking_precision(labels, scores) * judged) @ weights, judged @ weights),
        "map": _mean_over_present(np.where(present, average_precisions, np.nan), present),
    }


def weighted_average_precision(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the average precision of one class under each column of clip weights, (resamples,).

    labels, scores: (clips,). weights: (clips, resamples). It equals scikit-learn's `average_precision_score` with a
    column as `sample_weight`: clips with equal scores share one threshold.
    """
    order = np.argsort(-scores, kind="stable")
    positive_ranks = np.flatnonzero(labels[order])
    if positive_ranks.size == 0:
        return np.zeros(weights.shape[1])
    # The precision at a positive clip counts every clip whose score is at least as high, including ties.
    end_of_tie = np.searchsorted(-scores[order], -scores[order], side="right") - 1
    last_rank = end_of_tie[positive_ranks]
    weights = weights[order]
    found = np.cumsum(weights, axis=0)[last_rank]  # (positives, resamples)
    positive_weights = weights[positive_ranks]
    hits_by_positive = np.cumsum(positive_weights, axis=0)
    hits = hits_by_positive[np.searchsorted(positive_ranks, last_rank, side="right") - 1]
    return _ratio((positive_weights * _ratio(hits, found)).sum(axis=0), hits_by_positive[-1])


def clip_ranking_precision(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the label-ranking average precision of each clip, (clips,); 1 for a clip without labels.

    labels: multi-hot, (clips, classes). scores: (clips, classes).
    """
    true = labels == 1
    scores = np.where(labels >= 0, scores, scores.min() - 1)  # what is not known is above no label
    at_least_as_high = scores[:, None, :] >= scores[:, :, None]  # (clips, label, other class)
    rank = at_least_as_high.sum(axis=2)
    true_rank = (at_least_as_high & true[:, None, :]).sum(axis=2)
    precision = np.where(true, true_rank / rank, 0.0).sum(axis=1)
    num_labels = true.sum(axis=1)
    return np.where(num_labels > 0, precision / np.maximum(num_labels, 1), 1.0)


def _resampled(
    labels: ArrayLike, scores: ArrayLike, thresholds: ArrayLike, weights: np.ndarray
) -> dict[str, np.ndarray]:
    return resampled_ranking(labels, scores, weights) | resampled_decisions(labels, scores, thresholds, weights)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide; the result is 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(denominator), where=denominator > 0)


def _mean_over_present(per_class: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Return the mean (resamples,) of per_class (classes, resamples) over the classes present in each resample."""
    return _ratio(np.where(present, per_class, 0.0).sum(axis=0), present.sum(axis=0).astype(np.float64))
