"""A bare encoder under an output layer."""

import json

import pytest
import torch
from transformers import ClapAudioConfig, ClapFeatureExtractor

from irmas_dataset.errors import UserError
from irmas_recipe.models.encoder import EncoderConfig, EncoderForAudioClassification
from irmas_recipe.training.checkpoint import load_checkpoint
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


HIDDEN = {
    "in the encoder": ({}, {"attribute_map": {"auto_map": "other"}, "other": {"AutoModel": "theirs.A"}}),
    "always": ({"attribute_map": {"brings_code": "other"}, "other": False}, {"auto_map": {"AutoModel": "theirs.A"}}),
    "at first": ({"attribute_map": {"brings_code": "dtype"}, "dtype": None}, {"auto_map": {"AutoConfig": "theirs.A"}}),
}
"""Ways in which a configuration may hide that its encoder brings code: its own fields, and the encoder's."""


@pytest.mark.parametrize("way", HIDDEN)
def test_code_of_an_encoder_runs_only_on_the_users_word(tmp_path, way):
    own = ClapAudioConfig(**CLAP_AUDIO)
    model = EncoderForAudioClassification(EncoderConfig(encoder=own, embedding_size=16, num_labels=3))
    model.save_pretrained(tmp_path)
    ClapFeatureExtractor(max_length_s=1).save_pretrained(tmp_path)
    (tmp_path / "theirs.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w').close()\nclass A: pass\n")
    config, (fields, of_encoder) = json.loads((tmp_path / "config.json").read_text()), HIDDEN[way]
    config["encoder"] = {"model_type": "wav2vec2", "name_or_path": str(tmp_path), **of_encoder}
    (tmp_path / "config.json").write_text(json.dumps(config | fields))
    with pytest.raises(UserError, match="comes with its own code"):
        load_checkpoint(str(tmp_path))
    assert not (tmp_path / "executed").exists()
