"""transformers' TrainingArguments with this project's fields and defaults."""

import logging
from dataclasses import dataclass

import torch
from accelerate.utils import get_cpu_distributed_information
from transformers import TrainingArguments

from irmas_dataset.errors import UserError
from irmas_recipe.training.fields import TrainingFields
from irmas_recipe.training.machine import windows_at_once

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
        # The blocks are compiled before the Trainer sees the model; it would compile the whole. None: see the Trainer.
        asked = bool(self.torch_compile_backend or self.torch_compile_mode)
        self.compile_model = True if asked and self.torch_compile is None else self.torch_compile
        self.compile_backend, self.compile_mode = self.torch_compile_backend or "inductor", self.torch_compile_mode
        self.torch_compile, self.torch_compile_backend, self.torch_compile_mode = False, None, None
        # Whatever the device: this reads the launcher's environment.
        if get_cpu_distributed_information().world_size == 1:
            self.ddp_backend = None  # accelerate would look for processes to join
        self.dataloader_persistent_workers = self.dataloader_num_workers > 0
        self.dataloader_pin_memory = self.dataloader_pin_memory and cuda
        self.accelerator_config = {"non_blocking": self.dataloader_pin_memory}
        # The run folder is pushed once, when it is finished: the Trainer's own push would upload checkpoints and its card.
        self.push_when_finished, self.push_to_hub = self.push_to_hub, False
        # transformers' own callback would leave checkpoints from which a run ends otherwise (see stopping.py).
        self.stop_at_sigterm, self.enable_jit_checkpoint = self.enable_jit_checkpoint, False
        self.report_to = "none" if self.report_to is None else self.report_to
        super().__post_init__()
        if self.per_device_eval_batch_size is None:
            self.per_device_eval_batch_size = windows_at_once(self.device)
        self.refuse_what_does_not_fit()
        # accelerate's configuration may say otherwise, and what is written down about a run would be wrong.
        self.mixed_precision = "fp16" if self.fp16 else "bf16" if self.bf16 else "no"
        if self.lr_scheduler_type in ("reduce_lr_on_plateau", "greedy"):  # both take less for better by default
            mode = {"mode": "max" if self.greater_is_better else "min"}
            self.lr_scheduler_kwargs = mode | (self.lr_scheduler_kwargs or {})
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

    def refuse_what_does_not_fit(self) -> None:
        """Raise UserError for fields that cannot be used together, or on this device."""
        if self.cuda_graph and not (
            self.device.type == "cuda" and self.world_size == 1 and not self.fp16 and not self.gradient_checkpointing
        ):
            raise UserError(
                "--cuda_graph true needs one GPU, and neither --fp16 nor --activation_checkpointing: leave it out."
            )
        if self.ddp_static_graph and (self.gradient_accumulation_steps > 1 or self.ddp_find_unused_parameters):
            raise UserError(
                "--ddp_static_graph true can be combined with neither --gradient_accumulation_steps above 1, where torch fails, "
                "nor --ddp_find_unused_parameters true: leave it out."
            )

    @property
    def order_seed(self) -> int:
        """The seed of the order in which clips are drawn."""
        return self.seed if self.data_seed is None else self.data_seed


def cpu_multiplies_bf16() -> bool:
    """Return whether this CPU multiplies bf16 matrices in hardware (AMX, or AVX-512's bf16): about twice fp32's rate."""
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
