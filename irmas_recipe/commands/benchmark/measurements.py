"""All measurements in turn, and their figures as one mapping, which --output writes."""

import argparse
import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

from irmas_dataset.cores import usable_cores
from irmas_recipe.commands.benchmark.audio import measure_audio
from irmas_recipe.commands.benchmark.bench import Bench, Speeds, build_bench
from irmas_recipe.commands.benchmark.clips import make_clips
from irmas_recipe.commands.benchmark.clock import load_average, matrix_rates
from irmas_recipe.commands.benchmark.long_clips import (
    EVALUATION_NOTE,
    choose_count,
    measure_long_clips,
    windows_per_clip,
)
from irmas_recipe.commands.benchmark.opening import measure_opening
from irmas_recipe.commands.benchmark.ours import flops_per_clip
from irmas_recipe.commands.benchmark.processes import measure_processes
from irmas_recipe.commands.benchmark.training_step import measure_training
from irmas_recipe.report.provenance import commit
from irmas_recipe.training.machine import device_name
from irmas_recipe.training.recipe import Recipe

COMPARED_WITH = {
    "training_step_patchout": ("training_step_patchout", "training_step"),
    "evaluate_in_fewest_inputs": ("evaluate", "evaluate_in_fewest_inputs"),
}
"""Ratio -> the stage of ours and the stage of stock behind it, where they are not the same."""


FEWEST_BATCHES = 4  # of an epoch, since the loop starts a loader for each


def take_all(recipe: Recipe, arguments: argparse.Namespace, scratch: Path, notes: list[str]) -> dict:
    """Take every measurement and return every figure; clips and caches go into `scratch`."""
    clips = max(arguments.clips, FEWEST_BATCHES * recipe.training.per_device_train_batch_size)
    splits, words = make_clips(recipe.data.data_dir, scratch / "clips", clips)
    machine = describe_machine(recipe.training.device)
    bench = build_bench(recipe, splits, arguments.repeats, against_stock=bool(arguments.against))
    flops = count_flops(bench)
    speeds, step_figures = measure_training(bench)
    windows = windows_per_clip(bench)
    if not arguments.training_only:
        count = arguments.long_clips or choose_count(windows, speeds["forward"]["ours"]["ms_per_clip"])
        speeds |= measure_audio(bench) | measure_long_clips(bench, count, scratch / "long")
    figures = {
        "recipe": recipe.values(),
        "machine": machine,
        "notes": [*notes, f"Clips: {words}, their files in the system's cache.", *notes_on_stock(bench, windows)],
        **by_side(speeds),
        "ratios": ratios(speeds),
        "parameters": sum(parameter.numel() for parameter in bench.model.parameters()),
        "batch": bench.batch,
        "precision": bench.precision,
        "compiled": recipe.training.compile_model,
        "flops": flops,
        **step_figures,
        "opening": {} if arguments.training_only else measure_opening(bench),
    }
    add_use_of_the_machine(figures)
    if arguments.processes:
        figures["processes"] = measure_processes(recipe, scratch, arguments.processes)
    figures["machine"]["load_average_after"] = load_average()
    return figures


def describe_machine(device: torch.device) -> dict:
    """Return what the figures depend on besides the code."""
    return {
        "device": device_name(device),
        "type": device.type,
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "load_average_before": load_average(),
        "system": platform.platform(),
        "versions": {name: version(name) for name in ("torch", "transformers", "datasets", "accelerate")},
        "commit": commit(),
        "flops_per_second": matrix_rates(device),
    }


def count_flops(bench: Bench) -> dict[str, dict[str, int]]:
    """Return the floating-point operations per clip of ours and, for its longer input, of stock."""
    flops = {"ours": flops_per_clip(bench.model, bench.inputs)}
    if bench.stock:
        whole = torch.zeros(1, bench.stock.extractor.max_length, bench.inputs.shape[-1])
        flops["stock"] = flops_per_clip(bench.stock.model, whole)
    return flops


def notes_on_stock(bench: Bench, windows: int) -> list[str]:
    """Return what a reader of stock's figures has to know."""
    if bench.stock is None:
        return []
    return [f"Stock decodes with {bench.stock.decoder}.", EVALUATION_NOTE.format(windows=windows)]


def by_side(speeds: Speeds) -> dict[str, dict[str, dict]]:
    """Return side -> stage -> speed."""
    return {
        side: {stage: sides[side] for stage, sides in speeds.items() if side in sides} for side in ("ours", "stock")
    }


def ratios(speeds: Speeds) -> dict[str, float]:
    """Return how many times as fast as stock ours is, for each stage that both have."""
    found = {}
    for stage in speeds:
        our_stage, stocks_stage = COMPARED_WITH.get(stage, (stage, stage))
        ours, stock = speeds[our_stage].get("ours"), speeds[stocks_stage].get("stock")
        if ours and stock:
            found[stage] = ours["clips_per_second"] / stock["clips_per_second"]
    return found


def add_use_of_the_machine(figures: dict) -> None:
    """Add to each training step its operations per second, relative to the machine's rate for large products."""
    rates = figures["machine"]["flops_per_second"]
    for side, precision in (("ours", figures["precision"]), ("stock", "fp32")):
        entry = figures[side].get("training_step")
        if entry and precision in rates:
            share_of_a_clip = figures["flops"][side]["training_step"] / rates[precision]
            entry["fraction_of_matrix_rate"] = entry["clips_per_second"] * share_of_a_clip
            if side == "ours":
                loop = figures["loop"]["training_step"]
                loop["fraction_of_matrix_rate"] = loop["clips_per_second"] * share_of_a_clip
