"""Build the Trainer of a recipe and train with it."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from datasets import DatasetDict
from transformers import ASTForAudioClassification, PreTrainedModel
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor

from irmas_dataset.errors import UserError
from irmas_recipe.models.ast.adaptation import fuse_projections
from irmas_recipe.training import evaluation, machine
from irmas_recipe.training.augmentation import Augmentation, CpuTransform
from irmas_recipe.training.averaging import average, interpolate
from irmas_recipe.training.checkpoint import strictly_from_pretrained
from irmas_recipe.training.clips import TrainingClips, WindowedClips, collate
from irmas_recipe.training.data import EXCERPT_SECONDS
from irmas_recipe.training.features import device_features, time_axis
from irmas_recipe.training.head import balanced_weights, fit_output_layer, output_layer, window_embeddings
from irmas_recipe.training.machine import free_memory_bytes
from irmas_recipe.training.origin import origin, seconds_behind
from irmas_recipe.training.recipe import Recipe
from irmas_recipe.training.separated import training_mixtures
from irmas_recipe.training.streaming import StreamedClips
from irmas_recipe.training.trainer import InstrumentTrainer

CLIPS_MEMORY_SHARE = 0.25  # of a GPU's free memory, which all training clips may take (IRMAS's: 644 MB)


def build_trainer(
    recipe: Recipe, prepared: DatasetDict, model: PreTrainedModel, extractor: SequenceFeatureExtractor
) -> InstrumentTrainer:
    """Return the Trainer: clips to train on, mixtures to validate on, features and augmentation on the device."""
    data, arguments, rate = recipe.data, recipe.training, extractor.sampling_rate
    axis = time_axis(extractor)
    if axis is None and (recipe.augmentation.time_masks or recipe.augmentation.frequency_masks):
        raise UserError(
            f"--time_masks and --frequency_masks mask features, and {model.config.model_type} hears the waveform itself: set "
            "them to 0; its own masks are set by --model_config '{\"mask_time_prob\": 0.05}'."
        )
    window_samples, _ = evaluation.window_and_hop_samples(data, rate)
    clip_samples = round(max(data.window_seconds, EXCERPT_SECONDS) * rate)
    if isinstance(model, ASTForAudioClassification) and arguments.device.type == "cuda":
        fuse_projections(model)
    try:
        transforms = recipe.augmentation.audiomentations
        transform = CpuTransform(transforms, rate) if transforms else None
    except ValueError as error:
        raise UserError(f"--audiomentations: {error}.") from error
    training_split, augmentation = prepared["train"], recipe.augmentation
    if data.separated_mixtures:
        training_split = training_mixtures(
            training_split, data, rate, augmentation.mix_probability, augmentation.mix_max_clips
        )
        augmentation = replace(augmentation, mix_probability=0.0)
    if data.streaming:
        training_clips = StreamedClips(
            training_split, rate, clip_samples, arguments.train_batch_size, arguments.order_seed,
            arguments.process_index, arguments.world_size, transform, arguments.gradient_accumulation_steps,
        )  # fmt: skip
    else:
        training_clips = TrainingClips(
            training_split, clip_samples, augmentation.balanced_sampling, transform, arguments.seed
        )
        if arguments.device.type == "cuda":
            training_clips.move_to(arguments.device, CLIPS_MEMORY_SHARE * free_memory_bytes(arguments.device))
    validation = evaluation.windows_of_mixtures(prepared["validation"], data, rate, evaluation.eval_batch(recipe))
    return InstrumentTrainer(
        made_from=origin(prepared, arguments),
        model=model,
        args=arguments,
        train_dataset=training_clips,
        eval_dataset=validation,
        data_collator=collate,
        processing_class=extractor,
        compute_metrics=evaluation.validation_figures(validation, data.aggregation),
        features=device_features(extractor),
        augmentation=Augmentation(augmentation, rate, window_samples, time_axis=-2 if axis is None else axis),
    )


def train(recipe: Recipe, trainer: InstrumentTrainer, checkpoint: Path | None) -> dict:
    """Train, or not at all for 0 epochs; return the `train` part of results.json."""
    model, arguments = trainer.model, recipe.training
    trainer.started, trainer.seconds_before, clips = time.perf_counter(), seconds_behind(checkpoint), 0.0
    others = [strictly_from_pretrained(type(model), run, model.config).state_dict() for run in recipe.model.soup or []]
    initial: dict[str, torch.Tensor] = {}
    if recipe.model.initial_weight:
        # Before the regression: a resumed run, which goes without it, then ends with the same weights.
        initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluation.remember_protocol(model, recipe.data, {})  # which a checkpoint has too: it hears windows of this length
    if arguments.num_train_epochs > 0:
        if checkpoint is None and recipe.model.head_initialization == "regression":
            start_head_by_regression(recipe, trainer)
        if checkpoint is None or not trainer.restore_if_finished(checkpoint):
            metrics = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None).metrics
            runtime = metrics["train_runtime"]
            clips = metrics["train_samples_per_second"] * runtime / (runtime - trainer.evaluation_seconds)
            trainer.check_losses()  # of the steps since the last that was logged
        trainer.save_state()
    average(model, others)
    if initial:
        interpolate(model, initial, recipe.model.initial_weight)
    return {
        **trainer.seconds(),
        "clips_per_second": clips,
        "peak_memory_bytes": machine.peak_memory_bytes(arguments.device),
        "device": machine.device_name(arguments.device),
        "processes": arguments.world_size,
        "precision": "bf16" if arguments.bf16 else "fp16" if arguments.fp16 else "fp32",
        "compiled": arguments.compile_model,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "epochs": trainer.state.epoch or 0,
        "resumed": checkpoint is not None,
    }


def start_head_by_regression(recipe: Recipe, trainer: InstrumentTrainer) -> None:
    """Fit the output layer to the training clips before everything is trained; every process fits the same one."""
    clips, rate = trainer.train_dataset, trainer.processing_class.sampling_rate
    labels = clips.labels.numpy()
    windows = WindowedClips(clips.waveforms, labels, *evaluation.window_and_hop_samples(recipe.data, rate))
    _, layer = output_layer(trainer.model)
    embeddings = window_embeddings(
        trainer.model, layer, trainer.features, windows, recipe.training.eval_batch_size,
        quiet=recipe.training.disable_tqdm or not trainer.is_world_process_zero(),
    )  # fmt: skip
    weights = torch.from_numpy(balanced_weights(labels, windows.windows_per_clip))
    rows = np.repeat(np.arange(len(labels)), windows.windows_per_clip)
    fit_output_layer(layer, embeddings, clips.labels[rows], weights)
