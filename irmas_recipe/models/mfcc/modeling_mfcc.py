"""One small convolutional network per instrument, side by side on the same MFCCs (Blaszke and Kostek 2022)."""

import copy
import math
from itertools import pairwise
from typing import Self

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import can_return_tuple

from .configuration_mfcc import MfccConfig

UNTUNED = {
    "thresholds": 0.5,
    "window_thresholds": 0.5,
    "confidence_slopes": [1.0, 1.0],
    "window_confidence_slopes": [1.0, 1.0],
}
"""What a run tunes for each label: its value for a label that is new."""


class ConvolutionBlock(nn.Module):
    """A 3x3 convolution, max-pooling by 2 in both directions, batch normalisation."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.norm(F.max_pool2d(F.relu(self.conv(maps)), 2, ceil_mode=True))


class InstrumentNetwork(nn.Module):
    """All that decides on one instrument: convolution blocks, the mean over time, dense layers, one logit."""

    def __init__(self, num_mfcc: int, filters: list[int], dense_sizes: list[int]) -> None:
        super().__init__()
        # Coefficient 0 is a hundred times larger than the last; each sub-network keeps the statistics it was trained
        # with, so that training another instrument later does not move them.
        self.input_norm = nn.BatchNorm1d(num_mfcc)
        self.blocks = nn.ModuleList(ConvolutionBlock(*io) for io in pairwise([1, *filters]))
        sizes = [filters[-1] * math.ceil(num_mfcc / 2 ** len(filters)), *dense_sizes]
        self.dense = nn.ModuleList(nn.Linear(*io) for io in pairwise(sizes))
        self.output = nn.Linear(sizes[-1], 1)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the last dense layer's output (batch, dense_sizes[-1]) and the logit (batch, 1) of features."""
        coefficients = self.input_norm(features.transpose(1, 2))
        maps = coefficients[..., None].permute(0, 3, 1, 2)  # (batch, 1, coefficients, frames) in channels_last
        for block in self.blocks:
            maps = block(maps)
        hidden = maps.mean(dim=3).flatten(1)
        for layer in self.dense:
            hidden = F.relu(layer(hidden))
        return hidden, self.output(hidden)


class MfccForAudioClassification(PreTrainedModel):
    """One sub-network per label, `subnetworks[id]`, each with a logit of its own."""

    config_class = MfccConfig
    main_input_name = "input_values"
    input_modalities = ("audio",)
    accepts_loss_kwargs = False  # the loss is a mean over the batch at hand; the Trainer divides it itself

    def __init__(self, config: MfccConfig) -> None:
        super().__init__(config)
        own_filters = config.label_filters or {}
        self.subnetworks = nn.ModuleList(
            InstrumentNetwork(config.num_mfcc, own_filters.get(label, config.filters), config.dense_sizes)
            for label in self.label_names
        )
        self.post_init()
        if config.trainable_labels is not None:
            self.freeze_except(config.trainable_labels)

    @property
    def label_names(self) -> list[str]:
        return [self.config.id2label[index] for index in range(self.config.num_labels)]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Xavier-uniform weights and zero biases."""
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d | nn.Linear):
            init.xavier_uniform_(module.weight)

    def freeze_except(self, labels: list[str]) -> None:
        """Let only the sub-networks of `labels` learn; the others' weights and statistics stay as they are.

        The choice is kept in `config.trainable_labels`. Raises ValueError for a label that the model does not have.
        """
        unknown = sorted(set(labels) - set(self.label_names))
        if unknown:
            raise ValueError(f"No sub-network for {', '.join(unknown)}; the model has {', '.join(self.label_names)}.")
        self.config.trainable_labels = list(labels)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode and apply `config.trainable_labels`.

        A frozen sub-network needs no gradient and stays in evaluation mode, for its statistics must not move either.
        This is the place because from_pretrained replaces the parameters after `__init__` and then calls `eval()`.
        """
        super().train(mode)
        if self.config.trainable_labels is not None:
            for label, subnetwork in zip(self.label_names, self.subnetworks, strict=True):
                trainable = label in self.config.trainable_labels
                subnetwork.requires_grad_(trainable).train(mode and trainable)
        return self

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> SequenceClassifierOutput:
        """Return logits (batch, num_labels) of features (batch, frames, num_mfcc), and the loss if labels are given.

        `labels` is (batch, num_labels) of 0.0 and 1.0. Any number of frames from one up is accepted. The one hidden state
        is the last dense layer of each sub-network (batch, num_labels, dense_sizes[-1]).
        """
        if input_values.dim() != 3 or input_values.shape[2] != self.config.num_mfcc:
            shape = tuple(input_values.shape)
            raise ValueError(f"input_values must be (batch, frames, {self.config.num_mfcc}), not {shape}.")
        hidden, logits = zip(*[subnetwork(input_values) for subnetwork in self.subnetworks], strict=True)
        logits = torch.cat(logits, dim=1)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        hidden_states = (torch.stack(hidden, dim=1),) if output_hidden_states else None
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=hidden_states)


def with_labels(model: MfccForAudioClassification, label_names: list[str]) -> MfccForAudioClassification:
    """Return a model of `label_names` in this order: `model`'s sub-networks, frozen, and new ones where it has none."""
    new_labels = [label for label in label_names if label not in model.label_names]
    config = copy.deepcopy(model.config)
    config.id2label = dict(enumerate(label_names))
    config.label2id = {label: index for index, label in enumerate(label_names)}
    config.trainable_labels = new_labels
    for name, untuned in UNTUNED.items():
        if getattr(config, name, None):
            tuned = dict(zip(model.label_names, getattr(config, name), strict=True))
            setattr(config, name, [tuned.get(label, untuned) for label in label_names])
    rebuilt = MfccForAudioClassification(config).to(device=model.device, dtype=model.dtype)
    for label, old in zip(model.label_names, model.subnetworks, strict=True):
        if label in label_names:
            rebuilt.subnetworks[label_names.index(label)].load_state_dict(old.state_dict())
    return rebuilt.train(model.training)
