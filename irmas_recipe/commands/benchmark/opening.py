"""How long a data set of IRMAS's size takes to open, and one a hundred times as large."""

from functools import partial

import numpy as np
import torch
from datasets import Dataset

from irmas_dataset.audio import prepare
from irmas_recipe.commands.benchmark.bench import Bench
from irmas_recipe.commands.benchmark.clock import added_memory
from irmas_recipe.training.clips import TrainingClips

IRMAS_CLIPS = 6705
SIZES = (1, 100)  # times IRMAS


def measure_opening(bench: Bench) -> dict[str, dict]:
    """Return the seconds to the first clip and the memory for each size; the clips are the same again and again."""
    prepared, found = prepare(bench.clips, bench.rate, num_proc=1), {}
    for size in SIZES:
        repeated = prepared.select(np.resize(np.arange(len(prepared)), size * IRMAS_CLIPS))
        begin = partial(first_clip, repeated, bench.window_samples)
        seconds = [bench.clock.seconds(begin) for _ in range(bench.repeats)]
        found[f"{size} x IRMAS"] = {
            "clips": len(repeated),
            "seconds_to_first_clip": float(np.median(seconds)),
            "added_memory_bytes": added_memory(torch.device("cpu"), begin),
        }
    return found


def first_clip(prepared: Dataset, window_samples: int) -> dict:
    """Open a prepared data set and return its first training clip."""
    return TrainingClips(prepared, window_samples)[0]
