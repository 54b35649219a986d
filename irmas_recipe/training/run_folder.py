"""A run's folder: whether it is finished, whether to resume in it, and how a new run takes a finished one's place."""

import json
import logging
import os
import re
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

import yaml
from accelerate.utils import broadcast_object_list, gather_object
from transformers import set_seed

from irmas_dataset.errors import UserError
from irmas_dataset.whole_file import move_into
from irmas_recipe.training.processes import quiet_libraries
from irmas_recipe.training.recipe import Recipe, ResolvedRecipe
from irmas_recipe.training.stopping import end_at_sigterm

CARD, RESULTS = "README.md", "results.json"
WRITTEN = (
    CARD, RESULTS, "predictions.parquet", "validation_predictions.parquet", "validation_moments.parquet", "model.safetensors",
    "trainer_state.json", "classifiers.skops",
)  # fmt: skip
"""What a run leaves in its folder besides checkpoints and figures; the card, first here, is written last."""
REPLACEMENT = ".replacement"
"""Where a run is made while its folder still has a finished one."""
NOT_THE_RUN = {
    "push_to_hub", "hub_model_id", "hub_private_repo", "disable_tqdm", "enable_jit_checkpoint", "overwrite_output_dir",
    "output_dir",
}  # fmt: skip
"""Fields in which two starts of the same run may differ: where it lies and goes, how it is stopped, and what is seen meanwhile."""


@dataclass
class RunFolder:
    """Where a run is to be, where it is made (elsewhere only if a finished run is replaced), and what it resumes from."""

    path: Path
    work: Path
    checkpoint: Path | None = None
    is_finished: bool = False  # with this very recipe: nothing is left to do

    def claim(self, recipe: ResolvedRecipe) -> None:
        """Make the folder ready for this recipe; call it when data, checkpoint and recipe have been found good.

        Checkpoints that do not lead to the one that is resumed go first: without the card, a start that is killed here would
        leave them to be resumed from.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        resumed_step = step_of(self.checkpoint) if is_in(self.work, self.checkpoint) else -1
        for checkpoint in checkpoints(self.work):
            if int(checkpoint.name.rpartition("-")[2]) > resumed_step:
                shutil.rmtree(checkpoint)
        remove_written(self.work)
        recipe.save(self.work / "recipe.yaml")

    def settle(self) -> None:
        """Put a run that is whole but for its card where it belongs; what no run wrote there stays.

        The results come last, so that the next start can complete an interrupted move.
        """
        if self.work == self.path:
            return
        if not is_whole_json(self.work / RESULTS):
            raise FileNotFoundError(self.work / RESULTS)
        if is_finished(self.path):  # otherwise this is the rest of an interrupted move
            for checkpoint in checkpoints(self.path):
                shutil.rmtree(checkpoint)
            remove_written(self.path)
        move_into(self.work, self.path, last=RESULTS)
        self.work = self.path


def is_finished(run_dir: Path) -> bool:
    """Return whether a run got to its end: the card is written last."""
    return (run_dir / RESULTS).is_file() and (run_dir / CARD).is_file()


def last_checkpoint(run_dir: Path) -> Path | None:
    """Return the newest checkpoint that is whole (the Trainer writes its state last)."""
    whole = [path for path in checkpoints(run_dir) if is_whole_json(path / "trainer_state.json")]
    return max(whole, key=step_of, default=None)


def checkpoints(run_dir: Path) -> list[Path]:
    """Return the Trainer's checkpoints of a run, whole or not; a `checkpoint-best` is a user's own."""
    return [path for path in run_dir.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]


def step_of(checkpoint: Path) -> int:
    """Return the step at which a whole checkpoint was written, whatever its folder is called."""
    return json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]


def is_in(run_dir: Path, checkpoint: Path | None) -> bool:
    """Return whether a checkpoint lies in this run's folder, it or a link to it."""
    if checkpoint is None:
        return False
    return run_dir.resolve() in (checkpoint.resolve().parent, checkpoint.absolute().parent.resolve())


def remove_written(run_dir: Path) -> None:
    """Remove what says that a run is finished, the card first."""
    for name in WRITTEN:
        (run_dir / name).unlink(missing_ok=True)
    shutil.rmtree(run_dir / "figures", ignore_errors=True)


def is_whole_json(path: Path) -> bool:
    """Return whether a file was written to its end; the Trainer writes its state in place."""
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


