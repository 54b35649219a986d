"""`run_irmas.py benchmark RECIPE`: how fast this machine decodes, trains, evaluates and tags with a recipe, and beside transformers' own example."""

import argparse
import logging
import os
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from datasets import DatasetDict, disable_progress_bars
from huggingface_hub import try_to_load_from_cache

from irmas_dataset.audio import decode, prepare, resample, usable_cores
from irmas_dataset.errors import UserError
from irmas_recipe.commands.arguments import check_output_file
from irmas_recipe.commands.benchmark import ours
from irmas_recipe.commands.benchmark.accuracy import PLAIN, compare_accuracy, in_words
from irmas_recipe.commands.benchmark.clips import LONG_SECONDS, make_clips, make_long_clips
from irmas_recipe.commands.benchmark.clock import Clock, added_memory, load_average, matrix_rates, speed
from irmas_recipe.commands.benchmark.processes import measure_processes
from irmas_recipe.commands.benchmark.report import draw, table
from irmas_recipe.commands.benchmark.stock import Stock
from irmas_recipe.models.pipeline.instrument_recognition import window_starts
from irmas_recipe.training import evaluation, machine
from irmas_recipe.training.checkpoint import CONVERTIBLE
from irmas_recipe.training.clips import TrainingClips
from irmas_recipe.training.model import AST_TYPE
from irmas_recipe.training.processes import quiet_libraries
from irmas_recipe.training.recipe import Recipe, parse_recipe
from irmas_recipe.training.trainer import full_precision

CPU_BATCH = 4  # a larger one changes the rate of a CPU little, and stock's steps take a minute each
IRMAS_CLIPS = 6705


def main(argv: list[str]) -> None:
    """Run `benchmark RECIPE [--against stock] [--output F] [--processes N] [--field value ...]`."""
    arguments, fields = parse_arguments(argv)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        recipe, notes = benchmark_recipe(arguments, fields, scratch)
        quiet_libraries(recipe.training.process_index)
        disable_progress_bars()
        figures = measure(recipe, arguments, Path(scratch), notes)
    print(table(figures))
    if arguments.epochs:
        with tempfile.TemporaryDirectory() as scratch:
            figures["accuracy"] = compare_accuracy(accuracy_recipe(arguments, fields, scratch), arguments.epochs)
        print(f"\n{in_words(figures['accuracy'])}")
    picture = arguments.figure or (arguments.output or Path("runs/benchmark.json")).with_suffix(".png")
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw(figures, picture)
    print(f"\nWhere the time goes: {picture}")
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        evaluation.write_json(arguments.output, figures)
        print(f"All figures: {arguments.output}")


