"""Every architecture of the project, registered with Transformers' Auto classes. A new model is one folder and one line."""

import importlib

from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
)

ARCHITECTURES = {"ast": (ASTConfig, ASTFeatureExtractor, ASTForAudioClassification)}
"""Name in a recipe -> (configuration, feature extractor, model)."""


def register(name: str) -> None:
    """Make the three classes of `models/<name>/` known to the Auto classes, here and in every folder saved from here."""
    config, feature_extractor, model = importlib.import_module(f"models.{name}").CLASSES
    AutoConfig.register(config.model_type, config)
    AutoFeatureExtractor.register(config, feature_extractor)
    AutoModelForAudioClassification.register(config, model)
    config.register_for_auto_class()
    feature_extractor.register_for_auto_class()
    model.register_for_auto_class("AutoModelForAudioClassification")
    ARCHITECTURES[name] = (config, feature_extractor, model)


for _name in ("beats", "cnn", "crnn", "mfcc", "mobilenet", "passt"):
    register(_name)
