"""Start the output layer from a logistic regression on frozen embeddings, anchored at the checkpoint's own rows.

Fine-tuning from a fresh or a foreign head distorts the features before the head has learned to use them; from a fitted
head it does so less (LP-FT, Kumar 2022, https://arxiv.org/abs/2202.10054). The regression's ridge pulls towards the
checkpoint's own rows rather than to zero: few sources of recordings correct what the model knows, and do not replace it.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader
from tqdm import tqdm

from training.clips import WindowedClips, collate
from training.trainer import full_precision

CHECKPOINT_SCALE = 2.0  # AudioSet's logits are cautious about instruments; doubled they hold out against few clips
RIDGE = 30.0  # in units of a clip's loss: what the penalty weighs does not grow with the data
ITERATIONS = 100


def fit_output_layer(layer: nn.Linear, embeddings: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> None:
    """Fit a linear layer in place: weighted logistic regressions, one a class, with a ridge on the change from its rows.

    The ridge acts on embeddings of unit variance.

    Args:
        embeddings: what enters the layer, (windows, width).
        labels: (windows, classes), 0 or 1.
        weights: of the windows' losses, (windows,).
    """
    embeddings, labels, weights = embeddings.double(), labels.double(), weights.double()
    mean, scale = embeddings.mean(0), embeddings.std(0) + 1e-6
    scaled = (embeddings - mean) / scale
    known = embeddings @ layer.weight.detach().cpu().double().T + layer.bias.detach().cpu().double()
    change = torch.zeros(layer.out_features, layer.in_features, dtype=torch.float64, requires_grad=True)
    shift = torch.zeros(layer.out_features, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([change, shift], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        of_classes = binary_cross_entropy_with_logits(known + scaled @ change.T + shift, labels, reduction="none")
        total = (weights * of_classes.sum(1)).sum() + RIDGE * change.square().sum() / 2
        total.backward()
        return total

    optimizer.step(loss)
    with torch.no_grad():
        change = change / scale
        layer.weight += change.to(layer.weight)
        layer.bias += (shift - change @ mean).to(layer.bias)


def balanced_weights(labels: np.ndarray, windows_per_clip: list[int]) -> np.ndarray:
    """Return the weight of each window (windows,): every class weighs the same, and their mean over clips is 1."""
    weights = (labels / np.maximum(labels.sum(axis=0), 1)).sum(axis=1)
    weights = weights * len(weights) / weights.sum()
    return np.repeat(weights / windows_per_clip, windows_per_clip)


@torch.no_grad()
def window_embeddings(
    model: nn.Module, layer: nn.Linear, features: Callable, windows: WindowedClips, batch_size: int, quiet: bool = False
) -> torch.Tensor:
    """Return what enters the output layer, averaged over a window's tokens where it has such: (windows, width), on the CPU."""
    collected, device = [], next(model.parameters()).device

    def collect(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        tokens = inputs[0].float().cpu()
        collected.append(tokens.flatten(1, -2).mean(dim=1) if tokens.ndim > 2 else tokens)

    hook, training = layer.register_forward_pre_hook(collect), model.training
    model.eval()
    try:
        with full_precision(model):
            for batch in tqdm(
                DataLoader(windows, batch_size, collate_fn=collate), desc="Embedding clips", disable=quiet
            ):
                model(features(batch["waveforms"].to(device).float() / 2**15))
    finally:
        hook.remove()
        model.train(training)
    return torch.cat(collected)
