"""Every field of transformers' TrainingArguments, run for two steps: it works, or is refused before any work is done."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file
from transformers import AutoConfig, TrainingArguments
from transformers.utils import logging as transformers_logging

from irmas_dataset.errors import UserError
from irmas_recipe.training.averaging import AVERAGE_FILE
from irmas_recipe.training.checkpoint import load_checkpoint, save
from irmas_recipe.training.data import load_data, prepare_splits
from irmas_recipe.training.evaluation import evaluate
from irmas_recipe.training.fields import UNUSABLE
from irmas_recipe.training.model import build_model
from irmas_recipe.training.recipe import parse_recipe
from irmas_recipe.training.rehearsal import rehearse
from irmas_recipe.training.run_folder import begin
from irmas_recipe.training.train import build_trainer, train

RECIPE = {
    "architecture": "ast", "window_seconds": 1.0, "max_steps": 2, "per_device_train_batch_size": 4, "eval_strategy": "steps",
    "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "logging_steps": 1, "bootstrap_resamples": 20, "use_cpu": True,
    "bf16": False, "preparation_processes": 1, "disable_tqdm": True, "model_config": {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
        "frequency_stride": 16, "time_stride": 16,
    },
}  # fmt: skip

WORKS = {
    "output_dir": None, "per_device_train_batch_size": 3, "num_train_epochs": 1, "max_steps": 1, "learning_rate": 1e-4,
    "lr_scheduler_type": "reduce_lr_on_plateau", "warmup_steps": 1, "optim": "adafactor", "weight_decay": 0.1,
    "adam_beta1": 0.8, "adam_beta2": 0.9, "adam_epsilon": 1e-6, "gradient_accumulation_steps": 2, "max_grad_norm": 0.5,
    "lr_scheduler_kwargs": {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-5}},
    "bf16": True, "activation_checkpointing": True, "gradient_checkpointing": True,
    "activation_checkpointing_kwargs": {
        "activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": False},
    },
    "gradient_checkpointing_kwargs": {
        "gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False},
    },
    "torch_compile": {"torch_compile": True, "torch_compile_backend": "eager"}, "torch_compile_backend": "eager",
    "torch_empty_cache_steps": 1, "logging_strategy": "epoch", "logging_steps": 2, "logging_first_step": True,
    "log_on_each_node": False, "logging_nan_inf_filter": True, "log_level": "error", "log_level_replica": "error",
    "disable_tqdm": False, "report_to": "tensorboard", "run_name": "named", "project": "named",
    "trackio_space_id": "named", "trackio_bucket_id": "named", "trackio_static_space_id": "named",
    "eval_strategy": {"eval_strategy": "epoch", "save_strategy": "epoch"}, "eval_steps": {"eval_steps": 2, "save_steps": 2}, "eval_delay": 1,
    "per_device_eval_batch_size": 3, "eval_on_start": True, "eval_accumulation_steps": 1, "save_strategy": "best",
    "save_steps": 2, "save_on_each_node": True, "save_total_limit": 1, "push_to_hub": None, "hub_token": "secret",
    "hub_private_repo": True, "hub_model_id": "me/model", "load_best_model_at_end": False, "metric_for_best_model": "loss",
    "greater_is_better": True, "ignore_data_skip": True, "restore_callback_states_from_checkpoint": True,
    "full_determinism": True, "seed": 7, "data_seed": 7, "use_cpu": None, "local_rank": 0, "dataloader_num_workers": 1,
    "dataloader_pin_memory": False, "dataloader_persistent_workers": True,
    "dataloader_prefetch_factor": {"dataloader_num_workers": 1, "dataloader_prefetch_factor": 1},
    "dataloader_multiprocessing_context": {"dataloader_num_workers": 1, "dataloader_multiprocessing_context": "fork"},
    "ddp_find_unused_parameters": True, "ddp_bucket_cap_mb": 1, "ddp_broadcast_buffers": False, "ddp_static_graph": True,
    "ddp_backend": "gloo", "ddp_timeout": 60, "debug": "underflow_overflow", "skip_memory_metrics": False,
    "enable_jit_checkpoint": True,
}  # fmt: skip
"""Field -> a value other than the default (None: every run sets it), or all fields that it needs."""

REFUSED = {
    "fp16": {"fp16": True}, "tf32": {"tf32": True}, "torch_compile_mode": {"torch_compile_mode": "slow"},
    "torch_compile_backend": {"torch_compile_backend": "none_such"}, "optim_args": {"optim_args": "betas"},
    "optim_args=": {"optim_args": "momentum=1"}, "resume_from_checkpoint": {"resume_from_checkpoint": "nowhere"},
    "adamw_bnb_8bit": {"optim": "adamw_bnb_8bit"}, "galore_adamw": {"optim": "galore_adamw"}, "lomo": {"optim": "lomo"},
    "adamw_torch_fused": {"adam_beta1": 1.0}, "min_lr": {"lr_scheduler_type": "cosine_with_min_lr"},
    "lr_scheduler_kwargs": {"lr_scheduler_kwargs": {"slope": 1}},
    "takes none": {"lr_scheduler_type": "constant", "lr_scheduler_kwargs": {"power": 2}}, "wandb": {"report_to": "wandb"},
    "mlflow": {"report_to": ["tensorboard", "mlflow"]}, "nonesuch": {"report_to": "nonesuch"},
    "warmup_steps": {"lr_scheduler_type": "constant", "warmup_steps": 1}, "max_steps": {"max_steps": 0},
    "num_train_epochs": {"num_train_epochs": 0}, "greater_is_better": {"greater_is_better": False},
    "activation_checkpointing_kwargs": {
        "activation_checkpointing": True, "activation_checkpointing_kwargs": {"depth": 1},
    },
    "activation_checkpointing": {
        "architecture": "cnn", "model_config": {"filters": [2, 2, 2, 2]}, "activation_checkpointing": True,
    },
    "/nowhere": {"audiomentations": [{"AddBackgroundNoise": {"sounds_path": "/nowhere", "p": 0.01}}]},
    "max_time_mask_frames": {"time_masks": 1}, "2 or more": {"frequency_masks": 1, "max_frequency_mask_bins": 1},
    "ddp_static_graph": {"ddp_static_graph": True, "gradient_accumulation_steps": 2},
    "ddp_static_graph true": {"ddp_static_graph": True, "ddp_find_unused_parameters": True},
}  # fmt: skip
"""What the sentence must name -> fields that cannot be used, here or together."""

VALUES = {
    bool: True, int: 1, float: 0.5, str: "words", "label_names": ["labels"], "include_for_metrics": ["loss"],
    "liger_kernel_config": {"rope": True}, "accelerator_config": {"split_batches": True}, "hub_strategy": "end",
    "fsdp_config": {"version": 2}, "eval_do_concat_batches": False, "average_tokens_across_devices": False,
    "neftune_noise_alpha": 5.0, "include_num_input_tokens_seen": "all", "dataloader_in_order": False, "train_sampling_strategy": "sequential",
}  # fmt: skip
"""Type of an unusable field, or its name -> a value other than the default."""


def end_workers(trainer):
    """Let go of the loaders: torch takes 5 s to end a loader's workers when the garbage collector finds them."""
    trainer.callback_handler.train_dataloader = trainer.callback_handler.eval_dataloader = None
    trainer.accelerator._dataloaders.clear()
    getattr(trainer, "_eval_dataloaders", {}).clear()


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    """A folder of one's own of two classes, eight clips of a second each to train on and two to test on."""
    folder = tmp_path_factory.mktemp("music")
    for seed, name in enumerate(("kora", "oud")):
        for split, count in (("train", 8), ("test", 2)):
            (folder / split / name).mkdir(parents=True)
            for clip in range(count):
                noise = np.random.default_rng((seed, clip)).normal(0, 0.1, 16000)
                soundfile.write(folder / split / name / f"{clip}.wav", noise, 16000)
    return folder


