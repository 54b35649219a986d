"""How long a training step and a forward pass take, what they are made of, and what memory they add."""

from functools import partial

import numpy as np
import torch

from irmas_recipe.commands.benchmark import ours
from irmas_recipe.commands.benchmark.bench import Bench, Speeds
from irmas_recipe.commands.benchmark.clock import Stages, added_memory, speed
from irmas_recipe.training.machine import peak_memory_bytes
from irmas_recipe.training.precision import full_precision


def measure_training(bench: Bench) -> tuple[Speeds, dict]:
    """Return the speeds of steps and of a forward pass, and what else is known about the steps.

    Ours is measured with all tokens and, where the network is AST, with half of them; where it is compiled, eager too.
    """
    steps = {"training_step": ours.Steps(bench.trainer)}
    others = {
        "training_step_patchout": ours.with_half_of_the_tokens(bench.recipe, bench.model),
        "training_step_eager": ours.as_launched(bench.recipe, bench.trainer),
    }
    for name, recipe in others.items():
        if recipe:
            _, trainer = ours.build(recipe, bench.splits)
            steps[name] = ours.Steps(trainer)
    speeds = race_steps(bench, steps)
    speeds["forward"] = measure_forward(bench)
    return speeds, {
        "loop": {name: each.loop.figures() for name, each in steps.items()},
        "compiled_graphs": {name: each.compiled_graphs for name, each in steps.items()},
        "costliest_operations": costliest_operations(bench, steps),
        "step_memory_bytes": step_memory_bytes(bench, steps),
        "peak_memory_bytes": peak_memory_bytes(bench.device),
    }


def race_steps(bench: Bench, steps: dict[str, ours.Steps]) -> Speeds:
    """Return the speeds of all kinds of step, taken in turns, each with the milliseconds of its stages per clip."""
    contestants = {name: each.step for name, each in steps.items()}
    stages = {name: each.stages for name, each in steps.items()}
    if bench.stock:
        stocks_step(bench, clips=1)()  # warms up
        contestants["stock"], stages["stock"] = stocks_step(bench, bench.batch), bench.stock.stages
    for each in steps.values():
        each.step()
    for watched in stages.values():
        watched.take()  # forgets the warm-up
    seconds = bench.clock.race(contestants, bench.repeats)
    found = {name: timed_step(seconds[name], stages[name], bench.batch) for name in contestants}
    speeds = {name: {"ours": found[name]} for name in steps}
    if bench.stock:
        speeds["training_step"]["stock"] = found["stock"]
    return speeds


def timed_step(seconds: list[float], stages: Stages, clips: int) -> dict:
    """Return the speed of repeated steps of `clips` clips, with the mean milliseconds of each stage per clip."""
    per_clip = {stage: 1000 * total / len(seconds) / clips for stage, total in stages.take().items()}
    return speed(seconds, clips) | {"stages_ms_per_clip": per_clip}


def stocks_step(bench: Bench, clips: int) -> partial:
    """Return stock's training step on so many clips, the first ones again and again if there are too few."""
    rows = np.arange(clips) % len(bench.paths)
    labels = bench.trainer.train_dataset.labels[rows].numpy()
    return partial(bench.stock.train, [bench.paths[row] for row in rows], labels)


@torch.inference_mode()
def measure_forward(bench: Bench) -> dict[str, dict]:
    """Return the speed of a forward pass in evaluation, compiled where training is."""
    model = bench.trainer.model_wrapped.eval()
    with full_precision(bench.trainer.model):  # as evaluation is
        return bench.speeds(len(bench.inputs), partial(model, bench.inputs))


def costliest_operations(bench: Bench, steps: dict[str, ours.Steps]) -> dict[str, list[dict]]:
    """Return the operations that take most of a step, ours and stock's."""
    found = {"ours": ours.costliest_operations(steps["training_step"].step)}
    if bench.stock:
        found["stock"] = ours.costliest_operations(stocks_step(bench, clips=1))
    return found


def step_memory_bytes(bench: Bench, steps: dict[str, ours.Steps]) -> dict[str, int | None]:
    """Return how many bytes a step adds at its peak; stock's is a step of one clip."""
    halved = steps.get("training_step_patchout")
    found = {
        "ours": added_memory(bench.device, steps["training_step"].step),
        "ours_patchout": halved and added_memory(bench.device, halved.step),
    }
    if bench.stock:
        found["stock_one_clip"] = added_memory(bench.device, stocks_step(bench, clips=1))
    return found
