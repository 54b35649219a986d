"""The Trainer: the same gradients however a batch is split, the same run when resumed, rates by depth, averaging."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Features, List, Value
from datasets import Dataset as ArrowDataset
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from irmas_dataset.errors import UserError
from irmas_recipe.training.augmentation import Augmentation
from irmas_recipe.training.averaging import interpolate
from irmas_recipe.training.clips import TrainingClips, WindowedClips, collate
from irmas_recipe.training.evaluation import validation_figures
from irmas_recipe.training.features import device_features
from irmas_recipe.training.fields import AugmentationArguments
from irmas_recipe.training.layers import parameter_groups
from irmas_recipe.training.processes import end
from irmas_recipe.training.sampling import EpochSampler
from irmas_recipe.training.trainer import InstrumentTrainer
from irmas_recipe.training.training_arguments import IrmasTrainingArguments
from tests.tiny import TINY
from tests.tiny import build as tiny_model

ROOT = Path(__file__).parents[2]


class Noise(torch.utils.data.Dataset):
    """Sixteen random clips of half a second with one of three labels."""

    def __init__(self):
        generator = np.random.default_rng(0)
        self.waveforms = (3000 * generator.standard_normal((16, 8000))).astype(np.int16)
        self.labels = torch.nn.functional.one_hot(torch.arange(16) % 3, 3).float()
        self.balanced = False

    def __len__(self):
        return 16

    def __getitem__(self, index):
        row = index[0] if isinstance(index, tuple) else index  # the training sampler gives (row, draw)
        return {"waveforms": self.waveforms[row], "labels": self.labels[row]}


def build(output_dir, augmented=False, dropout=0.0, clips=Noise, **values) -> InstrumentTrainer:
    set_seed(0)
    config = ASTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_length=48, num_labels=3,
        hidden_dropout_prob=dropout, problem_type="multi_label_classification",
    )  # fmt: skip
    model = ASTForAudioClassification(config)
    model.accepts_loss_kwargs = False
    extractor = ASTFeatureExtractor(max_length=48)
    augmentation = AugmentationArguments(mix_probability=0.5, min_gain_db=-6, time_masks=1, max_time_mask_frames=8)
    defaults = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False, "logging_steps": 1,
                "metric_for_best_model": None, "bf16": False}  # fmt: skip
    arguments = IrmasTrainingArguments(
        output_dir=str(output_dir), use_cpu=True, learning_rate=1e-3, disable_tqdm=True, **{**defaults, **values}
    )
    return InstrumentTrainer(
        model=model, args=arguments, train_dataset=clips(), eval_dataset=clips(), data_collator=collate,
        processing_class=extractor, features=device_features(extractor),
        augmentation=Augmentation(augmentation if augmented else AugmentationArguments(), 16000, 8000),
    )  # fmt: skip


@pytest.fixture
def prepared_clips():
    """Ten prepared clips of unlike lengths and levels."""
    generator = np.random.default_rng(0)
    features = {"instruments": List(ClassLabel(names=["cel", "cla", "voi"])), "waveform": List(Value("int16"))}
    waveforms = [(2000 * generator.standard_normal(7000 + 200 * i)).astype(np.int16) for i in range(10)]
    rows = {"instruments": [[i % 3] for i in range(10)], "waveform": waveforms}
    return ArrowDataset.from_dict(rows, features=Features(features))


def first_logs(trainer) -> list[dict]:
    return [{k: row[k] for k in ("loss", "grad_norm")} for row in trainer.state.log_history if "grad_norm" in row]


def test_loss_and_gradient_do_not_depend_on_how_a_batch_is_split(tmp_path):
    whole = build(tmp_path / "whole", per_device_train_batch_size=8, max_steps=2)
    whole.train()
    accumulated = build(
        tmp_path / "accumulated", per_device_train_batch_size=4, gradient_accumulation_steps=2, max_steps=2
    )
    accumulated.train()
    for one, other in zip(first_logs(whole), first_logs(accumulated), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize("batches", [1, 2, 4])
def test_an_epoch_has_as_many_steps_however_a_batch_is_split(tmp_path, batches):
    trainer = build(tmp_path, per_device_train_batch_size=12 // batches, gradient_accumulation_steps=batches, num_train_epochs=2)  # fmt: skip
    trainer.train()  # of 16 clips 12 are drawn: 4 more would make a short step
    assert trainer.state.global_step == trainer.planned_steps() == 2


def test_two_processes_train_as_one(tmp_path):
    """torchrun starts two real processes over gloo; accelerate's own launcher would start one on a CPU."""
    whole = build(tmp_path / "whole", per_device_train_batch_size=8, max_steps=2)
    whole.train()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(tmp_path)], check=True, env=environment, capture_output=True, timeout=300)
    logs = json.loads((tmp_path / "logs.json").read_text())
    assert logs["processes"] == 2
    for one, other in zip(first_logs(whole), logs["steps"], strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def train_in_one_of_two_processes(folder: str) -> None:
    trainer = build(folder, per_device_train_batch_size=4, max_steps=2, ddp_backend="gloo")
    trainer.train()
    if trainer.is_world_process_zero():
        logs = {"processes": trainer.args.world_size, "steps": first_logs(trainer)}
        Path(folder, "logs.json").write_text(json.dumps(logs))
    end(trainer)


@pytest.mark.parametrize("averaging", ["none", "ema"])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path, averaging):
    options = {
        "augmented": True, "dropout": 0.1, "per_device_train_batch_size": 4, "num_train_epochs": 3,
        "save_strategy": "steps", "save_steps": 5, "save_total_limit": 9, "weight_averaging": averaging, "averaging_decay": 0.7,
    }  # fmt: skip
    unbroken = build(tmp_path / "run", **options)
    unbroken.train()
    resumed = build(tmp_path / "run", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run/checkpoint-5"))
    assert resumed.state.global_step == 12
    elsewhere = build(tmp_path / "elsewhere", **options)
    elsewhere.train(resume_from_checkpoint=str(tmp_path / "run/checkpoint-5"))
    for name, tensor in unbroken.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
        assert torch.equal(tensor, elsewhere.model.state_dict()[name]), name


@pytest.mark.parametrize("steps", [2, 3])
def test_a_run_that_was_moved_ends_with_its_own_best_checkpoint(tmp_path, steps):
    options = {
        "per_device_train_batch_size": 8, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1,
        "load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "save_total_limit": 9,
    }  # fmt: skip
    worse = build(tmp_path / "run", max_steps=steps, **options)
    worse.evaluate = lambda *_, **__: {"eval_loss": worse.state.global_step}  # the first step is the best
    worse.train()
    best = ASTForAudioClassification.from_pretrained(tmp_path / "run/checkpoint-1").state_dict()
    (tmp_path / "run").rename(tmp_path / "moved")
    shutil.copytree(tmp_path / "moved/checkpoint-2", tmp_path / "run/checkpoint-1")  # of another run, made there since
    resumed = build(tmp_path / "elsewhere", max_steps=3, **options)
    resumed.evaluate = lambda *_, **__: {"eval_loss": 9.0}
    checkpoint = tmp_path / f"moved/checkpoint-{steps}"
    if not resumed.restore_if_finished(checkpoint):
        resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.state.global_step == 3
    for name, tensor in resumed.model.state_dict().items():
        assert torch.equal(tensor, best[name]), name


@pytest.mark.parametrize("averaging", ["none", "ema"])
def test_a_run_whose_training_was_over_is_not_trained_further(tmp_path, averaging):
    options = {
        "per_device_train_batch_size": 4, "max_steps": 3, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 9,
        "weight_averaging": averaging, "averaging_decay": 0.7,
    }  # fmt: skip
    finished, again = build(tmp_path / "run", **options), build(tmp_path / "run", **options)
    finished.train()
    assert not again.restore_if_finished(tmp_path / "run/checkpoint-2")
    assert again.restore_if_finished(tmp_path / "run/checkpoint-3") and again.state.global_step == 3
    for name, tensor in finished.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name


def test_a_run_that_is_asked_for_more_epochs_goes_on(tmp_path):
    options = {"per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 4}
    build(tmp_path, num_train_epochs=1, **options).train()
    longer = build(tmp_path, num_train_epochs=3, **options)
    assert not longer.restore_if_finished(tmp_path / "checkpoint-4")
    longer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert longer.state.global_step == 12


def test_a_damaged_checkpoint_is_told_in_one_sentence(tmp_path):
    trainer = build(tmp_path, per_device_train_batch_size=8, max_steps=1, save_strategy="steps", save_steps=1)
    trainer.train()
    weights = tmp_path / "checkpoint-1/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"checkpoint-1 is damaged, or has another network.*remove it"):
        trainer.load_weights(str(tmp_path / "checkpoint-1"))


def test_a_checkpoint_of_weights_that_are_not_finite_is_damaged(tmp_path):
    trainer = build(tmp_path, per_device_train_batch_size=8, max_steps=1, save_strategy="steps", save_steps=1)
    trainer.train()
    weights = load_file(tmp_path / "checkpoint-1/model.safetensors")
    weights["classifier.dense.bias"][0] = torch.nan
    save_file(weights, tmp_path / "checkpoint-1/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"checkpoint-1 is damaged, or has another network.*remove it"):
        trainer.load_weights(str(tmp_path / "checkpoint-1"))
    assert all(tensor.isfinite().all() for tensor in trainer.model.state_dict().values())


def test_predicting_computes_no_validation_figures_and_evaluating_still_does(tmp_path):
    trainer = build(tmp_path)
    trainer.compute_metrics = lambda prediction: {"clips": len(prediction.predictions)}
    assert "test_clips" not in trainer.predict(trainer.eval_dataset).metrics
    assert trainer.evaluate()["eval_clips"] == 16


def test_the_validation_loss_does_not_depend_on_the_evaluation_batch(tmp_path):
    losses = []
    for batch_size in (1, 5, 32):
        trainer = build(tmp_path, per_device_eval_batch_size=batch_size)
        windows = WindowedClips(Noise().waveforms, Noise().labels.numpy(), 8000, 4000, batch_size)
        trainer.compute_metrics = validation_figures(windows, "mean")
        losses.append(trainer.evaluate(windows)["eval_loss"])
    assert losses == pytest.approx([build(tmp_path, per_device_eval_batch_size=1).evaluate()["eval_loss"]] * 3)


def test_the_best_checkpoint_is_really_loaded(tmp_path):
    """transformers saves AST under older names, which the Trainer's own loading leaves out without an error."""
    trainer = build(
        tmp_path, per_device_train_batch_size=8, num_train_epochs=3, eval_strategy="epoch", save_strategy="epoch",
        load_best_model_at_end=True, metric_for_best_model="eval_loss", save_total_limit=3,
    )  # fmt: skip
    scores = iter([0.1, 0.9, 0.9])  # the first epoch is made the best
    evaluate = trainer.evaluate
    trainer.evaluate = lambda *a, **k: evaluate(*a, **k) | {"eval_loss": next(scores)}
    trainer.train()
    assert trainer.state.best_global_step == 2
    best = ASTForAudioClassification.from_pretrained(tmp_path / "checkpoint-2").state_dict()
    last = ASTForAudioClassification.from_pretrained(tmp_path / "checkpoint-6").state_dict()
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, best[name]), name
    assert not torch.equal(best["classifier.dense.weight"], last["classifier.dense.weight"])


def test_the_average_follows_its_definition(tmp_path):
    trainer = build(
        tmp_path, per_device_train_batch_size=8, max_steps=3, weight_averaging="ema", averaging_decay=0.5,
        save_strategy="steps", save_steps=1, save_total_limit=None,
    )  # fmt: skip
    initial = trainer.model.classifier.dense.weight.detach().clone()
    trainer.train()
    steps = [
        ASTForAudioClassification.from_pretrained(tmp_path / f"checkpoint-{i}").classifier.dense.weight
        for i in (1, 2, 3)
    ]
    average = initial
    for decay, weights in zip((1 / 10, 2 / 11, 3 / 12), steps, strict=True):  # warmed up, below averaging_decay
        average = decay * average + (1 - decay) * weights
    assert torch.allclose(trainer.model.classifier.dense.weight, average, atol=1e-6)


def test_evaluation_leaves_the_trained_weights_in_place(tmp_path):
    options = {"per_device_train_batch_size": 8, "max_steps": 4, "weight_averaging": "ema"}
    quiet, watched = (
        build(tmp_path / "a", **options),
        build(tmp_path / "b", eval_strategy="steps", eval_steps=1, **options),
    )
    quiet.train()
    watched.train()
    assert torch.equal(quiet.model.classifier.dense.weight, watched.model.classifier.dense.weight)


def test_lower_layers_learn_slower_and_norms_and_biases_do_not_decay(tmp_path):
    trainer = build(tmp_path, weight_decay=0.1, layer_decay=0.5)
    trainer.create_optimizer()
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    groups = {names[id(p)]: group for group in trainer.optimizer.param_groups for p in group["params"]}
    assert len(groups) == len(names)
    base = "audio_spectrogram_transformer"
    rates = {
        f"{base}.embeddings.patch_embeddings.projection.weight": 1e-3 / 8,
        f"{base}.layers.0.mlp.fc1.weight": 1e-3 / 4,
        f"{base}.layers.1.mlp.fc1.bias": 1e-3 / 2,
        f"{base}.layernorm.weight": 1e-3,
        "classifier.dense.weight": 1e-3,
    }
    for name, rate in rates.items():
        assert groups[name]["lr"] == pytest.approx(rate), name
    for name, group in groups.items():
        decays = name.endswith("weight") and "layernorm" not in name
        assert group["weight_decay"] == (0.1 if decays else 0) or "embeddings." in name, name
    assert groups[f"{base}.layers.0.mlp.fc1.bias"]["weight_decay"] == 0


def test_parameters_that_are_frozen_are_in_no_group():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[0].requires_grad_(False)
    groups = parameter_groups(model, {"1.weight"}, 1.0, 0.1, layer_decay=0.5)
    assert sum(len(group["params"]) for group in groups) == 2 and all(group["lr"] == 1.0 for group in groups)


def test_the_logged_rate_is_that_of_the_recipe_and_not_the_lowest_layers(tmp_path):
    trainer = build(tmp_path, max_steps=1, layer_decay=0.5, logging_steps=1, lr_scheduler_type="constant")
    trainer.train()
    groups = [group["lr"] for group in trainer.optimizer.param_groups]
    assert min(groups) < 1e-3 and trainer.state.log_history[0]["learning_rate"] == 1e-3 == max(groups)


@pytest.mark.parametrize("name", sorted(TINY))
def test_weights_of_layers_decay_and_nothing_else(name):
    model, _ = tiny_model(name)
    every = {parameter for parameter, _ in model.named_parameters()}
    groups = parameter_groups(model, every, 1.0, 0.1, layer_decay=1.0)
    decayed = {id(parameter) for group in groups if group["weight_decay"] for parameter in group["params"]}
    names = {parameter for parameter, tensor in model.named_parameters() if id(tensor) in decayed}
    linear = {f"{owner}.weight" for owner, module in model.named_modules() if isinstance(module, (torch.nn.Linear, torch.nn.modules.conv._ConvNd)) and hasattr(module, "weight")}  # fmt: skip
    assert linear & every <= names
    assert not [
        n
        for n in names
        if re.search(r"position_embed|token|pos_embed|relative_attention_bias|norm|bias$", n) and n not in linear
    ]


def test_of_several_visible_gpus_without_a_launcher_one_is_used(tmp_path, monkeypatch, caplog):
    original = TrainingArguments.__post_init__

    def two_gpus(arguments: TrainingArguments) -> None:
        original(arguments)
        arguments._n_gpu = 2  # what transformers sets where two are visible

    monkeypatch.setattr(TrainingArguments, "__post_init__", two_gpus)
    arguments = IrmasTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert arguments.n_gpu == 1 and "2 GPUs are visible and one is used" in caplog.text


def test_the_order_of_clips_follows_the_data_seed_where_there_is_one(tmp_path):
    orders = [
        list(build(tmp_path, **seeds)._get_train_sampler()) for seeds in ({}, {"data_seed": 42}, {"data_seed": 7})
    ]
    assert orders[0] == orders[1] != orders[2]


def test_one_cycle_that_would_rise_for_longer_than_the_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"--warmup_steps 3: .* within the 2 steps"):
        build(tmp_path, max_steps=2, one_cycle=True, warmup_steps=3).train()


def test_one_cycle_rises_and_falls(tmp_path):
    trainer = build(tmp_path, per_device_train_batch_size=2, num_train_epochs=2, one_cycle=True, warmup_steps=0.25)
    trainer.train()
    rates = [row["learning_rate"] for row in trainer.state.log_history if "learning_rate" in row]
    peak = int(np.argmax(rates))
    assert rates[peak] == pytest.approx(1e-3, rel=0.05) and 2 <= peak <= 6
    assert rates[0] < 2e-4 and rates[-1] < 1e-4


def test_an_epoch_is_a_permutation_cut_to_whole_batches():
    sampler = EpochSampler(torch.eye(3).repeat(7, 1), seed=1, multiple_of=4)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    rows, draws = (list(column) for column in zip(*first, strict=True))
    assert len(first) == len(sampler) == 20 and len(set(rows)) == 20 and [row for row, _ in second] != rows
    assert draws == list(range(20)) and [draw for _, draw in second] == list(range(20, 40)), (
        "each draw has its own number"
    )
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert len(EpochSampler(torch.eye(3), 1, multiple_of=8)) == 3, "a set smaller than a batch is used whole"


def test_balanced_sampling_draws_every_class_equally():
    labels = torch.eye(2)[torch.tensor([0] * 900 + [1] * 100)]
    rows = [row for row, _ in EpochSampler(labels, seed=0, multiple_of=10, balanced=True)]
    drawn = labels[rows].mean(dim=0)
    assert drawn[1] == pytest.approx(0.5, abs=0.06)


def test_interpolation_lies_between_the_initial_and_the_trained_weights():
    model = torch.nn.Linear(2, 2)
    initial = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    trained = model.weight.detach().clone()
    interpolate(model, initial, 0.25)
    assert torch.allclose(model.weight, 0.75 * trained)


if __name__ == "__main__":
    train_in_one_of_two_processes(sys.argv[1])


def test_evaluation_is_in_full_precision_whatever_training_used(tmp_path):
    mixed, full = (build(tmp_path / name, bf16=name == "mixed", max_steps=1) for name in ("mixed", "full"))
    mixed.train()
    full.train()
    full.model.load_state_dict(mixed.model.state_dict())
    np.testing.assert_array_equal(mixed.predict(Noise()).predictions, full.predict(Noise()).predictions)
    batch = mixed._prepare_inputs(collate([Noise()[0], Noise()[1]]))
    with torch.no_grad():
        rounded = mixed.model(**batch).logits
        assert not torch.equal(rounded, full.model(**batch).logits), "training's own forward pass stays in bf16"


class Synchronisations(TorchDispatchMode):
    """Counts reads of a tensor's value by the CPU, for each of which it would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default)
        return function(*args, **(kwargs or {}))


def test_the_cpu_reads_no_value_in_a_step_that_is_not_logged(tmp_path):
    trainer = build(
        tmp_path, augmented=True, per_device_train_batch_size=2, max_steps=8, logging_steps=8, weight_averaging="ema"
    )
    counts = []

    class AtStepEnd(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            counts.append(mode.count)

    trainer.add_callback(AtStepEnd())
    with Synchronisations() as mode:
        trainer.train()
    assert len(counts) == 8 and len(set(counts)) == 1, counts
    assert mode.count > counts[-1], "the last step is logged, which reads the loss"


def test_clips_on_the_device_make_the_same_run(tmp_path, prepared_clips):
    weights = []
    for name in ("loader", "device"):
        trainer = build(tmp_path / name, augmented=True, per_device_train_batch_size=2, num_train_epochs=2)
        trainer.train_dataset = TrainingClips(prepared_clips, 8000, balanced=True)
        if name == "device":
            assert trainer.train_dataset.move_to(torch.device("cpu"), most_bytes=1e9)
        trainer.train()
        weights.append(trainer.model.state_dict())
    for key, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][key]), key