@pytest.fixture
def run(tmp_path, music):
    """A function that runs a recipe with these fields up to its saved model and returns the Trainer."""
    environment, level = dict(os.environ), transformers_logging.get_verbosity()

    def run_with(fields: dict):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(RECIPE | {"data_dir": str(music), "output_dir": str(tmp_path / "run")} | fields))
        recipe = parse_recipe([str(path)])
        rehearse(recipe)
        folder = begin(recipe)
        splits = load_data(recipe.data)
        model, extractor = build_model(recipe, splits)
        (tmp_path / "work has begun").touch()
        prepared = prepare_splits(splits, recipe.data, extractor.sampling_rate)
        trainer = build_trainer(recipe, prepared, model, extractor)
        folder.claim(recipe)
        train(recipe, trainer, folder.checkpoint)
        evaluate(recipe, prepared, trainer)
        save(recipe, trainer)
        end_workers(trainer)
        return trainer

    yield run_with
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    torch.use_deterministic_algorithms(False)
    transformers_logging.set_verbosity(level)
    os.environ.clear()
    os.environ.update(environment)


@pytest.mark.parametrize("name", [name for name, value in WORKS.items() if value is not None])
def test_a_field_works(run, name):
    value = WORKS[name]
    trainer = run(value if isinstance(value, dict) else {name: value})
    assert trainer.state.global_step == trainer.args.max_steps
    assert (trainer.state.log_history or name == "logging_strategy") and os.path.isfile(
        f"{trainer.args.output_dir}/model.safetensors"
    )


