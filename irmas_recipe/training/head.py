"""The output layer: find it, give it the recipe's classes, start it by label names or by a regression.

Fine-tuning from a fresh or a foreign head distorts the features before the head has learned to use them; a fitted head
distorts them less (LP-FT, Kumar 2022, https://arxiv.org/abs/2202.10054). The regression's ridge pulls towards the
checkpoint's own rows rather than towards zero: few sources of recordings correct what the model knows, not replace it.
"""

import logging
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import PreTrainedModel

from irmas_dataset.errors import UserError
from irmas_dataset.labels import audioset_name
from irmas_recipe.models.mfcc import with_labels
from irmas_recipe.models.pipeline.instrument_recognition import PER_LABEL
from irmas_recipe.training.clips import WindowedClips
from irmas_recipe.training.evaluation import window_logits

logger = logging.getLogger(__name__)

CHECKPOINT_SCALE = 2.0  # AudioSet's logits are cautious about instruments; doubled, few clips do not overrule them
RIDGE = 30.0  # in units of a clip's loss, so that its weight does not grow with the data
ITERATIONS = 100
LINEAR_PARTS = ("projector", "layer_weights")


def output_layer(model: nn.Module) -> tuple[str, nn.Linear]:
    """Return the name and the module of the last linear layer, which gives the logits.

    Raises:
        UserError: the logits come from several layers.
    """
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    name, layer = linear[-1]
    if layer.out_features != model.config.num_labels:
        raise UserError(
            f"{model.config.model_type} has no single output layer to replace, fit or train alone: keep the checkpoint's "
            "classes, --freeze none and --head_initialization labels, or add classes with --freeze known_labels (mfcc)."
        )
    return name, layer


