"""A model's stack of layers, and the optimizer's groups: a lower rate for lower layers, weight decay on weights alone."""

import re

import torch
from transformers import PreTrainedModel

NUMBERED = re.compile(r"(.*?\blayers?)\.(\d+)\.")
ABOVE_LAYERS = ("layer_weights",)  # a parameter of the whole model, which torch lists before everything else

LAYER_DROP = ("layerdrop", "encoder_layerdrop")
"""What configurations call it."""
NOT_ALL_USED = ("unispeech-sat", "wav2vec2-conformer")
"""Architectures of transformers with parameters that they never use."""


def layer_stack(model: torch.nn.Module) -> str | None:
    """Return the name of the model's stack of layers, a list `layers` or `layer`: that with the most parameters, None for none."""
    sizes: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if numbered := NUMBERED.match(name):
            sizes[numbered[1]] = sizes.get(numbered[1], 0) + parameter.numel()
    return max(sizes, key=sizes.get, default=None)


def parameter_groups(
    model: torch.nn.Module, decayed: set[str], learning_rate: float, weight_decay: float, layer_decay: float
) -> list[dict]:
    """Return one optimizer group for each depth, split into parameters with and without weight decay.

    Depth 0 is what comes before the first layer of the model's stack, then one for each layer, then the rest (the head).
    A group's rate is `learning_rate * layer_decay ** (deepest - depth)` (BEiT, Bao 2021); the highest comes first.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    names, stack = list(parameters), layer_stack(model)
    numbers = [int(found[2]) if (found := NUMBERED.match(name)) and found[1] == stack else None for name in names]
    deepest = max((number for number in numbers if number is not None), default=-1) + 2
    last_of_layers = max((i for i, number in enumerate(numbers) if number is not None), default=-1)
    groups: dict[tuple[int, bool], dict] = {}
    for i, (name, number) in enumerate(zip(names, numbers, strict=True)):
        is_above = i > last_of_layers or name in ABOVE_LAYERS
        depth = number + 1 if number is not None else (deepest if is_above else 0)
        decays = name in decayed and is_weight_of_a_layer(model, name)
        group = {
            "params": [],
            "lr": learning_rate * layer_decay ** (deepest - depth),
            "weight_decay": weight_decay if decays else 0.0,
        }
        groups.setdefault((depth, decays), group)["params"].append(parameters[name])
    return sorted(groups.values(), key=lambda group: -group["lr"])  # the Trainer logs the rate of the first


def is_weight_of_a_layer(model: torch.nn.Module, name: str) -> bool:
    """Tell whether a parameter multiplies its input: no bias, norm, class token or embedding of positions."""
    owner, _, leaf = name.rpartition(".")
    is_embedding = isinstance(model.get_submodule(owner), torch.nn.Embedding)
    return leaf.startswith(("weight", "original")) and model.get_parameter(name).ndim > 1 and not is_embedding


def may_leave_parameters_out(model: PreTrainedModel) -> bool:
    """Tell whether a step may give some parameter no gradient: several processes must then look for such parameters."""
    own = getattr(model.config, "encoder", None) or model.config
    return own.model_type in NOT_ALL_USED or any(getattr(own, name, None) for name in LAYER_DROP)
