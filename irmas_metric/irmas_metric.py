"""The figures of instrument recognition on IRMAS as an `evaluate` module: `evaluate.load("./irmas_metric")`."""

from collections.abc import Sequence

import datasets
import evaluate
from numpy.typing import ArrayLike

from .bootstrap import song_bootstrap
from .figures import figures, with_unknown

DESCRIPTION = """
Multi-label figures of the IRMAS protocol, computed from scores: LRAP, mAP, micro-, macro- and samples-F1, exact match,
Hamming score and per-class precision, recall, F1 and average precision; given the song of each clip, also 95 % intervals
from a bootstrap over whole songs.
"""

INPUTS = """
Args:
    predictions: scores in [0, 1], (clips, classes).
    references: multi-hot labels, (clips, classes); -1 stands for a label that is not known.
    known: mask, (clips, classes), False where a label is not known (optional); such entries take part in no figure.
    thresholds: one float, or one per class (default 0.5); a class is predicted if its score is at least as high.
    songs: the song of each clip (optional); with it, `ci95` has the intervals.
    class_names: names for the per-class entries (default: column numbers).
    bootstrap_resamples: number of resamples of whole songs (default 1000).
    seed: seed of the resampling (default 0).
Returns:
    lrap, map, micro_f1, macro_f1, samples_f1, exact_match, hamming: floats.
    per_class_ap: {class: average precision}.
    per_class: {class: {precision, recall, f1, threshold, support, known}}.
    ci95: {figure: [lo, hi]}, and per_class_f1: {class: [lo, hi]}; only if songs are given.
Examples:
    >>> metric = evaluate.load("./irmas_metric")
    >>> result = metric.compute(predictions=[[0.9, 0.2], [0.4, 0.8]], references=[[1, 0], [1, 1]])
    >>> round(result["micro_f1"], 3)
    0.8
"""

CITATION = """
@inproceedings{bosch2012comparison,
  title = {A Comparison of Sound Segregation Techniques for Predominant Instrument Recognition in Musical Audio Signals},
  author = {Bosch, Juan J. and Janer, Jordi and Fuhrmann, Ferdinand and Herrera, Perfecto},
  booktitle = {Proceedings of the 13th International Society for Music Information Retrieval Conference (ISMIR)},
  pages = {559--564},
  year = {2012}
}
"""


class IrmasMetric(evaluate.Metric):
    """The protocol's figures; see `INPUTS`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float64")),
                    "references": datasets.Sequence(datasets.Value("int64")),
                }
            ),
        )

    def _compute(
        self,
        predictions: ArrayLike,
        references: ArrayLike,
        thresholds: ArrayLike = 0.5,
        known: ArrayLike | None = None,
        songs: Sequence[str | None] | None = None,
        class_names: Sequence[str] | None = None,
        bootstrap_resamples: int = 1000,
        seed: int = 0,
    ) -> dict:
        references = with_unknown(references, known)
        result = figures(references, predictions, thresholds, class_names)
        if songs is not None:
            if len(songs) != len(references):
                raise ValueError(
                    f"There are {len(songs)} songs for {len(references)} clips: name the song of each clip."
                )
            interval = song_bootstrap(references, predictions, thresholds, songs, bootstrap_resamples, seed)
            per_class_f1 = interval.pop("per_class_f1")
            result["ci95"] = {name: list(pair) for name, pair in interval.items()}
            result["ci95"]["per_class_f1"] = {
                name: list(pair) for name, pair in zip(result["per_class"], per_class_f1, strict=True)
            }
        return result