@pytest.mark.parametrize("named", REFUSED)
def test_what_cannot_be_used_is_refused_in_one_sentence_before_any_work(run, tmp_path, named):
    with pytest.raises(UserError) as refused:
        run(REFUSED[named])
    assert named.rstrip("=") in str(refused.value) and len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "work has begun").exists()


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_field_that_would_do_nothing_or_harm_is_refused(run, tmp_path, name):
    field = TrainingArguments.__dataclass_fields__[name]
    kind = type(field.default) if field.default is not None else str
    with pytest.raises(UserError, match=f"--{name}[ /]"):
        run({name: VALUES.get(name, VALUES.get(kind, "words"))})
    assert not (tmp_path / "run").exists()


def test_every_field_of_the_trainer_is_tested():
    fields = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    assert fields == WORKS.keys() | (REFUSED.keys() & fields) | UNUSABLE.keys()
    assert not WORKS.keys() & UNUSABLE.keys()


def test_the_help_on_the_trainer_lists_the_fields_that_can_be_set(capsys):
    with pytest.raises(SystemExit):
        parse_recipe(["quickstart", "--help_trainer"])
    printed = capsys.readouterr().out
    assert "--warmup_steps" in printed and not any(f"--{name} " in printed for name in UNUSABLE)


@pytest.mark.parametrize("way", ["FSDP", "DEEPSPEED"])
def test_a_launcher_that_would_divide_the_model_is_refused_before_any_work(run, tmp_path, monkeypatch, way):
    monkeypatch.setenv(f"ACCELERATE_USE_{way}", "true")
    with pytest.raises(UserError, match=f"ACCELERATE_USE_{way}.*several_gpus.yaml"):
        run({})
    assert not (tmp_path / "run").exists()


def test_the_recipe_and_not_the_launcher_decides_the_precision(run, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert run({"max_steps": 1}).accelerator.mixed_precision == "no"


def test_a_plateau_is_where_the_best_figure_stops_improving(run):
    options = {"lr_scheduler_type": "reduce_lr_on_plateau", "max_steps": 1}
    assert run(options).lr_scheduler.mode == "max", "of map, more is better"


def test_a_checkpoint_hears_the_windows_of_its_training_with_no_thresholds_of_an_earlier_run(run, tmp_path):
    first = run({"save_strategy": "no", "load_best_model_at_end": False, "window_seconds": 0.5})
    assert first.model.config.thresholds
    start = {"output_dir": str(tmp_path / "second"), "model_name_or_path": first.args.output_dir, "model_config": None}
    run(start | {"window_seconds": 0.4, "hop_seconds": 0.1, "aggregation": "max"})
    config = AutoConfig.from_pretrained(tmp_path / "second/checkpoint-1")
    assert (config.window_seconds, config.hop_seconds, config.aggregation) == (0.4, 0.1, "max")
    assert config.thresholds is None and config.confidence_slopes is None


def test_a_checkpoint_with_an_average_is_the_average(run):
    trainer = run({"weight_averaging": "ema", "averaging_decay": 0.5, "learning_rate": 0.01})
    checkpoint = Path(trainer.args.output_dir, "checkpoint-2")
    averaged, trained = load_file(checkpoint / AVERAGE_FILE), load_file(checkpoint / "model.safetensors")
    loaded = load_checkpoint(str(checkpoint))[0].state_dict()
    assert all(torch.equal(tensor, averaged[name]) for name, tensor in loaded.items())
    assert not torch.equal(averaged["classifier.dense.weight"], trained["classifier.dense.weight"])
