"""No transformer here builds an attention mask that it does not need, and none changes its logits."""

import pytest
import torch
from transformers import ASTForAudioClassification

from irmas_recipe.training.attention import NAME, attend_without_mask
from irmas_recipe.training.features import device_features
from tests.tiny import SECONDS, build

TRANSFORMERS = ("ast", "beats", "passt")
NEED_A_MASK = ("beats",)  # its relative position bias


def masks_in_graph(model, features) -> list:
    """Return the mask argument of every attention in the graph that torch.compile traces; None where there is none."""
    masks = []

    def look(graph: torch.fx.GraphModule, _) -> torch.fx.GraphModule:
        calls = [node for node in graph.graph.nodes if "scaled_dot_product_attention" in str(node.target)]
        masks.extend(node.kwargs.get("attn_mask", node.args[3] if len(node.args) > 3 else None) for node in calls)
        return graph

    torch._dynamo.reset()
    torch.compile(model, backend=look)(features)
    return masks


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_the_compiled_graph_has_a_mask_only_where_the_model_needs_one(name):
    model, extractor = build(name)
    features = device_features(extractor)(torch.randn(2, round(SECONDS * extractor.sampling_rate)))
    attend_without_mask(model)
    masks = masks_in_graph(model.train(), features)
    assert masks and all((mask is not None) == (name in NEED_A_MASK) for mask in masks)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_logits_stay_the_same(name):
    model, extractor = build(name)
    features = device_features(extractor)(torch.randn(2, round(SECONDS * extractor.sampling_rate)))
    with torch.no_grad():
        before = model(features).logits
        attend_without_mask(model)
        assert torch.equal(model(features).logits, before)


def test_without_it_transformers_masks_ast_while_tracing():
    """The reason for attention.py: when this fails, transformers needs it no longer."""
    model, extractor = build("ast")
    features = device_features(extractor)(torch.randn(2, round(SECONDS * extractor.sampling_rate)))
    assert any(mask is not None for mask in masks_in_graph(model.train(), features))


def test_nothing_of_it_is_saved(tmp_path):
    model, _ = build("ast")
    attend_without_mask(model)
    model.save_pretrained(tmp_path)
    assert NAME not in (tmp_path / "config.json").read_text()
    assert ASTForAudioClassification.from_pretrained(tmp_path).config._attn_implementation == "sdpa"
