"""BEATs (Chen et al. 2022, https://arxiv.org/abs/2212.09058), read from top to bottom: patches, positions, layers, head.

Throughout, `frames` counts rows of the log-mel input and `tokens` its patches, in order of time and then of frequency:
a clip of 3 s has 298 frames of 128 mels, hence 18 x 8 = 144 tokens.
"""

import math

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput
from transformers.utils import can_return_tuple

from .configuration_beats import BeatsConfig


class BeatsPatchEmbeddings(nn.Module):
    """Embed each patch of the log-mel input: (batch, frames, mels) -> (batch, tokens, hidden).

    Frames and mels that do not fill a patch are dropped.
    """

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        size = config.patch_size
        self.patch_size = size
        self.projection = nn.Conv2d(1, config.patch_embedding_size, size, stride=size, bias=config.patch_bias)
        self.layer_norm = nn.LayerNorm(config.patch_embedding_size, eps=config.layer_norm_eps)
        same_width = config.patch_embedding_size == config.hidden_size
        self.output = nn.Identity() if same_width else nn.Linear(config.patch_embedding_size, config.hidden_size)

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        if min(input_values.shape[1:]) < self.patch_size:
            raise ValueError(
                f"A BEATs input needs {self.patch_size} frames and mel bins at least, got {tuple(input_values.shape)}: "
                "pad the clip, as the feature extractor does."
            )
        patches = self.projection(input_values.unsqueeze(1))  # (batch, width, time steps, frequency rows)
        return self.output(self.layer_norm(patches.flatten(2).transpose(1, 2)))


