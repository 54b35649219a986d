"""Configuration of a classifier on top of an encoder."""

from typing import Any

from transformers import PreTrainedConfig


class EncoderConfig(PreTrainedConfig):
    """Which encoder, and what the output layer sees of it.

    Args:
        encoder: the encoder's own configuration, with its `model_type`.
        pooling: `layers`, the mean over time of a learned mixture of the layers, or `projection`, CLAP's normalised
            embedding, to which texts can be compared.
        mixed_layers: how many layers are mixed: the last ones, of one width.
        embedding_size: width of what the output layer sees.
    """

    model_type = "irmas_encoder"

    def __init__(
        self,
        encoder: dict | PreTrainedConfig | None = None,
        pooling: str = "layers",
        mixed_layers: int = 1,
        embedding_size: int = 768,
        **kwargs: Any,
    ) -> None:
        self.encoder = encoder
        self.pooling, self.mixed_layers, self.embedding_size = pooling, mixed_layers, embedding_size
        super().__init__(**kwargs)

    @property
    def brings_code(self) -> bool:
        """Whether the encoder's code comes with its files instead of with transformers."""
        own = self.encoder or {}
        return bool(own.get("auto_map") if isinstance(own, dict) else getattr(own, "auto_map", None))
