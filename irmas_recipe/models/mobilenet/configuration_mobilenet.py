"""Configuration of the audio MobileNet."""

from transformers import PreTrainedConfig


class MobileNetAudioConfig(PreTrainedConfig):
    """MobileNetV3-large on spectrograms; the defaults are the released `mn10`.

    - `width_mult`: scales the channels of every layer: 0.1, 0.2, 0.4, 0.5, 1, 2, 3 and 4 were released (mn01 to mn40).
    - `head_dropout`: dropout before the output layer.

    Source: Schmid, Koutini and Widmer, "Efficient Large-Scale Audio Tagging via Transformer-to-CNN Knowledge
    Distillation", 2023 (arXiv 2211.04772).
    """

    model_type = "irmas_mobilenet"

    width_mult: float = 1.0
    head_dropout: float = 0.2
    problem_type: str | None = "multi_label_classification"
