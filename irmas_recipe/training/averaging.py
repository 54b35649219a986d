"""An exponential moving average of a model's weights, updated in one fused call per step."""

import torch
from torch import nn


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
