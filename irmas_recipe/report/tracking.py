"""What a finished run measured and drew, sent to the trackers that `--report_to` names; the Trainer sends the rest."""

from pathlib import Path

import numpy as np
from PIL import Image
from transformers import Trainer
from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback

from irmas_recipe.report.results import Results


def log_results(trainer: Trainer, run_dir: Path, results: Results) -> None:
    """Log the test set's figures and the run's pictures, run_dir/figures/*.png; nothing without a tracker.

    Every tracker that the Trainer knows gets the figures; TensorBoard, Trackio and Weights & Biases the pictures too.
    """
    if not trainer.args.report_to:
        return
    trackers = trainer.callback_handler.callbacks
    for tracker in trackers:
        if isinstance(tracker, TensorBoardCallback) and tracker.logging_dir is None:  # nothing was trained
            tracker.logging_dir = str(Path(run_dir) / "runs" / "test")
    trainer.log(figures_of_test(results))
    pictures = {f"test/{path.stem}": path for path in sorted(Path(run_dir, "figures").glob("*.png"))}
    for tracker in trackers:
        if isinstance(tracker, TensorBoardCallback):
            write_to_tensorboard(tracker, pictures, trainer.state.global_step)
        elif isinstance(tracker, TrackioCallback):
            import trackio

            trackio.log({name: trackio.Image(str(path)) for name, path in pictures.items()})
            trackio.finish()
        elif isinstance(tracker, WandbCallback):
            import wandb

            wandb.log({name: wandb.Image(str(path)) for name, path in pictures.items()})


def figures_of_test(results: Results) -> dict[str, float]:
    """Return the headline figures under the names that the Trainer's callbacks turn into `test/micro_f1` and so on."""
    return {f"test_{name}": value for name, value in results.headline.items()}


def write_to_tensorboard(tracker: TensorBoardCallback, pictures: dict[str, Path], step: int) -> None:
    """Write the pictures beside the figures that `tracker` has just logged, and close its file."""
    for name, path in pictures.items():
        with Image.open(path) as picture:
            tracker.tb_writer.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")
    tracker.tb_writer.close()
    tracker.tb_writer = None
