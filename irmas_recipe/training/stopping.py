"""Stop at SIGTERM, after a step that all processes agree on, so that the checkpoint is whole and a run resumes as if unbroken.

transformers' own callback for `enable_jit_checkpoint` is not used. It saves three seconds after the signal wherever the
process then is: before the optimizer's step, before the evaluation of that step and before the weights are averaged, and
each process at a step of its own. Then training returns as if it were finished.
"""

import os
import signal
import threading
from typing import Any

import torch
import torch.distributed
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

STOPPED = 128 + signal.SIGTERM
"""The exit status of a run that was stopped: what a shell reports of a process that SIGTERM ended."""


class StopAtSigterm(TrainerCallback):
    """Notices SIGTERM while a run trains, and says after which step the run may leave."""

    def __init__(self) -> None:
        self.may_leave = False  # now, when what is due at this step has been logged, evaluated and saved
        self.is_received = self.is_agreed = False
        self.group: torch.distributed.ProcessGroup | None = None
        self.question: tuple[torch.distributed.Work, torch.Tensor] | None = None

    def receive(self, *_: Any) -> None:
        """Handle the signal; it may come again and again."""
        self.is_received = True

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if args.world_size > 1:
            self.group = torch.distributed.new_group(backend="gloo")  # on the CPU: a GPU is not waited for
        signal.signal(signal.SIGTERM, self.receive)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.is_agreed = self.is_agreed or self.agree()
        # The last step of an epoch or of the run may have an evaluation to come.
        self.may_leave = self.is_agreed and not (control.should_training_stop or float(state.epoch).is_integer())

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.may_leave = self.is_agreed

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End at once where the signal came too late for the last step: the next start finds the run fully trained."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self.answer() or self.is_received:
            os.kill(os.getpid(), signal.SIGTERM)

    def agree(self) -> bool:
        """Return whether any process had received the signal; all processes return the same at the same step.

        They answer the question of the step before and ask the next one, whose answer is there when it is needed.
        """
        if self.group is None:
            return self.is_received
        answer = self.answer()
        received = torch.tensor([int(self.is_received)])
        self.question = torch.distributed.all_reduce(received, group=self.group, async_op=True), received
        return answer

    def answer(self) -> bool:
        """Wait for the answer to the last question; without one it is False."""
        if self.question is None:
            return False
        work, received = self.question
        self.question = None
        work.wait()
        return bool(received.item())


def end_at_sigterm() -> None:
    """Let SIGTERM end this process, which has nothing to save yet; a launcher may have left the signal ignored."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def shield_workers(loader: DataLoader) -> DataLoader:
    """Let a loader's workers live through a SIGTERM that reaches every process of a job: the last steps need them."""
    starts_workers = getattr(loader, "base_dataloader", loader)  # within the one that accelerate prepares
    starts_workers.worker_init_fn = Shielded(starts_workers.worker_init_fn)
    return loader


class Shielded:
    """What a worker runs first: `initialize`, if any, in a process that SIGTERM ends only if its parent sends it."""

    def __init__(self, initialize: Any = None) -> None:
        self.initialize = initialize

    def __call__(self, worker: int) -> None:
        if hasattr(signal, "sigwaitinfo"):  # not on macOS
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            threading.Thread(target=end_for_parent, args=(os.getppid(),), daemon=True).start()
        if self.initialize is not None:
            self.initialize(worker)


def end_for_parent(parent: int) -> None:
    """Wait for the SIGTERM of one process, and end."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
