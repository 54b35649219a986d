"""Train for a long time with frequent evaluation and checkpoints, and watch memory and open files.

python -m tests.robustness.soak --minutes 30 --folder /tmp/soak

A real run on synthetic music, through the real Trainer. It passes if, after a first quarter in which caches fill,
memory stays flat (the median of the last quarter's samples is at most 5 % and 20 MB above that of the second's), the
number of open files does (their maxima differ by 2 at most), and no more checkpoints are kept than the recipe says.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from transformers import TrainerCallback

from irmas_recipe.training.data import load_data, prepare_splits
from irmas_recipe.training.model import build_model
from irmas_recipe.training.recipe import parse_recipe
from irmas_recipe.training.run_folder import begin
from irmas_recipe.training.train import build_trainer, train
from tests.robustness.tiny_run import write_recipe

MEGABYTE = 1 << 20


class Watch(TrainerCallback):
    """Takes a sample after every evaluation, and ends the training when the time is over."""

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self.memory_bytes: list[int] = []
        self.open_files: list[int] = []
        self.checkpoints: list[int] = []

    def on_evaluate(self, args, state, control, **kwargs) -> None:
        self.memory_bytes.append(resident_bytes())
        self.open_files.append(len(os.listdir("/proc/self/fd")))
        self.checkpoints.append(len(list(Path(args.output_dir).glob("checkpoint-*"))))
        if len(self.memory_bytes) % 50 == 1:
            print(
                f"step {state.global_step}: {self.memory_bytes[-1] / MEGABYTE:.1f} MB, {self.open_files[-1]} open files",
                flush=True,
            )

    def on_step_end(self, args, state, control, **kwargs) -> None:
        control.should_training_stop = time.monotonic() > self.deadline


def resident_bytes() -> int:
    """Return how much memory this process has in use now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def soak(folder: Path, minutes: float, most_steps: int = 10_000_000) -> Watch:
    """Train the tiny recipe in `folder` for so many minutes, or steps; returns the samples."""
    options = {"max_steps": most_steps, "eval_steps": 20, "save_steps": 20, "logging_steps": 20, "save_total_limit": 2}
    recipe = write_recipe(folder, "soak", output_dir=str(folder / "run"), disable_tqdm=True, **options)
    before = os.getcwd()
    os.chdir(folder)  # where the synthetic music goes
    try:
        recipe = parse_recipe([str(recipe)])
        run_folder = begin(recipe)
        data = load_data(recipe.data)
        model, feature_extractor = build_model(recipe, data)
        prepared = prepare_splits(data, recipe.data, feature_extractor.sampling_rate)
        trainer = build_trainer(recipe, prepared, model, feature_extractor)
        watch = Watch(60 * minutes)
        trainer.add_callback(watch)
        run_folder.claim(recipe)
        train(recipe, trainer, run_folder.checkpoint)
    finally:
        os.chdir(before)
    print(f"{trainer.state.global_step} steps, {len(watch.memory_bytes)} evaluations in {minutes} minutes")
    return watch


def check(watch: Watch) -> None:
    """Raise AssertionError where memory or open files grew, or checkpoints were not rotated."""
    quarter = len(watch.memory_bytes) // 4
    assert quarter >= 1, "too short: there are fewer than four evaluations"
    early, late = slice(quarter, 2 * quarter), slice(-quarter, None)
    before, after = (statistics.median(watch.memory_bytes[part]) for part in (early, late))
    files_before, files_after = (max(watch.open_files[part]) for part in (early, late))
    print(
        f"memory {before / MEGABYTE:.1f} -> {after / MEGABYTE:.1f} MB (at most {max(watch.memory_bytes) / MEGABYTE:.1f})"
    )
    print(f"open files {files_before} -> {files_after}; checkpoints at most {max(watch.checkpoints)}")
    assert after <= 1.05 * before and after - before <= 20 * MEGABYTE, "memory grew"
    assert files_after <= files_before + 2, "open files grew"
    assert max(watch.checkpoints) <= 3, "checkpoints were not rotated"  # the best, the last, and the one just written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--folder", type=Path, help="where the run goes (default: a temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        check(soak(arguments.folder or Path(scratch), arguments.minutes))


if __name__ == "__main__":
    main()
