"""Test clips that a run may have heard in training: those held out of its own music by another split than its own."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from datasets import Dataset

from irmas_dataset.audit.predictions import MIXED
from irmas_dataset.errors import UserError
from irmas_dataset.loading import is_held_out
from irmas_recipe.report.results import FILE, Results
from irmas_recipe.report.runs import TEST_FILE, VALIDATION_FILE
from irmas_recipe.training.data import data_folder
from irmas_recipe.training.evaluation import clip_names
from irmas_recipe.training.fields import DataArguments
from irmas_recipe.training.recipe import Recipe


def check_starts(recipe: Recipe, test: Dataset) -> None:
    """Refuse test clips that a run has heard which this one starts from, or whose weights it adds.

    Only folders of runs on the same music are looked into. They have heard no clip of a class that the music lacked then.
    """
    if not is_held_out(test):
        return
    for run in filter(None, [recipe.model.model_name_or_path, *(recipe.model.soup or [])]):
        tables = [Path(run, name) for name in (TEST_FILE, VALIDATION_FILE)]
        if not (Path(run, FILE).is_file() and all(map(Path.is_file, tables))):
            continue
        before, names = Results.read(Path(run)), test.features["instruments"].feature.names
        if Path(before.recipe["data_dir"]).resolve() == Path(recipe.data.data_dir).resolve():
            known = {number for number, name in enumerate(names) if name in before.classes}
            rows = [row for row, labels in enumerate(test["instruments"]) if known.issuperset(labels)]
            check_unheard(run, tables, test.select(rows), recipe.data)


def check_unheard(run: str, tables: Sequence[Path], test: Dataset, data: DataArguments) -> None:
    """Refuse test clips that were held out of a run's own music, and are not in the tables of what it was not trained on.

    Raises:
        UserError: recordings have joined the folder since, or other flags split it.
    """
    names = pd.concat(pd.read_parquet(table, columns=["clip"]) for table in tables)["clip"]
    unheard = set(names) | {member for name in names for member in name.split(MIXED)}
    if heard := sorted(set(clip_names(test, data_folder(data))) - unheard):
        raise UserError(
            f"{data.data_dir} has other clips, or is split by other flags, than when {run} was trained: of the {len(test)} test "
            f"clips that are held out of it now, {len(heard)} may have been trained on, such as {heard[0]}; keep music of its "
            "own for the test, in test/ or in another --data_dir."
        )
