"""Every field of transformers' TrainingArguments: it works for two steps, or is refused in one sentence before any work."""

import dataclasses
import os
import shutil
from pathlib import Path

import pytest
import yaml
from accelerate.state import AcceleratorState, PartialState
from transformers import TrainingArguments

import run_irmas
from irmas_dataset.errors import UserError
from irmas_recipe.training.fields import REFUSED
from tests.test_run import TINY

VALUES = {
    "num_train_epochs": 1, "max_steps": 1, "learning_rate": 1e-4, "lr_scheduler_type": "linear",
    "lr_scheduler_kwargs": '{"num_cycles": 2}', "logging_strategy": "epoch", "save_strategy": "epoch",
    "eval_strategy": "epoch", "logging_dir": "logs", "log_level": "error", "log_level_replica": "error",
    "optim": "adamw_bnb_8bit", "optim_args": "a=1", "optim_target_modules": "all-linear", "report_to": "mlflow",
    "metric_for_best_model": "lrap", "deepspeed": "ds.json", "fsdp": "full_shard", "fsdp_config": "{}",
    "accelerator_config": '{"split_batches": true}', "parallelism_config": "{}", "torch_compile_backend": "eager",
    "torch_compile_mode": "default", "hub_model_id": "a/b", "hub_strategy": "end", "hub_revision": "main",
    "resume_from_checkpoint": "nowhere", "gradient_checkpointing_kwargs": '{"use_reentrant": false}',
    "ddp_backend": "gloo", "neftune_noise_alpha": 5, "liger_kernel_config": "{}", "greater_is_better": "false",
    "debug": "underflow_overflow", "train_sampling_strategy": "group_by_length", "include_for_metrics": "loss", "dataloader_prefetch_factor": 2,
}  # fmt: skip
"""A value other than the default, where the type does not suggest one."""
LEFT_OUT = {"output_dir", "local_rank", "push_to_hub"}
"""Set by every test, by launchers, and tested with a Hub that is made up."""
FIELDS = [item for item in dataclasses.fields(TrainingArguments) if item.init and item.name not in LEFT_OUT]


def other_value(item: dataclasses.Field) -> object:
    """Return a value for a field that is not its default."""
    if item.name in VALUES:
        return VALUES[item.name]
    kind, default = str(item.type), None if item.default is dataclasses.MISSING else item.default
    if "bool" in kind:
        return "false" if default is True else "true"
    return (default or 0) + 1 if "int" in kind else (default or 0) * 0.9 or 0.1 if "float" in kind else "x"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with a recipe."""
    path = tmp_path_factory.mktemp("fields")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        (path / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"disable_tqdm": True}))
        yield path


@pytest.fixture
def answer(folder):
    """Run the recipe with one more field; return the sentence of its refusal, or None."""

    def run(name: str, value: object) -> str | None:
        shutil.rmtree("runs", ignore_errors=True)
        environment = dict(os.environ)
        try:
            run_irmas.main(["tiny.yaml", f"--{name}={value}"])
        except UserError as error:
            return str(error)
        finally:
            os.environ.clear()
            os.environ.update(environment)
            AcceleratorState._reset_state()
            PartialState._reset_state()
        return None

    return run


@pytest.mark.slow
@pytest.mark.parametrize("item", FIELDS, ids=[item.name for item in FIELDS])
def test_a_field_works_or_is_refused_before_any_work(answer, item):
    refusal = answer(item.name, other_value(item))
    if refusal is None:
        assert Path("runs/tiny/README.md").is_file()
    else:
        assert not Path("runs").exists() and len(refusal.splitlines()) == 1


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_field_that_would_do_nothing_or_fail_is_refused(answer, name):
    item = next(item for item in FIELDS if item.name == name)
    assert f"--{name} " in answer(name, other_value(item))
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("report_to", "mlflow", "--report_to mlflow cannot be used"),
        ("optim", "adamw_bnb_8bit", "--optim adamw_bnb_8bit with --optim_args None cannot be used"),
        ("lr_scheduler_kwargs", '{"num_cycles": 2}', "--lr_scheduler_type linear with"),
        (
            "audiomentations",
            '[{"AddBackgroundNoise": {"sounds_path": "absent"}}]',
            "audiomentations.AddBackgroundNoise",
        ),
    ],
)
def test_what_is_not_installed_or_absent_is_said_before_any_work(answer, name, value, said):
    assert said in answer(name, value) and not Path("runs").exists()
