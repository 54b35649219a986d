"""Intervals by resampling whole songs: clips of one song are near-copies, so clips are no independent draws.

Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), percentile interval. All resamples are computed
together: a resample is a column of song weights, and every figure is a ratio of weighted sums.
"""

import numpy as np

from .figures import as_arrays, threshold_per_class


def song_bootstrap(labels, scores, thresholds, songs, resamples: int = 1000, seed: int = 0) -> dict:
    """Return the 95 % interval (lo, hi) of each figure under resampling of whole songs.

    labels, scores: (clips, classes). songs: one name a clip; a clip whose song is None stands for itself.
    Keys: `lrap`, `map`, the decision figures, and `per_class_f1`, a list of one (lo, hi) a class. Thresholds are held
    fixed. A class counts in the macro averages of the resamples that contain it. With a single song, lo = hi.
    """
    weights = song_weights(songs, resamples, seed)
    return intervals(_resampled(labels, scores, thresholds, weights))


def paired_song_bootstrap(
    labels, scores_a, thresholds_a, scores_b, thresholds_b, songs, resamples: int = 1000, seed: int = 0
) -> dict:
    """Return {figure: {"difference": a - b, "ci95": (lo, hi)}} of two systems on the same clips and the same resamples.

    Where the interval leaves out 0, the choice of songs alone does not explain the difference.
    """

    def differences(weights: np.ndarray) -> dict[str, np.ndarray]:
        values_a = _resampled(labels, scores_a, thresholds_a, weights)
        values_b = _resampled(labels, scores_b, thresholds_b, weights)
        return {name: values_a[name] - values_b[name] for name in values_a if name != "per_class_f1"}

    weights = song_weights(songs, resamples, seed)
    difference = differences(np.ones((len(weights), 1)))
    interval = intervals(differences(weights))
    return {name: {"difference": float(difference[name][0]), "ci95": interval[name]} for name in difference}


def song_weights(songs, resamples: int, seed: int) -> np.ndarray:
    """Return how often each clip's song is drawn in each resample: (clips, resamples) float64.

    A resample draws as many songs as there are, with replacement.
    """
    song_of_clip = song_indices(songs)
    num_songs = song_of_clip.max() + 1
    draws = np.random.default_rng(seed).multinomial(num_songs, np.full(num_songs, 1 / num_songs), size=resamples)
    return np.ascontiguousarray(draws.T[song_of_clip], dtype=np.float64)


def song_indices(songs) -> np.ndarray:
    """Return each clip's song as an index from 0 (clips,); a clip whose song is None, NaN or empty is one of its own."""
    known = [song is not None and song == song and song != "" for song in songs]
    keys = [("song", str(song)) if known[clip] else ("clip", str(clip)) for clip, song in enumerate(songs)]
    index = {key: position for position, key in enumerate(dict.fromkeys(keys))}
    return np.array([index[key] for key in keys])


def intervals(resampled: dict[str, np.ndarray]) -> dict:
    """Return the 2.5 and 97.5 percentiles of each figure: (lo, hi), or a list of them for an array (classes, resamples).

    Resamples in which a figure does not exist (NaN) are left out; a figure that exists in none has (0.0, 0.0).
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


def resampled_decisions(labels, scores, thresholds, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return the decision figures in each resample, (resamples,), and `per_class_f1`, (classes, resamples)."""
    labels, scores = as_arrays(labels, scores)
    predicted = scores >= threshold_per_class(thresholds, labels.shape[1])
    true = labels.astype(bool)
    hits = (true & predicted).T.astype(np.float64) @ weights  # (classes, resamples)
    support = true.T.astype(np.float64) @ weights
    claims = predicted.T.astype(np.float64) @ weights
    present = support > 0
    per_class_f1 = np.where(present, _ratio(2 * hits, support + claims), np.nan)

    clip_hits = (true & predicted).sum(axis=1)
    clip_entries = true.sum(axis=1) + predicted.sum(axis=1)
    clip_f1 = np.where(clip_entries > 0, 2 * clip_hits / np.maximum(clip_entries, 1), 1.0)
    right_entries = (true == predicted).mean(axis=1)
    clips = weights.sum(axis=0)
    return {
        "micro_f1": _ratio(2 * hits.sum(axis=0), (support + claims).sum(axis=0)),
        "macro_f1": _mean_over_present(per_class_f1, present),
        "samples_f1": clip_f1 @ weights / clips,
        "exact_match": (right_entries == 1).astype(np.float64) @ weights / clips,
        "hamming": right_entries @ weights / clips,
        "per_class_f1": per_class_f1,
    }


def resampled_ranking(labels, scores, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return `lrap` and `map` in each resample, (resamples,)."""
    labels, scores = as_arrays(labels, scores)
    average_precisions = np.stack(
        [weighted_average_precision(labels[:, column], scores[:, column], weights) for column in range(labels.shape[1])]
    )
    present = labels.T.astype(np.float64) @ weights > 0
    return {
        "lrap": clip_ranking_precision(labels, scores) @ weights / weights.sum(axis=0),
        "map": _mean_over_present(np.where(present, average_precisions, np.nan), present),
    }


def weighted_average_precision(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the average precision of one class, labels and scores (clips,), under each column of clip weights.

    Equals scikit-learn's `average_precision_score(..., sample_weight=column)`: clips of equal score share one threshold.
    """
    order = np.argsort(-scores, kind="stable")
    positive_ranks = np.flatnonzero(labels[order])
    if positive_ranks.size == 0:
        return np.zeros(weights.shape[1])
    # The precision at a positive clip counts every clip whose score is as high, those of the same score too.
    end_of_tie = np.searchsorted(-scores[order], -scores[order], side="right") - 1
    last_rank = end_of_tie[positive_ranks]
    weights = weights[order]
    found = np.cumsum(weights, axis=0)[last_rank]  # (positives, resamples)
    positive_weights = weights[positive_ranks]
    hits_by_positive = np.cumsum(positive_weights, axis=0)
    hits = hits_by_positive[np.searchsorted(positive_ranks, last_rank, side="right") - 1]
    return _ratio((positive_weights * _ratio(hits, found)).sum(axis=0), hits_by_positive[-1])


def clip_ranking_precision(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return each clip's share of the label-ranking average precision, (clips,); 1 for a clip without labels."""
    true = labels.astype(bool)
    at_least_as_high = scores[:, None, :] >= scores[:, :, None]  # (clips, label, other class)
    rank = at_least_as_high.sum(axis=2)
    true_rank = (at_least_as_high & true[:, None, :]).sum(axis=2)
    precision = np.where(true, true_rank / rank, 0.0).sum(axis=1)
    num_labels = true.sum(axis=1)
    return np.where(num_labels > 0, precision / np.maximum(num_labels, 1), 1.0)


def _resampled(labels, scores, thresholds, weights: np.ndarray) -> dict[str, np.ndarray]:
    return resampled_ranking(labels, scores, weights) | resampled_decisions(labels, scores, thresholds, weights)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide, with 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(denominator), where=denominator > 0)


def _mean_over_present(per_class: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Return the mean (resamples,) of per_class (classes, resamples) over the classes present in each resample."""
    return _ratio(np.where(present, per_class, 0.0).sum(axis=0), present.sum(axis=0).astype(np.float64))
