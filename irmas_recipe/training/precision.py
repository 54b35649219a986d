"""Evaluation in full precision, whatever precision training has."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def full_precision(model: torch.nn.Module) -> Iterator[None]:
    """Remove, for a while, the autocast that accelerate wraps around a model's `forward` for mixed precision.

    Nor is anything compiled: for evaluation's shapes and precision that would take seconds and gain 2 % (RESULTS.md).
    The conformers of transformers keep their table of positions in whatever precision they were last called with; it is
    made again, so that the model scores as it will when it is loaded.
    """
    for module in model.modules():
        if hasattr(module, "extend_pe") and module.pe is not None and module.pe.dtype != torch.float32:
            module.pe = None
    mixed = vars(model).get("forward")
    with torch.compiler.set_stance("force_eager"):
        if mixed is None or not hasattr(model, "_original_forward"):
            yield
            return
        model.forward = model._original_forward
        try:
            yield
        finally:
            model.forward = mixed
