"""A run's folder: whether it is finished, whether to go on with it, and what may be in the way."""

import json
import logging
import re
import shutil
from pathlib import Path

import yaml
from accelerate.utils import broadcast_object_list
from transformers import set_seed

from irmas_dataset.errors import UserError
from irmas_recipe.training.processes import quiet_libraries
from irmas_recipe.training.recipe import Recipe

WRITTEN = (
    "README.md", "results.json", "predictions.parquet", "validation_predictions.parquet", "model.safetensors",
    "trainer_state.json",
)  # fmt: skip
"""What a run leaves in its folder besides checkpoints and figures; the card, first here, is written last."""


def is_finished(run_dir: Path) -> bool:
    """Return whether a run got to its end: the card is written last."""
    return (run_dir / "results.json").is_file() and (run_dir / "README.md").is_file()


def last_checkpoint(run_dir: Path) -> Path | None:
    """Return the newest checkpoint that is whole (the Trainer writes its state last)."""
    whole = [path for path in checkpoints(run_dir) if is_whole_json(path / "trainer_state.json")]
    return max(whole, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


def checkpoints(run_dir: Path) -> list[Path]:
    """Return the Trainer's checkpoints of a run, whole or not; a `checkpoint-best` is a user's own."""
    return [path for path in run_dir.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]


def is_whole_json(path: Path) -> bool:
    """Return whether a file was written to its end; the Trainer writes its state in place."""
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


def open_run_folder(recipe: Recipe) -> Path | None:
    """Make the run's folder ready and return the checkpoint to go on from, or None to start anew.

    An interrupted run of the same recipe goes on; a finished one is made again; one of another recipe is never mixed
    with this one.

    Raises:
        UserError: the folder holds an unfinished run of another recipe, or files that no run wrote, or what this run
            starts from; or --resume_from_checkpoint names no checkpoint.
    """
    run_dir, asked = Path(recipe.training.output_dir), recipe.training.resume_from_checkpoint
    if run_dir.exists() and not run_dir.is_dir():
        raise UserError(f"--output_dir {run_dir} is a file: name a folder.")
    check_is_a_run(run_dir)
    for name in ("model_name_or_path", "backbone_name_or_path"):
        source = getattr(recipe.model, name)
        if source and Path(source).exists() and Path(source).resolve().is_relative_to(run_dir.resolve()):
            raise UserError(f"--output_dir {run_dir} would overwrite --{name} {source}: name another folder.")
    if asked and asked.lower() not in ("true", "last"):
        if not is_whole_json(Path(asked) / "trainer_state.json"):
            raise UserError(
                f"--resume_from_checkpoint {asked} is no checkpoint: name a folder such as {run_dir}/checkpoint-100."
            )
        found = Path(asked)
    else:
        found = last_checkpoint(run_dir)
    if asked and found is None:
        raise UserError(f"{run_dir} holds no checkpoint to resume from: leave --resume_from_checkpoint out.")
    if found and not asked and (is_finished(run_dir) or recipe.training.overwrite_output_dir):
        found = None
    if found and not asked and not same_recipe(run_dir / "recipe.yaml", recipe):
        raise UserError(
            f"{run_dir} holds an unfinished run of another recipe: give another --output_dir, or --overwrite_output_dir to "
            "discard it."
        )
    clear(run_dir, keep_checkpoints=found is not None)
    recipe.save(run_dir / "recipe.yaml")
    return found


def same_recipe(path: Path, recipe: Recipe) -> bool:
    """Return whether a saved recipe is this one."""
    return path.is_file() and yaml.safe_load(path.read_text(encoding="utf-8")) == yaml.safe_load(
        yaml.safe_dump(recipe.values())
    )


def check_is_a_run(run_dir: Path) -> None:
    """Raise UserError where a folder holds, under the names of a run's files, what no run has written: it would be lost."""
    there = [name for name in (*WRITTEN, "figures") if (run_dir / name).exists()]
    if there and not (run_dir / "recipe.yaml").is_file():
        raise UserError(f"--output_dir {run_dir} is no run's folder, and its {there[0]} would be lost: name another.")


def clear(run_dir: Path, keep_checkpoints: bool) -> None:
    """Make the folder if need be; take away what says that a run is finished and, unless they are to be used, checkpoints.

    The checkpoints first: without the card a start that is killed here would leave them to be gone on from.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    if not keep_checkpoints:
        for checkpoint in checkpoints(run_dir):
            shutil.rmtree(checkpoint)
    for name in WRITTEN:
        (run_dir / name).unlink(missing_ok=True)
    shutil.rmtree(run_dir / "figures", ignore_errors=True)


def begin(recipe: Recipe) -> Path | None:
    """Make the run folder ready, once for all processes; return the checkpoint to go on from, or None.

    Raises:
        UserError: the folder holds something that this run must not touch.
    """
    quiet_libraries(recipe.training.process_index)
    with recipe.training.main_process_first(local=False, desc="the run folder"):
        checkpoint = open_run_folder(recipe) if recipe.training.process_index == 0 else None
    if recipe.training.world_size > 1:
        (checkpoint,) = broadcast_object_list([checkpoint])
    if checkpoint:
        logging.warning("Going on from %s.", checkpoint)
    set_seed(recipe.training.seed)
    return checkpoint
