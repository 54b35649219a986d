"""A bare encoder under an output layer."""

import pytest
import torch
from transformers import ClapAudioConfig, ClapFeatureExtractor

from irmas_recipe.models.encoder import EncoderConfig, EncoderForAudioClassification
from irmas_recipe.training.features import device_features
from tests.tiny_speech import CLAP_AUDIO


@pytest.mark.parametrize("pooling", ["projection", "layers"])
def test_a_clap_with_feature_fusion_hears_and_learns(pooling):
    """Its encoder asks which clips are longer than it hears at once; of windows none is."""
    torch.manual_seed(0)
    own = ClapAudioConfig(**CLAP_AUDIO, enable_fusion=True)
    size = 8 if pooling == "projection" else 16
    model = EncoderForAudioClassification(
        EncoderConfig(encoder=own, pooling=pooling, embedding_size=size, num_labels=3)
    )
    features = device_features(ClapFeatureExtractor(max_length_s=1))(torch.randn(2, 48_000))
    logits = model(features).logits
    assert logits.shape == (2, 3) and not torch.allclose(logits[0], logits[1])
    logits.square().sum().backward()
    assert model.classifier.weight.grad.abs().sum() > 0
