"""Test clips that a run may have heard in training: held out of its own music by another split, or of what joined it."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd
from datasets import Dataset

from irmas_dataset.audit.predictions import MIXED
from irmas_dataset.errors import UserError
from irmas_dataset.loading import is_held_out
from irmas_recipe.report.results import FILE, Results, run_of
from irmas_recipe.report.runs import TEST_FILE, VALIDATION_FILE
from irmas_recipe.training.data import data_folder
from irmas_recipe.training.evaluation import clip_names
from irmas_recipe.training.fields import DataArguments
from irmas_recipe.training.recipe import Recipe

WAY_OUT = "keep music of its own for the test, in test/ or in another --data_dir"


def check_starts(recipe: Recipe, test: Dataset) -> None:
    """Refuse test clips that a run has heard which this one starts from, or whose weights it adds, or a run behind those.

    Only folders of runs are looked into. They have heard no clip of a class that the music lacked then.

    Raises:
        UserError: naming the run.
    """
    if not is_held_out(test):
        return
    for run in runs_behind([recipe.model.model_name_or_path, *(recipe.model.soup or [])]):
        before, names = Results.read(run), test.features["instruments"].feature.names
        if is_same(before.recipe.get("extra_train_dir"), recipe.data.data_dir):
            raise heard_as_extra(run, recipe.data.data_dir)
        tables = [run / name for name in (TEST_FILE, VALIDATION_FILE)]
        if is_same(before.recipe.get("data_dir"), recipe.data.data_dir) and all(map(Path.is_file, tables)):
            known = {number for number, name in enumerate(names) if name in before.classes}
            rows = [row for row, labels in enumerate(test["instruments"]) if known.issuperset(labels)]
            check_unheard(run, tables, test.select(rows), recipe.data)


def runs_behind(starts: Iterable[str | None]) -> Iterator[Path]:
    """Yield the folders of the finished runs among what a run starts from, and of those from which they started."""
    waiting, found = list(starts), set()
    while waiting:
        start = waiting.pop()
        if start and (run := run_of(start)) not in found and (run / FILE).is_file():
            found.add(run)
            recipe = Results.read(run).recipe
            waiting += [recipe.get("model_name_or_path"), *(recipe.get("soup") or [])]
            yield run


def is_same(location: str | None, data_dir: str) -> bool:
    """Return whether a flag of a run named this music."""
    return location is not None and Path(location).resolve() == Path(data_dir).resolve()


def heard_as_extra(run: str | Path, data_dir: str) -> UserError:
    """Return what is wrong with music that is to be tested on in part and was all trained on."""
    return UserError(f"{data_dir} was the --extra_train_dir of {run}, which was trained on all of it: {WAY_OUT}.")


def check_unheard(run: str | Path, tables: Sequence[Path], test: Dataset, data: DataArguments) -> None:
    """Refuse test clips that were held out of a run's own music, and are not in the tables of what it was not trained on.

    Raises:
        UserError: recordings have joined the folder since, or other flags split it.
    """
    names = pd.concat(pd.read_parquet(table, columns=["clip"]) for table in tables)["clip"]
    unheard = set(names) | {member for name in names for member in name.split(MIXED)}
    if heard := sorted(set(clip_names(test, data_folder(data))) - unheard):
        raise UserError(
            f"{data.data_dir} has other clips, or is split by other flags, than when {run} was trained: of the {len(test)} test "
            f"clips that are held out of it now, {len(heard)} may have been trained on, such as {heard[0]}; {WAY_OUT}."
        )
