"""`run_irmas.py benchmark RECIPE`: how fast this machine decodes, trains, evaluates and tags, also beside transformers' own example."""

import logging
import tempfile
from pathlib import Path

from irmas_recipe.commands.benchmark.arguments import parse_arguments


def main(argv: list[str]) -> None:
    """Print the figures, draw where the time goes, and write everything to --output."""
    arguments, fields = parse_arguments(argv)

    from datasets import disable_progress_bars  # these imports need torch, which takes seconds

    from irmas_dataset.whole_file import write_json
    from irmas_recipe.commands.benchmark.accuracy import compare_accuracy, in_words
    from irmas_recipe.commands.benchmark.figure import draw
    from irmas_recipe.commands.benchmark.measurements import take_all
    from irmas_recipe.commands.benchmark.recipes import accuracy_recipe, benchmark_recipe
    from irmas_recipe.commands.benchmark.table import table
    from irmas_recipe.training.processes import quiet_libraries

    with tempfile.TemporaryDirectory() as scratch:
        recipe, notes = benchmark_recipe(arguments, fields, scratch)
        plain_recipe = accuracy_recipe(arguments, fields, scratch) if arguments.epochs else None
        logging.getLogger("transformers").setLevel(logging.ERROR)
        quiet_libraries(recipe.training.process_index)
        disable_progress_bars()
        print(*notes, sep="\n", end="\n" * bool(notes))
        figures = take_all(recipe, arguments, Path(scratch), notes)
        print(table(figures))
        if plain_recipe:
            figures["accuracy"] = compare_accuracy(plain_recipe, arguments.epochs)
            print(f"\n{in_words(figures['accuracy'])}")
    picture = arguments.figure or (arguments.output or Path("runs/benchmark.json")).with_suffix(".png")
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw(figures, picture)
    print(f"\nWhere the time goes: {picture}")
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.output, figures)
        print(f"All figures: {arguments.output}")
