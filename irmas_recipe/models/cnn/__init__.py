"""The field's convolutional networks: Han 2017, the small spectrogram-image network, MobileNet-v1."""

from .configuration_cnn import CnnConfig
from .feature_extraction_cnn import CnnFeatureExtractor
from .modeling_cnn import CnnForAudioClassification

__all__ = ["CnnConfig", "CnnFeatureExtractor", "CnnForAudioClassification"]

CLASSES = (CnnConfig, CnnFeatureExtractor, CnnForAudioClassification)
"""What `models.register` makes known to the Auto classes."""
