"""Configuration of the networks that Reghunath and Rajan fed with mel, group delay and tempogram images."""

from typing import Any

from transformers import PreTrainedConfig

NETWORKS = ("cnn_gru", "swin")


class CrnnConfig(PreTrainedConfig):
    """Which network looks at the image, and its sizes. The feature extractor decides what the image shows.

    - `network`: `cnn_gru` (CMMR 2021; the layers are not published: Han 2017's blocks, then a bidirectional GRU over
      time) or `swin` (2022: Swin-T).
    - `filters`, `block_dropout`: of the convolution blocks; `gru_hidden_size`: of each direction.
    - `frame_stride`: how many frames the first convolution steps over. Two of the extractor's 10 ms come close to Han's
      23 ms, for which his blocks were made, and halve the work.
    - `dropout`: before the output layer, of both networks.
    - `swin`: fields of transformers' SwinConfig that differ from Swin-T, such as `{"drop_path_rate": 0.2}`. The image
      has one channel and is resized to Swin's `image_size`, 224 x 224.
    """

    model_type = "irmas_crnn"

    network: str = "cnn_gru"
    filters: list[int] | tuple[int, ...] = (32, 64, 128, 256)
    block_dropout: float = 0.25
    frame_stride: int = 2
    gru_hidden_size: int = 128
    dropout: float = 0.5
    swin: dict | None = None
    problem_type: str | None = "multi_label_classification"

    def __post_init__(self, **kwargs: Any) -> None:
        if self.network not in NETWORKS:
            raise ValueError(f"Unknown network '{self.network}': choose one of {', '.join(NETWORKS)}.")
        super().__post_init__(**kwargs)
