"""Every architecture of the project, registered with transformers' Auto classes. A new model is one folder and one line."""

from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    SeamlessM4TFeatureExtractor,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING,
    MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES,
)

from irmas_recipe.models import beats, cnn, crnn, encoder, mfcc, mobilenet, passt

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

OF_TRANSFORMERS = tuple(MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES)
"""Every architecture that transformers itself can classify audio with, by its `model_type`."""


def classes_of(architecture: str) -> tuple[type, type, type]:
    """Return the configuration, feature extractor and model of an architecture, ours or transformers'; KeyError for none.

    Only what is asked for is imported.
    """
    if architecture in ARCHITECTURES:
        return ARCHITECTURES[architecture]
    if architecture not in OF_TRANSFORMERS:
        raise KeyError(architecture)
    config = CONFIG_MAPPING[architecture]
    # transformers maps wav2vec2-bert to wav2vec 2.0's extractor; its checkpoints name this one.
    of_bert = {"wav2vec2-bert": SeamlessM4TFeatureExtractor}
    extractor = of_bert.get(architecture) or FEATURE_EXTRACTOR_MAPPING[config]
    return config, extractor, MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING[config]


ENCODER = "encoder"
"""Name in a recipe of a checkpoint's encoder under a linear layer; it has its checkpoint's feature extractor."""


def register(config: type, feature_extractor: type | None, model: type) -> None:
    """Make the classes of a model known to the Auto classes, here and in every folder saved from here."""
    AutoConfig.register(config.model_type, config)
    if feature_extractor:
        AutoFeatureExtractor.register(config, feature_extractor)
        feature_extractor.register_for_auto_class()
    AutoModelForAudioClassification.register(config, model)
    config.register_for_auto_class()
    model.register_for_auto_class("AutoModelForAudioClassification")


for _name, _classes in ARCHITECTURES.items():
    if _name != "ast":  # transformers' own, registered there
        register(*_classes)
register(encoder.EncoderConfig, None, encoder.EncoderForAudioClassification)
