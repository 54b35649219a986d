"""Saved models for the pipeline's tests."""

from pathlib import Path

import pytest
import torch
from transformers import ASTFeatureExtractor, ASTForAudioClassification

from irmas_recipe.models import ARCHITECTURES
from irmas_recipe.models.pipeline.attach import attach_pipeline
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline
from tests.models.pipeline.sound import LABELS
from tests.tiny import SECONDS, build, save, saved_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny random AST of three labels that looks at 1 s every 0.5 s, saved with its pipeline."""
    folder = saved_run(tmp_path_factory.mktemp("model") / "tiny ast", LABELS, [0.2, 0.5, 0.9])
    model = ASTForAudioClassification.from_pretrained(folder)
    with torch.no_grad():  # a random head says 0.5 to everything; scale it so that windows differ
        model.classifier.dense.weight.normal_(0, 1)
    model.save_pretrained(folder)
    attach_pipeline(folder)
    return folder


@pytest.fixture(scope="module")
def recognise(folder) -> InstrumentRecognitionPipeline:
    model = ASTForAudioClassification.from_pretrained(folder)
    extractor = ASTFeatureExtractor.from_pretrained(folder)
    return InstrumentRecognitionPipeline(model=model, feature_extractor=extractor, device="cpu")


@pytest.fixture(scope="module")
def every_model(tmp_path_factory) -> Path:
    """A folder with every architecture of the project, tiny and random, each saved with its pipeline."""
    root = tmp_path_factory.mktemp("every model")
    for name in ARCHITECTURES:
        model, extractor = build(name)
        model.config.update({"window_seconds": SECONDS, "hop_seconds": SECONDS / 2, "aggregation": "mean"})
        attach_pipeline(save(model, extractor, root / name))
    return root
