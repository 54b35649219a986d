"""What clips that WaveGANs generate are worth: a generator a class, judged by numbers, and two recipes with and without them.

python -m experiments.wavegan_row --data_dir DATA --judge RUN --output_dir OUT [--seconds 300] [--recipe_seconds 240]

Every generator, and every network after them, trains for the same seconds of one core. RUN is a network that was trained
on DATA: it says which class it hears in generated clips, and its embeddings tell how far they are from the training clips.
What is finished is kept: after an interruption the same command continues.
"""

import argparse
import json
import subprocess
import time
from pathlib import Path

import numpy as np
import torch

from experiments.every_system import epochs_within
from experiments.jobs import PROGRAM, ROOT, Job, open_notes, recipe_job, run_all
from irmas_dataset.errors import UserError, start
from irmas_dataset.files import TRAINING_FOLDER
from irmas_dataset.labels import INSTRUMENT_CODES, INSTRUMENT_NAMES
from irmas_dataset.whole_file import write_json
from irmas_recipe.baselines.wavegan.main import WaveganTrainer
from irmas_recipe.training.head import output_layer
from irmas_recipe.training.recogniser import load_recogniser

SAMPLES, MODEL_SIZE, BATCH = 65536, 8, 16  # the windows' length; networks and batches that one core can train
PAIRS = {"mel": "recipes/crnn/mel.yaml", "modgd": "recipes/crnn/modgd.yaml"}


def main(argv: list[str]) -> None:
    """Train the generators, judge them, train both recipes with and without their clips, and compare."""
    arguments = parse_arguments(argv)
    out, logs = arguments.output_dir, arguments.output_dir / "logs"
    out.mkdir(parents=True, exist_ok=True)
    shared = {name: getattr(arguments, name) for name in ("data_dir", "judge", "seconds", "recipe_seconds")}
    plan = open_notes(out / "plan.json", shared)
    if "steps" not in plan:
        plan["steps"] = max(1, round(arguments.seconds / seconds_per_step()))
    write_json(out / "plan.json", plan)
    generators = [generator_job(arguments, code, plan["steps"]) for code in INSTRUMENT_CODES]
    stop_if(run_all(generators, arguments.jobs, logs, threads=1))
    if not (out / "judged.json").is_file():
        write_json(out / "judged.json", judged(arguments))
    runs = []
    for name, recipe in PAIRS.items():
        for kind, extra in (("plain", []), ("wavegan", [f"--extra_train_dir={out / 'generators'}"])):
            fields = [f"--data_dir={arguments.data_dir}", "--use_cpu=true", "--disable_tqdm=true",
                      "--thresholds_from=validation", "--per_device_train_batch_size=16", *extra]  # fmt: skip
            key = f"{name}-{kind}"
            if key not in plan:
                plan[key] = epochs_within(arguments.recipe_seconds, recipe, fields)
            write_json(out / "plan.json", plan)
            runs.append(recipe_job(key, recipe, [*fields, f"--num_train_epochs={plan[key]}"], out))
    stop_if(run_all(runs, arguments.jobs, logs, threads=1))
    print(json.dumps(plan | json.loads((out / "judged.json").read_text()), indent=1))
    for name in PAIRS:
        subprocess.run(
            [*PROGRAM, "compare", str(out / f"{name}-plain"), str(out / f"{name}-wavegan")], cwd=ROOT, check=True
        )


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(prog="python -m experiments.wavegan_row", description=__doc__.split("\n")[0])
    parser.add_argument("--data_dir", required=True, help="a folder in IRMAS's form")
    parser.add_argument("--judge", required=True, help="a network trained on it")
    parser.add_argument("--output_dir", type=Path, required=True, help="generators/, four runs, judged.json, logs/")
    parser.add_argument("--seconds", type=float, default=300, help="of training each generator (default: 300)")
    parser.add_argument("--recipe_seconds", type=float, default=240, help="of training each network (default: 240)")
    parser.add_argument("--jobs", type=int, default=1, help="commands at a time, one core each (default: 1)")
    arguments = parser.parse_args(argv)
    if min(arguments.seconds, arguments.recipe_seconds) <= 0 or arguments.jobs < 1:
        raise UserError("--seconds and --recipe_seconds must be above 0, and --jobs at least 1.")
    arguments.output_dir = arguments.output_dir.resolve()
    return arguments


