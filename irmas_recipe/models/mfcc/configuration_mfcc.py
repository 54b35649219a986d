"""Configuration of the networks of Blaszke and Kostek."""

from transformers import PreTrainedConfig


class MfccConfig(PreTrainedConfig):
    """Sizes of the sub-networks, one per label, and which of them learn.

    - `num_mfcc`: coefficients of the shared input.
    - `filters`: filters of each block of a sub-network; `dense_sizes`: widths of its dense layers. The paper gives
      two to three blocks and dense layers of 64 and 32; the numbers of filters are this project's choice.
    - `label_filters`: label -> `filters` of its own, for a sub-network of another size.
    - `trainable_labels`: labels whose sub-networks learn, the others being frozen; None = all.
    """

    model_type = "irmas_mfcc"

    num_mfcc: int = 40
    filters: list[int] | tuple[int, ...] = (16, 32, 64)
    dense_sizes: list[int] | tuple[int, ...] = (64, 32)
    label_filters: dict[str, list[int]] | None = None
    trainable_labels: list[str] | None = None
    problem_type: str | None = "multi_label_classification"
