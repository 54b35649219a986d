"""The processes that accelerate or torchrun has started for one command: which one this is, its share, and the end."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, get_cpu_distributed_information
from transformers import Trainer
from transformers.utils import logging as transformers_logging

from irmas_dataset.errors import UserError

PATIENCE = timedelta(days=30)  # shares of a folder are never equally long, and who is done first waits


class Processes:
    """This process among those of the command; alone, where nothing has started several."""

    def __init__(self, device: str | None = None) -> None:
        """Join the others. `device` is a user's choice, such as `cpu`; the default is a GPU each, or else the CPU.

        Raises UserError where there are more processes on this machine than GPUs, or all were to share one.
        """
        self.count, self.index, self.device = 1, 0, device
        started = get_cpu_distributed_information()  # whatever the device: it reads the launcher's environment
        if started.world_size == 1:
            return
        on_cpu = device == "cpu" or not torch.cuda.is_available()
        if not on_cpu and device not in (None, "cuda"):
            raise UserError(f"--device {device} is one device for {started.world_size} processes; leave it out.")
        if not on_cpu and (gpus := torch.cuda.device_count()) < started.local_world_size:
            raise UserError(
                f"{started.local_world_size} processes and {gpus} GPU(s): start as many as there are GPUs, or add --device cpu."
            )
        state = PartialState(cpu=on_cpu, timeout=PATIENCE)
        self.count, self.index = state.num_processes, state.process_index
        self.device = "cpu" if on_cpu else str(state.device)  # accelerate counts CPUs too: cpu:0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that speaks and writes for all."""
        return self.index == 0

    @contextmanager
    def ending_together(self) -> Iterator[None]:
        """A UserError of any process in this block ends all of them, and one of them says it; they wait for each other."""
        error = None
        try:
            yield
        except UserError as raised:
            if self.count == 1:
                raise
            error = str(raised)
        errors = [said for said in self.gather([error]) if said is not None]
        if errors:
            if self.is_first:
                print(errors[0], file=sys.stderr)
            self.leave(2)

    def share(self, items: list, sizes: list[float]) -> list:
        """Return this process's items, in their order; each process gets about the same sum of the sizes."""
        load, mine = [0.0] * self.count, []
        for item in sorted(range(len(items)), key=lambda item: -sizes[item]):
            least = load.index(min(load))
            load[least] += sizes[item] + 1  # files of size 0 are work too
            if least == self.index:
                mine.append(item)
        return [items[item] for item in sorted(mine)]

    def from_first(self, value: Any) -> Any:
        """Return the first process's value in all of them; they wait for it."""
        return value if self.count == 1 else broadcast_object_list([value])[0]

    def gather(self, items: list) -> list:
        """Return the items of all processes, in every process; they wait for each other."""
        return items if self.count == 1 else gather_object(items)

    def wait(self) -> None:
        """Wait for the others to come to this point."""
        if self.count > 1:
            PartialState().wait_for_everyone()

    def leave(self, code: int = 0) -> None:
        """End this process with an exit code; call it last, when everything is written."""
        leave(code, several_by_gloo=self.count > 1 and self.device == "cpu")


def leave(code: int, several_by_gloo: bool) -> None:
    """End the process. torch 2.11's gloo group can wait for itself for ever in its destructor: it is passed by."""
    if several_by_gloo:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    if code:
        raise SystemExit(code)


def quiet_libraries(process_index: int = 0) -> None:
    """Silence what no user can act on, and every process but the first."""
    transformers_logging.disable_progress_bar()  # of loading and writing weights; the Trainer's own bar stays
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    if process_index > 0:
        logging.getLogger().setLevel(logging.ERROR)
        transformers_logging.set_verbosity_error()


def end(trainer: Trainer, code: int = 0) -> None:
    """Close the trackers and end all processes together, with an exit code."""
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
    has_gloo = trainer.args.device.type == "cpu" or trainer.args.stop_at_sigterm
    leave(code, several_by_gloo=trainer.args.world_size > 1 and has_gloo)
