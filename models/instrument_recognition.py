"""Windows, aggregation and the `instrument-recognition` pipeline: one file, stored beside every saved model."""

import numpy as np
import torch

AGGREGATIONS = ("mean", "max", "mean_probability", "s1", "s2")


def window_starts(num_samples: int, window: int, hop: int) -> list[int]:
    """Return where the windows of a clip begin: 0, hop, 2 hop, ..., and a last one aligned to the clip's end.

    All three are counted in samples (or in any other unit, as long as it is one). A clip that is no longer than the
    window gives `[0]`.
    """
    if window < 1 or hop < 1:
        raise ValueError(f"A window of {window} samples every {hop} samples is not possible; both must be positive.")
    if num_samples <= window:
        return [0]
    last = num_samples - window
    return [*range(0, last, hop), last]


def aggregate(logits: torch.Tensor | np.ndarray, how: str = "mean") -> np.ndarray:
    """Return one score in [0, 1] a class from the logits (windows, classes) of a clip's windows.

    - `mean`: sigmoid of the mean logit (the default of this project).
    - `max`: sigmoid of the largest logit.
    - `mean_probability`: mean of the sigmoids; `s1` (Han, Kim and Lee 2017, strategy 1) is the same figure.
    - `s2` (Han, Kim and Lee 2017, strategy 2): class-wise sum of the sigmoids divided by its maximum over the classes.

    Raises ValueError for any other name. Returns float32 (classes,).
    """
    logits = torch.as_tensor(logits).detach().to("cpu", torch.float64)
    if how == "mean":
        scores = torch.sigmoid(logits.mean(dim=0))
    elif how == "max":
        scores = torch.sigmoid(logits.max(dim=0).values)
    elif how in ("mean_probability", "s1"):
        scores = torch.sigmoid(logits).mean(dim=0)
    elif how == "s2":
        sums = torch.sigmoid(logits).sum(dim=0)
        scores = sums / sums.max().clamp_min(torch.finfo(sums.dtype).tiny)
    else:
        raise ValueError(f"Unknown aggregation '{how}'; choose one of {', '.join(AGGREGATIONS)}.")
    return scores.to(torch.float32).numpy()
