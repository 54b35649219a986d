"""PaSST, the Patchout faSt Spectrogram Transformer.

Koutini, Schlüter, Eghbal-zadeh and Widmer, "Efficient Training of Audio Transformers with Patchout", Interspeech 2022
(arXiv 2110.05069). A vision transformer on overlapping patches of a log-mel spectrogram; its encodings of time and
frequency are separate, so that patches can be dropped in training and the rest still knows its place.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput
from transformers.utils import can_return_tuple

from .configuration_passt import PasstConfig


class PasstEmbeddings(nn.Module):
    """A spectrogram -> the class and distillation tokens, then its patches (in training: those that are kept)."""

    def __init__(self, config: PasstConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.projection = nn.Conv2d(
            1, width, kernel_size=config.patch_size, stride=(config.frequency_stride, config.time_stride)
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, width))
        self.token_positions = nn.Parameter(torch.zeros(1, 2, width))
        self.frequency_positions = nn.Parameter(
            torch.zeros(1, width, config.num_mel_bins // config.frequency_stride, 1)
        )
        self.time_positions = nn.Parameter(torch.zeros(1, width, 1, config.max_frames // config.time_stride))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, features: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return tokens (batch, 2 + patches, width) and, where frames are masked, which tokens are real, as booleans.

        `features` is (batch, frames, mel bands), `attention_mask` (batch, frames).
        """
        patches = self._project(features.to(self.projection.weight.dtype))
        patches = self._add_positions(patches, frames=features.shape[1])  # (batch, width, rows, columns)
        rows, columns = patches.shape[2:]
        tokens = patches.flatten(2).transpose(1, 2)
        real = None if attention_mask is None else self._real_patches(attention_mask, rows, columns)
        if self.training:
            kept = kept_patches(rows, columns, self.config, tokens.device)
            tokens = tokens[:, kept]
            real = None if real is None else real[:, kept]

        cls_and_dist = torch.cat([self.cls_token, self.dist_token], dim=1) + self.token_positions
        tokens = torch.cat([cls_and_dist.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        return self.dropout(tokens), None if real is None else F.pad(real, (2, 0), value=True)

    def _project(self, features: torch.Tensor) -> torch.Tensor:
        """Return the convolution of features (batch, frames, mel bands) as one matrix product of all patches: faster."""
        (height, width), (rows, columns) = self.projection.kernel_size, self.projection.stride
        patches = features.transpose(1, 2).unfold(1, height, rows).unfold(2, width, columns).flatten(3)
        return F.linear(patches, self.projection.weight.flatten(1), self.projection.bias).permute(0, 3, 1, 2)

    def _add_positions(self, patches: torch.Tensor, frames: int) -> torch.Tensor:
        columns, positions = patches.shape[3], self.time_positions.shape[3]
        if columns > positions and frames > self.config.max_frames:
            raise ValueError(
                f"The input has {frames} frames, but the model has time positions for {self.config.max_frames}: "
                "cut the clip into windows, or let the feature extractor cut it."
            )
        patches = patches[..., :positions]  # at stride 20, 998 frames give one column more than they have positions
        time_positions = self.time_positions[..., :columns]
        if self.training and columns < positions:  # a random part of the encoding, so that all of it is trained
            start = torch.randint(positions - columns + 1, (1,), device=patches.device)
            time_positions = self.time_positions[..., start + torch.arange(columns, device=patches.device)]
        return patches + time_positions + self.frequency_positions

    def _real_patches(self, attention_mask: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """Return (batch, rows * columns): a patch is real when all its frames are."""
        real_columns = (attention_mask.sum(dim=1) - self.config.patch_size) // self.config.time_stride + 1
        real = torch.arange(columns, device=attention_mask.device) < real_columns[:, None]
        return real[:, None, :].expand(-1, rows, -1).flatten(1)


def kept_patches(rows: int, columns: int, config: PasstConfig, device: torch.device) -> torch.Tensor:
    """Return the indices, in a flattened (rows, columns) grid, of the patches that patchout keeps (paper, section 2.2).

    One draw serves the whole batch. The counts are constant, so the length of the sequence is too. Raises ValueError
    if nothing would remain.
    """
    kept_rows, kept_columns = rows - config.patchout_frequency, columns - config.patchout_time
    kept = kept_rows * kept_columns - config.patchout_tokens
    if min(kept_rows, kept_columns, kept) < 1:
        raise ValueError(
            f"patchout_time={config.patchout_time}, patchout_frequency={config.patchout_frequency} and "
            f"patchout_tokens={config.patchout_tokens} leave nothing of {rows} x {columns} patches: lower them."
        )
    grid = torch.arange(rows * columns, device=device).view(rows, columns)
    if config.patchout_time:
        grid = grid[:, random_subset(columns, kept_columns, device)]
    if config.patchout_frequency:
        grid = grid[random_subset(rows, kept_rows, device)]
    grid = grid.flatten()
    return grid[random_subset(len(grid), kept, device)] if config.patchout_tokens else grid


def random_subset(size: int, count: int, device: torch.device) -> torch.Tensor:
    """Return `count` different indices below `size`, ascending."""
    return torch.rand(size, device=device).argsort()[:count].sort().values


class PasstAttention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, config: PasstConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.projection = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor, real: torch.Tensor | None) -> torch.Tensor:
        qkv = self.qkv(hidden_states).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (batch, heads, tokens, head width)
        mask = None if real is None else real[:, None, None, :]
        context = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0
        )
        return self.projection(context.transpose(1, 2).flatten(2))


class PasstMlp(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, config: PasstConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.dropout(F.gelu(self.fc1(hidden_states))))


class PasstLayer(GradientCheckpointingLayer):
    """A pre-norm transformer block; in training each clip skips each of its halves with `drop_path_rate`."""

    def __init__(self, config: PasstConfig, drop_path_rate: float) -> None:
        super().__init__()
        self.drop_path_rate = drop_path_rate
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = PasstAttention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = PasstMlp(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        hidden_states = hidden_states + self._drop_path(self.dropout(self.attention(self.norm1(hidden_states), real)))
        return hidden_states + self._drop_path(self.dropout(self.mlp(self.norm2(hidden_states))))

    def _drop_path(self, branch: torch.Tensor) -> torch.Tensor:
        """Stochastic depth (Huang 2016): zero the branch of random clips, and scale the others up to make up for it."""
        if not self.training or self.drop_path_rate == 0.0:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= self.drop_path_rate
        return branch * kept.to(branch.dtype) / (1.0 - self.drop_path_rate)


class PasstPreTrainedModel(PreTrainedModel):
    """Initialisation and what Transformers must know of PaSST."""

    config_class = PasstConfig
    base_model_prefix = "passt"
    main_input_name = "input_values"
    input_modalities = ("audio",)
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean over the batch at hand; the Trainer divides it itself
    _supports_sdpa = True
    _no_split_modules = ["PasstEmbeddings", "PasstLayer"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, PasstEmbeddings):
            for parameter in module.parameters(recurse=False):
                init.trunc_normal_(parameter, std=self.config.initializer_range)


class PasstModel(PasstPreTrainedModel):
    """PaSST without its head."""

    def __init__(self, config: PasstConfig) -> None:
        super().__init__(config)
        depth = config.num_hidden_layers
        rates = [config.drop_path_rate * index / max(1, depth - 1) for index in range(depth)]
        self.embeddings = PasstEmbeddings(config)
        self.layers = nn.ModuleList(PasstLayer(config, rate) for rate in rates)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        """Return `last_hidden_state` (batch, 2 + patches, width) and `pooler_output` (batch, width), the clips' features.

        `input_values` is (batch, frames, mel bands); `attention_mask` (batch, frames) is 0 where frames are padding.
        Raises ValueError for more frames than the time encoding covers.
        """
        tokens, real = self.embeddings(input_values, attention_mask)
        hidden_states = (tokens,)
        for layer in self.layers:
            tokens = layer(tokens, real)
            hidden_states = (*hidden_states, tokens) if output_hidden_states else None
        last_hidden_state = self.norm(tokens)
        return BaseModelOutputWithPooling(
            last_hidden_state=last_hidden_state,
            pooler_output=last_hidden_state[:, :2].mean(dim=1),  # of the class and the distillation token
            hidden_states=hidden_states if output_hidden_states else None,
        )


class PasstForAudioClassification(PasstPreTrainedModel):
    """PaSST and its head: LayerNorm and a linear layer on the mean of the class and distillation tokens."""

    def __init__(self, config: PasstConfig) -> None:
        super().__init__(config)
        self.passt = PasstModel(config)
        self.head_norm = nn.LayerNorm(config.hidden_size)  # the head's epsilon is torch's default, 1e-5
        self.head_dropout = nn.Dropout(config.head_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> SequenceClassifierOutput:
        """Return logits (batch, num_labels) and, if `labels` (batch, num_labels) of 0.0 and 1.0 are given, the loss.

        The inputs are `PasstModel`'s.
        """
        outputs = self.passt(input_values, attention_mask, output_hidden_states, return_dict=True)
        logits = self.classifier(self.head_dropout(self.head_norm(outputs.pooler_output)))
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)