def probe_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return what a linear probe trains: the output layer, and what lies between it and the mean of an encoder's layers.

    The speech models of transformers project that mean first (`projector`), without a nonlinearity, and may weigh the
    layers (`layer_weights`): the whole is a linear map of the encoder's features, as the output layer of others is.
    """
    _, layer = output_layer(model)
    between = [parameter for name, parameter in model.named_parameters() if name.partition(".")[0] in LINEAR_PARTS]
    return [*between, *layer.parameters()]


def missing_labels(model: PreTrainedModel, labels: list[str]) -> list[str]:
    """Return the labels that a checkpoint's head has neither under their own nor under AudioSet's name."""
    names = set(model.config.id2label.values())
    return [label for label in labels if label not in names and audioset_name(label) not in names]


def start_head(model: PreTrainedModel, labels: list[str], initialization: str) -> None:
    """Give the model one output per label, in place, each starting from the checkpoint's row of that name.

    A row is found under the label's own name (a model trained on the same classes) or under its AudioSet name. A label
    that the checkpoint does not know starts fresh, and a warning names it. If a regression follows, it is pulled towards
    these rows, scaled, and towards zero for an unknown label.

    Args:
        initialization: the recipe's `head_initialization`: labels, regression, random, or text, which `start_head_by_text` goes on from.
    """
    own_names = [model.config.id2label[i] for i in range(model.config.num_labels)]
    if own_names == labels and initialization != "random":
        return
    row_of = {name: row for row, name in enumerate(own_names)}
    rows = [row_of.get(label, row_of.get(audioset_name(label))) for label in labels]
    name, old = output_layer(model)
    new = nn.Linear(old.in_features, len(labels))
    nn.init.trunc_normal_(new.weight, std=getattr(model.config, "initializer_range", 0.02))
    nn.init.zeros_(new.bias)
    if initialization == "regression":
        nn.init.zeros_(new.weight)
    if initialization not in ("random", "text"):
        scale = CHECKPOINT_SCALE if initialization == "regression" else 1.0
        with torch.no_grad():
            for row, source in enumerate(rows):
                if source is not None:
                    new.weight[row] = scale * old.weight[source]
                    new.bias[row] = scale * old.bias[source]
        if unknown := missing_labels(model, labels):
            logger.warning("The checkpoint has no class for %s: their outputs start fresh.", ", ".join(unknown))
    for field in PER_LABEL:  # what was tuned follows its label, or means nothing
        if tuned := getattr(model.config, field, None):
            setattr(model.config, field, None if None in rows else [tuned[row] for row in rows])
    model.set_submodule(name, new)
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: i for i, label in enumerate(labels)}
    model.num_labels = len(labels)


def add_sub_networks(model: PreTrainedModel, labels: list[str]) -> PreTrainedModel:
    """Return a model with a new sub-network for each label that it lacks, in the labels' order, and the old ones frozen.

    Raises:
        UserError: the model has no sub-networks, or the data has nothing new or lacks one of the model's classes.
    """
    if not hasattr(model, "subnetworks"):
        raise UserError(
            f"--freeze known_labels needs one sub-network per class, which {model.config.model_type} does not have: choose "
            "an mfcc run, or --freeze backbone."
        )
    if lost := sorted(set(model.label_names) - set(labels)):
        raise UserError(
            f"--freeze known_labels keeps the checkpoint's classes, but the data has no {', '.join(lost)}: add such "
            "clips, which a new class needs as counterexamples anyway."
        )
    if set(labels) == set(model.label_names):
        raise UserError("--freeze known_labels has nothing to train: the checkpoint knows every class of the data.")
    return with_labels(model, labels)


def fit_output_layer(layer: nn.Linear, embeddings: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> None:
    """Fit a linear layer in place: one weighted logistic regression per class, with a ridge on the change of its row.

    The ridge acts on embeddings of unit variance.

    Args:
        embeddings: the layer's input, (windows, width).
        labels: (windows, classes), 1, 0, or -1: not known.
        weights: of the windows' losses, (windows,).
    """
    embeddings, weights = embeddings.double(), weights.double()
    present, judged = (labels == 1).double(), labels >= 0
    mean, scale = embeddings.mean(0), embeddings.std(0, correction=min(1, len(embeddings) - 1)) + 1e-6
    scaled = (embeddings - mean) / scale
    known = embeddings @ layer.weight.detach().cpu().double().T + layer.bias.detach().cpu().double()
    change = torch.zeros(layer.out_features, layer.in_features, dtype=torch.float64, requires_grad=True)
    shift = torch.zeros(layer.out_features, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([change, shift], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        of_classes = binary_cross_entropy_with_logits(known + scaled @ change.T + shift, present, reduction="none")
        total = (weights * (of_classes * judged).sum(1)).sum() + RIDGE * change.square().sum() / 2
        total.backward()
        return total

    optimizer.step(loss)
    with torch.no_grad():
        change = change / scale
        layer.weight += change.to(layer.weight)
        layer.bias += (shift - change @ mean).to(layer.bias)


def balanced_weights(labels: np.ndarray, windows_per_clip: list[int]) -> np.ndarray:
    """Return the weight of each window (windows,): classes weigh the same, a clip's windows share its weight, their mean is 1.

    Args:
        labels: of the clips, (clips, classes), 1 where a clip has the class.
    """
    present = labels == 1
    weights = (present / np.maximum(present.sum(axis=0), 1)).sum(axis=1)
    weights = weights * len(weights) / weights.sum()
    return np.repeat(weights / windows_per_clip, windows_per_clip)


def window_embeddings(
    model: nn.Module, layer: nn.Linear, features: Callable, windows: WindowedClips, batch_size: int, quiet: bool = False
) -> torch.Tensor:
    """Return the input of a model's output layer (windows, width), on the CPU; a window's tokens are averaged."""
    collected = []

    def collect(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        tokens = inputs[0].float().cpu()
        collected.append(tokens.flatten(1, -2).mean(dim=1) if tokens.ndim > 2 else tokens)

    hook = layer.register_forward_pre_hook(collect)
    try:
        window_logits(model, features, windows, batch_size, "Embedding clips", quiet)
    finally:
        hook.remove()
    return torch.cat(collected)
