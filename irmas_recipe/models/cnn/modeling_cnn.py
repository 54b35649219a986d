"""Convolutional networks on a log-mel spectrogram: Han 2017, TensorFlow's tutorial, MobileNet-v1."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F
from transformers import MobileNetV1Config, MobileNetV1Model, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import can_return_tuple

from .configuration_cnn import CnnConfig


class Han2017Block(nn.Module):
    """Two 3x3 convolutions whose padding of 2 makes the map grow by 2 each time, then the block's pooling."""

    def __init__(self, in_channels: int, out_channels: int, pool: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=2)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=2)
        self.pool = pool

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        maps = F.leaky_relu(self.conv1(maps), 0.33)
        maps = F.leaky_relu(self.conv2(maps), 0.33)
        return self.pool(maps)


class Han2017(nn.Module):
    """Han 2017, table I: four blocks, the last pooled over the whole map, and a dense layer."""

    def __init__(self, config: CnnConfig) -> None:
        super().__init__()
        sizes = [1, *config.filters]
        pools = [nn.MaxPool2d(3, stride=3) for _ in config.filters[1:]] + [nn.AdaptiveMaxPool2d(1)]
        self.blocks = nn.ModuleList(Han2017Block(*io, pool) for io, pool in zip(pairwise(sizes), pools, strict=True))
        self.block_dropout = nn.Dropout(config.block_dropout)
        self.dense = nn.Linear(sizes[-1], config.hidden_size)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return each block's map, then the dense layer's output (batch, hidden_size)."""
        maps = [image]
        for block in self.blocks[:-1]:
            maps.append(self.block_dropout(block(maps[-1])))
        maps.append(self.blocks[-1](maps[-1]))
        dense = self.dense(maps[-1].flatten(1))
        return [*maps[1:], F.leaky_relu(dense, 0.33)]


class SpectrogramImageNetwork(nn.Module):
    """The network of TensorFlow's tutorial "Simple audio recognition", on a mel spectrogram resized as an image."""

    def __init__(self, config: CnnConfig) -> None:
        super().__init__()
        self.image_size = tuple(config.image_size)
        # Keras' Normalization layer takes mean and variance of the training data; here they are running statistics.
        self.normalization = nn.BatchNorm2d(1, affine=False)
        sizes = [1, *config.filters]
        self.convolutions = nn.ModuleList(nn.Conv2d(*io, kernel_size=3) for io in pairwise(sizes))
        self.pool = nn.MaxPool2d(2)
        self.block_dropout = nn.Dropout(config.block_dropout)
        height, width = ((size - 2 * len(config.filters)) // 2 for size in self.image_size)
        self.dense = nn.Linear(sizes[-1] * height * width, config.hidden_size)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return the image, each convolution's map, then the dense layer's output (batch, hidden_size)."""
        image = F.interpolate(image, self.image_size, mode="bilinear")
        maps = [self.normalization(image)]
        for convolution in self.convolutions:
            maps.append(F.relu(convolution(maps[-1])))
        pooled = self.block_dropout(self.pool(maps[-1]))
        return [*maps, F.relu(self.dense(pooled.flatten(1)))]


class MobileNetV1(nn.Module):
    """transformers' MobileNet-v1 on one channel."""

    def __init__(self, config: CnnConfig) -> None:
        super().__init__()
        self.mobilenet = MobileNetV1Model(
            MobileNetV1Config(num_channels=1, depth_multiplier=config.width_multiplier, layer_norm_eps=1e-3)
        )
        for module in self.mobilenet.modules():
            if isinstance(module, nn.BatchNorm2d):
                # transformers sets TensorFlow's decay, .9997, as torch's momentum: then the running statistics are
                # those of the last batch alone, which serves a frozen checkpoint but not training.
                module.momentum = 0.1

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return the last convolution's map, then its mean (batch, hidden_size)."""
        output = self.mobilenet(image)
        return [output.last_hidden_state, output.pooler_output]


NETWORKS = {"han2017": Han2017, "spectrogram_image": SpectrogramImageNetwork, "mobilenet_v1": MobileNetV1}


class CnnForAudioClassification(PreTrainedModel):
    """A convolutional network and a linear layer that gives one logit per class."""

    config_class = CnnConfig
    base_model_prefix = "network"
    main_input_name = "input_values"
    input_modalities = ("audio",)
    accepts_loss_kwargs = False  # the loss is a mean over the batch at hand; the Trainer divides it itself

    def __init__(self, config: CnnConfig) -> None:
        super().__init__(config)
        self.network = NETWORKS[config.architecture](config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Xavier-uniform weights and zero biases (Han 2017; Keras' defaults, so the tutorial's too)."""
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d | nn.Linear):
            init.xavier_uniform_(module.weight)

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> SequenceClassifierOutput:
        """Return logits (batch, num_labels) of features (batch, frames, mel bands), and the loss if labels are given.

        `labels` is (batch, num_labels) of 0.0 and 1.0. Any number of frames from one up is accepted.
        """
        if input_values.dim() != 3:
            raise ValueError(f"input_values must be (batch, frames, mel bands), not {tuple(input_values.shape)}.")
        # With strides like these every convolution works in channels_last, a tenth to a third faster on CPUs.
        image = input_values[..., None].permute(0, 3, 1, 2)
        hidden_states = self.network(image)
        logits = self.classifier(self.dropout(hidden_states[-1]))
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=tuple(hidden_states) if output_hidden_states else None
        )
