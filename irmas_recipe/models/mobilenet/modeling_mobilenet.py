"""MobileNetV3-large on log-mel spectrograms: EfficientAT's `mn` models.

Schmid, Koutini and Widmer, "Efficient Large-Scale Audio Tagging via Transformer-to-CNN Knowledge Distillation", ICASSP
2023 (arXiv 2211.04772); the network is that of Howard et al., "Searching for MobileNetV3", 2019 (arXiv 1905.02244).
"""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import can_return_tuple

from .configuration_mobilenet import MobileNetAudioConfig

BLOCKS = (
    # in, kernel, expanded, out, squeeze-excitation, activation, stride (MobileNetV3 paper, table 1)
    (16, 3, 16, 16, False, nn.ReLU, 1),
    (16, 3, 64, 24, False, nn.ReLU, 2),
    (24, 3, 72, 24, False, nn.ReLU, 1),
    (24, 5, 72, 40, True, nn.ReLU, 2),
    (40, 5, 120, 40, True, nn.ReLU, 1),
    (40, 5, 120, 40, True, nn.ReLU, 1),
    (40, 3, 240, 80, False, nn.Hardswish, 2),
    (80, 3, 200, 80, False, nn.Hardswish, 1),
    (80, 3, 184, 80, False, nn.Hardswish, 1),
    (80, 3, 184, 80, False, nn.Hardswish, 1),
    (80, 3, 480, 112, True, nn.Hardswish, 1),
    (112, 3, 672, 112, True, nn.Hardswish, 1),
    (112, 5, 672, 160, True, nn.Hardswish, 2),
    (160, 5, 960, 160, True, nn.Hardswish, 1),
    (160, 5, 960, 160, True, nn.Hardswish, 1),
)


def round_to_eight(channels: float) -> int:
    """Return the nearest multiple of 8, at least 8 and never less than 90 % of `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def convolution(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] = nn.Identity,
) -> nn.Sequential:
    """Return a convolution that keeps the map's size but for its stride, batch normalisation, and an activation."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01),
        activation(),
    )


class SqueezeExcitation(nn.Module):
    """Scale each channel by a gate that sees the mean of every channel over frequency and time (arXiv 1709.01507)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, round_to_eight(channels // 4))
        self.fc2 = nn.Linear(self.fc1.out_features, channels)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        gates = torch.sigmoid(self.fc2(F.relu(self.fc1(maps.mean(dim=(2, 3))))))
        return maps * gates[:, :, None, None]


class InvertedResidual(nn.Module):
    """Expand the channels, convolve each on its own, weigh them, and project back; added to the input where it fits."""

    def __init__(
        self,
        in_channels: int,
        kernel: int,
        expanded: int,
        out_channels: int,
        squeeze_excitation: bool,
        activation: type[nn.Module],
        stride: int,
    ) -> None:
        super().__init__()
        parts = OrderedDict()
        if expanded != in_channels:
            parts["expand"] = convolution(in_channels, expanded, kernel=1, activation=activation)
        parts["depthwise"] = convolution(expanded, expanded, kernel, stride, groups=expanded, activation=activation)
        if squeeze_excitation:
            parts["squeeze_excitation"] = SqueezeExcitation(expanded)
        parts["project"] = convolution(expanded, out_channels, kernel=1)
        self.block = nn.Sequential(parts)
        self.is_residual = stride == 1 and in_channels == out_channels

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps + self.block(maps) if self.is_residual else self.block(maps)


class MobileNetAudioBackbone(nn.Module):
    """The convolutions: a stem, fifteen inverted residual blocks, and a last layer that widens the map sixfold."""

    def __init__(self, config: MobileNetAudioConfig) -> None:
        super().__init__()

        def scaled(channels: int) -> int:
            return round_to_eight(channels * config.width_mult)

        self.stem = convolution(1, scaled(16), kernel=3, stride=2, activation=nn.Hardswish)
        self.layers = nn.ModuleList(
            InvertedResidual(scaled(inner), kernel, scaled(expanded), scaled(outer), *options)
            for inner, kernel, expanded, outer, *options in BLOCKS
        )
        self.out_channels = 6 * scaled(160)
        self.last = convolution(scaled(160), self.out_channels, kernel=1, activation=nn.Hardswish)

    def forward(self, features: torch.Tensor) -> list[torch.Tensor]:
        """Return every layer's map (batch, channels, mel bands', frames') of features (batch, frames, mel bands)."""
        maps = features.to(self.stem[0].weight.dtype).transpose(1, 2).unsqueeze(1)
        outputs = [self.stem(maps)]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        return [*outputs, self.last(outputs[-1])]


class MobileNetAudioForAudioClassification(PreTrainedModel):
    """MobileNetV3 and its head: mean over the map, a linear layer, Hardswish, dropout, and a linear layer.

    A clip's embedding, for a classifier of one's own, is `model.forward_features(input_values)`.
    """

    config_class = MobileNetAudioConfig
    base_model_prefix = "mobilenet"
    main_input_name = "input_values"
    input_modalities = ("audio",)
    accepts_loss_kwargs = False  # the loss is a mean over the batch at hand; the Trainer divides it itself
    _no_split_modules = ["InvertedResidual"]

    def __init__(self, config: MobileNetAudioConfig) -> None:
        super().__init__(config)
        self.mobilenet = MobileNetAudioBackbone(config)
        self.projection = nn.Linear(self.mobilenet.out_channels, round_to_eight(1280 * config.width_mult))
        self.head_dropout = nn.Dropout(config.head_dropout)
        self.classifier = nn.Linear(self.projection.out_features, config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As the authors: He-normal convolutions (fan out), linear layers with a standard deviation of 0.01."""
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, mean=0.0, std=0.01)

    def forward_features(self, input_values: torch.Tensor) -> torch.Tensor:
        """Return the clips' embeddings (batch, 960 * width_mult): the last map's mean over frequency and time."""
        return self.mobilenet(input_values)[-1].mean(dim=(2, 3))

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> SequenceClassifierOutput:
        """Return logits (batch, num_labels) of features (batch, frames, mel bands), and the loss if labels are given.

        `labels` is (batch, num_labels) of 0.0 and 1.0. Any number of frames is accepted.
        """
        hidden_states = self.mobilenet(input_values)
        embeddings = hidden_states[-1].mean(dim=(2, 3))
        logits = self.classifier(self.head_dropout(F.hardswish(self.projection(embeddings))))
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=tuple(hidden_states) if output_hidden_states else None
        )