def seconds_per_step() -> float:
    """Return how long one core takes for a step of a generator, after one that warms up."""
    torch.set_num_threads(1)
    noise = np.random.default_rng(0).normal(0, 3000, (BATCH, SAMPLES)).astype(np.int16)
    trainer = WaveganTrainer(list(noise), SAMPLES, MODEL_SIZE, BATCH, torch.device("cpu"), seed=0)
    trainer.train_step()
    begun = time.perf_counter()
    trainer.train_step()
    return time.perf_counter() - begun


def generator_job(arguments: argparse.Namespace, code: str, steps: int) -> Job:
    """Return the training of one class's generator, which ends with as many clips as the class has."""
    clips, folder = len(training_clips(arguments.data_dir, code)), arguments.output_dir / "generators"
    fields = {"data_dir": arguments.data_dir, "instrument": code, "steps": steps, "generate": clips, "samples": SAMPLES,
              "model_size": MODEL_SIZE, "batch_size": BATCH, "save_steps": 50, "output_dir": folder}  # fmt: skip
    command = (*PROGRAM, "recipes/wavegan/generator.yaml", *(f"--{name}={value}" for name, value in fields.items()))
    return Job(f"wavegan-{code}", folder, command, proof=f"train/{code}/wavegan-{clips - 1:05d}.wav")


def training_clips(data_dir: str, code: str) -> list[Path]:
    """Return the training clips of a class."""
    return sorted(Path(data_dir, TRAINING_FOLDER, code).glob("*.wav"))


def judged(arguments: argparse.Namespace) -> dict:
    """Return the judge's accuracy on generated and on training clips, and distances between their embeddings.

    The distance is the unbiased kernel distance of Bińkowski 2018 (arXiv 1801.01401), over all classes; "training halves"
    is that between every other training clip and the rest: what no difference looks like.
    """
    recognise = load_recogniser(arguments.judge, device="cpu")
    _, recognise.embeds = output_layer(recognise.model)
    classes, found = recognise.labels, {"generated": [], "training": []}
    for code in INSTRUMENT_CODES:
        generated = sorted((arguments.output_dir / "generators" / "train" / code).glob("*.wav"))
        for kind, files in (("generated", generated), ("training", training_clips(arguments.data_dir, code))):
            for result in recognise((str(file) for file in files), all_labels=True, return_windows=True):
                best = max(result["instruments"], key=lambda entry: entry["score"])["label"]
                found[kind].append((best == name_of(code, classes), result["windows"]["embeddings"].mean(axis=0)))
    embeddings = {kind: np.stack([embedding for _, embedding in rows]) for kind, rows in found.items()}
    scale = embeddings["training"].std()
    training, generated = embeddings["training"] / scale, embeddings["generated"] / scale
    return {
        "accuracy_generated": float(np.mean([right for right, _ in found["generated"]])),
        "accuracy_training": float(np.mean([right for right, _ in found["training"]])),
        "chance": 1 / len(INSTRUMENT_CODES),
        "distance_generated_training": kernel_distance(generated, training),
        "distance_training_halves": kernel_distance(training[::2], training[1::2]),
    }


def name_of(code: str, classes: list[str]) -> str:
    """Return a model's name of a class, which is its code or IRMAS's name of it."""
    return code if code in classes else INSTRUMENT_NAMES[code]


def kernel_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return the unbiased squared maximum mean discrepancy of (rows, width) and (rows, width), by a cubic kernel."""

    def kernel(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return (left @ right.T / left.shape[1] + 1) ** 3

    def own(rows: np.ndarray) -> float:
        similar, count = kernel(rows, rows), len(rows)
        return (similar.sum() - np.trace(similar)) / (count * (count - 1))

    return float(own(one) + own(other) - 2 * kernel(one, other).mean())


def stop_if(failed: list[str]) -> None:
    """Raise UserError where commands failed."""
    if failed:
        raise UserError(f"These did not finish, their logs say why: {', '.join(failed)}.")


if __name__ == "__main__":
    start(main)
