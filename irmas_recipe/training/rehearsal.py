"""What a recipe asks of other packages, tried on next to nothing before any work is done."""

import torch
from torch.utils.checkpoint import checkpoint
from transformers import Trainer, get_scheduler
from transformers.integrations import get_reporting_integration_callbacks
from transformers.trainer_optimizer import is_optimizer_factory

from irmas_dataset.errors import UserError
from irmas_recipe.training.augmentation import CpuTransform
from irmas_recipe.training.checkpoint import first_sentence
from irmas_recipe.training.conversion import local_name
from irmas_recipe.training.recipe import Recipe
from irmas_recipe.training.training_arguments import IrmasTrainingArguments

STEPS = 100  # of the schedule
SAMPLING_RATE = 48_000  # the model's is not known yet, and most audiomentations can do less at a lower one


def rehearse(recipe: Recipe) -> None:
    """Try a recipe's optimizer, schedule, compiler, activation checkpointing, trackers, audiomentations and released model.

    Raises:
        UserError: a package, file or folder is missing, or a parameter is unknown or impossible.
    """
    training = recipe.training
    rehearse_schedule(training, rehearse_optimizer(training))
    rehearse_compiler(training)
    rehearse_checkpointing(training)
    for name in training.report_to:
        try:
            for tracker in get_reporting_integration_callbacks([name]):
                tracker()
        except Exception as error:
            raise UserError(f"--report_to {name} cannot be used: {first_sentence(error)}.") from error
    try:
        CpuTransform(recipe.augmentation.audiomentations or [], SAMPLING_RATE)
    except ValueError as error:
        raise UserError(f"--audiomentations: {error}.") from error
    local_name(recipe.model.model_name_or_path or "")  # a released checkpoint is fetched before any data


def rehearse_optimizer(training: IrmasTrainingArguments) -> torch.optim.Optimizer:
    """Return the recipe's optimizer for one small matrix."""
    name = training.optim.value
    try:
        given = dict(item.strip().split("=") for item in (training.optim_args or "").split(",") if item)
    except ValueError as error:
        raise UserError(f"--optim_args {training.optim_args} must read `name=value,name=value`.") from error
    try:
        optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(training)
        if is_optimizer_factory(optimizer_class):
            raise ValueError("it makes its own groups of parameters")
        optimizer = optimizer_class([{"params": [torch.nn.Parameter(torch.zeros(2, 2))]}], **options)
    except Exception as error:
        raise UserError(
            f"--optim {name} cannot be used: {first_sentence(error)}; the default is adamw_torch_fused."
        ) from error
    if unknown := given.keys() - options.keys():
        raise UserError(f"--optim_args: {name} has no {min(unknown)}.")
    return optimizer


def rehearse_schedule(training: IrmasTrainingArguments, optimizer: torch.optim.Optimizer) -> None:
    """Make the recipe's schedule."""
    kind = training.lr_scheduler_type
    if kind in ("constant", "constant_with_warmup") and training.lr_scheduler_kwargs:
        raise UserError(f"--lr_scheduler_kwargs: {kind.value} takes none: remove them.")
    try:
        warmup = training.get_warmup_steps(STEPS)
        get_scheduler(kind, optimizer, warmup, STEPS, training.lr_scheduler_kwargs)
    except Exception as error:
        raise UserError(
            f"--lr_scheduler_type {kind.value} cannot be used with --lr_scheduler_kwargs {training.lr_scheduler_kwargs}: "
            f"{first_sentence(error)}."
        ) from error


def rehearse_compiler(training: IrmasTrainingArguments) -> None:
    """Compile nothing, which refuses an unknown backend or mode."""
    if not training.compile_model:
        return
    try:
        torch.compile(backend=training.compile_backend, mode=training.compile_mode)(torch.nn.Identity())
    except Exception as error:
        raise UserError(
            f"--torch_compile_backend {training.compile_backend} and --torch_compile_mode {training.compile_mode} cannot be "
            f"used: {first_sentence(error)}."
        ) from error


def rehearse_checkpointing(training: IrmasTrainingArguments) -> None:
    """Recompute one activation as the recipe says."""
    if not training.activation_checkpointing:
        return
    options = {"use_reentrant": False} | (training.activation_checkpointing_kwargs or {})
    try:
        checkpoint(torch.neg, torch.zeros(1, requires_grad=True), **options).backward()
    except Exception as error:
        raise UserError(f"--activation_checkpointing_kwargs {options}: {first_sentence(error)}.") from error
