"""A training step that is replayed as one CUDA graph trains as the same step launched kernel by kernel."""

import pytest
import torch

from irmas_dataset.errors import UserError
from irmas_recipe.training.augmentation import Augmentation
from irmas_recipe.training.clips import collate
from irmas_recipe.training.cuda_graph import EAGER_STEPS, GraphedAdamW, suits_a_graph
from irmas_recipe.training.features import device_features
from irmas_recipe.training.fields import AugmentationArguments
from irmas_recipe.training.trainer import InstrumentTrainer
from irmas_recipe.training.training_arguments import IrmasTrainingArguments
from tests.tiny import SECONDS, build

OURS = ("ast", "beats", "cnn", "crnn", "mfcc", "mobilenet", "passt")
STEPS = EAGER_STEPS + 5


class NoisyClips(torch.utils.data.Dataset):
    """Noise on the device, as prepared clips lie there, in two classes in turn."""

    balanced = False

    def __init__(self, samples: int, classes: int, device: str) -> None:
        generator = torch.Generator().manual_seed(0)
        waveforms = torch.randint(-(2**12), 2**12, (16, samples), generator=generator, dtype=torch.int16)
        self.labels = torch.zeros(16, classes)
        self.labels[torch.arange(16), torch.arange(16) % 2] = 1
        lengths = torch.full((16,), samples)
        self.on_device = {"waveforms": waveforms, "lengths": lengths, "labels": self.labels}
        self.on_device = {name: tensor.to(device) for name, tensor in self.on_device.items()}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, draws: list[tuple[int, int]]) -> dict:
        rows = torch.tensor([row for row, _ in draws])
        return {name: tensor[rows.to(tensor.device)] for name, tensor in self.on_device.items()} | {"rows": rows}


def trained(name: str, folder, device: str, **arguments) -> InstrumentTrainer:
    """Return a Trainer of a tiny model that has trained a few steps."""
    trainer = ready(name, folder, device, **arguments)
    trainer.train()
    return trainer


def ready(name: str, folder, device: str, **arguments) -> InstrumentTrainer:
    """Return a Trainer of a tiny model with everything random that the recipes use."""
    model, extractor = build(name)
    model.accepts_loss_kwargs = False
    samples = round(SECONDS * extractor.sampling_rate)
    augmentation = AugmentationArguments(
        mix_probability=0.5, noise_probability=0.5, min_gain_db=-6, max_gain_db=6, max_time_shift_seconds=0.2,
        polarity_inversion_probability=0.5, time_masks=1, max_time_mask_frames=8, frequency_masks=1,
        max_frequency_mask_bins=4,
    )  # fmt: skip
    options = {
        "per_device_train_batch_size": 4, "max_steps": STEPS, "logging_steps": 1, "learning_rate": 0.01, "optim": "sgd",
        "bf16": False, "torch_compile": False, "eval_strategy": "no", "save_strategy": "no", "disable_tqdm": True,
        "load_best_model_at_end": False, "use_cpu": device == "cpu",
    }  # fmt: skip
    return InstrumentTrainer(
        model=model,
        args=IrmasTrainingArguments(output_dir=str(folder), **options | arguments),
        train_dataset=NoisyClips(samples, model.config.num_labels, device),
        data_collator=collate,
        processing_class=extractor,
        features=device_features(extractor),
        augmentation=Augmentation(
            augmentation, extractor.sampling_rate, samples, time_axis=getattr(extractor, "time_axis", -2)
        ),
    )


@pytest.mark.gpu
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("name", OURS)
def test_a_replayed_step_trains_as_a_launched_one(name, accumulation, tmp_path):
    options = {"gradient_accumulation_steps": accumulation, "cuda_graph": None}
    replayed = trained(name, tmp_path / "replayed", "cuda", **options)
    launched = trained(name, tmp_path / "launched", "cuda", **options | {"cuda_graph": False})
    assert replayed.graphed_step is not None and replayed.graphed_step.graph is not None, "nothing was captured"
    assert launched.graphed_step is None
    losses = [[entry["loss"] for entry in run.state.log_history if "loss" in entry] for run in (replayed, launched)]
    assert len(losses[0]) == STEPS and len(set(losses[0][EAGER_STEPS:])) > 1, "every replay must draw anew"
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    for (key, found), expected in zip(
        replayed.model.state_dict().items(), launched.model.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3, msg=key)


