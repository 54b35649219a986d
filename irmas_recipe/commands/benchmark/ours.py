"""This project's own way from files to scores, in pieces that can be timed: the functions that a run calls."""

import copy
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch._dynamo.utils
from datasets import Dataset, DatasetDict
from torch.utils.flop_counter import FlopCounterMode
from transformers import ASTConfig, PreTrainedModel, PrinterCallback, TrainerCallback, TrainerState
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor

from irmas_recipe.commands.benchmark.clock import GRAPH, Clock, Stages
from irmas_recipe.models.ast.adaptation import patch_grid
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline
from irmas_recipe.training import evaluation
from irmas_recipe.training.averaging import WeightAveraging
from irmas_recipe.training.clips import TrainingClips, collate
from irmas_recipe.training.data import prepare_splits
from irmas_recipe.training.features import batched_features
from irmas_recipe.training.machine import windows_at_once
from irmas_recipe.training.model import build_model
from irmas_recipe.training.recipe import Recipe
from irmas_recipe.training.train import build_trainer
from irmas_recipe.training.trainer import InstrumentTrainer

WARM_UP = {"cpu": 2, "cuda": 6}  # steps of the Trainer's own loop that compile and, on a GPU, capture a graph
LOOP_STEPS = {"cpu": 4, "cuda": 126}


def build(recipe: Recipe, clips: DatasetDict) -> tuple[PreTrainedModel, InstrumentTrainer]:
    """Return the recipe's model and Trainer on the clips, prepared as for a run."""
    model, extractor = build_model(recipe, clips)
    prepared = prepare_splits(clips, recipe.data, extractor.sampling_rate)
    trainer = build_trainer(recipe, prepared, model, extractor)
    trainer.remove_callback(PrinterCallback)
    return model, trainer


def with_half_of_the_tokens(recipe: Recipe, model: PreTrainedModel) -> Recipe | None:
    """Return the recipe with half of AST's patches dropped in training; None for any other network."""
    if not isinstance(model.config, ASTConfig):
        return None
    rows, columns = patch_grid(model.config)
    recipe = copy.copy(recipe)
    recipe.model = copy.copy(recipe.model)
    recipe.model.patchout_time = recipe.model.patchout_frequency = 0
    recipe.model.patchout_tokens = rows * columns // 2
    return recipe


def as_launched(recipe: Recipe, trainer: InstrumentTrainer) -> Recipe | None:
    """Return the recipe without compilation and CUDA graph, to compare with; None where its Trainer uses neither."""
    if not (recipe.training.compile_model or trainer.uses_graph):
        return None
    recipe = copy.copy(recipe)
    recipe.training = copy.copy(recipe.training)
    recipe.training.compile_model = recipe.training.cuda_graph = False
    return recipe


class Steps:
    """The Trainer's inner loop, one step per call, so that other work can be measured in between."""

    def __init__(self, trainer: InstrumentTrainer) -> None:
        """Run the Trainer's real loop for a few steps, which prepares and warms up everything, and time it."""
        self.trainer, self.stages = trainer, Stages(trainer.args.device)
        self.loop = LoopTimes(trainer)
        trainer.add_callback(self.loop)
        graphs = compiled_graphs()
        trainer.train()
        self.compiled_graphs = compiled_graphs() - graphs
        self.next_batch = self.stages.watch("waiting for data", next)
        self.update = self.stages.watch("optimizer", self._update)
        if trainer.graphed_step:
            trainer.graphed_step = self.stages.watch(GRAPH, trainer.graphed_step)
        else:
            self._watch_the_parts()
        self.averaging = [item for item in trainer.callback_handler.callbacks if isinstance(item, WeightAveraging)]
        for callback in self.averaging:
            callback.on_train_begin(trainer.args, trainer.state, trainer.control)
        self.batches = self._batches()
        self.stages.take()

    def _watch_the_parts(self) -> None:
        trainer = self.trainer
        trainer.features = self.stages.watch("features", trainer.features)
        augmentation = trainer.augmentation
        augmentation.waveforms = self.stages.watch("augmentation", augmentation.waveforms)
        augmentation.features = self.stages.watch("augmentation", augmentation.features)
        trainer.compute_loss = self.stages.watch("forward", trainer.compute_loss)
        trainer.accelerator.backward = self.stages.watch("backward", trainer.accelerator.backward)

    def _batches(self) -> Iterator[dict]:
        while True:
            yield from self.trainer.get_train_dataloader()

    def step(self) -> None:
        """Take one training step, from the prepared clips to updated weights."""
        batch = self.next_batch(self.batches)
        self.trainer.training_step(self.trainer.model_wrapped, batch)
        self.update()

    def _update(self) -> None:
        trainer = self.trainer
        trainer._clip_grad_norm(trainer.model_wrapped)
        trainer.optimizer.step()
        trainer.model_wrapped.zero_grad()
        for callback in self.averaging:
            callback.on_step_end(trainer.args, trainer.state, trainer.control)


