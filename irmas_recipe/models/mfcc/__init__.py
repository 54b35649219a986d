"""One small network per instrument on an image of MFCCs (Blaszke and Kostek 2022)."""

from .configuration_mfcc import MfccConfig
from .feature_extraction_mfcc import MfccFeatureExtractor
from .modeling_mfcc import MfccForAudioClassification, with_labels

__all__ = [
    "MfccConfig",
    "MfccFeatureExtractor",
    "MfccForAudioClassification",
    "with_labels",
]

CLASSES = (MfccConfig, MfccFeatureExtractor, MfccForAudioClassification)
"""What `models.register` makes known to the Auto classes."""
