"""Averages of weights: over the steps of a training, in one fused call for each, between its start and its end, and of runs."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

AVERAGE_FILE = "averaged.safetensors"
"""Inside each checkpoint of a run that averages its weights."""


class WeightAverage:
    """The average of a model's weights and buffers: average = decay * average + (1 - decay) * weights.

    The decay warms up as min(decay, (1 + n) / (10 + n)) after n updates, as in TensorFlow's ExponentialMovingAverage:
    a constant one would keep decay ** steps of the first weights, which is half of a short run. Integer buffers are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """`model` must stay on its device, and its parameters the same tensors, as long as it is averaged."""
        self.decay, self.updates = decay, 0
        self.live = model.state_dict()
        self.average = {name: tensor.detach().clone() for name, tensor in self.live.items()}
        floating = [name for name, tensor in self.live.items() if tensor.is_floating_point()]
        self.counts = [name for name in self.live if name not in set(floating)]
        self.pairs = [self.average[name] for name in floating], [self.live[name] for name in floating]

    @torch.no_grad()
    def update(self) -> None:
        """Take the model's present weights into the average."""
        averages, weights = self.pairs
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(averages, weights, 1 - decay)
        for name in self.counts:
            self.average[name].copy_(self.live[name])
        self.updates += 1

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the averaged weights by name, and the number of updates as `n_averaged`."""
        return self.average | {"n_averaged": torch.tensor(self.updates)}

    def load_state_dict(self, saved: dict[str, torch.Tensor]) -> None:
        """Restore what `state_dict` returned, strictly."""
        saved = dict(saved)
        self.updates = int(saved.pop("n_averaged"))
        if saved.keys() != self.average.keys():
            raise ValueError(f"the average holds other weights: {sorted(saved.keys() ^ self.average.keys())[:3]}")
        for name, tensor in saved.items():
            self.average[name].copy_(tensor)


class WeightAveraging(TrainerCallback):
    """Keeps the Trainer's average of the weights: updated after each optimizer step, in place of them at the end."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.average = WeightAverage(self.trainer.model, args.averaging_decay)
        self.trainer.load_average(self.trainer.resumed_from)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.trainer.average.update()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.use_average()


def use_average_of(checkpoint: Path | str, model: nn.Module) -> None:
    """Set the weights to the average in a checkpoint, where it has one: that is what was evaluated there."""
    file = Path(checkpoint, AVERAGE_FILE)
    if file.is_file():
        averaged = load_file(file)
        averaged.pop("n_averaged")
        model.load_state_dict(averaged)


def interpolate(model: torch.nn.Module, initial: dict[str, torch.Tensor], initial_weight: float) -> None:
    """Set the weights to `initial_weight * initial + (1 - initial_weight) * trained` (WiSE-FT, Wortsman 2022)."""
    trained = model.state_dict()
    for name, tensor in trained.items():
        if tensor.is_floating_point():
            tensor.lerp_(initial[name].to(tensor.device), initial_weight)


def average(model: torch.nn.Module, others: list[dict[str, torch.Tensor]]) -> None:
    """Set the weights to the mean of the model's and those of other runs (a model soup, Wortsman 2022)."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.stack([tensor, *(other[name].to(tensor.device) for other in others)]).mean(dim=0))