def compiled_graphs() -> int:
    """Return how many graphs torch's compiler has built in this process, by its own count."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


class LoopTimes(TrainerCallback):
    """When each step of the Trainer's own loop had its data and when it ended, as the CPU sees it.

    Only the steps that warm up and the last one wait for a GPU, as in a run, where the CPU is ahead of it.
    """

    def __init__(self, trainer: InstrumentTrainer) -> None:
        self.clock, self.batch = Clock(trainer.args.device), trainer.args.train_batch_size
        self.warm_up = WARM_UP[trainer.args.device.type]
        self.begun: list[float] = []
        self.ended: list[float] = []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.ended.append(time.perf_counter())

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.begun.append(time.perf_counter())

    def on_step_end(self, args: Any, state: TrainerState, *others: Any, **kwargs: Any) -> None:
        if state.global_step <= self.warm_up or state.global_step == state.max_steps:
            self.clock.wait()
        self.ended.append(time.perf_counter())

    def figures(self) -> dict:
        """Return the warm loop's clips/s, the share of it spent waiting for data, and the first step's seconds."""
        steps = np.diff(self.ended)
        waits = np.array(self.begun) - np.array(self.ended[:-1])
        warm, seconds = len(steps) - self.warm_up, float(steps[self.warm_up :].sum())
        return {
            "clips_per_second": self.batch * warm / seconds,
            "waiting_for_data_share": float(waits[self.warm_up :].sum() / seconds),
            "first_step_seconds": float(steps[0]),
            "later_step_seconds": seconds / warm,
        }


def read_batches(clips: TrainingClips, batch: int) -> Iterator[torch.Tensor]:
    """Yield int16 waveforms (batch, samples) of all prepared clips, as the DataLoader would."""
    for start in range(0, len(clips), batch):
        yield collate([clips[i] for i in range(start, min(start + batch, len(clips)))])["waveforms"]


def to_model_input(clips: TrainingClips, batch: int, features: Callable, device: torch.device) -> None:
    """Compute the model's input of all prepared clips, batch by batch on the device."""
    for waveforms in read_batches(clips, batch):
        features(waveforms.to(device).float() / 2**15)


def score_prepared(trainer: InstrumentTrainer, prepared: Dataset, recipe: Recipe) -> np.ndarray:
    """Return the scores of prepared long clips by the evaluation protocol: windows of the recipe, half overlap.

    A batch has all windows of one clip or of several, so that none is padded: with few clips padding would weigh more than
    in a run.
    """
    windows = evaluation.windows_of(prepared, recipe.data, trainer.processing_class.sampling_rate)
    of_a_clip = windows.windows_per_clip[0]
    clips = max(1, windows_at_once(trainer.args.device) // of_a_clip)
    trainer.args.per_device_eval_batch_size = of_a_clip * (clips if len(prepared) % clips == 0 else 1)
    return evaluation.clip_scores(trainer, windows, recipe.data.aggregation)


def recogniser(
    model: PreTrainedModel, recipe: Recipe, extractor: SequenceFeatureExtractor, device: torch.device
) -> InstrumentRecognitionPipeline:
    """Return the pipeline that `predict` uses, around the model as it is."""
    model.config.window_seconds = recipe.data.window_seconds
    model.config.hop_seconds = recipe.data.hop_seconds or recipe.data.window_seconds / 2
    return InstrumentRecognitionPipeline(
        model=model.eval(),
        feature_extractor=extractor,
        features=batched_features(extractor),
        device=device,
        batch_size=windows_at_once(device),
    )


def flops_per_clip(model: PreTrainedModel, features: torch.Tensor) -> dict[str, int]:
    """Return the floating-point operations of one clip's forward pass and of its training step (forward and backward).

    Counted by torch on a copy without data.
    """
    twin = copy.deepcopy(model).to("meta")
    own = getattr(twin.config, "encoder", None) or twin.config
    own.apply_spec_augment, own.layerdrop = False, 0.0  # speech models mask and skip by values
    forward, features = forward_flops(twin, features), features[:1].to("meta")
    with torch.device("meta"), FlopCounterMode(display=False) as both:
        twin.train()(features).logits.sum().backward()
    return {"forward": forward, "training_step": both.get_total_flops()}


@torch.no_grad()
def forward_flops(model: PreTrainedModel, features: torch.Tensor) -> int:
    """Return the floating-point operations of one clip's forward pass through a model on the `meta` device.

    Attention is written out, in place, since the counter does not know the CPU's fused one.
    """
    if model._supports_sdpa:
        model.set_attn_implementation("eager")
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model.eval()(features[:1].to("meta"))
    return counter.get_total_flops()


def costliest_operations(step: Callable, count: int = 3) -> list[dict]:
    """Return the operations that take most of one step, by torch's profiler: name and share of the time."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities, acc_events=True) as profile:
        step()
    own = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    events = sorted(profile.key_averages(), key=lambda event: -getattr(event, own))
    total = sum(getattr(event, own) for event in events)
    return [{"operation": event.key, "share": getattr(event, own) / total} for event in events[:count]]
