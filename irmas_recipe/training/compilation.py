"""torch.compile, block by block: one of a network's repeated blocks is compiled, and the others reuse it."""

from collections.abc import Callable

import torch
from torch import nn
from torch._inductor.async_compile import maybe_warm_pool

FEWEST_BLOCKS = 3  # a shorter stack is compiled as part of the whole network
FASTEST = {"triton.mix_order_reduction": False}
"""The gradients of layer norms' weights get kernels of their own. Fused with those of the inputs, as torch 2.11 does by
default, both take 1.9 ms of AST-base's step of 18 ms at 32 clips on an H200; apart 1.2 ms."""


def compile_blocks(model: nn.Module, mode: str | None = None, backend: str | Callable = "inductor") -> int:
    """Compile the model's repeated block in place, or all of a model that has none; return how many modules that are.

    Compiling the whole of AST-base takes four times as long and gives the same speed (RESULTS.md). Names of weights and
    what is saved stay as they are.

    mode, backend: of torch.compile.
    """
    modules = repeated_blocks(model) or [model]
    if backend == "inductor" and torch.cuda.is_available():
        maybe_warm_pool()  # of processes that compile, which would start when the first of them is needed
    options = {"mode": mode} if mode or backend != "inductor" else {"options": FASTEST}
    for module in modules:
        module.compile(dynamic=False, backend=backend, **options)
    return len(modules)


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the longest list of modules of one class and shape, which one compiled graph serves; empty for none.

    A block of another kind, as AST's last layer or WavLM's first, is left out: it would take as long to compile as all others.
    """
    stacks = []
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module):
            kinds = [kind(block) for block in module]
            stacks.append([block for block in module if kind(block) == max(kinds, key=kinds.count)])
    longest = max(stacks, key=len, default=[])
    return longest if len(longest) >= FEWEST_BLOCKS else []


def kind(block: nn.Module) -> tuple:
    """Return what two blocks that share a graph have in common: their class and the shapes of their weights."""
    return type(block), tuple(tensor.shape for tensor in block.state_dict().values())
