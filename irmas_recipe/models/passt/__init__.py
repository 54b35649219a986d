"""PaSST, ported from the authors' implementation (github.com/kkoutini/PaSST, Apache-2.0)."""

from .configuration_passt import PasstConfig
from .feature_extraction_passt import PasstFeatureExtractor
from .modeling_passt import PasstForAudioClassification, PasstModel

__all__ = ["PasstConfig", "PasstFeatureExtractor", "PasstForAudioClassification", "PasstModel"]

CLASSES = (PasstConfig, PasstFeatureExtractor, PasstForAudioClassification)
"""What `models.register` makes known to the Auto classes."""
