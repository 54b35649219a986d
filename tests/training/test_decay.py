"""Weight decay acts on the weights of layers, and on nothing else, in every architecture."""

import pytest
import torch

from irmas_recipe.models.crnn.modeling_crnn import BidirectionalGru
from tests.tiny import TINY
from tests.tiny import build as build_tiny
from tests.training.test_trainer import build

LAYERS = (torch.nn.Linear, torch.nn.modules.conv._ConvNd, BidirectionalGru)


@pytest.mark.parametrize("name", sorted(TINY))
def test_position_embeddings_and_class_tokens_do_not_decay(tmp_path, name):
    trainer = build(tmp_path, weight_decay=0.1)
    model = trainer.model = build_tiny(name)[0]
    trainer.create_optimizer()
    decayed = {id(p) for group in trainer.optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    of_layers = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, LAYERS)
        for parameter in module.parameters()
        if parameter.ndim > 1
    }
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    assert {names[key] for key in decayed} == {names[key] for key in of_layers}
