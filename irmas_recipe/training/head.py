"""Start the output layer from a logistic regression on frozen embeddings, anchored at the checkpoint's own rows.

Fine-tuning from a fresh or a foreign head distorts the features before the head has learned to use them; from a fitted
head it does so less (LP-FT, Kumar 2022, https://arxiv.org/abs/2202.10054). The regression's ridge pulls towards the
checkpoint's own rows rather than to zero: few sources of recordings correct what the model knows, and do not replace it.
"""

import logging
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import (
    PreTrainedModel,
)

from irmas_dataset.errors import UserError
from irmas_dataset.labels import AUDIOSET_LABELS
from irmas_recipe.models.mfcc import with_labels
from irmas_recipe.training.clips import WindowedClips, collate
from irmas_recipe.training.trainer import full_precision

logger = logging.getLogger(__name__)

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


def output_layer(model: nn.Module) -> tuple[str, nn.Linear]:
    """Return the name and the module of the last linear layer, which gives the logits."""
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    name, layer = linear[-1]
    if layer.out_features != model.config.num_labels:
        raise UserError(
            f"{model.config.model_type} has no single output layer, so its head can be neither replaced, nor fitted or trained "
            "alone: keep the checkpoint's classes, --freeze none and --head_initialization labels, or add classes with "
            "--freeze known_labels where it can."
        )
    return name, layer


def start_head(model: PreTrainedModel, labels: list[str], initialization: str) -> None:
    """Give the model one output a label, in place; each starts from the checkpoint's row for it, looked up by name.

    A row is found under the label's own name (a model trained on the same classes) or its AudioSet name. A label that
    the checkpoint does not know starts fresh, and a warning names it. Where a regression follows, the rows are what it is
    pulled towards: scaled, and nothing for an unknown label.
    """
    own_names = [model.config.id2label[i] for i in range(model.config.num_labels)]
    if own_names == labels:
        return
    row_of = {name: row for row, name in enumerate(own_names)}
    rows = [row_of.get(label, row_of.get(AUDIOSET_LABELS.get(label))) for label in labels]
    name, old = output_layer(model)
    new = nn.Linear(old.in_features, len(labels))
    nn.init.trunc_normal_(new.weight, std=getattr(model.config, "initializer_range", 0.02))
    nn.init.zeros_(new.bias)
    if initialization == "regression":
        nn.init.zeros_(new.weight)
    if initialization != "random":
        scale = CHECKPOINT_SCALE if initialization == "regression" else 1.0
        with torch.no_grad():
            for row, source in enumerate(rows):
                if source is not None:
                    new.weight[row] = scale * old.weight[source]
                    new.bias[row] = scale * old.bias[source]
        if unknown := missing_labels(model, labels):
            logger.warning("The checkpoint has no class for %s: the head starts fresh there.", ", ".join(unknown))
    if thresholds := getattr(model.config, "thresholds", None):  # they follow their labels, or mean nothing any more
        model.config.thresholds = None if None in rows else [thresholds[row] for row in rows]
    model.set_submodule(name, new)
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: i for i, label in enumerate(labels)}
    model.num_labels = len(labels)


def add_sub_networks(model: PreTrainedModel, labels: list[str]) -> PreTrainedModel:
    """Return a model of sub-networks with a new one for each label that it lacks, in the labels' order, the old ones frozen.

    Raises:
        UserError: the model has no sub-networks, or the data has nothing new or lacks one of the model's classes.
    """
    if not hasattr(model, "subnetworks"):
        raise UserError(
            f"--freeze known_labels needs a sub-network a class, which {model.config.model_type} does not have: choose "
            "an mfcc run, or --freeze backbone."
        )
    if lost := sorted(set(model.label_names) - set(labels)):
        raise UserError(
            f"--freeze known_labels keeps the checkpoint's classes, but the data has none of {', '.join(lost)}: add clips of "
            "it, which a new class needs as counterexamples anyway."
        )
    if set(labels) == set(model.label_names):
        raise UserError("--freeze known_labels has nothing to train: the checkpoint knows every class of the data.")
    return with_labels(model, labels)


def missing_labels(model: PreTrainedModel, labels: list[str]) -> list[str]:
    """Return the labels that a checkpoint's head does not name, under their own or AudioSet's name."""
    names = set(model.config.id2label.values())
    return [label for label in labels if label not in names and AUDIOSET_LABELS.get(label) not in names]
