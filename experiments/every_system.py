"""Every recipe on one data set for one budget, with and without mixing, the ensembles, and one table of them all.

python -m experiments.every_system --data_dir DATA --output_dir OUT [--seconds 180] [--mobilenet FOLDER]

Each network trains for the same seconds of one core: the time of its own steps is measured first, and the number of
epochs follows, so that its schedule ends when the budget does. Classical systems have no such budget; their whole nested
search is run. What is finished is kept: after an interruption the same command continues.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm
from transformers import PrinterCallback

from experiments.jobs import PROGRAM, ROOT, Job, open_notes, recipe_job, run_all
from irmas_dataset.cores import usable_cores
from irmas_dataset.errors import UserError, start
from irmas_dataset.whole_file import write_json
from irmas_recipe.training.data import load_data, prepare_splits
from irmas_recipe.training.model import build_model
from irmas_recipe.training.processes import quiet_libraries
from irmas_recipe.training.recipe import parse_recipe
from irmas_recipe.training.train import build_trainer

BUDGET_FILE = "budget.json"
CALIBRATION_STEPS = 8  # the first ones, which are slow, are not counted
MOST_EPOCHS = 200
NETWORKS = {
    "ast-small": "recipes/quickstart.yaml",
    "cnn-han2017": "recipes/cnn/han2017.yaml",
    "cnn-gomez2018": "recipes/cnn/gomez2018.yaml",
    "cnn-instronizer": "recipes/cnn/instronizer.yaml",
    "cnn-spectrogram_image": "recipes/cnn/spectrogram_image.yaml",
    "crnn-mel": "recipes/crnn/mel.yaml",
    "crnn-modgd": "recipes/crnn/modgd.yaml",
    "crnn-tempogram": "recipes/crnn/tempogram.yaml",
    "crnn-swin_mel": "recipes/crnn/swin_mel.yaml",
    "mfcc-subnetworks": "recipes/mfcc/subnetworks.yaml",
}
PRETRAINED = {
    "mobilenet-finetune": "recipes/mobilenet/finetune.yaml",
    "mobilenet-linear_probe": "recipes/mobilenet/linear_probe.yaml",
}
ZERO_SHOT = {"mobilenet-zero_shot": "recipes/mobilenet/zero_shot.yaml"}
MIXING = {"mixed": ("--mix_probability=0.5", "--mix_max_clips=3"), "single": ("--mix_probability=0",)}
ENSEMBLES = {
    "ensemble-crnn": (("crnn-mel", "crnn-modgd", "crnn-tempogram"), "mean"),
    "ensemble-cnn": (("cnn-han2017", "cnn-gomez2018"), "mean"),
    "ensemble-scratch-mean": (tuple(NETWORKS), "mean"),
    "ensemble-scratch-weights": (tuple(NETWORKS), "weights"),
    "ensemble-scratch-voting": (tuple(NETWORKS), "voting"),
    "ensemble-scratch-stacking": (tuple(NETWORKS), "stacking"),
}
"""Name -> the systems that are fused, each as trained with mixing, and how."""


def main(argv: list[str]) -> None:
    """Train what is not finished, fuse, and compare."""
    arguments = parse_arguments(argv)
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    trained = network_jobs(arguments) + classical_jobs(arguments)
    failed = run_all(trained, arguments.jobs, arguments.output_dir / "logs", threads=1)
    fused = ensemble_jobs(arguments.output_dir, {job.name for job in trained if job.finished})
    failed += run_all(fused, 1, arguments.output_dir / "logs", threads=1)
    done = [str(job.run_dir) for job in trained + fused if job.finished]
    if done:
        table = ["--output_dir", str(arguments.output_dir / "table")]
        subprocess.run([*PROGRAM, "compare", *done, *table], cwd=ROOT, check=True)
    if failed:
        raise UserError(
            f"These did not finish, their logs in {arguments.output_dir}/logs say why: {', '.join(failed)}."
        )


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(prog="python -m experiments.every_system", description=__doc__.split("\n")[0])
    parser.add_argument("--data_dir", required=True, help="the data set of every system")
    parser.add_argument("--output_dir", type=Path, required=True, help="a run folder a system, logs/ and table/")
    parser.add_argument(
        "--seconds", type=float, default=180, help="of training each network on one core (default: 180)"
    )
    parser.add_argument(
        "--batch_size", type=int, default=16, help="of the networks from scratch, which need many steps (default: 16)"
    )
    parser.add_argument("--mobilenet", help="a converted AudioSet MobileNet; without it its three systems are left out")
    parser.add_argument("--jobs", type=int, default=usable_cores(), help="systems at a time (default: one per core)")
    parser.add_argument("--only", nargs="*", default=None, metavar="NAME", help="only systems whose name starts so")
    arguments = parser.parse_args(argv)
    if arguments.seconds <= 0 or arguments.jobs < 1:
        raise UserError("--seconds must be above 0, and --jobs at least 1.")
    arguments.output_dir = arguments.output_dir.resolve()
    return arguments


def network_jobs(arguments: argparse.Namespace) -> list[Job]:
    """Return the networks' runs, each with and without mixing, for the epochs that fit the budget."""
    recipes = NETWORKS | (PRETRAINED if arguments.mobilenet else {})
    shared = {name: getattr(arguments, name) for name in ("data_dir", "seconds", "batch_size", "mobilenet")}
    budget = open_notes(arguments.output_dir / BUDGET_FILE, shared)
    epochs, jobs = budget.setdefault("epochs", {}), []
    for name, recipe in tqdm(recipes.items(), desc="Measuring steps", unit="system"):
        if not chosen(name, arguments.only):
            continue
        fields = common_fields(arguments, name)
        if name not in epochs:
            epochs[name] = epochs_within(arguments.seconds, recipe, [*fields, *MIXING["mixed"]])
            write_json(arguments.output_dir / BUDGET_FILE, budget)
        for how, mixing in MIXING.items():
            validated = ("--eval_strategy=steps", "--eval_steps=0.25", "--save_strategy=steps", "--save_steps=0.25")
            fields_of_run = (*fields, *mixing, *validated, f"--num_train_epochs={epochs[name]}")
            jobs.append(recipe_job(f"{name}-{how}", recipe, fields_of_run, arguments.output_dir))
    if arguments.mobilenet:
        for name, recipe in ZERO_SHOT.items():
            if chosen(name, arguments.only):
                jobs.append(recipe_job(name, recipe, common_fields(arguments, name), arguments.output_dir))
    return jobs


