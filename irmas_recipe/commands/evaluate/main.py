"""`irmas evaluate MODEL`: measure a trained model on a test set by the protocol stored with it."""

import tempfile

from irmas_recipe.commands.evaluate.arguments import parse_arguments


def main(argv: list[str]) -> None:
    """Run `evaluate MODEL [--data_dir D]`: print the run's own figures or those of other data, and write them if asked to."""
    arguments = parse_arguments(argv)

    from irmas_recipe.commands.evaluate.measurement import evaluation_recipe, measure  # these need torch
    from irmas_recipe.report.figures import draw_figures
    from irmas_recipe.report.table import results_table
    from irmas_recipe.training.data import data_folder
    from irmas_recipe.training.evaluation import write_predictions

    with tempfile.TemporaryDirectory() as scratch:
        recipe, tuned_songs = evaluation_recipe(arguments, scratch)
        results, test, scores = measure(recipe, tuned_songs)
    if arguments.output_dir:
        arguments.output_dir.mkdir(parents=True, exist_ok=True)
        folder = data_folder(recipe.data)
        write_predictions(arguments.output_dir / "predictions.parquet", test, scores, folder)
        results.write(arguments.output_dir)
        draw_figures(arguments.output_dir)
    print(results_table(results))
