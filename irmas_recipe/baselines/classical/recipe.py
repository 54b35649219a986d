"""The parameters of a classical system, and how a recipe and the command line set them."""

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from irmas_dataset.errors import UserError
from irmas_recipe.training.fields import DataArguments
from irmas_recipe.training.limits import check_numbers
from irmas_recipe.training.recipe import RecipeParser, check_data, from_json, nearest, recipe_as_arguments, run_name

CLASSIFIER_NAMES = (
    "random_forest", "bagging", "decision_tree", "nearest_neighbours", "naive_bayes", "svm", "gradient_boosting",
)  # fmt: skip


@dataclass
class ClassicalArguments:
    """Which features and which classifier; `system: classical` is what tells such a recipe from a network's."""

    system: Literal["classical"] = field(default="classical", metadata={"help": "Features and a classifier."})
    features: Literal["sarwar", "full"] = field(
        default="full",
        metadata={"help": "sarwar: 98 columns (AbubakarSarwar). full: 382 columns of timbre, harmony and rhythm."},
    )
    classifier: Literal[CLASSIFIER_NAMES] = field(
        default="svm", metadata={"help": "One a class, each against the rest."}
    )
    feature_selection: Literal["none", "l1"] = field(
        default="none", metadata={"help": "l1: a class uses the columns that an L1 linear SVM does not set to zero."}
    )
    grid: dict | str | None = field(
        default=None,
        metadata={
            "help": "Values to search, {field: [values]} (JSON on the shell). Default: the classifier's own grid."
        },
    )
    search_folds: int = field(
        default=3, metadata={"help": "Folds of the training recordings that choose among the grid's values."}
    )
    mix_probability: float = field(
        default=0.0, metadata={"help": "Share of training rows that are mixtures of clips of other classes."}
    )
    mix_max_clips: int = field(default=3, metadata={"help": "A training mixture holds 2 to this many clips."})
    importance_repeats: int = field(default=5, metadata={"help": "Shuffles of each descriptor behind the importances."})
    processes: int | None = field(
        default=None, metadata={"help": "Processes for features and the search. Default: one per CPU core."}
    )
    seed: int = field(default=42, metadata={"help": "Seed of folds, mixtures and classifiers."})
    output_dir: str | None = field(default=None, metadata={"help": "The run folder. Default: runs/<recipe>."})


@dataclass
class ClassicalRecipe:
    """The resolved parameters; `data` is the same as a network's."""

    classical: ClassicalArguments
    data: DataArguments

    @property
    def run_dir(self) -> Path:
        return Path(self.classical.output_dir)

    @property
    def processes(self) -> int:
        """How many processes compute features and search."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.classical.processes or cores

    def values(self) -> dict:
        """Return every field as one flat mapping that can be run again."""
        values = dataclasses.asdict(self.classical) | dataclasses.asdict(self.data)
        return {name: value for name, value in values.items() if value is not None}


def parse_classical_recipe(arguments: list[str]) -> ClassicalRecipe:
    """Read `RECIPE.yaml [--field value ...]`: the YAML's values become defaults, the command line wins.

    Raises:
        UserError: a missing recipe, an unknown key, a wrong value, or a contradiction.
    """
    parts = (ClassicalArguments, DataArguments)
    recipe = ClassicalRecipe(*parse_parts(arguments, parts, "Train, evaluate and report a classical system."))
    recipe.classical.grid = from_json("grid", recipe.classical.grid)
    check(recipe)
    return recipe


def parse_parts(arguments: list[str], parts: tuple[type, ...], description: str) -> list:
    """Return the dataclasses `parts` filled by `RECIPE.yaml [--field value ...]`; one of them has `output_dir`.

    Raises:
        UserError: a missing recipe, an unknown key, a wrong value, or a number that cannot be meant.
    """
    if not arguments or arguments[0].startswith("--"):
        raise UserError("Name a recipe first, for example recipes/classical/sarwar.yaml.")
    path, given = Path(arguments[0]), arguments[1:]
    parser = RecipeParser(parts, prog="run_irmas.py RECIPE.yaml", description=description, allow_abbrev=False)
    known = {action.dest: action for action in parser._actions}
    for item in given:
        name = item[2:].split("=")[0].replace("-", "_").removeprefix("no_") if item.startswith("--") else None
        if name is not None and name not in known:
            raise UserError(f"--{name} is no field of a recipe with `system: {parts[0].system}`{nearest(name, known)}")
    default_output = ["--output_dir", str(Path("runs", run_name(path)))]
    namespace = vars(parser.parse_args([*default_output, *recipe_as_arguments(path, known), *given]))
    if namespace.get("streaming"):
        raise UserError(
            f"--streaming true is for networks: a recipe with `system: {parts[0].system}` needs clips on disk."
        )
    filled = [part(**{item.name: namespace[item.name] for item in dataclasses.fields(part)}) for part in parts]
    for part in filled:
        check_numbers(part)
        if isinstance(part, DataArguments):
            check_data(part)
    return filled


def check(recipe: ClassicalRecipe) -> None:
    """Refuse contradictions before any work is done.

    Raises:
        UserError: naming the field and the way out.
    """
    classical, data = recipe.classical, recipe.data
    if data.window_seconds < 0.5:
        raise UserError(f"--window_seconds {data.window_seconds} is too short for features: give at least 0.5.")
    if not 2 <= classical.mix_max_clips <= 5:
        raise UserError(f"--mix_max_clips must be 2 to 5, not {classical.mix_max_clips}.")
    if classical.search_folds < 2:
        raise UserError(f"--search_folds must be at least 2, not {classical.search_folds}.")
    if classical.grid is not None and not (
        isinstance(classical.grid, dict) and all(isinstance(values, list) for values in classical.grid.values())
    ):
        raise UserError('--grid must be a mapping of lists, such as {"C": [1, 10]}.')
    if recipe.run_dir.exists() and not recipe.run_dir.is_dir():
        raise UserError(f"--output_dir {recipe.run_dir} is a file: name a folder.")
