"""Configuration of BEATs (Chen et al. 2022, https://arxiv.org/abs/2212.09058)."""

from typing import Any

from transformers import PreTrainedConfig


class BeatsConfig(PreTrainedConfig):
    """What shapes a BEATs model; the defaults are the released 90 M checkpoints.

    - `patch_size`: side of a square patch, in frames and in mel bins. `patch_embedding_size`, `patch_bias`: width and
      bias of the convolution that embeds it.
    - `hidden_size`, `num_hidden_layers`, `num_attention_heads`, `intermediate_size`: the Transformer.
    - `deep_norm`: scale the residual by (2 layers)^(1/4) before each post-norm (DeepNorm, Wang et al. 2022).
    - `position_kernel_size`, `position_groups`: the convolution over tokens that encodes position.
    - `relative_position_embedding`, `num_buckets`, `max_distance`: an attention bias per head and bucket of distance
      between tokens (Raffel et al. 2020), shared by all layers. `gru_rel_pos`: gate it by the query (Chi et al. 2022).
    - `hidden_dropout`, `attention_dropout`, `activation_dropout`, `input_dropout`, `classifier_dropout`, `layerdrop`:
      probabilities, in training only.
    - `pretrained_head`: whether the checkpoint that this model was converted from brought a classification head. Where
      it is False, the head as converted is untrained.

    Raises ValueError if the sizes do not fit each other.
    """

    model_type = "irmas_beats"

    patch_size: int = 16
    patch_embedding_size: int = 512
    patch_bias: bool = False
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    layer_norm_eps: float = 1e-5
    deep_norm: bool = True
    position_kernel_size: int = 128
    position_groups: int = 16
    relative_position_embedding: bool = True
    gru_rel_pos: bool = True
    num_buckets: int = 320
    max_distance: int = 800
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    input_dropout: float = 0.0
    classifier_dropout: float = 0.0
    layerdrop: float = 0.0
    initializer_range: float = 0.02
    pretrained_head: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        for divisor in ("num_attention_heads", "position_groups"):
            if self.hidden_size % getattr(self, divisor):
                raise ValueError(f"hidden_size ({self.hidden_size}) must be a multiple of {divisor}.")
        if self.gru_rel_pos and not self.relative_position_embedding:
            raise ValueError("gru_rel_pos gates the relative positions: it needs relative_position_embedding.")
        if self.relative_position_embedding and not 1 <= self.num_buckets // 4 < self.max_distance:
            raise ValueError("num_buckets must be at least 4, and max_distance greater than a quarter of num_buckets.")
