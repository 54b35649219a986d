#!/usr/bin/env python3
"""Recipe -> data -> model -> Trainer -> evaluation -> report -> Hub.

accelerate launch run_irmas.py recipes/ast/finetune.yaml [--field value ...]
python run_irmas.py VERB ...          # a file of commands/: predict, evaluate, download, ...
"""

import ast
import importlib
from pathlib import Path

from irmas_dataset.errors import start

ROOT = Path(__file__).parent


def main(arguments: list[str]) -> None:
    """Run a verb, or train, evaluate and report a recipe (one of no network names its own `system` in baselines/)."""
    if arguments and arguments[0] in verbs():
        importlib.import_module(f"commands.{arguments[0]}").main(arguments[1:])
        return
    if arguments in (["--help"], ["-h"]):
        print(overview())
        return
    from training import run
    from training.arguments import SYSTEMS, parse_recipe, system_of

    if system := system_of(arguments):
        importlib.import_module(SYSTEMS[system]).main(arguments)
        return
    recipe = parse_recipe(arguments)
    checkpoint = run.begin(recipe)
    data = run.load_data(recipe)
    model, feature_extractor = run.build_model(recipe, data)
    prepared = run.prepare(recipe, data, feature_extractor.sampling_rate)
    trainer = run.build_trainer(recipe, prepared, model, feature_extractor)
    training = run.train(recipe, trainer, checkpoint)
    results = run.evaluate(recipe, data, prepared, trainer, training)
    run.save(recipe, trainer, results)
    run.report(recipe, trainer, results)
    run.push(recipe, trainer)
    run.end(trainer)


def verbs() -> list[str]:
    """Return the names of the files in commands/ that are verbs."""
    return sorted(path.stem for path in (ROOT / "commands").glob("*.py") if not path.stem.startswith("_"))


def overview() -> str:
    """Return what `--help` says: the verbs, one line each, and where the fields of a recipe are listed."""
    lines = [
        "python run_irmas.py RECIPE.yaml [--field value ...]",
        "    train, evaluate and report a recipe; with --help: list its fields",
    ]
    for verb in verbs():
        docstring = ast.get_docstring(ast.parse((ROOT / "commands" / f"{verb}.py").read_text(encoding="utf-8")))
        command, _, words = docstring.splitlines()[0].removeprefix("`").partition("`: ")
        lines += [f"python {command}", f"    {words}"]
    return "\n".join(lines)


if __name__ == "__main__":
    start(main)
