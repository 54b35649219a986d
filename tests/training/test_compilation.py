"""One block is compiled and the others reuse it; names and results stay."""

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import ASTConfig, ASTForAudioClassification

from irmas_recipe.models.ast.adaptation import compute_only_what_is_pooled
from irmas_recipe.models.cnn import CnnForAudioClassification
from irmas_recipe.models.mobilenet import MobileNetAudioForAudioClassification
from irmas_recipe.training.compilation import compile_blocks, repeated_blocks


def deep_ast(layers: int) -> ASTForAudioClassification:
    config = ASTConfig(
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_length=48,
        num_labels=3,
    )
    model = ASTForAudioClassification(config)
    compute_only_what_is_pooled(model)
    return model


def test_twelve_blocks_make_one_graph_with_the_same_logits_and_gradients():
    torch._dynamo.reset()
    torch.manual_seed(0)
    model, features = deep_ast(12).train(), torch.randn(2, 48, 128)
    eager = model(features).logits
    eager.sum().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    names = list(model.state_dict())
    counter = CompileCounterWithBackend("eager")
    assert compile_blocks(model, backend=counter) == 11
    model.zero_grad()
    compiled = model(features).logits
    compiled.sum().backward()
    assert counter.frame_count == 1, "one graph for all blocks; the last, which computes only what is pooled, has none"
    assert torch.allclose(compiled, eager, atol=1e-5)
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, gradients[name], atol=1e-5), name
    assert list(model.state_dict()) == names, "what is saved keeps its names"


@pytest.mark.parametrize("model_class", [CnnForAudioClassification, MobileNetAudioForAudioClassification])
def test_a_model_without_a_repeated_block_is_compiled_whole(model_class):
    model = model_class(model_class.config_class())
    assert repeated_blocks(model) == [], "the blocks of a convolutional network differ in their widths"
    assert compile_blocks(model, backend="eager") == 1


def test_blocks_of_unlike_classes_are_not_repeated():
    assert repeated_blocks(nn.ModuleList([nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)])) == []
