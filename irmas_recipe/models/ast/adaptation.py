"""What training changes in transformers' AST: a shorter input, patchout, a cheaper last layer, a dropout and a start.

The weights keep their names, so that what is saved is transformers' own AST.
"""

from typing import Any

import torch
from torch import nn
from transformers import ASTConfig, ASTForAudioClassification
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.audio_spectrogram_transformer.modeling_audio_spectrogram_transformer import (
    ASTAttention,
    ASTLayer,
    ASTPatchEmbeddings,
    eager_attention_forward,
)

POOLED_TOKENS = 2  # class and distillation token


def patch_grid(config: ASTConfig) -> tuple[int, int]:
    """Return the number of rows (frequency) and columns (time) of patches: 12 x 101 as released, 12 x 29 for 3 s."""
    rows = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
    columns = (config.max_length - config.patch_size) // config.time_stride + 1
    return rows, columns


def initialize_tokens(model: ASTForAudioClassification) -> None:
    """Initialise the class tokens and position embeddings of a new model as the authors do, with a deviation of 0.02.

    transformers sets them to zero, where the first layer norm's gradient is some hundred times all others, so that
    clipping leaves almost nothing of the first steps.
    """
    embeddings = model.audio_spectrogram_transformer.embeddings
    for tokens in (embeddings.cls_token, embeddings.distillation_token, embeddings.position_embeddings):
        nn.init.trunc_normal_(tokens, std=0.02)


def crop_to_frames(model: ASTForAudioClassification, frames: int) -> None:
    """Shorten a pretrained AST's input, in place: keep the middle columns of its grid of position embeddings.

    The authors do the same (Gong 2021, `ast_models.py`); `from_pretrained(max_length=...)` would set all of them to zero.

    Raises:
        ValueError: the input would be longer than the checkpoint's, or shorter than a patch.
    """
    rows, old_columns = patch_grid(model.config)
    old_frames, model.config.max_length = model.config.max_length, frames
    _, columns = patch_grid(model.config)
    if not 1 <= columns <= old_columns:
        raise ValueError(f"this AST takes {model.config.patch_size} to {old_frames} frames of 10 ms, not {frames}")
    embeddings = model.audio_spectrogram_transformer.embeddings
    special, grid = embeddings.position_embeddings.data.split([2, rows * old_columns], dim=1)
    first = old_columns // 2 - columns // 2
    middle = grid.unflatten(1, (rows, old_columns))[:, :, first : first + columns].flatten(1, 2)
    embeddings.position_embeddings = nn.Parameter(torch.cat([special, middle], dim=1))


class PooledLayer(ASTLayer):
    """AST's last layer for the two tokens whose mean is classified; the others serve only as keys and values."""

    def forward(self, hidden_states: torch.Tensor, attention_mask: None = None, **kwargs: Any) -> torch.Tensor:
        """Return (batch, 2, hidden) of hidden states (batch, tokens, hidden)."""
        attention, normed = self.attention, self.layernorm_before(hidden_states)
        heads = (len(normed), -1, attention.num_attention_heads, attention.head_dim)
        query = attention.q_proj(normed[:, :POOLED_TOKENS]).view(heads).transpose(1, 2)
        key, value = (layer(normed).view(heads).transpose(1, 2) for layer in (attention.k_proj, attention.v_proj))
        dropout = attention.attention_dropout if self.training else 0.0
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        mixed = attention.o_proj(mixed.transpose(1, 2).flatten(2))
        hidden_states = hidden_states[:, :POOLED_TOKENS] + self.dropout(mixed)
        return hidden_states + self.dropout(self.mlp(self.layernorm_after(hidden_states)))


