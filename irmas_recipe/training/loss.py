"""The loss of several labels at once, of which some may not be known."""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits


def multi_label_loss(logits: torch.Tensor, labels: torch.Tensor, known: torch.Tensor | None = None) -> torch.Tensor:
    """Return the binary cross-entropy of the known labels, summed and divided by the number of all labels.

    So it is divided as in PaSST's training on OpenMIC: by a number that does not depend on the batch, so that one batch of
    eight and two of four give the same gradients.

    Args:
        logits: (batch, classes).
        labels: (batch, classes), 0 to 1; -1 stands for a label that is not known.
        known: (batch, classes), False where a label is not known. Default: where it is not -1.
    """
    known = labels >= 0 if known is None else known
    losses = binary_cross_entropy_with_logits(logits, labels.clamp_min(0).to(logits.dtype), reduction="none")
    return losses.where(known, 0).mean()
