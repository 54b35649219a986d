"""Every architecture of the project, registered with transformers' Auto classes. A new model is one folder and one line."""

from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
)

from irmas_recipe.models import beats, cnn, crnn, mfcc, mobilenet, passt

ARCHITECTURES = {
    "ast": (ASTConfig, ASTFeatureExtractor, ASTForAudioClassification),
    "beats": beats.CLASSES,
    "cnn": cnn.CLASSES,
    "crnn": crnn.CLASSES,
    "mfcc": mfcc.CLASSES,
    "mobilenet": mobilenet.CLASSES,
    "passt": passt.CLASSES,
}
"""Name in a recipe -> (configuration, feature extractor, model)."""


def register(config: type, feature_extractor: type, model: type) -> None:
    """Make the three classes of a model known to the Auto classes, here and in every folder saved from here."""
    AutoConfig.register(config.model_type, config)
    AutoFeatureExtractor.register(config, feature_extractor)
    AutoModelForAudioClassification.register(config, model)
    config.register_for_auto_class()
    feature_extractor.register_for_auto_class()
    model.register_for_auto_class("AutoModelForAudioClassification")


for _name, _classes in ARCHITECTURES.items():
    if _name != "ast":  # transformers' own, registered there
        register(*_classes)
