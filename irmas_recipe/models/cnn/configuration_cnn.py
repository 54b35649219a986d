"""Configuration of the convolutional networks."""

from typing import Any

from transformers import PreTrainedConfig

FILTERS = {"han2017": [32, 64, 128, 256], "spectrogram_image": [32, 64], "mobilenet_v1": []}
HIDDEN_SIZE = {"han2017": 1024, "spectrogram_image": 128, "mobilenet_v1": 1024}


class CnnConfig(PreTrainedConfig):
    """Which convolutional network, and its sizes; the defaults are the published ones.

    - `architecture`: `han2017` (Han, Kim and Lee, "Deep Convolutional Neural Networks for Predominant Instrument
      Recognition in Polyphonic Music", 2017), `spectrogram_image` (the network of TensorFlow's audio recognition
      tutorial) or `mobilenet_v1` (Howard 2017; the network of Instronizer, which fed it 3 s of 224 mel bands).
    - `filters`: filters of each block (`han2017`) or of each convolution (`spectrogram_image`); None: as published.
    - `hidden_size`: width of the dense layer before the output; None: as published. `mobilenet_v1` has no such
      layer: there it is the width of the last convolution, 1024 times `width_multiplier`.
    - `block_dropout`, `dropout`: after each pooling, and before the output layer.
    - `image_size`: frames and mel bands after resizing (`spectrogram_image` only).
    - `width_multiplier`: scales every layer of `mobilenet_v1`.
    """

    model_type = "irmas_cnn"

    architecture: str = "han2017"
    filters: list[int] | None = None
    hidden_size: int | None = None
    block_dropout: float = 0.25
    dropout: float = 0.5
    image_size: list[int] | tuple[int, int] = (32, 32)
    width_multiplier: float = 1.0
    problem_type: str | None = "multi_label_classification"

    def __post_init__(self, **kwargs: Any) -> None:
        if self.architecture not in FILTERS:
            raise ValueError(f"Unknown architecture '{self.architecture}': choose one of {', '.join(FILTERS)}.")
        if self.filters is None:
            self.filters = FILTERS[self.architecture]
        if self.architecture == "mobilenet_v1":
            self.hidden_size = max(8, int(HIDDEN_SIZE["mobilenet_v1"] * self.width_multiplier))
        elif self.hidden_size is None:
            self.hidden_size = HIDDEN_SIZE[self.architecture]
        super().__post_init__(**kwargs)
