"""The head's start: scikit-learn's logistic regression where the checkpoint says nothing, the checkpoint where clips are few."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from irmas_recipe.training import head
from irmas_recipe.training.clips import WindowedClips
from tests.tiny import small_ast

WIDTH, CLASSES = 6, 3


@pytest.fixture
def clips() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings of unlike scales (windows, width), labels (windows, classes) that depend on them, and weights (windows,)."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(200, WIDTH, generator=generator) * torch.tensor([0.1, 1, 10, 3, 0.5, 2]) + 4
    scaled = (embeddings - embeddings.mean(0)) / embeddings.std(0)
    labels = (scaled[:, :CLASSES] + 0.5 * torch.randn(200, CLASSES, generator=generator) > 0.3).float()
    return embeddings, labels, torch.rand(200, generator=generator) + 0.5


def test_from_nothing_it_is_scikit_learns_weighted_regression(clips):
    embeddings, labels, weights = clips
    layer = nn.Linear(WIDTH, CLASSES)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    head.fit_output_layer(layer, embeddings, labels, weights)
    scaled = ((embeddings - embeddings.mean(0)) / embeddings.std(0)).double().numpy()
    for number in range(CLASSES):
        one = LogisticRegression(C=1 / head.RIDGE, max_iter=1000, tol=1e-10)
        one.fit(scaled, labels[:, number].numpy(), sample_weight=weights.double().numpy())
        with torch.no_grad():
            logits = layer(embeddings)[:, number].numpy()
        np.testing.assert_allclose(logits, one.decision_function(scaled), atol=2e-3)


def test_a_heavy_ridge_keeps_the_checkpoints_rows(clips, monkeypatch):
    monkeypatch.setattr(head, "RIDGE", 1e9)
    layer = nn.Linear(WIDTH, CLASSES)
    before = layer.weight.detach().clone()
    head.fit_output_layer(layer, *clips)
    torch.testing.assert_close(layer.weight.detach(), before, atol=1e-4, rtol=0)


def test_one_window_alone_gives_finite_weights(clips):
    layer = nn.Linear(WIDTH, CLASSES)
    head.fit_output_layer(layer, *(tensor[:1] for tensor in clips))
    assert layer.weight.isfinite().all() and layer.bias.isfinite().all()


def test_every_class_weighs_the_same_and_every_clip_one_in_the_mean():
    labels = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], dtype=np.float32)
    weights = head.balanced_weights(labels, [1, 2, 1, 4])
    assert weights[:4].sum() == pytest.approx(weights[4:].sum()), "three clips of one class, one clip of the other"
    assert weights.sum() == pytest.approx(len(labels))
    assert weights[1] == weights[2] == pytest.approx(weights[0] / 2), "a clip's windows share its weight"


def test_rows_and_what_was_tuned_follow_their_labels():
    model, _ = small_ast(["flute", "voice", "cello"], thresholds=[0.1, 0.2, 0.3])
    flute, _, cello = model.classifier.dense.weight.detach().clone()
    head.start_head(model, ["cello", "flute"], "labels")
    assert model.config.thresholds == [0.3, 0.1] and torch.equal(model.classifier.dense.weight[0], cello)
    head.start_head(model, ["flute", "drums"], "regression")
    assert model.config.thresholds is None, "nothing was tuned for the new class"
    assert torch.equal(model.classifier.dense.weight[0], head.CHECKPOINT_SCALE * flute)
    assert not model.classifier.dense.weight[1].any()


class MeanOfTokens(nn.Module):
    """Logits that are the mean of those of the window's tokens."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, CLASSES)

    def forward(self, waveforms):
        return SequenceClassifierOutput(logits=self.layer(waveforms.unflatten(-1, (-1, 4))).mean(dim=1))


def test_embeddings_are_what_the_layer_turns_into_the_logits_in_the_windows_order():
    generator = np.random.default_rng(0)
    waveforms = [(3000 * generator.standard_normal(length)).astype(np.int16) for length in (8, 20, 13)]
    windows = WindowedClips(waveforms, np.eye(3, dtype=np.float32), 8, 4)
    model = MeanOfTokens().train()
    embeddings = head.window_embeddings(model, model.layer, lambda batch: batch, windows, batch_size=2, quiet=True)
    every = torch.stack([torch.from_numpy(window["waveforms"]).float() / 2**15 for window in windows])
    with torch.no_grad():
        torch.testing.assert_close(model.layer(embeddings), model(every).logits)
    assert model.training and not model.layer._forward_pre_hooks
