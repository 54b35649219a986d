"""A tiny, untrained instance of every model with its feature extractor: what the common suite runs on."""

from collections.abc import Callable

import torch
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, PreTrainedModel
from transformers.feature_extraction_utils import FeatureExtractionMixin

import models  # noqa: F401  registers our architectures with the Auto classes
from irmas_dataset.labels import INSTRUMENT_NAMES

SECONDS = 1.0
"""Length of the clips that the suite feeds; a model of a fixed input length is built for it."""

TinyModel = tuple[PreTrainedModel, FeatureExtractionMixin]


def label_options() -> dict:
    """Return the configuration options of a multi-label head over the eleven instruments."""
    names = list(INSTRUMENT_NAMES.values())
    return {
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
        "problem_type": "multi_label_classification",
    }


def tiny_ast() -> TinyModel:
    config = ASTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_length=98,  # frames in one second
        **label_options(),
    )
    return ASTForAudioClassification(config), ASTFeatureExtractor(max_length=98)


TINY: dict[str, Callable[[], TinyModel]] = {
    "ast": tiny_ast,
}
"""Name of an architecture -> builder; a new model adds one function and one line."""


def build(name: str, seed: int = 0) -> TinyModel:
    """Return the tiny model `name` in evaluation mode, with weights that depend on `seed` only, and its extractor."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, feature_extractor = TINY[name]()
    return model.eval(), feature_extractor
