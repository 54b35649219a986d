"""What two processes say to each other in a training step: the gradients, once, and nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from transformers import TrainerCallback

from irmas_recipe.training.processes import end
from tests.training.test_cuda_graph import ready

ROOT = Path(__file__).parents[2]
STEPS, WARM_UP, ACCUMULATED = 5, 2, 2


def test_a_step_of_two_processes_reduces_its_gradients_once_and_shares_nothing_else(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(tmp_path)], check=True, env=environment, capture_output=True, timeout=300)
    said = json.loads((tmp_path / "said.json").read_text())
    assert said["parameters"] > 20, "many tensors, so that one message for all is worth something"
    assert said["messages"] == {"gloo:all_reduce": STEPS - WARM_UP}, (
        "one bucket for each step, none for a batch before its last"
    )


def main(folder: Path) -> None:
    """Train a network with batch statistics, two batches to a step, and write what the processes exchanged."""
    trainer = ready(
        "mobilenet", folder / "run", "cpu", max_steps=STEPS, gradient_accumulation_steps=ACCUMULATED, logging_steps=100,
        per_device_train_batch_size=1, ddp_backend="gloo",
    )  # fmt: skip
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True)

    class WithinTheLoop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == WARM_UP:  # the second step agrees on the order of the gradients
                profiler.start()
            elif state.global_step == STEPS:
                profiler.stop()

    trainer.add_callback(WithinTheLoop())
    trainer.train()
    messages = {event.key: event.count for event in profiler.key_averages() if event.key.startswith("gloo:")}
    if trainer.is_world_process_zero():
        parameters = len(list(trainer.model.parameters()))
        (folder / "said.json").write_text(json.dumps({"messages": messages, "parameters": parameters}))
    end(trainer)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
