"""A clip's windows: where they begin, how they are cut, and what their logits say together, as a whole and over time."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike

AGGREGATIONS = ("mean", "energy", "max", "mean_probability", "s1", "s2")
LONGEST_CLIP_SECONDS = 30.0  # longer audio is answered from its timeline
TOLERANCE_SECONDS = 1e-6
QUIETEST = 1e-10
"""Added to every window's energy, so that windows of silence weigh the same."""


def window_starts(num_samples: int, window: int, hop: int) -> list[int]:
    """Return where the windows of a clip begin: 0, hop, 2 hop, ..., and a last one aligned to the clip's end.

    All three arguments are in samples, or all in another unit. A clip that is no longer than the window gives `[0]`.

    Raises:
        ValueError: a window or hop below 1.
    """
    if window < 1 or hop < 1:
        raise ValueError(f"A window of {window} samples every {hop} samples is impossible: both must be positive.")
    if num_samples <= window:
        return [0]
    last = num_samples - window
    return [*range(0, last, hop), last]


def cut_windows(blocks: Iterable[np.ndarray], window: int, hop: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield start, stop and samples (window,) of the windows at `window_starts`, keeping little more than one in memory.

    Audio shorter than the window is padded with zeros, and `stop` is where the audio ends; without samples there is no
    window.
    """
    buffer, buffer_start, next_start = np.zeros(0, np.float32), 0, 0
    for block in blocks:
        buffer = np.concatenate([buffer, block])
        while next_start + window <= buffer_start + len(buffer):
            offset = next_start - buffer_start
            yield next_start, next_start + window, buffer[offset : offset + window]
            next_start += hop
        unneeded = min(next_start - buffer_start, len(buffer) - window)  # the last window may begin before the next
        if unneeded > 0:
            buffer, buffer_start = buffer[unneeded:], buffer_start + unneeded
    num_samples = buffer_start + len(buffer)
    if 0 < num_samples < window:
        yield 0, num_samples, np.pad(buffer, (0, window - num_samples))
    elif num_samples > window and next_start - hop + window < num_samples:
        yield num_samples - window, num_samples, buffer[-window:]


def energy_of(waveform: np.ndarray) -> float:
    """Return the mean square of a window of float32 samples in [-1, 1]."""
    return float(np.mean(np.square(waveform, dtype=np.float64)))


def aggregate(
    logits: torch.Tensor | np.ndarray, how: str = "mean", energies: Sequence[float] | None = None
) -> np.ndarray:
    """Return one score in [0, 1] per class, float32 (classes,), from the logits (windows, classes) of a clip's windows.

    - `mean`: sigmoid of the mean logit (the default of this project).
    - `energy`: the same, where each window weighs as much as its `energies` say (`energy_of`): what is left of a note that
      has died away has little to say about the instrument.
    - `max`: sigmoid of the largest logit.
    - `mean_probability`: mean of the sigmoids; `s1` (Han, Kim and Lee 2017, strategy 1) is the same.
    - `s2` (Han, Kim and Lee 2017, strategy 2): class-wise sum of the sigmoids divided by its maximum over the classes.

    Raises:
        ValueError: any other name, or no energies where they are needed.
    """
    logits = torch.as_tensor(logits).detach().to("cpu", torch.float64)
    if how == "mean":
        scores = torch.sigmoid(logits.mean(dim=0))
    elif how == "energy":
        if energies is None:
            raise ValueError("The aggregation 'energy' needs the windows' energies.")
        weights = torch.as_tensor(energies, dtype=torch.float64)[:, None] + QUIETEST
        scores = torch.sigmoid((weights * logits).sum(dim=0) / weights.sum())
    elif how == "max":
        scores = torch.sigmoid(logits.max(dim=0).values)
    elif how in ("mean_probability", "s1"):
        scores = torch.sigmoid(logits).mean(dim=0)
    elif how == "s2":
        sums = torch.sigmoid(logits).sum(dim=0)
        scores = sums / sums.max().clamp_min(torch.finfo(sums.dtype).tiny)
    else:
        raise ValueError(f"Unknown aggregation '{how}': choose one of {', '.join(AGGREGATIONS)}.")
    return scores.to(torch.float32).numpy()


def moments(windows: list[dict], logits: torch.Tensor, how: str = "mean") -> tuple[np.ndarray, np.ndarray]:
    """Cut a clip into moments that the same windows cover; return their edges (moments + 1,) in samples, and scores.

    The scores (moments, classes) are the mean of the sigmoids of the windows that cover a moment; `how` is the model's
    aggregation: `energy` weighs these windows by their `energy`, and `s2` divides the scores by the largest class-wise mean
    over the clip.
    """
    starts = np.array([window["start"] for window in windows])
    stops = np.array([window["stop"] for window in windows])
    edges = np.unique(np.concatenate([starts, stops]))
    probabilities = torch.sigmoid(logits.double()).numpy()
    # A window is added where it starts and subtracted where it stops, so the running sum covers those in between.
    steps = np.zeros((len(edges), probabilities.shape[1] + 1))
    counted = np.concatenate([probabilities, np.ones((len(windows), 1))], axis=1)
    if how == "energy":
        counted *= np.array([window["energy"] for window in windows])[:, None] + QUIETEST
    np.add.at(steps, np.searchsorted(edges, starts), counted)
    np.add.at(steps, np.searchsorted(edges, stops), -counted)
    covering = np.cumsum(steps, axis=0)[:-1]
    scores = covering[:, :-1] / covering[:, -1:]
    if how == "s2":
        scores = scores / max(probabilities.mean(axis=0).max(), np.finfo(float).tiny)
    return edges, np.clip(scores, 0, 1)


@dataclass(frozen=True)
class TimelineRules:
    """How the moments of long audio become stretches in which an instrument is heard, and an answer about the whole."""

    fill_gaps_seconds: float = 3.0
    """Stretches that lie no further apart become one: a pause is no end."""
    min_segment_seconds: float = 4.0
    """Shorter stretches are dropped. In short audio both are a quarter of it at most."""
    min_heard_seconds: float = 8.0
    """An instrument that is heard for less in all is not part of the answer; in shorter audio it must be heard throughout."""

    def stretches(self, edges: np.ndarray, active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the first moment of each stretch and the one after its last, from the active moments (moments,).

        edges: of the moments, (moments + 1,) in seconds.
        """
        changes = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(np.int8)))
        first, after = changes[::2], changes[1::2]
        quarter = (edges[-1] - edges[0]) / 4
        apart = edges[first[1:]] - edges[after[:-1]] > min(self.fill_gaps_seconds, quarter) + TOLERANCE_SECONDS
        first, after = first[np.append(True, apart)[: len(first)]], after[np.append(apart, True)[: len(after)]]
        lasting = edges[after] - edges[first] >= min(self.min_segment_seconds, quarter) - TOLERANCE_SECONDS
        return first[lasting], after[lasting]

    def heard_seconds(self, edges: np.ndarray, active: np.ndarray) -> float:
        """Return how long an instrument is heard in all."""
        first, after = self.stretches(edges, active)
        return float((edges[after] - edges[first]).sum())

    def sustained_score(self, edges: np.ndarray, scores: np.ndarray) -> float:
        """Return the highest score that an instrument keeps up for `min_heard_seconds`, from its scores (moments,).

        So it reaches a threshold exactly where the instrument is heard for long enough with that threshold.
        """
        enough = min(self.min_heard_seconds, edges[-1] - edges[0]) - TOLERANCE_SECONDS
        levels = np.unique(scores)
        kept_up, too_high = 0, len(levels)  # at the lowest level all audio counts
        while too_high - kept_up > 1:
            middle = (kept_up + too_high) // 2
            if self.heard_seconds(edges, scores >= levels[middle]) >= enough:
                kept_up = middle
            else:
                too_high = middle
        return float(levels[kept_up])