@pytest.mark.gpu
def test_a_replayed_update_is_adamws(tmp_path):
    """The same gradients at rates that change from step to step, with a step in between whose gradients lie elsewhere."""
    drawn = torch.Generator().manual_seed(0)
    steps = [[torch.randn(size, generator=drawn).cuda() for size in (7, 300)] for _ in range(EAGER_STEPS + 5)]
    trained, last = {}, {}
    for kind in (GraphedAdamW, torch.optim.AdamW):
        weights = [torch.nn.Parameter(torch.ones(size, device="cuda")) for size in (7, 300)]
        optimizer = kind([{"params": weights[:1], "weight_decay": 0.1}, {"params": weights[1:]}], lr=0.1, fused=True)
        held = [torch.zeros_like(weight) for weight in weights]
        for number, gradients in enumerate(steps):
            elsewhere = number == EAGER_STEPS + 2
            for weight, place, gradient in zip(weights, held, gradients, strict=True):
                weight.grad = gradient if elsewhere else place.copy_(gradient)
            for group in optimizer.param_groups:
                group["lr"] = 0.1 / (1 + number)
            optimizer.step()
        trained[kind], last[kind] = weights, optimizer
    assert last[GraphedAdamW].graph is not None, "nothing was captured"
    for found, expected in zip(trained[GraphedAdamW], trained[torch.optim.AdamW], strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    saved, plain = last[GraphedAdamW].state_dict(), last[torch.optim.AdamW].state_dict()
    assert saved["param_groups"] == plain["param_groups"], "what is saved is AdamW's own"
    assert saved["state"][1]["step"] == plain["state"][1]["step"] == len(steps)


@pytest.mark.gpu
def test_the_update_of_a_run_is_replayed(tmp_path):
    options = {
        "optim": "adamw_torch_fused",
        "learning_rate": 1e-3,
        "max_grad_norm": 0.01,
        "lr_scheduler_type": "linear",
    }
    replayed = trained("ast", tmp_path / "replayed", "cuda", **options)
    launched = trained("ast", tmp_path / "launched", "cuda", **options, cuda_graph=False)
    inner = getattr(replayed.optimizer, "optimizer", replayed.optimizer)
    assert isinstance(inner, GraphedAdamW) and inner.graph is not None
    for name in ("loss", "grad_norm", "learning_rate"):
        found, expected = (
            [entry[name] for entry in run.state.log_history if name in entry] for run in (replayed, launched)
        )
        assert len(found) == STEPS and found == pytest.approx(expected, rel=2e-2), name


def test_a_graph_needs_a_gpu_and_a_model_that_draws_on_it(tmp_path):
    model, _ = build("ast")
    arguments = IrmasTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert not suits_a_graph(model, arguments)
    with pytest.raises(UserError, match="--cuda_graph true needs one GPU"):
        IrmasTrainingArguments(output_dir=str(tmp_path), use_cpu=True, cuda_graph=True)


@pytest.mark.parametrize("name", OURS)
def test_nothing_that_a_graph_would_freeze_is_drawn_on_the_cpu(name, tmp_path, monkeypatch):
    """A number that a step draws on the CPU would be the same in every replay; the sampler's and the seed's are not."""
    trainer = trained(name, tmp_path, "cpu", max_steps=1)
    batch = next(iter(trainer.get_train_dataloader()))
    torch.manual_seed(0)
    with DrawsByDevice() as draws:
        trainer.uses_graph = False
        trainer.training_step(trainer.model_wrapped, batch)
    assert draws.functions, "the augmentation draws"
    assert not draws.without_device, f"{draws.without_device} would be drawn on the CPU where the model is on a GPU"


class DrawsByDevice(torch.overrides.TorchFunctionMode):
    """Notes each random draw, and those that are given neither a device nor a tensor to be like."""

    MAKE = (torch.rand, torch.randint, torch.randn, torch.randperm, torch.empty)

    def __init__(self) -> None:
        super().__init__()
        self.functions, self.without_device = [], []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in self.MAKE:
            self.functions.append(function.__name__)
            if kwargs.get("device") is None:
                self.without_device.append(function.__name__)
        return function(*args, **kwargs)
