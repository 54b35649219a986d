"""The table of models: every architecture is in it, with the cost of the real thing and a recipe that exists."""

import pytest

from irmas_recipe.commands import models
from irmas_recipe.models import ARCHITECTURES, OF_TRANSFORMERS
from irmas_recipe.models.mobilenet import MobileNetAudioConfig, MobileNetAudioForAudioClassification
from irmas_recipe.training.recipe_file import find_recipe, read_recipe, shipped_recipes
from irmas_recipe.training.released import LICENCES_ON_THE_HUB, RELEASED, is_released


def test_the_table_has_every_architecture_and_every_checkpoint_that_a_recipe_starts_from():
    entries = models.entries()
    names, architectures = {entry.name for entry in entries}, {entry.architecture for entry in entries}
    assert {*ARCHITECTURES, *OF_TRANSFORMERS} - {"audio-spectrogram-transformer"} <= architectures
    started = {read_recipe(path).get("model_name_or_path") for path in shipped_recipes()} - {None}
    backbones = {read_recipe(path).get("backbone_name_or_path") for path in shipped_recipes()} - {None}
    assert {name for name in started | backbones if not is_released(name)} == LICENCES_ON_THE_HUB.keys()
    assert started <= names and {released.path for released in RELEASED.values()} <= names


@pytest.mark.parametrize("entry", models.entries(), ids=lambda entry: entry.name)
def test_the_recipe_exists_and_starts_from_the_checkpoint(entry):
    recipe, *arguments = models.recipe_of(entry).split()
    start = read_recipe(find_recipe(recipe)).get("model_name_or_path")
    if "/" in entry.name:
        assert entry.name in (start, *arguments)


def test_costs_are_those_of_the_model(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    entry = next(entry for entry in models.entries() if entry.name == "released/mn04")
    row = dict(zip(models.HEADER, models.row_of(entry), strict=True))
    model = MobileNetAudioForAudioClassification(MobileNetAudioConfig(width_mult=0.4, num_labels=11))
    assert row["parameters"] == f"{sum(weight.numel() for weight in model.parameters()) / 1e6:.1f} M"
    assert 0 < float(row["operations"].removesuffix(" G")) < 1
    assert row["here"] == "no" and row["licence"] == "mit"


def test_whisper_costs_its_30_seconds():
    whisper = next(entry for entry in models.entries() if entry.name == "openai/whisper-base")
    parameters, operations = models.cost_of(whisper)
    of_hubert = models.cost_of(next(entry for entry in models.entries() if entry.architecture == "hubert"))
    assert float(parameters[:-2]) < float(of_hubert[0][:-2]) and float(operations[:-2]) > float(of_hubert[1][:-2])
