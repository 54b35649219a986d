"""Commands whose folders say whether they are finished: run what is not, and go on past what fails."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from irmas_dataset.errors import UserError
from irmas_dataset.whole_file import write_json
from irmas_recipe.training import run_folder
from irmas_recipe.training.recipe_file import read_recipe

ROOT = Path(__file__).parents[1]
PROGRAM = (sys.executable, "run_irmas.py")


@dataclass(frozen=True)
class Job:
    """One command: its name, its folder, the command line that makes it, and what is there when it is finished."""

    name: str
    run_dir: Path
    command: tuple[str, ...]
    proof: str | None = None
    """A file of the folder; None for a run, which knows itself."""
    parts: tuple[str, ...] | None = None
    """Of an ensemble, the runs that it fuses; of others it is not finished."""

    @property
    def finished(self) -> bool:
        if self.proof is not None:
            return (self.run_dir / self.proof).is_file()
        is_finished = run_folder.is_finished(self.run_dir)
        if is_finished and self.parts is not None:
            return read_recipe(self.run_dir / "recipe.yaml").get("runs") == list(self.parts)
        return is_finished


def recipe_job(name: str, recipe: str, fields: tuple[str, ...] | list[str], output_dir: Path) -> Job:
    """Return a run of the main job."""
    run_dir = output_dir / name
    return Job(name, run_dir, (*PROGRAM, recipe, *fields, f"--output_dir={run_dir}"))


def open_notes(path: Path, shared: dict) -> dict:
    """Return what is noted of the runs in a file's folder, which all share some values; UserError where others are there.

    Finished runs are kept: without this, a table would show runs that were made with other values as its own.
    """
    notes = shared | (json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {})
    if changed := [name for name in shared if notes[name] != shared[name]]:
        raise UserError(
            f"{path.parent} holds runs with {changed[0]} {notes[changed[0]]}: give that again, or another --output_dir."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, notes)
    return notes


def run_all(jobs: list[Job], at_once: int, logs: Path, threads: int | None = None) -> list[str]:
    """Run what is not finished; return the names of those that failed, whose logs say why.

    Args:
        threads: of each command; None leaves it to torch.
    """
    logs.mkdir(parents=True, exist_ok=True)
    waiting = [job for job in jobs if not job.finished]
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})

    def run_job(job: Job) -> bool:
        with (logs / f"{job.name}.log").open("w") as log:
            done = subprocess.run(job.command, cwd=ROOT, env=environment, stdout=log, stderr=log, check=False)
        return done.returncode == 0 and job.finished

    with ThreadPoolExecutor(at_once) as pool:
        good = list(tqdm(pool.map(run_job, waiting), desc="Runs", unit="run", total=len(waiting), disable=not waiting))
    return [job.name for job, well in zip(waiting, good, strict=True) if not well]


def why(logs: Path, name: str) -> str:
    """Return the last line that a failed command printed."""
    lines = (logs / f"{name}.log").read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
