"""A classical run as the pipeline that `predict` and the demo use: features and classifiers in place of a network."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from irmas_recipe.baselines.classical.features import SAMPLING_RATE, column_names, feature_rows
from irmas_recipe.baselines.classical.stored import FILE, load_classifiers
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline
from irmas_recipe.report.results import Results
from irmas_recipe.training.recogniser import WithoutNetwork, build_recogniser


class HandMadeFeatures:
    """A feature set as the pipeline asks an extractor for it."""

    sampling_rate = SAMPLING_RATE

    def __init__(self, name: str) -> None:
        self.name = name

    def extract(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return the features (batch, columns) of waveforms (batch, samples) that have 16-bit values in [-1, 1]."""
        samples = np.round(waveforms.numpy() * 2**15).astype(np.int16)
        return torch.from_numpy(feature_rows(self.name, list(samples)))


def load_classical(run: Path, **options: Any) -> InstrumentRecognitionPipeline:
    """Return the pipeline of a classical run; `options` as of `load_recogniser`.

    Raises:
        UserError: the run is not finished, or its classifiers cannot be loaded.
    """
    results = Results.read(run)
    features = results.recipe["features"]
    system = load_classifiers(run, len(column_names(features)), len(results.classes))
    model = WithoutNetwork(results.as_config(), (run / FILE).read_bytes(), system.logits)
    return build_recogniser(str(run), model, HandMadeFeatures(features), **options)
