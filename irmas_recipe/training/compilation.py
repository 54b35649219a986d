"""torch.compile, block by block: one of a network's repeated blocks is compiled, and the others reuse it."""

from collections.abc import Callable

from torch import nn

FEWEST_BLOCKS = 3  # a shorter stack is compiled as part of the whole network


def compile_blocks(model: nn.Module, mode: str | None = None, backend: str | Callable = "inductor") -> int:
    """Compile the model's repeated blocks in place, or all of a model that has none; return how many modules that are.

    Compiling the whole of AST-base takes four times as long and gives the same speed (RESULTS.md). Names of weights and
    what is saved stay as they are.

    mode, backend: of torch.compile.
    """
    modules = repeated_blocks(model) or [model]
    for module in modules:
        module.compile(dynamic=False, mode=mode, backend=backend)
    return len(modules)


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the longest list of modules of one class, without those of a class that extends it.

    AST's last layer is such a one: a second graph would take as long to compile as the first and serve one layer.
    """
    stacks = [
        module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) >= FEWEST_BLOCKS
    ]
    stacks = [stack for stack in stacks if all(isinstance(block, type(stack[0])) for block in stack)]
    longest = list(max(stacks, key=len, default=[]))
    return [block for block in longest if type(block) is type(longest[0])]
