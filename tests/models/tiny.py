"""A tiny, untrained instance of every model with its feature extractor: what the common suite runs on."""

from collections.abc import Callable

import torch
from torch import nn
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, PreTrainedModel
from transformers.feature_extraction_utils import FeatureExtractionMixin

import irmas_recipe.models  # noqa: F401  registers our architectures with the Auto classes
from irmas_dataset.labels import INSTRUMENT_NAMES
from irmas_recipe.models.beats import BeatsConfig, BeatsFeatureExtractor, BeatsForAudioClassification
from irmas_recipe.models.cnn import CnnConfig, CnnFeatureExtractor, CnnForAudioClassification
from irmas_recipe.models.crnn import CrnnConfig, CrnnFeatureExtractor, CrnnForAudioClassification
from irmas_recipe.models.mfcc import MfccConfig, MfccFeatureExtractor, MfccForAudioClassification
from irmas_recipe.models.mobilenet import (
    MobileNetAudioConfig,
    MobileNetAudioFeatureExtractor,
    MobileNetAudioForAudioClassification,
)
from irmas_recipe.models.passt import PasstConfig, PasstFeatureExtractor, PasstForAudioClassification

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


def tiny_beats() -> TinyModel:
    config = BeatsConfig(
        patch_embedding_size=12,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=24,
        position_kernel_size=8,
        position_groups=4,
        layerdrop=0.1,
        classifier_dropout=0.1,
        **label_options(),
    )
    return BeatsForAudioClassification(config), BeatsFeatureExtractor()


def tiny_passt() -> TinyModel:
    config = PasstConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_frames=200,
        patchout_time=2,
        patchout_frequency=1,
        patchout_tokens=3,
        drop_path_rate=0.1,
        **label_options(),
    )
    return PasstForAudioClassification(config), PasstFeatureExtractor(max_frames=200)


def tiny_mobilenet() -> TinyModel:
    model = MobileNetAudioForAudioClassification(MobileNetAudioConfig(width_mult=0.1, **label_options()))
    # Fresh batch statistics would let the untrained maps vanish: take those of one batch of noise.
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(4, 100, 128))
    for norm in norms:
        norm.momentum = 0.01
    return model, MobileNetAudioFeatureExtractor()


def tiny_cnn() -> TinyModel:
    config = CnnConfig(filters=[4, 4, 8, 8], hidden_size=16, **label_options())
    return CnnForAudioClassification(config), CnnFeatureExtractor()


def tiny_crnn() -> TinyModel:
    config = CrnnConfig(filters=[4, 4, 8, 8], gru_hidden_size=8, **label_options())
    return CrnnForAudioClassification(config), CrnnFeatureExtractor(representation="modgd")


def tiny_swin() -> TinyModel:
    swin = {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
    config = CrnnConfig(network="swin", swin=swin, **label_options())
    return CrnnForAudioClassification(config), CrnnFeatureExtractor(representation="tempogram")


def tiny_mfcc() -> TinyModel:
    config = MfccConfig(filters=[4, 4], dense_sizes=[8, 4], **label_options())
    return MfccForAudioClassification(config), MfccFeatureExtractor()


TINY: dict[str, Callable[[], TinyModel]] = {
    "ast": tiny_ast,
    "beats": tiny_beats,
    "cnn": tiny_cnn,
    "crnn": tiny_crnn,
    "mfcc": tiny_mfcc,
    "mobilenet": tiny_mobilenet,
    "passt": tiny_passt,
    "swin": tiny_swin,
}
"""Name of an architecture -> builder; a new model adds one function and one line."""


def build(name: str, seed: int = 0) -> TinyModel:
    """Return the tiny model `name` in evaluation mode, with weights that depend on `seed` only, and its extractor."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, feature_extractor = TINY[name]()
    return model.eval(), feature_extractor
