"""The last steps of a run: its results, figures, card and closing words."""

import shlex
import sys
from pathlib import Path
from typing import Any

from datasets import DatasetDict

from irmas_recipe.report.card import write_card
from irmas_recipe.report.example import write_example
from irmas_recipe.report.figures import draw_figures
from irmas_recipe.report.results import Results
from irmas_recipe.report.table import results_table
from irmas_recipe.report.tracking import log_results
from irmas_recipe.training.clips import multi_hot
from irmas_recipe.training.data import data_folder, describe_data
from irmas_recipe.training.evaluation import Evaluation
from irmas_recipe.training.recipe import Recipe
from irmas_recipe.training.trainer import InstrumentTrainer


def collect(recipe: Recipe, splits: DatasetDict, evaluation: Evaluation, cost: dict) -> Results:
    """Return a network's results: what was measured, with what it was trained on and what that cost."""
    return Results.measure(
        recipe=recipe.values(),
        seed=recipe.training.seed,
        dataset=describe_data(recipe.data, splits, evaluation.reported),
        train=cost | {"inference_clips_per_second": evaluation.clips_per_second},
        protocol=evaluation.protocol,
        labels=multi_hot(evaluation.test),
        scores=evaluation.scores,
        songs=evaluation.test["song"],
        thresholds=evaluation.thresholds,
        training_counts=multi_hot(splits["train"]).sum(axis=0),
    )


def report(recipe: Recipe, trainer: InstrumentTrainer, results: Results) -> None:
    """Write results.json, the figures and the card, and say what came out and what to do next."""
    if not trainer.is_world_process_zero():
        return
    run_dir = Path(recipe.training.output_dir)
    write_example(run_dir, results.classes)
    finish(run_dir, results, repo_id=recipe.training.hub_model_id)
    log_results(trainer, run_dir, results)
    print(
        f"\n{results_table(results)}\n\nThe run folder is {run_dir}: the card is README.md, the pictures are in figures/."
    )
    print(next_steps(recipe, run_dir))


def finish(run_dir: Path, results: Results, **card: Any) -> None:
    """Write results.json, the figures and the card, in this order: the card says that the run is finished.

    card: options of `write_card`.
    """
    results.write(run_dir)
    draw_figures(run_dir)
    write_card(run_dir, **card)


def next_steps(recipe: Recipe, run_dir: Path) -> str:
    """Return two lines to paste: tag a test clip with the model, and train on the real IRMAS."""
    irmas = Path(sys.executable).with_name("irmas")
    irmas = irmas.relative_to(Path.cwd()) if irmas.is_relative_to(Path.cwd()) else irmas
    command = irmas if irmas.exists() else f"{sys.executable} {Path(sys.argv[0]).resolve()}"
    clip = next(iter(sorted(data_folder(recipe.data).glob("IRMAS-TestingData-Part1/Part1/*.wav"))), "music.wav")
    lines = ["\nTag a clip with it:", f"  {command} predict {run_dir} {shlex.quote(str(clip))}"]
    if recipe.data.data_dir == "synthetic":
        lines += ["Train AST on the real IRMAS (downloads about 10 GB into data/irmas, and the checkpoint):",
                  f"  {command} recipes/ast/finetune.yaml"]  # fmt: skip
    return "\n".join(lines)
