"""The results of one evaluation: the figures under three threshold regimes, each with its interval."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from .bootstrap import intervals, resampled_decisions, resampled_ranking, song_indices, song_weights
from .figures import DECISION_FIGURES, as_arrays, decision_figures, figures
from .single_threshold import best_single_threshold


def test_results(
    labels: ArrayLike,
    scores: ArrayLike,
    songs: Sequence[str | None],
    class_names: Sequence[str] | None,
    tuned_thresholds: ArrayLike | None = None,
    fixed: ArrayLike = 0.5,
    resamples: int = 1000,
    seed: int = 0,
) -> dict:
    """Return the `test` entry of results.json: `lrap`, `map`, `per_class_ap`, `ci95`, `fixed`, `tuned` and `oracle`.

    labels: multi-hot, (clips, classes). scores: (clips, classes).
    songs: the song of each clip; a clip whose song is None counts as a song of its own.
    tuned_thresholds: (classes,), chosen on validation data, for `tuned`; without them there is no `tuned`.
    fixed: the threshold of `fixed`, one float or one per class.
    `oracle` is the best single threshold for micro-F1 on this test set, which no fair comparison may use.
    Intervals come from the song bootstrap, with fixed thresholds, `resamples` resamples and this `seed`.
    """
    weights = song_weights(songs, resamples, seed)
    result = figures(labels, scores, fixed, class_names)
    result = {name: result[name] for name in ("lrap", "map", "per_class_ap")}
    result["ci95"] = _as_lists(intervals(resampled_ranking(labels, scores, weights)))
    regimes = {"fixed": fixed, "tuned": tuned_thresholds, "oracle": best_single_threshold(labels, scores)}
    for regime, thresholds in regimes.items():
        if thresholds is not None:
            result[regime] = _regime_results(labels, scores, thresholds, songs, class_names, weights)
    return result


test_results.__test__ = False  # pytest would collect a function of this name from every test file that imports it


def _regime_results(
    labels: ArrayLike,
    scores: ArrayLike,
    thresholds: ArrayLike,
    songs: Sequence[str | None],
    class_names: Sequence[str] | None,
    weights: np.ndarray,
) -> dict:
    labels, scores = as_arrays(labels, scores)
    song_of_clip = song_indices(songs)
    interval = _as_lists(intervals(resampled_decisions(labels, scores, thresholds, weights)))
    result = decision_figures(labels, scores, thresholds, class_names)
    for column, entry in enumerate(result["per_class"].values()):
        entry["songs"] = len(np.unique(song_of_clip[labels[:, column] == 1]))
        entry["f1_ci95"] = interval["per_class_f1"][column]
    result["ci95"] = {name: interval[name] for name in DECISION_FIGURES}
    return result


def _as_lists(interval: dict) -> dict:
    """Return the intervals with lists instead of tuples, so that a round trip through JSON does not change them."""
    return {
        name: [list(pair) for pair in value] if isinstance(value, list) else list(value)
        for name, value in interval.items()
    }