class BeatsPositionConvolution(nn.Module):
    """Encode each token's place by a wide grouped convolution over the tokens: (batch, tokens, hidden) -> the same."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        kernel_size = config.position_kernel_size
        convolution = nn.Conv1d(
            config.hidden_size,
            config.hidden_size,
            kernel_size,
            padding=kernel_size // 2,
            groups=config.position_groups,
        )
        self.conv = nn.utils.parametrizations.weight_norm(convolution, dim=2)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        num_tokens, maps = hidden_states.shape[1], hidden_states.transpose(1, 2)
        # cuDNN takes 35 ms for a step of 32 clips in bf16, of 48 ms in all (H200); a CPU is about as fast either way.
        positions = convolve_by_fft(self.conv, maps) if maps.is_cuda else self.conv(maps)
        return nn.functional.gelu(positions[..., :num_tokens]).transpose(1, 2)  # an even kernel gives one more


def convolve_by_fft(convolution: nn.Conv1d, maps: torch.Tensor) -> torch.Tensor:
    """Return what a grouped convolution with bias and a padding of half its kernel makes of maps (batch, channels, length).

    As products of spectra, in float32, also under autocast; up to rounding the same, and of the type of `maps`.
    """
    with torch.autocast(maps.device.type, enabled=False):
        kernel, groups, length = convolution.kernel_size[0], convolution.groups, maps.shape[-1]
        size = 1 << (length + kernel - 1).bit_length()  # nothing wraps around
        spectra = torch.fft.rfft(maps.float(), size).unflatten(1, (groups, -1)).permute(1, 3, 0, 2)
        filters = (
            torch.fft.rfft(convolution.weight.float().flip(-1), size).unflatten(0, (groups, -1)).permute(0, 3, 2, 1)
        )
        products = spectra @ filters  # (groups, frequencies, batch, channels of a group)
        sums = torch.fft.irfft(products.permute(2, 0, 3, 1), size).flatten(1, 2)
        first = kernel - 1 - kernel // 2
        return (sums[..., first : first + length] + convolution.bias.float()[:, None]).to(maps.dtype)


class BeatsRelativePositionBias(nn.Module):
    """Give each head a bias for each bucket of distance between two tokens (Raffel et al. 2020, bidirectional).

    Half of the buckets is for tokens ahead, half for tokens behind; half of each half holds one distance per bucket, the
    rest grows logarithmically up to `max_distance`.
    """

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        self.max_distance = config.max_distance
        self.embedding = nn.Embedding(config.num_buckets, config.num_attention_heads)

    def bucket(self, distances: torch.Tensor) -> torch.Tensor:
        """Return the bucket of each signed distance key - query, in tokens; both int64 of any shape."""
        per_side = self.embedding.num_embeddings // 2
        exact = per_side // 2
        absolute = distances.abs()
        growth = torch.log(absolute.clamp_min(exact).float() / exact) / math.log(self.max_distance / exact)
        logarithmic = (exact + (growth * (per_side - exact)).long()).clamp_max(per_side - 1)
        return torch.where(absolute < exact, absolute, logarithmic) + per_side * (distances > 0)

    def forward(self, num_tokens: int) -> torch.Tensor:
        """Return the bias (heads, queries, keys) for `num_tokens` queries and as many keys."""
        distances = torch.arange(1 - num_tokens, num_tokens, device=self.embedding.weight.device)
        by_distance = self.embedding(self.bucket(distances)).T  # (heads, 2 tokens - 1)
        # Query i reads the distances -i ... tokens - 1 - i: a window that starts one place earlier for each query.
        return by_distance.unfold(-1, num_tokens, 1).flip(1)


class BeatsAttention(nn.Module):
    """Attend over the tokens with a relative position bias that each query gates (Chi et al. 2022, XLM-E)."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        self.head_size = config.hidden_size // config.num_attention_heads
        self.dropout = config.attention_dropout
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.gated = config.gru_rel_pos
        if self.gated:
            self.grep_linear = nn.Linear(self.head_size, 8)
            self.grep_a = nn.Parameter(torch.ones(1, config.num_attention_heads, 1, 1))

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_bias: torch.Tensor | None,
        padding_bias: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return (batch, tokens, hidden).

        `position_bias` is (heads, queries, keys); `padding_bias` (batch, 1, 1, keys) is 0 or, at padding, very negative.
        The authors divide the scores by 32 and subtract their maximum against overflow in float16; softmax does not
        see the difference, so the fused attention of torch is used.
        """
        query, key, value = (
            projection(hidden_states).unflatten(-1, (-1, self.head_size)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        bias = position_bias
        if self.gated:
            bias = self.gate(query) * position_bias
        if padding_bias is not None:
            bias = padding_bias if bias is None else bias + padding_bias
        attended = nn.functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=None if bias is None else bias.to(query.dtype),
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def gate(self, query: torch.Tensor) -> torch.Tensor:
        """Return how much each query (batch, heads, tokens, head size) minds positions: (batch, heads, tokens, 1)."""
        update, reset = self.grep_linear(query).unflatten(-1, (2, 4)).sum(dim=-1).sigmoid().split(1, dim=-1)
        return update * (reset * self.grep_a - 1) + 2


class BeatsLayer(GradientCheckpointingLayer):
    """Attention and a two-layer perceptron, each followed by LayerNorm(alpha * residual + output) (DeepNorm)."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        self.alpha = (2 * config.num_hidden_layers) ** 0.25 if config.deep_norm else 1.0
        self.self_attn = BeatsAttention(config)
        self.self_attn_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_bias: torch.Tensor | None,
        padding_bias: torch.Tensor | None,
    ) -> torch.Tensor:
        attended = self.dropout(self.self_attn(hidden_states, position_bias, padding_bias))
        hidden_states = self.self_attn_layer_norm(self.alpha * hidden_states + attended)
        activations = self.activation_dropout(nn.functional.gelu(self.fc1(hidden_states)))
        return self.final_layer_norm(self.alpha * hidden_states + self.dropout(self.fc2(activations)))


