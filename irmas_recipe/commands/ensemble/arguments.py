"""What `ensemble` fuses and how: from the shell, or from a recipe that lists the runs."""

import argparse
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from irmas_dataset.errors import UserError
from irmas_recipe.commands.arguments import add_overwrite, check_output_folder
from irmas_recipe.training.fields import OVERWRITE, option
from irmas_recipe.training.recipe import ResolvedRecipe, parse_system

METHODS = ("mean", "weights", "voting", "stacking")
FITTED = ("weights", "stacking")


@dataclass
class EnsembleRecipe(ResolvedRecipe):
    """The runs to fuse; `system: ensemble` tells such a recipe from a network's."""

    system: Literal["ensemble"] = option("ensemble", "Fused scores of finished runs.")
    runs: list[str] = field(default_factory=list, metadata={"help": "Run folders."})
    method: Literal[METHODS] = option("mean", "How the scores are fused.")
    output_dir: str | None = option(None, "The run folder to write. Default: runs/<recipe>.")
    overwrite_output_dir: bool = option(False, OVERWRITE)

    def values(self) -> dict[str, Any]:
        """Return the fields, which are in no parts."""
        return asdict(self)


def parse_arguments(argv: list[str]) -> EnsembleRecipe:
    """Return what the verb was told; raise UserError for one run alone or an output folder that holds a run."""
    parser = argparse.ArgumentParser(
        prog="irmas ensemble",
        description="Fuse finished runs of one data set from their scores. Weights, stacking and the tuned thresholds "
        "are fitted on validation mixtures only.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a run folder, of a network or any other system")
    parser.add_argument("--output_dir", metavar="DIR", required=True, help="the run folder to write")
    parser.add_argument("--method", choices=METHODS, default="mean", help="how scores are fused (default: mean)")
    add_overwrite(parser, OVERWRITE)
    arguments = parser.parse_intermixed_args(argv)  # a run may stand behind a flag
    return checked(EnsembleRecipe(**vars(arguments)))


def parse_ensemble_recipe(arguments: list[str]) -> EnsembleRecipe:
    """Read `RECIPE [--field value ...]`; raise UserError as `parse_arguments` does."""
    return checked(*parse_system(arguments, (EnsembleRecipe,)))


def checked(recipe: EnsembleRecipe) -> EnsembleRecipe:
    """Return the recipe; raise UserError where it cannot be carried out."""
    output_dir = Path(recipe.output_dir)
    recipe.runs = [str(Path(run)) for run in recipe.runs]  # without a / at their ends
    if len(recipe.runs) < 2:
        raise UserError("An ensemble needs at least two runs: name their folders.")
    check_output_folder(output_dir, "--output_dir")
    if output_dir.resolve() in [Path(run).resolve() for run in recipe.runs]:
        raise UserError(f"--output_dir {output_dir} is one of the runs: name a new folder for the ensemble.")
    return recipe
