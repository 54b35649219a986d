"""Small things that several tests of training/ share."""

import pytest
import torch
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

from irmas_recipe.models.audioset import audioset_labels


@pytest.fixture(scope="session")
def audioset_ast(tmp_path_factory):
    """A folder like the released AST's: 527 AudioSet labels, 1024 frames, but narrow and with random weights."""
    torch.manual_seed(0)
    names = dict(enumerate(name for _, name in audioset_labels()))
    config = ASTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_length=1024,
        id2label=names, label2id={name: i for i, name in names.items()},
    )  # fmt: skip
    model = ASTForAudioClassification(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    folder = tmp_path_factory.mktemp("audioset-ast")
    model.save_pretrained(folder)
    ASTFeatureExtractor().save_pretrained(folder)
    return folder
