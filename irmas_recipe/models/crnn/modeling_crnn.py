"""Han's convolution blocks followed by a bidirectional GRU, or transformers' Swin, on an image of the clip."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel, SwinConfig, SwinModel
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import can_return_tuple

from .configuration_crnn import CrnnConfig


class ConvolutionBlock(nn.Module):
    """Two 3x3 convolutions whose padding of 2 makes the map grow by 2 each time, then a pooling (Han 2017).

    The first convolution may step over frames: it then reads `frame_stride` of them for each that it writes.
    """

    def __init__(self, in_channels: int, out_channels: int, pool: nn.Module, frame_stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=2, stride=(frame_stride, 1))
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=2)
        self.pool = pool

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        maps = F.leaky_relu(self.conv1(maps), 0.33)
        maps = F.leaky_relu(self.conv2(maps), 0.33)
        return self.pool(maps)


class BidirectionalGru(nn.Module):
    """nn.GRU(input_size, hidden_size, batch_first=True, bidirectional=True), with the same parameters.

    torch.compile refuses nn.GRU itself ("Dynamo does not support RNN, GRU, or LSTM") but not the operator it calls,
    which becomes one graph with its steps unrolled.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        for direction in ("", "_reverse"):
            self.register_parameter(f"weight_ih_l0{direction}", nn.Parameter(torch.zeros(3 * hidden_size, input_size)))
            self.register_parameter(f"weight_hh_l0{direction}", nn.Parameter(torch.zeros(3 * hidden_size, hidden_size)))
            self.register_parameter(f"bias_ih_l0{direction}", nn.Parameter(torch.zeros(3 * hidden_size)))
            self.register_parameter(f"bias_hh_l0{direction}", nn.Parameter(torch.zeros(3 * hidden_size)))

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        """Return the hidden states of both directions (batch, steps, 2 * hidden_size)."""
        sequence = sequence.to(self.weight_ih_l0.dtype)  # under autocast the convolutions hand over bfloat16
        start = sequence.new_zeros(2, sequence.shape[0], self.hidden_size)
        parameters = list(self.parameters())
        states, _ = torch.gru(sequence, start, parameters, True, 1, 0.0, self.training, True, True)
        return states


class CnnGru(nn.Module):
    """Convolution blocks, the loudest frequency of each moment, a bidirectional GRU over time, its mean."""

    def __init__(self, config: CrnnConfig) -> None:
        super().__init__()
        sizes = [1, *config.filters]
        pools = [nn.MaxPool2d(3, stride=3) for _ in config.filters[1:]] + [nn.Identity()]
        strides = [config.frame_stride] + [1] * len(config.filters[1:])
        self.blocks = nn.ModuleList(
            ConvolutionBlock(*io, pool, stride)
            for io, pool, stride in zip(pairwise(sizes), pools, strides, strict=True)
        )
        self.block_dropout = nn.Dropout(config.block_dropout)
        self.gru = BidirectionalGru(sizes[-1], config.gru_hidden_size)
        self.hidden_size = 2 * config.gru_hidden_size

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return each block's map, the GRU's states (batch, steps, hidden_size) and their mean (batch, hidden_size)."""
        maps = [image]
        for block in self.blocks:
            maps.append(self.block_dropout(block(maps[-1])))
        states = self.gru(maps[-1].amax(dim=3).transpose(1, 2))
        return [*maps[1:], states, states.mean(dim=1)]


class Swin(nn.Module):
    """transformers' Swin on an image of one channel."""

    def __init__(self, config: CrnnConfig) -> None:
        super().__init__()
        swin_config = SwinConfig(**{**(config.swin or {}), "num_channels": 1})
        self.image_size = swin_config.image_size
        self.swin = SwinModel(swin_config)
        self.hidden_size = self.swin.num_features

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return the last stage's patches (batch, patches, hidden_size), then their mean (batch, hidden_size)."""
        image = F.interpolate(image, self.image_size, mode="bilinear")
        output = self.swin(image)
        return [output.last_hidden_state, output.pooler_output]


class CrnnForAudioClassification(PreTrainedModel):
    """A network on an image of the clip and a linear layer that gives one logit per class."""

    config_class = CrnnConfig
    base_model_prefix = "network"
    main_input_name = "input_values"
    input_modalities = ("audio",)
    accepts_loss_kwargs = False  # the loss is a mean over the batch at hand; the Trainer divides it itself

    def __init__(self, config: CrnnConfig) -> None:
        super().__init__(config)
        self.network = Swin(config) if config.network == "swin" else CnnGru(config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(self.network.hidden_size, config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Xavier-uniform weights and zero biases, as in Han 2017 (Swin initialises itself)."""
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d | nn.Linear):
            init.xavier_uniform_(module.weight)
        elif isinstance(module, BidirectionalGru):
            for name, parameter in module.named_parameters():
                if name.startswith("weight"):
                    init.xavier_uniform_(parameter)
                else:
                    init.zeros_(parameter)

    def load_swin(self, checkpoint: str) -> None:
        """Start Swin from an ImageNet checkpoint, a folder or a name such as microsoft/swin-tiny-patch4-window7-224.

        The patch kernels of red, green and blue are summed, which equals feeding a grey image. Raises ValueError where
        the network is not `swin` or the checkpoint has other sizes than `config.swin`.
        """
        if self.config.network != "swin":
            raise ValueError(f"A Swin checkpoint needs network: swin, and this model has '{self.config.network}'.")
        weights = SwinModel.from_pretrained(checkpoint, dtype=torch.float32).state_dict()
        kernel = "embeddings.patch_embeddings.projection.weight"
        weights[kernel] = weights[kernel].sum(dim=1, keepdim=True)
        expected = self.network.swin.state_dict()
        if {name: value.shape for name, value in weights.items()} != {n: v.shape for n, v in expected.items()}:
            raise ValueError(
                f"{checkpoint} has other sizes than this model; set `swin` to the checkpoint's own fields."
            )
        self.network.swin.load_state_dict(weights)

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> SequenceClassifierOutput:
        """Return logits (batch, num_labels) of images (batch, frames, bins), and the loss if labels are given.

        `labels` is (batch, num_labels) of 0.0 and 1.0. Any number of frames from one up is accepted.
        """
        if input_values.dim() != 3:
            raise ValueError(f"input_values must be (batch, frames, bins), not {tuple(input_values.shape)}.")
        # With strides like these every convolution works in channels_last, a tenth faster on CPUs.
        image = input_values[..., None].permute(0, 3, 1, 2)
        hidden_states = self.network(image)
        logits = self.classifier(self.dropout(hidden_states[-1]))
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=tuple(hidden_states) if output_hidden_states else None
        )
