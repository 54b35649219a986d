"""Attention without a mask that nothing needs, so that the fastest kernels can run, compiled or not.

While torch.compile traces a model, transformers builds an attention mask of ones, which it skips in eager mode. With a
mask, `scaled_dot_product_attention` cannot use flash attention and the compiler writes attention out as matrix products:
on an H100 a compiled step of AST-base at 32 clips is then no faster than an eager one (RESULTS.md).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "sdpa_unless_padded"
FASTEST_FIRST = [
    SDPBackend.CUDNN_ATTENTION,  # 1.0 ms forward and backward at AST-base's shape with 128 clips on an H100
    SDPBackend.FLASH_ATTENTION,  # 1.5 ms
    SDPBackend.EFFICIENT_ATTENTION,  # 2.2 ms
    SDPBackend.MATH,
]


def mask_only_padding(*args: Any, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor | None:
    """Return transformers' mask of padded positions, or None where nothing is padded."""
    return None if attention_mask is None else sdpa_mask(*args, attention_mask=attention_mask, **kwargs)


def attend_without_mask(model: PreTrainedModel) -> None:
    """Let a model that uses `sdpa` build no mask unless it is given padding; its logits stay the same.

    Nothing of this is saved with the model. A model with an attention of its own is left as it is.
    """
    ALL_ATTENTION_FUNCTIONS.register(NAME, sdpa_attention_forward)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, mask_only_padding)
    if model.config._attn_implementation == "sdpa" and model._supports_sdpa:
        model.set_attn_implementation(NAME)


@contextmanager
def fastest_attention(device: torch.device) -> Iterator[None]:
    """Prefer the attention kernels that were measured to be the fastest on this kind of device."""
    if device.type != "cuda":
        yield
        return
    with sdpa_kernel(FASTEST_FIRST, set_priority=True):
        yield
