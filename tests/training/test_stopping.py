"""SIGTERM with `enable_jit_checkpoint`: whenever it comes, the same command ends with the weights of an unbroken run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from transformers import TrainerCallback

import run_irmas
from irmas_recipe.training.run_folder import last_checkpoint
from irmas_recipe.training.trainer import InstrumentTrainer
from tests.robustness.tiny_run import ROOT, command, environment, write_recipe
from tests.training.test_cuda_graph import ready

FIELDS = {"metric_for_best_model": "loss", "disable_tqdm": True, "enable_jit_checkpoint": True}
"""The loss falls to the end, so that the best checkpoint is one that comes after the signal."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder."""
    return tmp_path_factory.mktemp("stopped")


@pytest.fixture
def signalled_at(monkeypatch):
    """A function that lets SIGTERM come during a step, in this process."""
    training_step = InstrumentTrainer.training_step

    def arrange(step: int) -> None:
        def with_signal(trainer, *args, **kwargs):
            if trainer.state.global_step == step - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return training_step(trainer, *args, **kwargs)

        monkeypatch.setattr(InstrumentTrainer, "training_step", with_signal)

    yield arrange
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def files(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in ("model.safetensors", "predictions.parquet")}


def evaluated(run: Path) -> list[int]:
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    return [entry["step"] for entry in history if "eval_loss" in entry]


EPOCHS = {"eval_strategy": "epoch", "save_strategy": "epoch"}  # of five steps
WHEN = {
    "in an epoch": (7, {}),
    "in a step that is evaluated and saved": (6, {}),
    "in the last step of an epoch": (10, EPOCHS),
    "in the last step": (12, EPOCHS),
    "where only the best are saved": (6, {"save_strategy": "best"}),
    "where none are saved": (7, {"save_strategy": "no", "load_best_model_at_end": False}),
    "between accumulated batches": (5, {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}),
}


FAST = ("in an epoch", "in the last step of an epoch")


@pytest.mark.parametrize(
    "when", [when if when in FAST else pytest.param(when, marks=pytest.mark.slow) for when in WHEN]
)
def test_the_same_command_ends_as_an_unbroken_run(folder, signalled_at, monkeypatch, capsys, caplog, when):
    step, fields = WHEN[when]
    monkeypatch.chdir(folder)
    write_recipe(folder, **FIELDS | fields)
    name = when.replace(" ", "_")
    run_irmas.main(["tiny.yaml", "--output_dir", f"runs/{name}/whole"])
    signalled_at(step)
    cut = folder / f"runs/{name}/cut"
    with pytest.raises(SystemExit) as left:
        run_irmas.main(["tiny.yaml", "--output_dir", str(cut)])
    assert left.value.code == 143
    assert f"Stopped by SIGTERM after step {step} of 12" in caplog.text and "the same command resumes" in caplog.text
    assert last_checkpoint(cut) == cut / f"checkpoint-{step}" and not (cut / "README.md").exists()
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    run_irmas.main(["tiny.yaml", "--output_dir", str(cut)])
    whole = folder / f"runs/{name}/whole"
    assert files(cut) == files(whole) and evaluated(cut) == evaluated(whole)


def test_a_process_and_its_loaders_workers_are_signalled_together_and_the_run_resumes(folder, monkeypatch):
    """A scheduler's signal reaches every process of a job; the workers read on until the checkpoint is written."""
    often = {"max_steps": 300, "save_steps": 50, "eval_steps": 50, "logging_steps": 100}
    write_recipe(folder, "loaded", **FIELDS | often, dataloader_num_workers=2)
    stopped = subprocess.Popen(command("loaded.yaml"), cwd=folder, env=environment(folder), start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # fmt: skip
    run = folder / "runs/loaded"
    while not last_checkpoint(run):
        assert stopped.poll() is None, stopped.stderr.read()
        time.sleep(0.01)
    workers = psutil.Process(stopped.pid).children()
    assert len(workers) >= 2
    for _ in range(2):
        os.killpg(stopped.pid, signal.SIGTERM)
    _, said = stopped.communicate(timeout=60)
    assert stopped.returncode == 143 and "Traceback" not in said, said
    kept = last_checkpoint(run)
    words = f"Stopped by SIGTERM after step {kept.name[11:]} of 300, kept in runs/loaded/{kept.name}; the same command resumes."
    assert said.splitlines()[-1] == words
    psutil.wait_procs(workers, timeout=20)
    assert not any(worker.is_running() for worker in workers), "nothing is left behind"
    monkeypatch.chdir(folder)
    run_irmas.main(["loaded.yaml", "--output_dir", "runs/whole", "--dataloader_num_workers", "0"])
    run_irmas.main(["loaded.yaml", "--enable_jit_checkpoint", "false"])
    assert files(run) == files(folder / "runs/whole")


@pytest.mark.slow
@pytest.mark.parametrize("delay_seconds", [0.0, 0.02, 0.05, 0.1])
def test_a_scheduler_that_kills_while_the_checkpoint_is_written_costs_the_steps_since_the_last(
    folder, monkeypatch, delay_seconds
):
    write_recipe(folder, "killed", **FIELDS, max_steps=300, save_steps=50, eval_steps=50)
    output = f"runs/killed-{delay_seconds}"
    started = subprocess.Popen(command("killed.yaml", "--output_dir", output), cwd=folder, env=environment(folder),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    while not last_checkpoint(folder / output):
        assert started.poll() is None
        time.sleep(0.002)
    started.terminate()
    time.sleep(delay_seconds)
    started.kill()
    started.wait()
    assert not (folder / output / "README.md").exists()
    monkeypatch.chdir(folder)
    run_irmas.main(["killed.yaml", "--output_dir", output])
    run_irmas.main(["killed.yaml", "--output_dir", "runs/not-killed"])  # nothing to do after the first time
    assert files(folder / output) == files(folder / "runs/not-killed")


def test_before_the_first_step_the_signal_ends_the_process_at_once(folder):
    write_recipe(folder, "early", **FIELDS, synthetic_train=1100)
    started = subprocess.Popen(["sh", "-c", "trap '' TERM; exec \"$@\"", "sh", *command("early.yaml")], cwd=folder,
                               env=environment(folder), stderr=subprocess.PIPE)  # fmt: skip
    while not list(folder.glob("data/synthetic-*-1100-*")):
        assert started.poll() is None, started.stderr.read()
        time.sleep(0.01)
    started.terminate()
    started.communicate(timeout=20)
    assert started.returncode == -signal.SIGTERM, "although the launcher had left the signal ignored"
    assert not (folder / "runs/early").exists()


def test_two_processes_of_which_one_is_signalled_leave_after_the_same_step(tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__]
    settings = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, str(tmp_path)], env=settings, capture_output=True, text=True, timeout=300)
    assert done.stderr.count("exitcode  : 143") == 2, done.stderr[-3000:]
    kept = last_checkpoint(tmp_path / "run")
    assert kept.name == "checkpoint-4", "the processes agree one step after the signal"
    assert {path.name for path in kept.glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}


class SignalInOneProcess(TrainerCallback):
    """SIGTERM for the second process alone, in its third step."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 2 and args.process_index == 1:
            os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    trainer = ready("mobilenet", Path(sys.argv[1], "run"), "cpu", max_steps=50, num_train_epochs=50, save_strategy="no",
                    logging_steps=100, per_device_train_batch_size=1, ddp_backend="gloo", enable_jit_checkpoint=True)  # fmt: skip
    trainer.add_callback(SignalInOneProcess())
    trainer.train()
