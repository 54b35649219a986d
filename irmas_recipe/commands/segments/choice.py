"""Which windows of the music to listen to: the most confident of each class, or the most doubtful.

A window's margin for a class is its logit above the class's threshold, itself as a logit. A class is heard in a window
where the margin is not negative.

- Confident: a window is a candidate for every class that is heard in it. The fewer other classes are heard in it, the
  earlier it comes, for it becomes a training clip of one label; among equals the largest margin comes first.
- Doubtful: a window is a candidate for the class with its largest margin alone, heard or not; the margin nearest to 0
  comes first.

The windows of a file that are taken, best first, do not overlap, whatever their classes; silent ones never count.
"""

import heapq
from collections import Counter, defaultdict
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from irmas_dataset.audit.levels import SILENT_PEAK_DB
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline

NEAREST_TO_CERTAIN = 1e-9  # a threshold of 0 or 1 has no logit


class WindowedLogits(InstrumentRecognitionPipeline):
    """The pipeline, but its answer about a file is the file's windows: `start`, `stop`, `logits` and `is_silent` of each."""

    def preprocess(self, *args: Any, **kwargs: Any) -> Any:
        """Yield the windows of one input; each knows whether it is silent, by the audit's measure."""
        for window in super().preprocess(*args, **kwargs):
            yield {**window, "is_silent": bool(np.abs(window["waveform"]).max() < 10 ** (SILENT_PEAK_DB / 20))}

    def postprocess(self, windows: list[dict], **_: Any) -> dict:
        """Return {"windows"}, and the "warning" about a file that is not heard as it sounds, if there is one."""
        warning = windows[-1]["warning"]
        return {"windows": windows} | ({"warning": warning} if warning else {})


@dataclass(frozen=True)
class Segment:
    """A window of a file, as a candidate for a class."""

    file: Path
    label: str
    others: tuple[str, ...]  # the other labels that are heard in it
    start_seconds: float
    end_seconds: float
    score: float
    threshold: float
    margin: float
    rank: tuple[float, float]  # the lowest is the first to be listened to

    def overlaps(self, other: "Segment") -> bool:
        """Tell whether two windows of one file share any audio."""
        return self.start_seconds < other.end_seconds and other.start_seconds < self.end_seconds


class Choice:
    """The segments to listen to; only those are kept in memory, however many files there are."""

    def __init__(self, recognise: WindowedLogits, *, unsure: bool, per_class: int, per_recording: int) -> None:
        self.labels, self.thresholds = recognise.labels, np.array(recognise.resolve_thresholds(of_moments=True))
        within = np.clip(self.thresholds, NEAREST_TO_CERTAIN, 1 - NEAREST_TO_CERTAIN)
        self.threshold_logits = np.log(within / (1 - within))
        self.rate = recognise.feature_extractor.sampling_rate
        self.unsure, self.per_class, self.per_recording = unsure, per_class, per_recording
        self.by_label: dict[str, list[Segment]] = defaultdict(list)

    def add(self, file: Path, windows: list[dict]) -> None:
        """Take the windows of a file; those of each label stay that are among the best so far."""
        candidates = [segment for window in windows for segment in self.candidates(file, window)]
        for segment in self.apart(candidates):
            self.by_label[segment.label].append(segment)
        for label, segments in self.by_label.items():
            self.by_label[label] = heapq.nsmallest(self.per_class, segments, key=attrgetter("rank"))

    def candidates(self, file: Path, window: dict) -> list[Segment]:
        """Return a window as a candidate for each class that it may stand for."""
        if window["is_silent"]:
            return []
        logits = window["logits"].double()
        margins, scores = logits.numpy() - self.threshold_logits, torch.sigmoid(logits).numpy()
        heard = np.flatnonzero(margins >= 0)
        start, end = window["start"] / self.rate, window["stop"] / self.rate
        found = []
        for index in [margins.argmax()] if self.unsure else heard:
            others = tuple(self.labels[other] for other in heard if other != index)
            margin = float(margins[index])
            rank = (0, abs(margin)) if self.unsure else (len(others), -margin)
            values = {"score": float(scores[index]), "threshold": float(self.thresholds[index]), "margin": margin}
            found.append(Segment(file, self.labels[index], others, start, end, **values, rank=rank))
        return found

    def apart(self, candidates: list[Segment]) -> list[Segment]:
        """Return the best candidates of one file that do not overlap, at most `per_recording` of each label."""
        taken, of_label = [], Counter()
        for segment in sorted(candidates, key=attrgetter("rank")):
            if of_label[segment.label] < self.per_recording and not any(map(segment.overlaps, taken)):
                taken.append(segment)
                of_label[segment.label] += 1
        return taken

    @property
    def segments(self) -> list[Segment]:
        """The segments chosen, by label in the order of the model's, best first."""
        return [segment for label in self.labels for segment in self.by_label[label]]
