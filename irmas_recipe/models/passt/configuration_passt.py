"""Configuration of PaSST."""

from transformers import PreTrainedConfig


class PasstConfig(PreTrainedConfig):
    """Sizes of PaSST and what it drops in training; the defaults are the released `passt_s`, stride 10.

    - `max_frames`: frames of the clips that the model was made for (998 = 10 s). Its time encoding has
      `max_frames // time_stride` positions, its frequency encoding `num_mel_bins // frequency_stride`.
    - `patchout_time`, `patchout_frequency`: columns and rows of the patch grid dropped in training (structured
      patchout); `patchout_tokens`: patches dropped in training from those that remain (unstructured patchout).
    - `drop_path_rate`: stochastic depth of the last layer; it grows linearly from 0 at the first.
    - `hidden_dropout_prob`, `attention_probs_dropout_prob`, `head_dropout`: the last acts before the output layer.

    Source: Koutini et al., "Efficient Training of Audio Transformers with Patchout", 2022 (arXiv 2110.05069).
    """

    model_type = "irmas_passt"

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    layer_norm_eps: float = 1e-6
    num_mel_bins: int = 128
    patch_size: int = 16
    frequency_stride: int = 10
    time_stride: int = 10
    max_frames: int = 998
    patchout_time: int = 0
    patchout_frequency: int = 0
    patchout_tokens: int = 0
    drop_path_rate: float = 0.0
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    head_dropout: float = 0.0
    initializer_range: float = 0.02
    problem_type: str | None = "multi_label_classification"
