"""transformers' TrainingArguments with this project's fields and defaults."""

import logging
from dataclasses import dataclass

import torch
from transformers import TrainingArguments

from irmas_dataset.errors import UserError
from irmas_recipe.training.fields import TrainingFields

logger = logging.getLogger(__name__)


@dataclass
class IrmasTrainingArguments(TrainingFields, TrainingArguments):
    """Every field of the Trainer; ours are in `TrainingFields`."""

    def __post_init__(self) -> None:
        cuda = torch.cuda.is_available() and not self.use_cpu
        if self.bf16 is None:
            self.bf16 = not self.fp16 and (torch.cuda.is_bf16_supported() if cuda else cpu_multiplies_bf16())
        if self.bf16 and not torch.cuda.is_available():
            self.use_cpu = True  # transformers refuses bf16 on a CPU that it was not told to use
        # The blocks are compiled before the Trainer sees the model; it would compile the whole.
        self.compile_model = cuda if self.torch_compile is None else self.torch_compile
        self.torch_compile = False
        self.dataloader_persistent_workers = self.dataloader_num_workers > 0
        self.dataloader_pin_memory = self.dataloader_pin_memory and cuda
        # The run folder is pushed once, when it is finished: the Trainer's own push would upload checkpoints and its card.
        self.push_when_finished, self.push_to_hub = self.push_to_hub, False
        super().__post_init__()
        if (self.global_train_batch_size or 0) > 0:  # others are refused with the bounds of every number
            shares = self.world_size * self.gradient_accumulation_steps
            if self.global_train_batch_size % shares:
                raise UserError(
                    f"--global_train_batch_size {self.global_train_batch_size} cannot be divided by {shares} (processes times "
                    "--gradient_accumulation_steps): choose a multiple of it."
                )
            self.per_device_train_batch_size = self.global_train_batch_size // shares
        if self.n_gpu > 1:
            logger.warning(
                "%d GPUs are visible and one is used: start with `accelerate launch` to use all.", self.n_gpu
            )
            # With more the Trainer would use nn.DataParallel: no bf16 outputs, another batch size, no compilation.
            self._n_gpu = 1


def cpu_multiplies_bf16() -> bool:
    """Return whether this CPU multiplies bf16 matrices in hardware (AMX, or AVX-512's bf16): about twice fp32's rate."""
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
