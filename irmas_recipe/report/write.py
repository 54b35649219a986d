"""Everything that is written about a run when it is finished."""

import sys
from pathlib import Path

from irmas_recipe.report.card import write_model_card
from irmas_recipe.report.example import write_example
from irmas_recipe.report.figures import draw_figures, results_table
from irmas_recipe.report.tracking import log_results
from irmas_recipe.training.data import data_folder
from irmas_recipe.training.recipe import Recipe
from irmas_recipe.training.trainer import InstrumentTrainer


def report(recipe: Recipe, trainer: InstrumentTrainer, results: dict) -> None:
    """Draw the figures, write the model card, and say what came out and what to do next."""
    if not trainer.is_world_process_zero():
        return
    run_dir = Path(recipe.training.output_dir)
    draw_figures(run_dir)
    write_example(run_dir, results["dataset"]["classes"])
    write_model_card(run_dir, repo_id=recipe.training.hub_model_id)
    log_results(trainer, run_dir, results)
    print(
        f"\n{results_table(results)}\n\nThe run folder is {run_dir}: the card is README.md, the pictures are in figures/."
    )
    print(next_steps(recipe, run_dir))


def next_steps(recipe: Recipe, run_dir: Path) -> str:
    """Return two lines to paste: tag a test clip with the model, and train on the real IRMAS."""
    python = Path(sys.executable)
    python = python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python
    clip = next(iter(sorted(data_folder(recipe.data).glob("IRMAS-TestingData-Part1/Part1/*.wav"))), "music.wav")
    code = (
        f"import soundfile; from transformers import pipeline; audio, rate = soundfile.read('{clip}', always_2d=True); "
        f"print(pipeline('audio-classification', model='{run_dir}')({{'raw': audio.mean(1), 'sampling_rate': rate}}))"
    )
    lines = ["\nTag a clip with it:", f'  {python} -c "{code}"']
    if recipe.data.data_dir == "synthetic":
        lines += ["Train AST on the real IRMAS (downloads about 10 GB into data/irmas, and the checkpoint):",
                  f"  {python} -m accelerate.commands.launch run_irmas.py recipes/ast/finetune.yaml"]  # fmt: skip
    return "\n".join(lines)
