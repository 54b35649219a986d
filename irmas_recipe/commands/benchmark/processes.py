"""Training in one and in several processes: `torchrun` starts this module, and each process writes its figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil

from irmas_dataset.cores import usable_cores
from irmas_dataset.errors import UserError
from irmas_recipe.commands.benchmark import ours
from irmas_recipe.commands.benchmark.clips import load_clips
from irmas_recipe.home import PACKAGE
from irmas_recipe.training.processes import quiet_libraries
from irmas_recipe.training.recipe import Recipe, parse_recipe


def measure_processes(recipe: Recipe, scratch: Path, count: int) -> dict:
    """Return clips/s of all processes together, and the memory of each, for 1 and for `count` processes.

    The clips in scratch/clips are prepared already; every process maps the same file. On a CPU the processes share its
    cores: two processes on two cores have one thread each.

    Raises:
        UserError: some processes failed; it quotes the first error that they wrote.
    """
    recipe.save(scratch / "recipe.yaml")
    on_cpu = recipe.training.device.type == "cpu"
    return {str(number): train_in(number, scratch, on_cpu) for number in (1, count)}


def train_in(count: int, scratch: Path, on_cpu: bool) -> dict:
    """Return the figures of `count` processes that train the recipe in `scratch` at the same time."""
    report = scratch / f"processes-{count}"
    report.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    command += ["-m", __name__, str(scratch), str(report)]
    command += ["--use_cpu"] if on_cpu else []
    threads = str(max(1, usable_cores() // count))
    done = subprocess.run(
        command, cwd=PACKAGE.parent, env=os.environ | {"OMP_NUM_THREADS": threads}, capture_output=True, text=True
    )
    each = [json.loads(path.read_text()) for path in sorted(report.glob("*.json"))]
    if done.returncode or len(each) != count:
        said = [line for line in done.stderr.splitlines() if "Error" in line] or ["no reason given"]
        raise UserError(f"--processes: {len(each)} of {count} processes trained ({said[0].strip()}); remove the flag.")
    return {
        "clips_per_second": sum(process["clips_per_second"] for process in each),
        "threads_each": int(threads),
        "memory_bytes_each": [process["memory_bytes"] for process in each],
        "waiting_for_data_share": max(process["waiting_for_data_share"] for process in each),
    }


def worker(scratch: Path, report: Path, options: list[str]) -> None:
    """Train a few steps in this process, then write its rate and its share of the memory into `report`."""
    recipe = parse_recipe([str(scratch / "recipe.yaml"), "--output_dir", str(report / "run"), *options])
    quiet_libraries(recipe.training.process_index)
    _, trainer = ours.build(recipe, load_clips(scratch / "clips"))
    loop = ours.LoopTimes(trainer)
    trainer.add_callback(loop)
    trainer.train()
    memory = psutil.Process().memory_full_info()
    figures = loop.figures() | {"memory_bytes": getattr(memory, "pss", memory.uss)}
    (report / f"{recipe.training.process_index}.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    worker(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
