"""How far probabilities can be taken at their word: the expected calibration error, and the reliability behind it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from .bootstrap import intervals, song_weights
from .figures import as_arrays


def reliability(
    labels: ArrayLike,
    probabilities: ArrayLike,
    songs: Sequence[str | None],
    bins: int = 10,
    resamples: int = 1000,
    seed: int = 0,
) -> dict:
    """Return `ece`, its 95 % interval `ece_ci95` over songs, and `bins`: each one's `from`, `to`, `decisions`, `mean`, `rate`.

    A decision is one class of one clip that has it or not. Decisions are put into `bins` of equal width by their probability, `mean` of which
    they average; `rate` is the share of them that are true. The error is the mean distance of the two, weighted by
    decisions (Naeini et al. 2015, https://doi.org/10.1609/aaai.v29i1.9602).

    labels, probabilities: (clips, classes). songs: the song of each clip, None for a song of its own.
    """
    labels, probabilities = as_arrays(labels, probabilities)
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    inside = (place[..., None] == np.arange(bins)) & (labels >= 0)[..., None]  # (clips, classes, bins)
    of_clip = [
        (values[..., None] * inside).sum(axis=1).astype(float)
        for values in (np.ones_like(probabilities), probabilities, labels == 1)
    ]

    def error(count: np.ndarray, total: np.ndarray, true: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # NaN in a resample of which nothing is known
            return np.abs(total - true).sum(axis=0) / count.sum(axis=0)

    count, total, true = (values.sum(axis=0) for values in of_clip)
    weights = song_weights(songs, resamples, seed)
    resampled = error(*(values.T @ weights for values in of_clip))
    filled = count > 0
    return {
        "ece": float(error(count, total, true)),
        "ece_ci95": list(intervals({"ece": resampled})["ece"]),
        "bins": [
            {"from": low / bins, "to": (low + 1) / bins, "decisions": int(count[low]),
             "mean": float(total[low] / count[low]), "rate": float(true[low] / count[low])}
            for low in np.flatnonzero(filled).tolist()
        ],
    }  # fmt: skip
