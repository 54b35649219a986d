"""sbatch, srun, scancel and scontrol as a job of Slurm meets them, all on this machine.

They do what Slurm 22.05 did with recipes/launch/slurm.sh: srun kills its step when it receives SIGTERM itself, or when a
task fails and --kill-on-bad-exit is given; `scancel --signal` reaches every process of the step and nothing of the batch
script; a job that was requeued begins again under its number. `sbatch` stays until the job has ended.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

STATE = Path(os.environ["CLUSTER"])
JOB = "7"
OPTIONS = {
    "job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "time", "signal", "requeue", "open-mode",
    "output",
}  # fmt: skip


def sbatch(arguments: list[str]) -> int:
    """Run a batch script, again and again where it asks for that; returns its last exit code."""
    place = next(index for index, word in enumerate(arguments) if word.endswith(".sh"))
    script = Path(arguments[place])
    directives = re.findall(r"^#SBATCH (\S+)$", script.read_text(), re.MULTILINE)
    options = dict(option_of(word) for word in [*directives, *arguments[:place]])
    assert options.keys() <= OPTIONS, options
    assert options["signal"].startswith("B:TERM@") and "requeue" in options
    spooled = Path(shutil.copy(script, STATE / "slurm_script"))
    for restart in range(10):
        settings = {
            "SLURM_JOB_ID": JOB, "SLURM_NNODES": options["nodes"], "SLURM_JOB_NODELIST": "localhost",
            "SLURM_CPUS_PER_TASK": options["cpus-per-task"], "SLURM_RESTART_COUNT": str(restart),
        }  # fmt: skip
        (STATE / "state").write_text("RUNNING")
        with open("job.log", "a") as log:
            batch = subprocess.Popen(["bash", spooled, *arguments[place + 1 :]], env=os.environ | settings, stdout=log,
                                     stderr=log, start_new_session=True)  # fmt: skip
        (STATE / "batch").write_text(str(batch.pid))
        code = batch.wait()
        (STATE / "batch").unlink()
        if not (STATE / "requeue").exists():
            return code
        (STATE / "requeue").unlink()
    raise AssertionError("requeued without end")


def option_of(word: str) -> tuple[str, str]:
    name, _, value = word.removeprefix("--").partition("=")
    return name, value


def srun(arguments: list[str]) -> int:
    """Run a command once for each node; returns the highest exit code."""
    assert arguments[0] == "--kill-on-bad-exit=1" and os.environ["SRUN_CPUS_PER_TASK"]
    tasks = [
        subprocess.Popen(arguments[1:], env=os.environ | {"SLURM_NODEID": str(node)}, start_new_session=True)
        for node in range(int(os.environ["SLURM_NNODES"]))
    ]
    (STATE / "step").write_text(" ".join(str(task.pid) for task in tasks))
    signal.signal(signal.SIGTERM, lambda *_: send(signal.SIGKILL))
    while any(task.poll() is None for task in tasks):
        if any(task.returncode for task in tasks):
            send(signal.SIGKILL)
        time.sleep(0.02)
    (STATE / "step").unlink()
    return max(task.returncode if task.returncode >= 0 else 128 - task.returncode for task in tasks)


def scancel(arguments: list[str]) -> int:
    """Send a signal to the step, or without one cancel the job."""
    assert arguments[-1] == JOB
    if arguments[0] == "--signal=TERM":
        send(signal.SIGTERM)
        return 0
    (STATE / "state").write_text("CANCELLED")
    send(signal.SIGTERM)
    os.kill(int((STATE / "batch").read_text()), signal.SIGTERM)
    return 0


def send(number: int) -> None:
    """Send a signal to every process of the step."""
    for task in map(int, (STATE / "step").read_text().split()):
        try:
            root = psutil.Process(task)
            processes = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)


def scontrol(arguments: list[str]) -> int:
    match arguments:
        case ["show", "hostnames", nodes]:
            print(nodes)
        case ["show", "job", job]:
            print(
                f"JobId={job} JobName=irmas\n   JobState={(STATE / 'state').read_text()} Reason=None Dependency=(null)"
            )
        case ["requeue", job]:
            assert job == JOB
            (STATE / "requeue").touch()
        case _:
            raise AssertionError(arguments)
    return 0


if __name__ == "__main__":
    sys.exit({"sbatch": sbatch, "srun": srun, "scancel": scancel, "scontrol": scontrol}[sys.argv[1]](sys.argv[2:]))
