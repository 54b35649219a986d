"""The last steps of a run: its results, figures, card and closing words."""

import shlex
import sys
from pathlib import Path
from typing import Any

from datasets import DatasetDict

from irmas_dataset.labels import readable_name
from irmas_recipe.report.card import write_card
from irmas_recipe.report.example import EXAMPLE, write_example
from irmas_recipe.report.figures import draw_figures
from irmas_recipe.report.results import Results
from irmas_recipe.report.runs import TEST_FILE, read_scored_clips
from irmas_recipe.report.table import results_table
from irmas_recipe.report.text import with_interval
from irmas_recipe.report.tracking import log_results
from irmas_recipe.training.clips import multi_hot
from irmas_recipe.training.data import data_folder, describe_data, training_counts
from irmas_recipe.training.evaluation import Evaluation
from irmas_recipe.training.recipe import Recipe
from irmas_recipe.training.run_folder import RunFolder
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
        training_counts=training_counts(recipe.data, splits["train"]),
        slopes=evaluation.slopes,
        validation_positives=evaluation.validation_positives,
    )


def report(recipe: Recipe, trainer: InstrumentTrainer, results: Results, folder: RunFolder) -> None:
    """Write results.json, the figures and the card, and say what came out and what to do next."""
    if not trainer.is_world_process_zero():
        return
    write_example(folder.work, results.classes)
    finish(folder, results, repo_id=recipe.training.hub_model_id)
    recipe.training.output_dir = str(folder.path)
    log_results(trainer, folder.path, results)
    show(recipe, folder)


def finish(folder: RunFolder, results: Results, **card: Any) -> None:
    """Write results.json and the figures, move a replacement into its place, and write the card: the run is finished.

    card: options of `write_card`.
    """
    results.write(folder.work)
    draw_figures(folder.work)
    folder.settle()
    write_card(folder.path, **card)


def show(recipe: Recipe, folder: RunFolder) -> None:
    """Print a finished run's results and what to do next."""
    if recipe.training.process_index > 0:
        return
    print(results_in_words(folder))
    print(next_steps(recipe, folder.path))


def results_in_words(folder: RunFolder) -> str:
    """Return the table of a finished run's results, and where it is."""
    was = ", finished before (--overwrite_output_dir true makes it again)" if folder.is_finished else ""
    results = Results.read(folder.path)
    return (
        f"\n{results_table(results)}\n{calibration_in_words(results)}\n"
        f"The run folder is {folder.path}{was}: the card is README.md, the pictures are in figures/."
    )


def calibration_in_words(results: Results) -> str:
    """Return a line on how far confidences can be taken at their word, or nothing where they were not measured."""
    calibration = results.test.get("calibration")
    if not calibration:
        return ""
    before, after = (
        with_interval(calibration[of]["ece"], calibration[of]["ece_ci95"]) for of in ("scores", "confidence")
    )
    line = f"Expected calibration error: {after} of confidences, {before} of scores."
    if few := calibration.get("few_validation_clips"):
        names = ", ".join(readable_name(code) for code in few)
        line += f"\nToo few validation clips to calibrate the confidence of each: {names}."
    return line + "\n"


def next_steps(recipe: Recipe, run_dir: Path) -> str:
    """Return two lines to paste: tag a test clip with the model, and train on the real IRMAS."""
    irmas = Path(sys.executable).with_name("irmas")
    irmas = irmas.relative_to(Path.cwd()) if irmas.is_relative_to(Path.cwd()) else irmas
    program = [irmas] if irmas.exists() else [sys.executable, Path(sys.argv[0]).resolve()]
    command = shlex.join(map(str, program))
    tag = shlex.join(["predict", str(run_dir), str(clip_to_try(recipe, run_dir))])
    lines = ["\nTag a clip with it:", f"  {command} {tag}"]
    if recipe.data.data_dir == "synthetic":
        lines += ["Train AST on the real IRMAS (downloads it, about 12 GB, into data/irmas, and the checkpoint):",
                  f"  {command} recipes/ast/finetune.yaml"]  # fmt: skip
    return "\n".join(lines)


def clip_to_try(recipe: Recipe, run_dir: Path) -> Path:
    """Return an audio file that exists, if any does: the first test clip, or the card's example."""
    first = read_scored_clips(run_dir / TEST_FILE, Results.read(run_dir).classes).clips[0]
    return next(
        (path for path in (data_folder(recipe.data) / first, run_dir / EXAMPLE) if path.is_file()), Path("music.wav")
    )
