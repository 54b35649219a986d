"""Random values in every field of a recipe: a parsed recipe or one sentence that names what is wrong, never a traceback."""

import dataclasses
import os

import pytest
import yaml
from accelerate.state import AcceleratorState, PartialState
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from irmas_dataset.errors import UserError
from irmas_recipe.training.fields import AugmentationArguments, DataArguments, ModelArguments
from irmas_recipe.training.recipe import parse_recipe
from irmas_recipe.training.training_arguments import IrmasTrainingArguments

PARTS = (ModelArguments, DataArguments, AugmentationArguments, IrmasTrainingArguments)

FIELDS = sorted({item.name for part in PARTS for item in dataclasses.fields(part) if item.init})
OURS = sorted({item.name for part in PARTS[:3] for item in dataclasses.fields(part)})
NUMBERS = st.one_of(
    st.integers(-3, 3), st.integers(), st.floats(), st.sampled_from([0.5, -0.5, 1e-320, 1e300, 2**63, -(2**70)])
)
WORDS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", "no", "steps", "epoch", "none", "true", "nan", "-1", "--seed", "{", "[]"]),
)
VALUES = st.one_of(
    st.none(), st.booleans(), NUMBERS, WORDS, st.lists(st.one_of(NUMBERS, WORDS), max_size=3),
    st.dictionaries(WORDS, st.one_of(NUMBERS, WORDS), max_size=2),
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder; what transformers sets in the environment and in its state is put back."""
    folder, before, environment = tmp_path_factory.mktemp("recipes"), os.getcwd(), dict(os.environ)
    os.chdir(folder)
    yield folder
    os.chdir(before)
    os.environ.clear()
    os.environ.update(environment)


def answer(folder, values: dict) -> str | None:
    """Return the sentence that a recipe is refused with, None for one that is taken; anything else is raised."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"use_cpu": True, **values}), encoding="utf-8")
    environment = dict(os.environ)
    try:
        parse_recipe([str(path), "--output_dir", str(folder / "run")])
    except UserError as error:
        return str(error)
    finally:
        AcceleratorState._reset_state()
        PartialState._reset_state()
        os.environ.clear()
        os.environ.update(environment)
    return None


def check_answer(folder, values: dict) -> None:
    said = answer(folder, values)
    if said is not None:
        assert len(said.splitlines()) == 1 and len(said) < 2000, said
        assert any(name in said for name in values) or "say transformers" in said, said


QUIETLY = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True, "database": None}


@settings(max_examples=60, **QUIETLY)
@given(values=st.dictionaries(st.sampled_from(OURS), VALUES, min_size=1, max_size=2))
def test_any_value_in_our_fields_is_taken_or_refused_by_name(folder, values):
    check_answer(folder, values)


@pytest.mark.slow
@settings(max_examples=3000, **QUIETLY)
@given(values=st.dictionaries(st.sampled_from(FIELDS), VALUES, min_size=1, max_size=3))
@example(values={"fp16": True, "bf16": True})
@example(values={"deepspeed": "absent.json"})
@example(values={"seed": -1})
def test_any_value_in_any_field_is_taken_or_refused_by_name(folder, values):
    check_answer(folder, values)


@pytest.mark.slow
@settings(max_examples=500, **QUIETLY)
@given(text=st.text(max_size=200))
@example(text="&a [*a]")
@example(text="a: !!python/object/apply:os.system ['touch executed']")
@example(text="? [1, 2]\n: 3")
@example(text="1: 2\nnull: 3")
@example(text="window_seconds: 2024-01-01")
def test_any_text_is_a_recipe_or_refused(folder, text):
    (folder / "text.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        parse_recipe([str(folder / "text.yaml")])
    except UserError as error:
        assert len(str(error).splitlines()) == 1
    assert not (folder / "executed").exists()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"window_seconds": float("nan")}, "window_seconds"),
        ({"window_seconds": float("inf")}, "window_seconds"),
        ({"window_seconds": 1e9}, "window_seconds"),
        ({"hop_seconds": 4.0}, "hop_seconds"),
        ({"hop_seconds": 1e-5}, "--hop_seconds must be at least 0.01"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"split_seed": -1}, "split_seed"),
        ({"seed": 2**40}, "seed"),
        ({"max_train_clips": 0}, "max_train_clips"),
        ({"bootstrap_resamples": 0}, "bootstrap_resamples"),
        ({"preparation_processes": 0}, "preparation_processes"),
        ({"recording_pattern": "("}, "recording_pattern"),
        ({"min_gain_db": 3, "max_gain_db": -3}, "min_gain_db"),
        ({"min_snr_db": float("nan")}, "min_snr_db"),
        ({"max_time_shift_seconds": 30.0}, "max_time_shift_seconds"),
        ({"time_masks": -1}, "time_masks"),
        ({"averaging_decay": 1.5}, "averaging_decay"),
        ({"learning_rate": -1e-3}, "learning_rate"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"num_train_epochs": -1}, "num_train_epochs"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps"),
        ({"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": -5}, "eval_steps"),
        ({"save_total_limit": 0}, "save_total_limit"),
        ({"eval_strategy": "no", "save_strategy": "epoch"}, "load_best_model_at_end"),
        ({"eval_strategy": "steps", "save_strategy": "epoch"}, "load_best_model_at_end"),
        ({"eval_strategy": "often"}, "often"),
        ({"fp16": True, "bf16": True}, "fp16"),
        ({"metric_for_best_model": "accuracy"}, "metric_for_best_model"),
        ({"remove_unused_columns": True}, "remove_unused_columns"),
        ({"model_config": "wide"}, "model_config"),
        ({"model_config": [1, 2]}, "model_config"),
        ({"audiomentations": "PitchShift"}, "audiomentations"),
        ({"optim": "adam_of_next_year"}, "optim"),
        ({"lr_scheduler_type": "wave"}, "lr_scheduler_type"),
        ({"deepspeed": "absent.json"}, "deepspeed"),
        ({"patchout_time": -1}, "patchout_time"),
        ({"initial_weight": float("nan")}, "initial_weight"),
        ({"head_initialization": "text"}, "--head_initialization text needs a pretrained checkpoint"),
        ({"one_cycle": True, "lr_scheduler_kwargs": {"min_lr": 1e-5}}, "takes no --lr_scheduler_kwargs"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(folder, values, field):
    assert field in (answer(folder, values) or "taken")
