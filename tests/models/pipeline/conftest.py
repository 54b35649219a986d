"""Saved models for the pipeline's tests."""

from pathlib import Path

import pytest
import torch
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

from irmas_recipe.models import ARCHITECTURES
from irmas_recipe.models.pipeline.attach import attach_pipeline
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline
from tests.models.pipeline.sound import LABELS
from tests.models.tiny import SECONDS, build


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny random AST of three labels that looks at 1 s every 0.5 s, saved with its pipeline."""
    folder = tmp_path_factory.mktemp("model") / "tiny ast"
    config = ASTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_mel_bins=32,
        max_length=98,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
        problem_type="multi_label_classification",
        window_seconds=1.0,
        hop_seconds=0.5,
        aggregation="mean",
        thresholds=[0.2, 0.5, 0.9],
    )
    torch.manual_seed(0)
    model = ASTForAudioClassification(config)
    with torch.no_grad():  # a random head says 0.5 to everything; scale it so that windows differ
        model.classifier.dense.weight.normal_(0, 1)
    model.save_pretrained(folder)
    ASTFeatureExtractor(max_length=98, num_mel_bins=32).save_pretrained(folder)
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
        model.save_pretrained(root / name)
        extractor.save_pretrained(root / name)
        attach_pipeline(root / name)
    return root
