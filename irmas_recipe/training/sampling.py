"""Which training clips an epoch has, and in which order."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class EpochSampler(Sampler[tuple[int, int]]):
    """A shuffled order of the training clips, the same on every process, for a seed and an epoch.

    `balanced` draws clips with replacement so that every class is drawn equally often. The epoch is cut to a whole
    number of optimizer steps: a smaller last one would compile a second graph and weigh its clips more. An item is
    (row, draw): the clip, and a number that no other draw of the run has, which seeds what is random about it. So a clip
    that is drawn twice differs, and so does every epoch, whichever process or worker loads it.
    """

    def __init__(self, labels: torch.Tensor, seed: int, multiple_of: int, balanced: bool = False) -> None:
        """`labels` is (clips, classes), 1 where a clip has the class."""
        self.labels, self.seed, self.balanced = labels, seed, balanced
        self.length = len(labels) // multiple_of * multiple_of or len(labels)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the order."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(self.seed * 100003 + self.epoch)
        rows = self.balanced_rows(generator) if self.balanced else torch.randperm(len(self.labels), generator=generator)
        first_draw = self.epoch * self.length
        return zip(rows[: self.length].tolist(), range(first_draw, first_draw + self.length), strict=True)

    def balanced_rows(self, generator: torch.Generator) -> torch.Tensor:
        """Return rows (draws,), with replacement, in which every class is equally frequent."""
        present = (self.labels == 1).float()
        clip_weight = (present / present.sum(dim=0).clamp_min(1)).sum(dim=1) / present.sum(dim=1).clamp_min(1)
        return torch.multinomial(clip_weight, self.length, replacement=True, generator=generator)


class EpochOfClips(TrainerCallback):
    """Tells the sampler, or the stream, of training clips which epoch comes next.

    The Trainer tells no stream, and no sampler either where several processes resume in the middle of an epoch.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        clips = self.trainer.epoch_sampler or self.trainer.train_dataset
        clips.set_epoch(int(state.epoch or 0))
