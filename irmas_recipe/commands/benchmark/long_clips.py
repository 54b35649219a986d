"""How fast clips of 20 s are evaluated, and files of 20 s tagged."""

import copy
from functools import partial
from pathlib import Path

import torch

from irmas_dataset.audio import prepare
from irmas_recipe.commands.benchmark import ours
from irmas_recipe.commands.benchmark.bench import Bench, Speeds
from irmas_recipe.commands.benchmark.clips import LONG_SECONDS, make_long_clips
from irmas_recipe.commands.benchmark.clock import speed
from irmas_recipe.commands.predict.catalogue import workers_for
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline
from irmas_recipe.models.pipeline.windows import window_starts
from irmas_recipe.training import evaluation
from irmas_recipe.training.precision import full_precision

GPU_ROUNDS = 64  # of the files that are tagged, so that starting the decoding processes weighs little
STOCKS_INPUTS = 2  # of 10.24 s, in which stock hears a clip of 20 s
EVALUATION_NOTE = (
    "evaluate: both score the same {windows} windows of a 20 s clip, stock's padded to 10.24 s each (derived from the time "
    "of two such inputs). In fewest inputs: stock hears the clip in two inputs of 10.24 s, another protocol than it was "
    "trained with; the example itself hears the first 10.24 s only. Ours reads prepared clips, stock the files."
)


def windows_per_clip(bench: Bench) -> int:
    """Return how many windows a clip of 20 s has."""
    window, hop = evaluation.window_and_hop_samples(bench.recipe.data, bench.rate)
    return len(window_starts(round(LONG_SECONDS * bench.rate), window, hop))


def choose_count(windows: int, forward_ms_per_clip: float) -> int:
    """Return how many long clips to measure with: 8, or 1 where one takes longer than a second."""
    return 1 if windows * forward_ms_per_clip > 1000 else 8


def measure_long_clips(bench: Bench, count: int, scratch: Path) -> Speeds:
    """Return the speeds of evaluating and of tagging `count` clips of 20 s, which are written into `scratch`."""
    files = make_long_clips(bench.paths, scratch, count)
    return measure_evaluation(bench, files) | measure_tagging(bench, files)


def measure_evaluation(bench: Bench, files: list[str]) -> Speeds:
    """Return the speeds of scoring prepared clips; stock's from the files, in as few inputs as possible and as ours."""
    rows = bench.clips.select([0] * len(files)).remove_columns("path").add_column("path", files)
    prepared = prepare(rows, bench.rate, num_proc=1)

    def score_all_by_stock() -> None:
        for file in files:
            bench.stock.score_whole(file)

    task = partial(ours.score_prepared, bench.trainer, prepared, bench.recipe)
    seconds = bench.times(task, score_all_by_stock if bench.stock else None)
    windows = windows_per_clip(bench)
    speeds = {"evaluate": {"ours": speed(seconds["ours"], len(files)) | {"windows_per_clip": windows}}}
    if bench.stock:
        fewest = speed(seconds["stock"], len(files))
        speeds["evaluate"]["stock"] = by_windows(fewest, windows)
        speeds["evaluate_in_fewest_inputs"] = {"stock": fewest | {"inputs_per_clip": STOCKS_INPUTS}}
    return speeds


def by_windows(fewest: dict, windows: int) -> dict:
    """Return stock's speed of scoring a clip window by window, from its time of two inputs."""
    return {
        "clips_per_second": fewest["clips_per_second"] * STOCKS_INPUTS / windows,
        "ms_per_clip": fewest["ms_per_clip"] * windows / STOCKS_INPUTS,
        "derived": f"{windows} inputs of 1,024 frames, from the time of {STOCKS_INPUTS}",
    }


def measure_tagging(bench: Bench, files: list[str]) -> Speeds:
    """Return the speed of the pipeline of `predict` from files to labels, also as multiples of real time.

    A GPU tags the files many times, with as many decoding processes as `predict` has for so many, and also in bfloat16.
    """
    workers, speeds, models = 0, {}, {"predict": bench.model}
    if bench.device.type == "cuda":
        files = files * GPU_ROUNDS
        workers = workers_for(None, len(files))
        models["predict_bf16"] = copy.deepcopy(bench.model).to(torch.bfloat16)
    for name, model in models.items():
        recognise = ours.recogniser(model, bench.recipe, bench.trainer.processing_class, bench.device)
        with full_precision(model):
            entry = bench.speeds(len(files), partial(tag_all, recognise, files, workers))["ours"]
        entry |= {"times_real_time": entry["clips_per_second"] * LONG_SECONDS, "decoding_processes": workers}
        speeds[name] = {"ours": entry}
    return speeds


def tag_all(recognise: InstrumentRecognitionPipeline, files: list[str], workers: int) -> None:
    """Tag all files by so many decoding processes; by a thread for 0."""
    for _ in recognise((file for file in files), num_workers=workers):
        pass
