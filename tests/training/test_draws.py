"""Whenever a clip is drawn again it sounds different, whoever loads it; and a resumed run draws what an unbroken one does."""

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Features, List, Value
from datasets import Dataset as ArrowDataset

from irmas_recipe.training.augmentation import CpuTransform
from irmas_recipe.training.clips import TrainingClips
from irmas_recipe.training.processes import end
from irmas_recipe.training.training_arguments import IrmasTrainingArguments
from tests.training.test_trainer import build

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clips():
    """Ten clips of half a second, each with a random gain; nine of them are of one class."""
    features = {"instruments": List(ClassLabel(names=["cel", "cla", "voi"])), "waveform": List(Value("int16"))}
    waveforms = (2000 * np.random.default_rng(0).standard_normal((10, 8000))).astype(np.int16)
    rows = {"instruments": [[0]] + [[1]] * 9, "waveform": list(waveforms)}
    gain = CpuTransform([{"Gain": {"min_gain_db": -12.0, "max_gain_db": 0.0, "p": 1.0}}], 16000)
    prepared = ArrowDataset.from_dict(rows, features=Features(features))
    return TrainingClips(prepared, 8000, balanced=True, transform=gain)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_clip_is_augmented_anew_whenever_it_is_drawn(tmp_path, clips, workers):
    trainer = build(tmp_path, per_device_train_batch_size=5, num_train_epochs=3, dataloader_num_workers=workers)
    trainer.train_dataset = clips
    heard, prepare_inputs = defaultdict(list), trainer._prepare_inputs

    def listen(inputs):
        for row, waveform in zip(inputs["rows"].tolist(), inputs["waveforms"], strict=True):
            heard[row].append(waveform.numpy().tobytes())
        return prepare_inputs(inputs)

    trainer._prepare_inputs = listen
    trainer.train()
    assert len(heard[0]) > 10, "the rare class is drawn several times in each of three epochs"
    for row, waveforms in heard.items():
        assert len(set(waveforms)) == len(waveforms), row


def test_every_batch_of_every_step_process_and_run_is_augmented_with_a_seed_of_its_own(tmp_path, monkeypatch):
    def seeds(process: int, seed: int) -> list[int]:
        trainer, found = build(tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=2, seed=seed), []
        augment = trainer.augmentation.waveforms
        trainer.augmentation.waveforms = lambda *given: (found.append(torch.initial_seed()), augment(*given))[1]
        with monkeypatch.context() as patch:
            patch.setattr(IrmasTrainingArguments, "process_index", process)
            trainer.train()
        return found

    found = [seeds(*which) for which in ((0, 42), (1, 42), (0, 7))]
    assert [len(of_run) for of_run in found] == [12, 12, 12], "three epochs of two steps of two batches"
    assert len({seed for of_run in found for seed in of_run}) == 36
    assert seeds(0, 42) == found[0]


def test_two_processes_resumed_within_an_epoch_draw_the_clips_of_an_unbroken_run(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, __file__, str(tmp_path)], check=True, env=environment, capture_output=True, timeout=300)
    unbroken, resumed = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("unbroken", "resumed"))
    for name, tensor in unbroken.items():
        assert torch.equal(tensor, resumed[name]), name


def train_and_resume(folder: Path) -> None:
    for name, start in (("unbroken", None), ("resumed", folder / "run/checkpoint-3")):
        trainer = build(
            folder / "run", per_device_train_batch_size=4, num_train_epochs=2, save_strategy="steps", save_steps=3,
            ddp_backend="gloo",
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=start and str(start))
        assert trainer.args.world_size == 2 and trainer.state.global_step == 4
        if trainer.is_world_process_zero():
            torch.save(trainer.model.state_dict(), folder / f"{name}.pt")
    end(trainer)


if __name__ == "__main__":
    train_and_resume(Path(sys.argv[1]))