def parse_arguments(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the benchmark's own arguments, and the rest, which belongs to the recipe."""
    parser = argparse.ArgumentParser(
        prog="run_irmas.py benchmark",
        description="Measure how fast this machine decodes, trains, evaluates and tags with a recipe.",
        allow_abbrev=False,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe; any of its fields can follow as --field value")
    parser.add_argument("--against", choices=["stock"], help="also measure what transformers' own example does")
    parser.add_argument("--output", metavar="F", type=Path, help="write all figures here as JSON")
    parser.add_argument("--figure", metavar="F", type=Path, help="the picture (default: beside --output, or in runs/)")
    parser.add_argument("--processes", metavar="N", type=int, help="also train in 1 and in N processes")
    parser.add_argument(
        "--epochs", metavar="N", type=int, help="with --against: train both N epochs on the recipe's data; as accurate?"
    )
    parser.add_argument("--clips", metavar="N", type=int, default=66, help="clips of 3 s to measure with (default: 66)")
    parser.add_argument(
        "--long_clips", metavar="N", type=int, help="clips of 20 s (default: 8, or 1 for a slow model on a CPU)"
    )
    parser.add_argument("--repeats", metavar="N", type=int, default=3, help="repeats behind each median (default: 3)")
    parser.add_argument("--random_weights", action="store_true", help="the checkpoint's shape without its weights")
    arguments, fields = parser.parse_known_args(argv)
    if arguments.clips < 33 or arguments.repeats < 1:
        raise UserError("--clips must be at least 33, so that each class has recordings, and --repeats at least 1.")
    if arguments.long_clips is not None and arguments.long_clips < 1:
        raise UserError(f"--long_clips {arguments.long_clips} is too few: give 1 or more.")
    check_output_file(arguments.output, "--output")
    check_output_file(arguments.figure, "--figure")
    if arguments.processes is not None and arguments.processes < 2:
        raise UserError(f"--processes {arguments.processes} is no comparison with one process: give 2 or more.")
    if arguments.epochs is not None and (arguments.epochs < 1 or not arguments.against):
        raise UserError("--epochs must be at least 1, and needs --against stock to compare with.")
    return arguments, fields


def accuracy_recipe(arguments: argparse.Namespace, fields: list[str], scratch: str) -> Recipe:
    """Return the recipe for as many epochs, without what the stock example does not do."""
    own = PLAIN | {"output_dir": f"{scratch}/run", "num_train_epochs": arguments.epochs}
    return parse_recipe([arguments.recipe, *fields, *(f"--{name}={value}" for name, value in own.items())])


def benchmark_recipe(arguments: argparse.Namespace, fields: list[str], scratch: str) -> tuple[Recipe, list[str]]:
    """Return the recipe without what a benchmark leaves out (checkpoints, validation), and notes on what was changed."""
    recipe = parse_recipe([arguments.recipe, *fields])
    own = {"output_dir": f"{scratch}/run", "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": "false",
           "logging_strategy": "no", "disable_tqdm": "true", "gradient_accumulation_steps": 1,
           "max_steps": ours.LOOP_STEPS.get(recipe.training.device.type, 4)}  # fmt: skip
    if recipe.training.device.type == "cpu":
        given = {field.split("=")[0] for field in fields}
        own["dataloader_num_workers"] = 0  # they would take the cores from the model
        if "--per_device_train_batch_size" not in given:
            own["per_device_train_batch_size"] = min(CPU_BATCH, recipe.training.per_device_train_batch_size)
    recipe = parse_recipe([arguments.recipe, *fields, *(f"--{name}={value}" for name, value in own.items())])
    notes = []
    name = recipe.model.model_name_or_path
    if name and (arguments.random_weights or not at_hand(name, recipe.model.model_revision)):
        recipe.model.architecture = next((port for port in CONVERTIBLE if port in name), "ast")
        recipe.model.model_name_or_path = None
        recipe.model.initial_weight = 0.0
        notes.append(
            f"Random weights of the shape of {name} ({recipe.model.architecture}'s default), which "
            + ("was asked for" if arguments.random_weights else "is not on this machine")
            + ": speed does not depend on the weights."
        )
    return recipe, notes


def at_hand(name: str, revision: str) -> bool:
    """Return whether a checkpoint is a folder here or in the Hub's local cache; nothing is fetched for a benchmark."""
    if Path(name).is_dir():
        return True
    files = ("model.safetensors", "pytorch_model.bin")
    return Path(name).parent == Path(name.split("/")[0]) and any(
        isinstance(try_to_load_from_cache(name, file, revision=revision), str) for file in files
    )


def measure(recipe: Recipe, arguments: argparse.Namespace, scratch: Path, notes: list[str]) -> dict:
    """Return every figure of the benchmark."""
    device = recipe.training.device
    clips, words = make_clips(recipe.data.data_dir, scratch / "clips", arguments.clips)
    figures = {
        "recipe": recipe.values(),
        "machine": describe_machine(device),
        "notes": [*notes, f"Clips: {words}, their files in the system's cache."],
        "ours": {},
        "stock": {},
        "ratios": {},
    }
    bench = Bench(recipe, arguments, clips, scratch, figures)
    for line in notes:
        print(line)
    bench.audio()
    bench.training()
    bench.long_clips()
    bench.scale()
    if arguments.processes:
        figures["processes"] = measure_processes(recipe, scratch, arguments.processes)
    figures["machine"]["load_average_after"] = load_average()
    for name in figures["ours"]:
        if name in figures["stock"]:
            pair = [figures[side][name]["clips_per_second"] for side in ("ours", "stock")]
            figures["ratios"][name] = pair[0] / pair[1]
    if "training_step" in figures["stock"] and "training_step_patchout" in figures["ours"]:
        pair = figures["ours"]["training_step_patchout"], figures["stock"]["training_step"]
        figures["ratios"]["training_step_patchout"] = pair[0]["clips_per_second"] / pair[1]["clips_per_second"]
    return figures


def describe_machine(device: torch.device) -> dict:
    """Return what the figures depend on besides the code."""
    return {
        "device": machine.device_name(device),
        "type": device.type,
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "load_average_before": load_average(),
        "system": platform.platform(),
        "versions": {name: version(name) for name in ("torch", "transformers", "datasets", "accelerate")},
        "commit": evaluation.commit(),
        "flops_per_second": matrix_rates(device),
    }


class Bench:
    """The measurements, each in turns with stock's where there is one."""

    def __init__(
        self, recipe: Recipe, arguments: argparse.Namespace, clips: DatasetDict, scratch: Path, figures: dict
    ) -> None:
        self.recipe, self.arguments, self.scratch, self.figures = recipe, arguments, scratch, figures
        self.device = recipe.training.device
        self.clock = Clock(self.device)
        self.batch, self.repeats = recipe.training.per_device_train_batch_size, arguments.repeats
        self.model, self.trainer = ours.build(recipe, clips)
        self.extractor, self.rate = self.trainer.processing_class, self.trainer.processing_class.sampling_rate
        self.features = self.trainer.features
        self.splits, self.clips, self.paths = clips, clips["train"], clips["train"]["path"][:]
        self.stock = self._stock() if arguments.against else None
        self.inputs = next(self._model_inputs())
        figures["parameters"] = sum(parameter.numel() for parameter in self.model.parameters())
        figures["batch"] = self.batch
        figures["precision"] = "bf16" if recipe.training.bf16 else "fp16" if recipe.training.fp16 else "fp32"
        figures["compiled"] = recipe.training.torch_compile
        figures["flops"] = {"ours": ours.flops_per_clip(self.model, self.inputs)}
        if self.stock:
            whole = torch.zeros(1, self.stock.extractor.max_length, self.inputs.shape[-1])
            figures["flops"]["stock"] = ours.flops_per_clip(self.stock.model, whole)

    def _stock(self) -> Stock:
        if self.model.config.model_type != AST_TYPE:
            raise UserError(
                "--against stock compares AST, the network of transformers' example: name a recipe of ast/."
            )
        stock = Stock(self.model.config, self.extractor, self.device)
        self.figures["notes"].append(f"Stock decodes with {stock.decoder}.")
        return stock

    def _model_inputs(self):
        prepared = TrainingClips(prepare(self.clips, self.rate), round(self.recipe.data.window_seconds * self.rate))
        for waveforms in ours.read_batches(prepared, self.batch):
            yield self.features(waveforms.to(self.device).float() / 2**15)

    def _times(self, task, against=None) -> dict[str, list[float]]:
        """Warm up and time ours, and stock's counterpart in turns with it."""
        contestants = {"ours": task} | ({"stock": against} if against else {})
        for contestant in contestants.values():
            contestant()
        return self.clock.race(contestants, self.repeats)

    def _race(self, name: str, clips: int, task, against=None) -> None:
        """Note the speed of a task that does something for `clips` clips."""
        for side, seconds in self._times(task, against).items():
            self.figures[side][name] = speed(seconds, clips)

    def audio(self) -> None:
        """Time the way from wav files to the model's input, and its parts."""
        count, samples = len(self.paths), round(self.recipe.data.window_seconds * self.rate)
        decoded = [decode(path) for path in self.paths]
        self._race("decode", count, lambda: [decode(path) for path in self.paths])
        self._race("resample", count, lambda: [resample(*clip, self.rate) for clip in decoded])
        prepared = TrainingClips(prepare(self.clips, self.rate, num_proc=1), samples)
        stock = self._stock_inputs if self.stock else None

        def first() -> None:
            anew = TrainingClips(ours.prepare_anew(self.clips, self.rate), samples)
            ours.to_model_input(anew, self.batch, self.features, self.device)

        self._race("prepare_first", count, first, stock)
        prepared = TrainingClips(prepare(self.clips, self.rate, num_proc=1), samples)
        cached = lambda: ours.to_model_input(prepared, self.batch, self.features, self.device)  # noqa: E731
        self._race("prepare_cached", count, cached, stock)
        self._race("cached_loading", count, lambda: list(ours.read_batches(prepared, self.batch)))
        waveforms = torch.cat([batch.float() for batch in ours.read_batches(prepared, self.batch)]) / 2**15
        batch = waveforms[: self.batch].to(self.device)
        self._race("features", len(batch), lambda: self.features(batch))
        labels = prepared.labels[: len(batch)].to(self.device)
        augmentation = self.trainer.augmentation

        def augment() -> None:
            augmentation.waveforms(batch, labels)
            augmentation.features(self.inputs)

        self._race("augmentation", len(batch), augment)

    def _stock_inputs(self) -> None:
        for start in range(0, len(self.paths), self.batch):
            self.stock.inputs(self.paths[start : start + self.batch])

    def training(self) -> None:
        """Time forward passes and whole training steps, ours with and without half of the tokens, in turns with stock's."""
        steps = {"training_step": ours.Steps(self.trainer)}
        halved = ours.with_half_of_the_tokens(self.recipe, self.model)
        if halved:
            _, trainer = ours.build(halved, self.splits)
            steps["training_step_patchout"] = ours.Steps(trainer)
        self.figures["loop"] = steps["training_step"].loop.figures()
        self.figures["compiled_graphs"] = {name: each.compiled_graphs for name, each in steps.items()}
        contestants = {name: each.step for name, each in steps.items()}
        rows = np.arange(self.batch) % len(self.paths)
        labels = self.trainer.train_dataset.labels[rows].numpy()
        if self.stock:
            self.stock.train([self.paths[0]], labels[:1])  # warms up
            contestants["stock"] = lambda: self.stock.train([self.paths[i] for i in rows], labels)
        for each in steps.values():
            each.step()
        clear = [*steps.values(), *([self.stock] if self.stock else [])]
        for each in clear:
            each.stages.take()
        seconds = self.clock.race(contestants, self.repeats)
        for name in steps:
            self.figures["ours"][name] = speed(seconds[name], self.batch)
            self._note_stages("ours", name, steps[name].stages, len(seconds[name]))
        if self.stock:
            self.figures["stock"]["training_step"] = speed(seconds["stock"], self.batch)
            self._note_stages("stock", "training_step", self.stock.stages, len(seconds["stock"]))
        self._forward()
        self._use_of_the_machine()
        self.figures["costliest_operations"] = {"ours": ours.costliest_operations(steps["training_step"].step)}
        memory = {name: added_memory(self.device, each.step) for name, each in steps.items()}
        self.figures["step_memory_bytes"] = {
            "ours": memory["training_step"],
            "ours_patchout": memory.get("training_step_patchout"),
        }
        if self.stock:
            one = lambda: self.stock.train([self.paths[0]], labels[:1])  # noqa: E731
            self.figures["costliest_operations"]["stock"] = ours.costliest_operations(one)
            self.figures["step_memory_bytes"]["stock_one_clip"] = added_memory(self.device, one)
        self.figures["peak_memory_bytes"] = machine.peak_memory_bytes(self.device)

    def _note_stages(self, side: str, name: str, stages, repeats: int) -> None:
        per_clip = {stage: 1000 * value / repeats / self.batch for stage, value in stages.take().items()}
        self.figures[side][name]["stages_ms_per_clip"] = per_clip

    @torch.inference_mode()
    def _forward(self) -> None:
        model = self.trainer.model_wrapped.eval()
        with full_precision(self.trainer.model):  # as evaluation is
            self._race("forward", len(self.inputs), lambda: model(self.inputs))

    def _use_of_the_machine(self) -> None:
        """Relate the operations of a training step to the machine's rate for large products in the same precision."""
        rates = self.figures["machine"]["flops_per_second"]
        for side, precision in (("ours", self.figures["precision"]), ("stock", "fp32")):
            if "training_step" in self.figures[side] and precision in rates:
                entry = self.figures[side]["training_step"]
                done = entry["clips_per_second"] * self.figures["flops"][side]["training_step"]
                entry["fraction_of_matrix_rate"] = done / rates[precision]

    def long_clips(self) -> None:
        """Time the evaluation of clips of 20 s, and tagging files from the disk."""
        window, hop = evaluation.window_and_hop_samples(self.recipe.data, self.rate)
        windows = len(window_starts(round(LONG_SECONDS * self.rate), window, hop))
        slow = windows * self.figures["ours"]["forward"]["ms_per_clip"] > 1000
        count = self.arguments.long_clips or (1 if slow else 8)
        files = make_long_clips(self.paths, self.scratch / "long", count)
        rows = self.clips.select([0] * count).remove_columns("path").add_column("path", files)
        prepared = prepare(rows, self.rate, num_proc=1)
        seconds = self._times(
            lambda: ours.score_prepared(self.trainer, prepared, self.recipe),
            (lambda: [self.stock.score_whole(path) for path in files]) if self.stock else None,
        )
        self.figures["ours"]["evaluate"] = speed(seconds["ours"], count) | {"windows_per_clip": windows}
        if self.stock:
            self._note_stocks_evaluation(speed(seconds["stock"], count), windows)
        recognise = ours.recogniser(self.model, self.recipe, self.extractor, self.device)
        with full_precision(self.trainer.model):
            self._race("predict", count, lambda: recognise(files))
        predict = self.figures["ours"]["predict"]
        predict["times_real_time"] = predict["clips_per_second"] * LONG_SECONDS

    def _note_stocks_evaluation(self, fewest: dict, windows: int) -> None:
        """Note stock's two ways to hear 20 s: in two inputs of 10.24 s, or window by window as ours."""
        inputs = 2
        self.figures["stock"]["evaluate"] = {
            "clips_per_second": fewest["clips_per_second"] * inputs / windows,
            "ms_per_clip": fewest["ms_per_clip"] * windows / inputs,
            "derived": f"{windows} inputs of 1,024 frames, from the time of {inputs}",
        }
        self.figures["stock"]["evaluate_in_fewest_inputs"] = fewest | {"inputs_per_clip": inputs}
        faster = self.figures["ours"]["evaluate"]["clips_per_second"] / fewest["clips_per_second"]
        self.figures["ratios"]["evaluate_in_fewest_inputs"] = faster
        self.figures["notes"].append(
            f"evaluate: both score the same {windows} windows of a 20 s clip, stock's padded to 10.24 s each (derived from the "
            "time of two such inputs). In fewest inputs: stock hears the clip in two inputs of 10.24 s, another protocol than "
            "it was trained by; the example itself hears the first 10.24 s only. Ours reads prepared clips, stock the files."
        )

    def scale(self) -> None:
        """Time how a data set of IRMAS's size, and one a hundred times as large, opens: the same clips again and again."""
        prepared = prepare(self.clips, self.rate, num_proc=1)
        samples = round(self.recipe.data.window_seconds * self.rate)
        self.figures["opening"] = {}
        for factor in (1, 100):
            rows = np.resize(np.arange(len(prepared)), factor * IRMAS_CLIPS)
            repeated, opened = prepared.select(rows), []
            begin = lambda repeated=repeated, opened=opened: opened.append(TrainingClips(repeated, samples)[0])  # noqa: E731
            seconds = [self.clock.seconds(begin) for _ in range(self.repeats)]
            self.figures["opening"][f"{factor} x IRMAS"] = {
                "clips": len(rows),
                "seconds_to_first_clip": float(np.median(seconds)),
                "added_memory_bytes": added_memory(torch.device("cpu"), begin),
            }
