"""Any encoder of audio under a linear output layer: learned weights over its layers, mean over time (SUPERB, Yang 2021)."""

from .configuration_encoder import EncoderConfig
from .modeling_encoder import EncoderForAudioClassification

__all__ = ["EncoderConfig", "EncoderForAudioClassification"]
