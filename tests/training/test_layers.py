"""Which parameters are of which layer, and so at which rate they learn."""

import pytest

from irmas_recipe.training.layers import layer_stack, parameter_groups
from tests.tiny import build

STACKS = {
    "ast": "audio_spectrogram_transformer.layers",
    "beats": "beats.layers",
    "data2vec-audio": "data2vec_audio.encoder.layers",  # and not its five convolutions of positions
    "encoder": "encoder.encoder.layers",
    "encoder-of-clap": "encoder.audio_model.audio_encoder.layers",
    "sew-d": "sew_d.encoder.encoder.layer",
    "whisper": "encoder.layers",
}


@pytest.mark.parametrize("name", STACKS)
def test_the_stack_of_layers_is_found(name):
    assert layer_stack(build(name)[0]) == STACKS[name]


def test_a_model_without_layers_has_no_stack():
    assert layer_stack(build("cnn")[0]) is None


@pytest.mark.parametrize("name", ["encoder", "hubert", "whisper"])
def test_the_mixture_of_layers_learns_at_the_heads_rate_and_what_comes_first_at_the_lowest(name):
    model, _ = build(name)
    rates = {}
    for group in parameter_groups(model, set(), 1.0, 0.0, layer_decay=0.5):
        rates |= {id(parameter): group["lr"] for parameter in group["params"]}
    rate_of = {key: rates[id(parameter)] for key, parameter in model.named_parameters() if parameter.requires_grad}
    stack = layer_stack(model)
    assert rate_of["layer_weights"] == rate_of["classifier.weight"] == 1.0
    of_layers = [{rate for key, rate in rate_of.items() if key.startswith(f"{stack}.{i}.")} for i in range(3)]
    assert of_layers == [{0.125}, {0.25}, {0.5}]
    assert min(rate_of.values()) == 0.0625 and "conv" in next(key for key, rate in rate_of.items() if rate == 0.0625)
