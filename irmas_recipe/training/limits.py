"""Which numbers the fields of a recipe may hold."""

import math
from dataclasses import fields

from irmas_dataset.errors import UserError

LONGEST_WINDOW_SECONDS = 600
POSITIVE = ("window_seconds", "hop_seconds", "eval_steps", "save_steps", "logging_steps", "adam_epsilon")
AT_LEAST_ONE = (
    "synthetic_train", "synthetic_test", "max_train_clips", "max_test_clips", "preparation_processes", "bootstrap_resamples",
    "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "save_total_limit",
    "eval_accumulation_steps", "dataloader_prefetch_factor", "processes", "importance_repeats", "steps", "generate",
    "batch_size", "model_size",
)  # fmt: skip
NOT_NEGATIVE = (
    "synthetic_seed", "split_seed", "mix_max_gain_db", "max_time_shift_seconds", "time_masks", "max_time_mask_frames",
    "frequency_masks", "max_frequency_mask_bins", "learning_rate", "weight_decay", "max_grad_norm", "warmup_steps",
    "num_train_epochs", "dataloader_num_workers", "seed", "data_seed", "eval_delay",
)  # fmt: skip
PROBABILITIES = (
    "validation_fraction", "mix_probability", "noise_probability", "polarity_inversion_probability", "averaging_decay",
    "adam_beta1", "adam_beta2", "label_smoothing_factor",
)  # fmt: skip
SEEDS = ("synthetic_seed", "split_seed", "seed", "data_seed")
LARGEST_SEED = 2**32 - 1  # that numpy takes


def check_numbers(part: object) -> None:
    """Refuse a number of one part of a recipe that cannot be meant.

    Raises:
        UserError: naming the field and what it may hold.
    """
    for field in fields(part):
        name, value = field.name, getattr(part, field.name, None)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if not math.isfinite(value):
            raise UserError(f"--{name} must be a finite number, not {value}.")
        if name in POSITIVE and value <= 0:
            raise UserError(f"--{name} must be positive, not {value}.")
        if name in AT_LEAST_ONE and value < 1:
            raise UserError(f"--{name} must be at least 1, not {value}.")
        if name in NOT_NEGATIVE and value < 0:
            raise UserError(f"--{name} must not be negative, but is {value}.")
        if name in SEEDS and value > LARGEST_SEED:
            raise UserError(f"--{name} must be at most {LARGEST_SEED}, not {value}.")
        if name in PROBABILITIES and not 0 <= value <= 1:
            raise UserError(f"--{name} must lie between 0 and 1, not {value}.")
        if name == "window_seconds" and value > LONGEST_WINDOW_SECONDS:
            raise UserError(f"--{name} must be at most {LONGEST_WINDOW_SECONDS}, not {value}.")