class BeatsPreTrainedModel(PreTrainedModel):
    """Initialisation and what Transformers must know of BEATs."""

    config_class = BeatsConfig
    base_model_prefix = "beats"
    main_input_name = "input_values"
    input_modalities = ("audio",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _can_compile_fullgraph = True
    _no_split_modules = ["BeatsLayer"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear) and hasattr(module, "xavier_gain"):
            init.xavier_normal_(module.weight, gain=module.xavier_gain)
        elif isinstance(module, nn.Conv1d):
            magnitude, direction = module.parametrizations.weight.original0, module.parametrizations.weight.original1
            init.normal_(direction, std=math.sqrt(4 / (module.kernel_size[0] * module.in_channels)))
            init.copy_(magnitude, direction.norm(dim=(0, 1), keepdim=True))
        elif isinstance(module, BeatsAttention) and module.gated:
            init.ones_(module.grep_a)


class BeatsModel(BeatsPreTrainedModel):
    """BEATs without a head: log-mel features -> one vector per token."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__(config)
        self.patch_embeddings = BeatsPatchEmbeddings(config)
        self.dropout_input = nn.Dropout(config.input_dropout)
        self.position_convolution = BeatsPositionConvolution(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.position_bias = BeatsRelativePositionBias(config) if config.relative_position_embedding else None
        self.layers = nn.ModuleList([BeatsLayer(config) for _ in range(config.num_hidden_layers)])
        if config.deep_norm:
            self.mark_deep_norm_gains()
        self.post_init()

    def mark_deep_norm_gains(self) -> None:
        """Note at each linear layer the gain that DeepNorm starts it with (Wang et al. 2022, table 2, encoder-only)."""
        beta = (8 * self.config.num_hidden_layers) ** -0.25
        for layer in self.layers:
            attention = layer.self_attn
            attention.q_proj.xavier_gain = attention.k_proj.xavier_gain = 1.0
            for linear in (attention.v_proj, attention.out_proj, layer.fc1, layer.fc2):
                linear.xavier_gain = beta

    def token_mask(self, attention_mask: torch.Tensor, num_tokens: int) -> torch.Tensor:
        """Return which tokens are heard, bool (batch, tokens), from `attention_mask` (batch, frames).

        As in the authors' code the frames are shared out evenly over the tokens in order, although a patch covers
        `patch_size` frames, and a token is padding when all of its share is.
        """
        share = attention_mask.shape[1] // num_tokens
        if share == 0:
            raise ValueError(
                "An attention_mask needs at least one frame per token: leave it out with patches this small."
            )
        return attention_mask[:, : share * num_tokens].unflatten(1, (num_tokens, share)).bool().any(dim=-1)

    def drop_layer(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Return `before`, i.e. skip the layer that gave `after`, with probability `layerdrop`.

        The layer is computed all the same, so that the compiled graph is one, and all processes of a distributed run
        have a gradient for every parameter.
        """
        dropped = torch.rand((), device=before.device) < self.config.layerdrop
        return torch.where(dropped, before, after)

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutput:
        """Return `last_hidden_state` (batch, tokens, hidden) of features (batch, frames, mels).

        `attention_mask` (batch, frames) is 0 at padding. `output_hidden_states` adds what enters the first layer and
        what leaves each.
        """
        hidden_states = self.patch_embeddings(input_values)
        num_tokens = hidden_states.shape[1]
        hidden_states = self.dropout_input(hidden_states)
        padding_bias = None
        if attention_mask is not None:
            heard = self.token_mask(attention_mask, num_tokens)
            hidden_states = hidden_states * heard.unsqueeze(-1)
            lowest = torch.finfo(hidden_states.dtype).min
            padding_bias = torch.where(heard, 0.0, lowest)[:, None, None].to(hidden_states.dtype)
        hidden_states = self.layer_norm(hidden_states + self.position_convolution(hidden_states))
        hidden_states = self.dropout(hidden_states)

        position_bias = None if self.position_bias is None else self.position_bias(num_tokens)
        all_hidden_states = [hidden_states]
        for layer in self.layers:
            after = layer(hidden_states, position_bias, padding_bias)
            dropping = self.training and self.config.layerdrop > 0
            hidden_states = self.drop_layer(hidden_states, after) if dropping else after
            all_hidden_states.append(hidden_states)
        wants_all = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return BaseModelOutput(
            last_hidden_state=hidden_states, hidden_states=tuple(all_hidden_states) if wants_all else None
        )


class BeatsForAudioClassification(BeatsPreTrainedModel):
    """BEATs with a linear layer on every token, whose logits are averaged over the tokens that are heard."""

    accepts_loss_kwargs = False  # the loss is a mean over the batch: the Trainer divides it by accumulation steps

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.beats = BeatsModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
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
        """Return `logits` (batch, classes) of features (batch, frames, mels), and `loss` if `labels` are given.

        `attention_mask` (batch, frames) is 0 at padding. `labels` (batch, classes), floats, are 1 where the class is
        heard (binary cross-entropy; `config.problem_type` can name another task of Transformers).
        """
        outputs = self.beats(
            input_values, attention_mask=attention_mask, output_hidden_states=output_hidden_states, return_dict=True
        )
        token_logits = self.classifier(self.dropout(outputs.last_hidden_state))  # (batch, tokens, classes)
        if attention_mask is None:
            logits = token_logits.mean(dim=1)
        else:
            heard = self.beats.token_mask(attention_mask, token_logits.shape[1]).unsqueeze(-1)
            logits = (token_logits * heard).sum(dim=1) / heard.sum(dim=1)
        loss = None if labels is None else self.loss_function(labels, logits.float(), self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)


__all__ = ["BeatsForAudioClassification", "BeatsModel", "BeatsPreTrainedModel"]
