"""Every recipe is found, is a recipe, and trains two steps."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from transformers import SwinConfig, SwinModel

from irmas_dataset.synthetic_openmic import synthesize_openmic
from irmas_recipe.baselines.classical.recipe import ClassicalArguments
from irmas_recipe.baselines.wavegan.recipe import WaveganArguments
from irmas_recipe.commands.ensemble.arguments import EnsembleRecipe
from irmas_recipe.training.data import load_data, prepare_splits
from irmas_recipe.training.fields import DataArguments
from irmas_recipe.training.model import build_model
from irmas_recipe.training.recipe import parse_recipe, parse_system
from irmas_recipe.training.recipe_file import run_name, system_of
from irmas_recipe.training.train import build_trainer, train
from tests.irmas_dataset.test_extra import write_tones
from tests.tiny import released

ROOT = Path(__file__).parents[1]
RECIPES = sorted(
    path.relative_to(ROOT).as_posix() for path in (ROOT / "recipes").rglob("*.yaml") if "accelerate" not in path.parts
)
NETWORKS = [name for name in RECIPES if "system" not in yaml.safe_load((ROOT / name).read_text())]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_recipe_parses_against_the_real_fields(name):
    recipe = parse_recipe([str(ROOT / name), "--use_cpu"])
    values = yaml.safe_load((ROOT / name).read_text())
    for key, value in values.items():
        part = next(p for p in (recipe.model, recipe.data, recipe.augmentation, recipe.training) if hasattr(p, key))
        assert getattr(part, key) == value, key


@pytest.mark.parametrize("name", sorted(set(RECIPES) - set(NETWORKS)))
def test_a_recipe_of_no_network_parses_against_its_systems_fields(name):
    values = yaml.safe_load((ROOT / name).read_text())
    parts = {
        "classical": (ClassicalArguments, DataArguments),
        "wavegan": (WaveganArguments, DataArguments),
        "ensemble": (EnsembleRecipe,),
    }[values["system"]]
    parsed = parse_system([str(ROOT / name)], parts)
    assert system_of([str(ROOT / name)]) == values["system"]
    for key, value in values.items():
        assert value in [getattr(part, key) for part in parsed if hasattr(part, key)], key


def test_recipes_that_need_other_runs_name_those_of_other_recipes():
    made = {f"runs/{run_name(ROOT / name)}" for name in RECIPES}
    for name in RECIPES:
        values = yaml.safe_load((ROOT / name).read_text())
        needed = {*values.get("runs", []), values.get("extra_train_dir", next(iter(made)))}
        assert needed <= made, name


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A working folder that all recipes share, so that each sampling rate is prepared once."""
    folder = tmp_path_factory.mktemp("recipes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.mark.parametrize("name", NETWORKS)
def test_a_recipe_trains_two_steps(name, workplace):
    options = {
        "data_dir": "synthetic", "synthetic_train": 44, "synthetic_test": 12, "output_dir": f"runs/{Path(name).stem}",
        "max_steps": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "eval_strategy": "no",
        "save_strategy": "no", "load_best_model_at_end": False, "dataloader_num_workers": 0, "use_cpu": True,
        "torch_compile": False, "bf16": False, "disable_tqdm": True, "overwrite_output_dir": True,
    }  # fmt: skip
    values = yaml.safe_load((ROOT / name).read_text())
    if values.get("num_train_epochs") == 0:
        del options["max_steps"]
    if "extra_train_dir" in values:
        options["extra_train_dir"] = write_tones(workplace / "made", "train", {"cel": [300, 310, 320]})
    if "backbone_name_or_path" in values:
        small = {"embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2], "image_size": 56}
        SwinModel(SwinConfig(**small)).save_pretrained(workplace / "swin")
        options |= {"backbone_name_or_path": workplace / "swin"}
        options["model_config"] = json.dumps(values["model_config"] | {"swin": small})
    if "model_name_or_path" in values:
        architecture = Path(name).stem if "/openmic/" in name else name.split("/")[1]
        options["model_name_or_path"] = released(architecture, workplace / architecture)
        if architecture == "whisper":  # the small one hears 4 s
            options["feature_extractor_config"] = json.dumps({"chunk_length": 3})
    if "/openmic/" in name:
        options["data_dir"] = workplace / "openmic"
        if not options["data_dir"].exists():
            synthesize_openmic(options["data_dir"], train=60, test=12)
    recipe = parse_recipe([str(ROOT / name), *(f"--{key}={value}" for key, value in options.items())])
    data = load_data(recipe.data)
    model, extractor = build_model(recipe, data)
    prepared = prepare_splits(data, recipe.data, extractor.sampling_rate)
    trainer = build_trainer(recipe, prepared, model, extractor)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    train(recipe, trainer, checkpoint=None)
    trained = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}
    if values.get("num_train_epochs") == 0:
        assert not trained
        return
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert trainer.state.global_step == 2 and all(0 < loss < 20 for loss in losses)
    assert any("weight" in key for key in trained)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes/accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_accelerate_configuration_is_one(path):
    configuration = load_config_from_file(str(path))
    assert configuration.num_processes >= 1
    assert configuration.mixed_precision in (None, "no"), "precision is the recipe's"
