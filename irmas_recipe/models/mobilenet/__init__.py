"""MobileNetV3 on AudioSet, ported from EfficientAT (github.com/fschmid56/EfficientAT, MIT)."""

from .configuration_mobilenet import MobileNetAudioConfig
from .feature_extraction_mobilenet import MobileNetAudioFeatureExtractor
from .modeling_mobilenet import MobileNetAudioForAudioClassification

__all__ = ["MobileNetAudioConfig", "MobileNetAudioFeatureExtractor", "MobileNetAudioForAudioClassification"]

CLASSES = (MobileNetAudioConfig, MobileNetAudioFeatureExtractor, MobileNetAudioForAudioClassification)
"""What `models.register` makes known to the Auto classes."""
