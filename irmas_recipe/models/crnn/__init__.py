"""A convolutional-recurrent network, or Swin, on mel spectrogram, modified group delay or tempogram."""

from .configuration_crnn import CrnnConfig
from .feature_extraction_crnn import CrnnFeatureExtractor
from .modeling_crnn import CrnnForAudioClassification

__all__ = ["CrnnConfig", "CrnnFeatureExtractor", "CrnnForAudioClassification"]

CLASSES = (CrnnConfig, CrnnFeatureExtractor, CrnnForAudioClassification)
"""What `models.register` makes known to the Auto classes."""
