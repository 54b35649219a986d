"""`irmas evaluate MODEL`: measure a trained model on a test set by the protocol stored with it."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path

from irmas_dataset.whole_file import whole_folder
from irmas_recipe.commands.evaluate.arguments import parse_arguments


def main(argv: list[str]) -> None:
    """Run `evaluate MODEL [--data_dir D]`: print the run's own figures or those of other data, and write them if asked to."""
    arguments = parse_arguments(argv)

    from irmas_recipe.commands.evaluate.measurement import evaluation_recipe, measure  # these need torch
    from irmas_recipe.report.figures import draw_figures
    from irmas_recipe.report.table import results_table
    from irmas_recipe.training.data import data_folder
    from irmas_recipe.training.evaluation import write_predictions
    from irmas_recipe.training.processes import leave

    with tempfile.TemporaryDirectory() as scratch:
        recipe, seen = evaluation_recipe(arguments, scratch)
        if recipe.training.process_index > 0:  # a launcher started several; one measures
            leave(0, several_by_gloo=True)
        results, test, scores = measure(recipe, seen)
    if arguments.output_dir:
        if Path(arguments.model).is_dir():  # is found from its results, whatever the working folder
            path = os.path.relpath(Path(arguments.model).resolve(), arguments.output_dir.resolve())
            results = replace(results, more=results.more | {"measured_run": path})
        with whole_folder(arguments.output_dir) as folder:
            write_predictions(folder / "predictions.parquet", test, scores, data_folder(recipe.data))
            results.write(folder)
            draw_figures(folder)
    print(results_table(results))
    leave(0, several_by_gloo=recipe.training.world_size > 1 and recipe.training.device.type == "cpu")
