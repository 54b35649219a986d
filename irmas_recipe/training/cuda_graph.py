"""A training step as two CUDA graphs, its passes and its update: the CPU launches each once instead of all their kernels.

At 32 clips the CPU needs longer to launch AST-base's kernels than a large GPU to run them (RESULTS.md, "Speed").
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch
from transformers import PreTrainedModel

from irmas_recipe.training.training_arguments import IrmasTrainingArguments

logger = logging.getLogger(__name__)

Batch = dict[str, torch.Tensor]
Tensors = tuple[torch.Tensor, ...]
DECIDE_ON_DEVICE = (
    "audio-spectrogram-transformer", "irmas_beats", "irmas_cnn", "irmas_crnn", "irmas_mfcc", "irmas_mobilenet", "irmas_passt"
)  # fmt: skip
"""Model types whose training draws everything on the device; others may drop a layer by a number drawn on the CPU."""
EAGER_STEPS = 3  # before the capture: they compile, choose kernels and fill caches


class GraphedStep:
    """A function of a batch that returns tensors and leaves gradients; captured after a few calls, then replayed.

    What it draws at random must come from the device's generator: then every replay draws anew, from the generator's
    seed, as it would uncaptured. What it decides on the CPU is decided once. A batch of another shape, and every batch if
    the step cannot be captured, is computed without the graph.
    """

    def __init__(self, step: Callable[[Batch], Tensors], parameters: Iterable[torch.nn.Parameter]) -> None:
        """`step` maps tensors on the device to others, such as a loss (); the parameters must stay the same tensors."""
        self.step, self.parameters = step, list(parameters)
        self.stream = torch.cuda.Stream()  # autograd remembers on which stream it accumulates, so that it must be one
        self.calls, self.graph = 0, None

    def __call__(self, batch: Batch) -> Tensors:
        """Return what the step makes of a batch, and add its gradients to those that the parameters have."""
        self.calls += 1
        if self.calls == EAGER_STEPS + 1:
            self.capture(batch)
        if self.graph is None or shapes(batch) != shapes(self.batch):
            return self.aside(batch)
        earlier = [parameter.grad.clone() for parameter in self.trained if parameter.grad is not None]
        for name, tensor in self.batch.items():
            tensor.copy_(batch[name])
        self.graph.replay()
        for parameter, gradient in zip(self.trained, self.gradients, strict=True):
            parameter.grad = gradient
        if earlier:  # of the micro-batches before this one
            torch._foreach_add_(self.gradients, earlier)
        return tuple(tensor.clone() for tensor in self.results)

    def aside(self, batch: Batch) -> Tensors:
        """Compute a step without the graph, on the stream of the capture."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            results = self.step(batch)
        torch.cuda.current_stream().wait_stream(self.stream)
        return results

    def capture(self, batch: Batch) -> None:
        """Record the step on a copy of the batch; the gradients that the parameters have are kept."""
        kept = [parameter.grad for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None
        self.batch = {name: tensor.clone() for name, tensor in batch.items()}

        def record() -> None:
            self.results = self.step(self.batch)

        self.graph = captured(record, self.stream)
        if self.graph is not None:
            self.trained = [parameter for parameter in self.parameters if parameter.grad is not None]
            self.gradients = [parameter.grad for parameter in self.trained]
        for parameter, gradient in zip(self.parameters, kept, strict=True):
            parameter.grad = gradient


class GraphedAdamW(torch.optim.AdamW):
    """AdamW whose step is captured after a few, and replayed wherever the gradients lie where they lay then.

    Only the learning rates may change between steps. What is saved and loaded is AdamW's own.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls, self.graph = 0, None

    def step(self, closure: None = None) -> None:
        """Take a step; its closure, which torch's optimizers can call, is not used."""
        self.calls += 1
        if self.calls == EAGER_STEPS + 1:
            self.capture()
        if self.graph is None or self.gradients() != self.captured_gradients:
            super().step()
            return
        # From memory that is not pinned, the copy would wait for everything that the GPU has yet to do.
        self.rates.copy_(self.present_rates().pin_memory(), non_blocking=True)
        self.graph.replay()

    def capture(self) -> None:
        """Record a step with learning rates that are read from the device."""
        self.rates = self.present_rates().to(self.param_groups[0]["params"][0].device)
        self.captured_gradients = self.gradients()
        kept = [{name: group[name] for name in ("lr", "capturable")} for group in self.param_groups]
        for group, rate in zip(self.param_groups, self.rates.unbind(), strict=True):
            group.update(lr=rate, capturable=True)
        self.graph = captured(super().step)
        for group, own in zip(self.param_groups, kept, strict=True):
            group.update(own)

    def present_rates(self) -> torch.Tensor:
        """Return the groups' learning rates (groups,)."""
        return torch.tensor([group["lr"] for group in self.param_groups])

    def gradients(self) -> list[int | None]:
        """Return where each parameter's gradient lies in memory, None where it has none."""
        parameters = (parameter for group in self.param_groups for parameter in group["params"])
        return [None if parameter.grad is None else parameter.grad.data_ptr() for parameter in parameters]


def captured(function: Callable[[], Any], stream: torch.cuda.Stream | None = None) -> torch.cuda.CUDAGraph | None:
    """Return a CUDA graph of what the function does on the device; None, with a warning, where it cannot be captured."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=stream):
            function()
    except RuntimeError as error:
        said = str(error).split("\n")[0]
        logger.warning("A step cannot be captured as a CUDA graph (%s) and runs without.", said)
        return None
    return graph


def suits_a_graph(model: PreTrainedModel, arguments: IrmasTrainingArguments) -> bool:
    """Return whether the recipe asks for a graph, or does not say and the model and the machine suit one."""
    if arguments.cuda_graph is not None:
        return arguments.cuda_graph
    fixed = not (arguments.fp16 or arguments.gradient_checkpointing)  # both look at values, or at the generator's state
    one_gpu = arguments.device.type == "cuda" and arguments.world_size == 1
    return one_gpu and fixed and model.config.model_type in DECIDE_ON_DEVICE


def shapes(batch: Batch) -> dict[str, tuple]:
    """Return each tensor's shape and type."""
    return {name: (tensor.shape, tensor.dtype) for name, tensor in batch.items()}
