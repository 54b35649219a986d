"""The smallest real run: a recipe that trains, evaluates and reports in about a second once everything is imported."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]

RECIPE = {
    "data_dir": "synthetic", "synthetic_train": 44, "synthetic_test": 12, "architecture": "ast", "window_seconds": 3.0,
    "model_config": {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
        "frequency_stride": 16, "time_stride": 16,
    },
    "max_steps": 12, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "mix_probability": 0.5, "time_masks": 1,
    "max_time_mask_frames": 20, "weight_averaging": "ema", "averaging_decay": 0.9,
    "eval_strategy": "steps", "eval_steps": 3, "save_strategy": "steps", "save_steps": 3, "logging_steps": 1,
    "bootstrap_resamples": 50, "use_cpu": True, "bf16": False,
}  # fmt: skip


def write_recipe(folder: Path, name: str = "tiny", **fields) -> Path:
    """Write the recipe, with other `fields` where they are given, into a working folder; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(RECIPE | fields), encoding="utf-8")
    return path


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """Return the environment of a command that keeps its caches in `folder` and reaches no network."""
    ours = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    return os.environ | ours | settings


def command(*arguments: object) -> list[str]:
    """Return the command line of `run_irmas.py` with these arguments."""
    return [sys.executable, str(ROOT / "run_irmas.py"), *map(str, arguments)]


def start(folder: Path, *arguments: object, timeout: float = 300, **settings: str) -> subprocess.CompletedProcess:
    """Run `run_irmas.py` with these arguments in `folder` to its end; return what it said."""
    return subprocess.run(
        command(*arguments), cwd=folder, env=environment(folder, **settings), capture_output=True, text=True, timeout=timeout
    )  # fmt: skip