def choose(recipe: ResolvedRecipe, run_dir: Path, overwrite: bool, asked: str | None = None) -> RunFolder:
    """Return where this start works and what it resumes from; nothing is changed yet.

    An interrupted run of the same recipe is resumed. A finished run is replaced only with `overwrite`, and only when
    the new one is finished too; an unfinished run of another recipe only with `overwrite`.

    asked: --resume_from_checkpoint, a folder or `true` for the last one.

    Raises:
        UserError: the folder has a run that may not be replaced, or files that no run wrote; or there is no such checkpoint.
    """
    if run_dir.exists() and not run_dir.is_dir():
        raise UserError(f"--output_dir {run_dir} is a file: name a folder.")
    check_is_a_run(run_dir)
    if is_whole_json(run_dir / REPLACEMENT / RESULTS) and not is_finished(run_dir):
        RunFolder(run_dir, run_dir / REPLACEMENT).settle()  # a start was killed while it did this
    finished = is_finished(run_dir)
    if finished and not overwrite:
        changed = differences(run_dir / "recipe.yaml", recipe)
        if not changed and not asked:
            return RunFolder(run_dir, run_dir, is_finished=True)
        which = f"a finished run of another recipe (it differs in {named(changed)})" if changed else "a finished run"
        raise UserError(
            f"{run_dir} has {which}: name another --output_dir, or add --overwrite_output_dir true, which replaces that "
            "run when the new one is finished."
        )
    work = run_dir / REPLACEMENT if finished else run_dir
    last = last_checkpoint(work)
    found = checkpoint_asked_for(asked, work, run_dir) if asked else last
    goes_on = asked and is_in(work, found)  # from a checkpoint of its own, perhaps with another recipe
    is_begun = last or any((work / name).exists() for name in WRITTEN)
    if is_begun and not goes_on and (changed := differences(work / "recipe.yaml", recipe)):
        if not overwrite:
            raise UserError(
                f"{run_dir} has an unfinished run of another recipe (it differs in {named(changed)}): name another "
                "--output_dir, or add --overwrite_output_dir true to discard that run."
            )
        found = found if asked else None
    return RunFolder(run_dir, work, found)


def checkpoint_asked_for(asked: str, work: Path, run_dir: Path) -> Path:
    """Return the checkpoint of --resume_from_checkpoint; raise UserError where there is none."""
    if asked.lower() in ("true", "last"):
        found = last_checkpoint(work) or last_checkpoint(run_dir)
        if found is None:
            raise UserError(f"{run_dir} has no checkpoint to resume from: leave --resume_from_checkpoint out.")
        return found
    if not is_whole_json(Path(asked) / "trainer_state.json"):
        raise UserError(
            f"--resume_from_checkpoint {asked} is not a checkpoint: name a folder such as {run_dir}/checkpoint-100."
        )
    return Path(asked)


def differences(path: Path, recipe: ResolvedRecipe) -> list[str]:
    """Return the fields in which a saved recipe differs from this one; all of them where none is saved."""
    here = yaml.safe_load(yaml.safe_dump(recipe.values()))
    there = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    alike = {name for name in here.keys() & there.keys() if here[name] == there[name]}  # null is not the default
    return [name for name in here | there if name not in NOT_THE_RUN | alike]


def named(fields: list[str]) -> str:
    """Return the first fields in words."""
    return ", ".join(fields[:3]) + (f" and {len(fields) - 3} more" if len(fields) > 3 else "")


def check_is_a_run(run_dir: Path) -> None:
    """Raise UserError where a folder has, under the names of a run's files, what no run has written: it would be lost."""
    there = [name for name in (*WRITTEN, "figures") if (run_dir / name).exists()]
    if there and not (run_dir / "recipe.yaml").is_file():
        raise UserError(
            f"--output_dir {run_dir} is not a run's folder, and its {there[0]} would be lost: name another."
        )


def check_sources(recipe: Recipe) -> None:
    """Raise UserError where a run would overwrite the model that it starts from."""
    run_dir = Path(recipe.training.output_dir)
    for name in ("model_name_or_path", "backbone_name_or_path"):
        source = getattr(recipe.model, name)
        if source and Path(source).exists() and Path(source).resolve().is_relative_to(run_dir.resolve()):
            raise UserError(f"--output_dir {run_dir} would overwrite --{name} {source}: name another folder.")


def check_shared(run_dir: Path, process: int, processes: int) -> None:
    """Raise UserError where the machines of a run do not all see the folder in which the first one writes.

    Otherwise the run would fail at its end, or when it is resumed. One process says it for all.
    """
    if int(os.environ.get("LOCAL_WORLD_SIZE", processes)) == processes:
        return  # one machine
    parent = next(folder for folder in run_dir.absolute().parents if folder.is_dir())
    (name,) = broadcast_object_list([f".irmas-{uuid.uuid4().hex}" if process == 0 else None])
    if process == 0:
        (parent / name).touch()
    (_,) = broadcast_object_list([None])  # written before the others look
    sees = gather_object([(parent / name).exists()])
    if process == 0:
        (parent / name).unlink()
    if not all(sees) and process > 0:
        raise SystemExit(2)
    if not all(sees):
        raise UserError(
            f"--output_dir {run_dir} is not the same folder on every machine ({sees.count(False)} of {processes} processes "
            "do not see it): name a folder that all machines share."
        )


def begin(recipe: Recipe) -> RunFolder:
    """Choose the run's folder, once for all processes, and let the Trainer work there; nothing is changed yet.

    Raises:
        UserError: the folder has something that this run must not touch.
    """
    training = recipe.training
    if training.stop_at_sigterm:
        end_at_sigterm()  # until there are steps to save
    quiet_libraries(training.process_index)
    check_shared(Path(training.output_dir), training.process_index, training.world_size)
    with training.main_process_first(local=False, desc="the run folder"):
        folder = None
        if training.process_index == 0:
            check_sources(recipe)
            folder = choose(
                recipe, Path(training.output_dir), training.overwrite_output_dir, training.resume_from_checkpoint
            )
    if training.world_size > 1:
        (folder,) = broadcast_object_list([folder])
    training.output_dir = str(folder.work)
    if folder.checkpoint:
        logging.warning("Resuming from %s.", folder.checkpoint)
    set_seed(training.seed)
    return folder