def compute_only_what_is_pooled(model: ASTForAudioClassification) -> None:
    """Skip the tokens of the last layer that nothing reads, in place: equal logits and gradients for a twelfth less work.

    The weights keep their names and shapes, so that the saved model is transformers' own AST.
    """
    layers = model.audio_spectrogram_transformer.layers
    pooled = PooledLayer(model.config)
    pooled.load_state_dict(layers[-1].state_dict())
    layers[-1] = pooled.train(layers[-1].training)


class FusedAttention(ASTAttention):
    """AST's attention with one matrix product for queries, keys and values instead of three narrow ones."""

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return what ASTAttention returns of hidden states (batch, tokens, hidden)."""
        layers = (self.q_proj, self.k_proj, self.v_proj)
        weight = torch.cat([layer.weight for layer in layers])
        bias = None if self.q_proj.bias is None else torch.cat([layer.bias for layer in layers])
        states = nn.functional.linear(hidden_states, weight, bias)
        states = states.unflatten(-1, (3, self.num_attention_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout = self.attention_dropout if self.training else 0.0
        mixed, weights = attend(self, *states, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs)
        return self.o_proj(mixed.flatten(2)), weights


class PatchProduct(ASTPatchEmbeddings):
    """AST's patch embeddings as a matrix product of patches that are cut out first, instead of a strided convolution."""

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        """Return what ASTPatchEmbeddings returns, (batch, patches, hidden), of features (batch, frames, mels)."""
        (height, width), (rows, columns) = self.projection.kernel_size, self.projection.stride
        patches = input_values.transpose(1, 2).unfold(1, height, rows).unfold(2, width, columns)
        weight = self.projection.weight.flatten(1)
        return nn.functional.linear(patches.flatten(3).flatten(1, 2), weight, self.projection.bias)


def fuse_projections(model: ASTForAudioClassification) -> None:
    """Make every projection one wide matrix product, in place: of the patches, and of queries, keys and values together.

    The latter is 6 % faster at 32 clips on an H200, the same at 128. The weights stay where they are, so that the saved
    model is transformers' own AST.
    """
    model.audio_spectrogram_transformer.embeddings.patch_embeddings.__class__ = PatchProduct
    for layer in model.audio_spectrogram_transformer.layers:
        layer.attention.__class__ = FusedAttention


def add_patchout(model: ASTForAudioClassification, columns: int, rows: int, tokens: int) -> None:
    """Drop random patches in training (Koutini 2022): whole time columns, whole frequency rows, then single tokens.

    The counts are constant, so that a compiled graph keeps its shapes; every clip of a batch loses the same patches.

    Raises:
        ValueError: no patch would be left.
    """
    grid_rows, grid_columns = patch_grid(model.config)
    kept_rows, kept_columns = grid_rows - rows, grid_columns - columns
    if min(kept_rows, kept_columns) < 1 or kept_rows * kept_columns <= tokens:
        raise ValueError(
            f"patchout of {columns} columns, {rows} rows and {tokens} tokens leaves none of {grid_columns} x {grid_rows} "
            "patches"
        )

    def drop(module: nn.Module, _: tuple, embeddings: torch.Tensor) -> torch.Tensor:
        if not module.training:
            return embeddings
        device = embeddings.device
        row = torch.rand(grid_rows, device=device).argsort()[:kept_rows].sort().values
        column = torch.rand(grid_columns, device=device).argsort()[:kept_columns].sort().values
        patches = (row[:, None] * grid_columns + column).flatten()
        kept = torch.rand(len(patches), device=device).argsort()[tokens:].sort().values
        return torch.cat([embeddings[:, :2], embeddings[:, 2 + patches[kept]]], dim=1)

    model.audio_spectrogram_transformer.embeddings.register_forward_hook(drop)


def add_head_dropout(model: ASTForAudioClassification, probability: float) -> None:
    """Drop inputs of the output layer in training, which transformers' AST cannot; the weights keep their names."""

    def drop(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (nn.functional.dropout(inputs[0], probability, module.training), *inputs[1:])

    model.classifier.dense.register_forward_pre_hook(drop)
