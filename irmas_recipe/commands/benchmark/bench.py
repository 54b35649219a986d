"""What is measured: a recipe's model and Trainer on a few clips, and beside them perhaps transformers' example."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel

from irmas_dataset.audio import prepare
from irmas_recipe.commands.benchmark import ours
from irmas_recipe.commands.benchmark.clock import Clock, speed
from irmas_recipe.commands.benchmark.stock import Stock
from irmas_recipe.training.clips import TrainingClips
from irmas_recipe.training.recipe import Recipe
from irmas_recipe.training.trainer import InstrumentTrainer

Speeds = dict[str, dict[str, dict]]
"""Stage -> side (`ours`, `stock`) -> what `clock.speed` returns."""


@dataclass
class Bench:
    """Nothing in here changes while it is measured, except the weights."""

    recipe: Recipe
    splits: DatasetDict
    model: PreTrainedModel
    trainer: InstrumentTrainer
    features: Callable[[torch.Tensor], torch.Tensor]  # waveforms (batch, samples) -> features (batch, frames, mels)
    stock: Stock | None
    repeats: int

    @property
    def clips(self) -> Dataset:
        """The training clips."""
        return self.splits["train"]

    @cached_property
    def paths(self) -> list[str]:
        """The clips' files."""
        return self.clips["path"][:]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.recipe.training.device

    @property
    def clock(self) -> Clock:
        """A stopwatch for the device."""
        return Clock(self.device)

    @property
    def batch(self) -> int:
        """Clips per batch."""
        return self.recipe.training.per_device_train_batch_size

    @property
    def rate(self) -> int:
        """The model's sampling rate in Hz."""
        return self.trainer.processing_class.sampling_rate

    @property
    def window_samples(self) -> int:
        """The length of a window."""
        return round(self.recipe.data.window_seconds * self.rate)

    @property
    def precision(self) -> str:
        """In which numbers ours is trained: bf16, fp16 or fp32."""
        training = self.recipe.training
        return "bf16" if training.bf16 else "fp16" if training.fp16 else "fp32"

    def prepared_clips(self) -> TrainingClips:
        """Return the clips decoded and resampled, from the cache if they are there."""
        return TrainingClips(prepare(self.clips, self.rate, num_proc=1), self.window_samples)

    @cached_property
    def inputs(self) -> torch.Tensor:
        """The features (batch, frames, mels) of the first batch, on the device."""
        waveforms = next(ours.read_batches(self.prepared_clips(), self.batch))
        return self.features(waveforms.to(self.device).float() / 2**15)

    def times(
        self, task: Callable, stocks_task: Callable | None = None, before: Callable | None = None
    ) -> dict[str, list[float]]:
        """Return the seconds of each call of our task, and of stock's in turns with it, after one call to warm up.

        `before` is called before every round and not timed.
        """
        contestants = {"ours": task} | ({"stock": stocks_task} if stocks_task else {})
        for contestant in contestants.values():
            contestant()
        return self.clock.race(contestants, self.repeats, before)

    def speeds(
        self, clips: int, task: Callable, stocks_task: Callable | None = None, before: Callable | None = None
    ) -> dict[str, dict]:
        """Return the speed of our task, which does something for `clips` clips, and of stock's in turns with it."""
        return {side: speed(seconds, clips) for side, seconds in self.times(task, stocks_task, before).items()}


def build_bench(recipe: Recipe, splits: DatasetDict, repeats: int, against_stock: bool) -> Bench:
    """Build the recipe's model and Trainer on the clips, as for a run, and stock's beside them if asked."""
    model, trainer = ours.build(recipe, splits)
    stock = Stock(model.config, trainer.processing_class, recipe.training.device) if against_stock else None
    return Bench(recipe, splits, model, trainer, trainer.features, stock, repeats)