def chosen(name: str, only: list[str] | None) -> bool:
    """Return whether a system is asked for."""
    return only is None or name.startswith(tuple(only))


def common_fields(arguments: argparse.Namespace, name: str) -> list[str]:
    """Return the fields that a recipe must share with the others: data, protocol, device, checkpoint."""
    fields = [
        f"--data_dir={arguments.data_dir}",
        "--thresholds_from=validation",
        "--use_cpu=true",
        "--disable_tqdm=true",
    ]
    if name in NETWORKS:
        fields.append(f"--per_device_train_batch_size={arguments.batch_size}")
    return fields + ([f"--model_name_or_path={arguments.mobilenet}"] if name.startswith("mobilenet") else [])


def epochs_within(seconds: float, recipe_file: str, fields: list[str]) -> float:
    """Return how many epochs of a recipe one core trains in so many seconds, without evaluation: a few steps are timed.

    It is measured in a process of its own, with one thread, as the run will be.
    """
    with tempfile.TemporaryDirectory() as scratch:
        code = "import sys; from experiments.every_system import print_clips_per_second; print_clips_per_second(sys.argv[1:])"
        command = [sys.executable, "-c", code, recipe_file, *fields, f"--output_dir={scratch}"]
        done = subprocess.run(command, cwd=ROOT, env=one_thread(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{recipe_file} cannot be timed: {done.stderr.strip().splitlines()[-1]}")
    rate, clips = (float(word) for word in done.stdout.split()[-2:])
    return round(min(max(seconds * rate / clips, 0.1), MOST_EPOCHS), 2)


def print_clips_per_second(argv: list[str]) -> None:
    """Train a few steps of a recipe and print its speed, and the number of its training clips."""
    own = [f"--max_steps={CALIBRATION_STEPS}", "--eval_strategy=no", "--save_strategy=no", "--load_best_model_at_end=false",
           "--disable_tqdm=true", "--logging_strategy=no"]  # fmt: skip
    recipe = parse_recipe([*argv, *own])
    quiet_libraries(recipe.training.process_index)
    data = load_data(recipe.data)
    model, extractor = build_model(recipe, data)
    prepared = prepare_splits(data, recipe.data, extractor.sampling_rate)
    trainer = build_trainer(recipe, prepared, model, extractor)
    trainer.remove_callback(PrinterCallback)
    times = []
    step = trainer.training_step
    trainer.training_step = lambda *given, **named: (step(*given, **named), times.append(time.perf_counter()))[0]
    trainer.train()
    counted = times[2:]
    rate = recipe.training.per_device_train_batch_size * (len(counted) - 1) / (counted[-1] - counted[0])
    print(rate, len(trainer.train_dataset))


def classical_jobs(arguments: argparse.Namespace) -> list[Job]:
    """Return the classical systems' runs, with and without mixing."""
    jobs = []
    for path in sorted((ROOT / "recipes/classical").glob("*.yaml")):
        for how, mixing in MIXING.items():
            name = f"classical-{path.stem}-{how}"
            if chosen(name, arguments.only):
                fields = (f"--data_dir={arguments.data_dir}", *mixing, "--processes=1")
                jobs.append(recipe_job(name, str(path.relative_to(ROOT)), fields, arguments.output_dir))
    return jobs


def ensemble_jobs(output_dir: Path, trained: set[str]) -> list[Job]:
    """Return the fusions of which every part is trained."""
    jobs = []
    for name, (parts, method) in ENSEMBLES.items():
        runs = [f"{part}-mixed" for part in parts]
        if trained.issuperset(runs):
            fuse = (*PROGRAM, "ensemble", *(str(output_dir / part) for part in runs))
            jobs.append(
                Job(name, output_dir / name, (*fuse, "--method", method, "--output_dir", str(output_dir / name)))
            )
    return jobs


def one_thread() -> dict[str, str]:
    """Return this process's environment, for a process that computes on one core."""
    return os.environ | {"OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    start(main)
