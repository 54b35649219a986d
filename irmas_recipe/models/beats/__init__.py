"""BEATs: Audio Pre-Training with Acoustic Tokenizers (Chen et al. 2022)."""

from .configuration_beats import BeatsConfig
from .feature_extraction_beats import BeatsFeatureExtractor
from .modeling_beats import BeatsForAudioClassification, BeatsModel

CLASSES = (BeatsConfig, BeatsFeatureExtractor, BeatsForAudioClassification)

__all__ = ["CLASSES", "BeatsConfig", "BeatsFeatureExtractor", "BeatsForAudioClassification", "BeatsModel"]
