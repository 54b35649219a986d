"""The parameters of a classical system, and how a recipe and the command line set them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from irmas_dataset.cores import usable_cores
from irmas_dataset.errors import UserError
from irmas_recipe.training.fields import COUNT, OVERWRITE, PROBABILITY, SEED, Bounds, DataArguments, option
from irmas_recipe.training.recipe import ResolvedRecipe, parse_system

CLASSIFIER_NAMES = (
    "random_forest", "bagging", "decision_tree", "nearest_neighbours", "naive_bayes", "svm", "gradient_boosting",
)  # fmt: skip


@dataclass
class ClassicalArguments:
    """Which features and which classifier; `system: classical` tells such a recipe from a network's."""

    system: Literal["classical"] = option("classical", "Features and a classifier.")
    features: Literal["sarwar", "full"] = option(
        "full", "sarwar: 98 columns (AbubakarSarwar). full: 382 columns of timbre, harmony and rhythm."
    )
    classifier: Literal[CLASSIFIER_NAMES] = option("svm", "One per class, each against the rest.")
    feature_selection: Literal["none", "l1"] = option(
        "none", "l1: a class uses the columns that an L1 linear SVM does not set to zero."
    )
    grid: dict | str | None = option(
        None, "Values to search, {field: [values]} (JSON on the shell). Default: the classifier's own grid."
    )
    search_folds: int = option(
        3, "Folds of the training recordings that choose among the grid's values.", Bounds(at_least=2)
    )
    mix_probability: float = option(
        0.0, "Share of training rows that are mixtures of clips of other classes.", PROBABILITY
    )
    mix_max_clips: int = option(3, "A training mixture holds 2 to this many clips.", Bounds(at_least=2, at_most=5))
    importance_repeats: int = option(5, "Shuffles of each descriptor behind the importances.", COUNT)
    processes: int | None = option(None, "Processes for features and the search. Default: one per CPU core.", COUNT)
    seed: int = option(42, "Seed of folds, mixtures and classifiers.", SEED)
    output_dir: str | None = option(None, "The run folder. Default: runs/<recipe>.")
    overwrite_output_dir: bool = option(False, OVERWRITE)


@dataclass
class ClassicalRecipe(ResolvedRecipe):
    """The resolved parameters; `data` is the same as a network's."""

    classical: ClassicalArguments
    data: DataArguments

    @property
    def run_dir(self) -> Path:
        return Path(self.classical.output_dir)

    @property
    def processes(self) -> int:
        """How many processes compute features and search."""
        return self.classical.processes or usable_cores()


def parse_classical_recipe(arguments: list[str]) -> ClassicalRecipe:
    """Read `RECIPE [--field value ...]`; raise UserError as `parse_recipe` does."""
    recipe = ClassicalRecipe(*parse_system(arguments, (ClassicalArguments, DataArguments)))
    from irmas_recipe.training.parser import from_json

    recipe.classical.grid = from_json("grid", recipe.classical.grid)
    check(recipe)
    return recipe


def check(recipe: ClassicalRecipe) -> None:
    """Refuse contradictions before any work is done.

    Raises:
        UserError: naming the field and the way out.
    """
    classical, data = recipe.classical, recipe.data
    if data.window_seconds < 0.5:
        raise UserError(f"--window_seconds {data.window_seconds} is too short for features: give at least 0.5.")
    if classical.grid is not None and not (
        isinstance(classical.grid, dict)
        and all(isinstance(values, list) and values for values in classical.grid.values())
    ):
        raise UserError('--grid must be a mapping of non-empty lists, such as {"C": [1, 10]}.')
    if recipe.run_dir.exists() and not recipe.run_dir.is_dir():
        raise UserError(f"--output_dir {recipe.run_dir} is a file: name a folder.")