def merge_moments(
    edges_seconds: np.ndarray,
    scores: np.ndarray,
    labels: list[str],
    thresholds: list[float],
    rules: TimelineRules = TimelineRules(),
) -> list[dict]:
    """Return the stretches in which a label's moments reach its threshold, sorted by start, each with its mean score."""
    durations = np.diff(edges_seconds)
    timeline = []
    for index, label in enumerate(labels):
        for first, after_last in zip(
            *rules.stretches(edges_seconds, scores[:, index] >= thresholds[index]), strict=True
        ):
            part = slice(first, after_last)
            timeline.append(
                {
                    "label": label,
                    "start_seconds": float(edges_seconds[first]),
                    "end_seconds": float(edges_seconds[after_last]),
                    "score": float(np.average(scores[part, index], weights=durations[part])),
                }
            )
    return sorted(timeline, key=lambda segment: (segment["start_seconds"], -segment["score"]))


def confidence(scores: ArrayLike, thresholds: ArrayLike, slopes: ArrayLike) -> np.ndarray:
    """Return scores as people read them: 0.5 at the threshold, whatever it is, and calibrated on either side of it.

    Args:
        scores, thresholds: in [0, 1]; of shapes that go together, such as (clips, classes) and (classes,).
        slopes: (..., 2), of the log odds below and above the threshold; `training.thresholds.fit_slopes` finds them.
    """
    distance = log_odds(scores) - log_odds(thresholds)
    below, above = np.moveaxis(np.asarray(slopes, dtype=float), -1, 0)
    return 1 / (1 + np.exp(-distance * np.where(distance < 0, below, above)))


def log_odds(probabilities: ArrayLike) -> np.ndarray:
    """Return log(p / (1 - p)), of probabilities within 1e-6 of 0 and 1 as of 1e-6 and 1 - 1e-6."""
    clipped = np.clip(np.asarray(probabilities, dtype=float), 1e-6, 1 - 1e-6)
    return np.log(clipped / (1 - clipped))
