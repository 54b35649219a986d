"""Numbers that go wrong stop the run, precision changes them little, and the same seed gives the same ones."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open

import run_irmas
from irmas_dataset.errors import UserError
from irmas_recipe.training.data import load_data, prepare_splits
from irmas_recipe.training.model import build_model
from irmas_recipe.training.recipe import parse_recipe
from irmas_recipe.training.run_folder import begin
from irmas_recipe.training.train import build_trainer, train
from tests.robustness.tiny_run import start, write_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder, in which the synthetic music is made once."""
    return tmp_path_factory.mktemp("numbers")


def build(recipe):
    """Return the Trainer of a recipe."""
    begin(recipe)
    data = load_data(recipe.data)
    model, extractor = build_model(recipe, data)
    return build_trainer(recipe, prepare_splits(data, recipe.data, extractor.sampling_rate), model, extractor)


def test_a_loss_that_is_no_number_stops_with_its_batch_named_and_kept(folder, monkeypatch):
    """A weight turns to NaN after the third step; the fourth is not taken, and no checkpoint of it is written."""
    monkeypatch.chdir(folder)
    recipe = parse_recipe([str(write_recipe(folder)), "--output_dir", "runs/nan", "--weight_averaging", "none"])
    trainer = build(recipe)
    step, spoiled = type(trainer).training_step, []

    def spoil(self, model, inputs, *args, **kwargs):
        if self.state.global_step == 3:
            spoiled.append(inputs)
            with torch.no_grad():
                next(model.parameters()).fill_(torch.nan)
        return step(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(type(trainer), "training_step", spoil)
    with pytest.raises(UserError, match=r"step 4 is not finite.*non_finite_batch_4_0\.safetensors.*\.wav") as error:
        train(recipe, trainer, None)
    with safe_open(Path("runs/nan/non_finite_batch_4_0.safetensors"), "pt") as kept:
        clips = kept.metadata()["clips"].split("\n")
        assert torch.equal(kept.get_tensor("waveforms"), spoiled[0]["waveforms"].cpu())
    assert len(clips) == 4 and all(Path(clip).is_file() and clip in str(error.value) for clip in clips)
    rows = trainer.train_dataset.waveforms
    assert np.array_equal(
        rows[int(spoiled[0]["rows"][2])], spoiled[0]["waveforms"][2][: len(rows[int(spoiled[0]["rows"][2])])]
    )
    assert {path.name for path in Path("runs/nan").glob("checkpoint-*")} == {"checkpoint-3"}


@pytest.mark.parametrize("evaluated", ["while it trains", "afterwards", "afterwards, of later steps"])
def test_scores_that_are_no_numbers_stop_the_run_whenever_they_come(folder, monkeypatch, evaluated):
    """The first step spoils the weights, when its own loss is still a number and nothing more is logged."""
    monkeypatch.chdir(folder)
    seldom = {"save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False, "logging_steps": 50}
    if evaluated == "while it trains":
        seldom |= {"eval_strategy": "steps", "eval_steps": 1}
    wild = {"learning_rate": 1e38, "max_grad_norm": 0, "optim": "sgd", "weight_averaging": "none"}
    steps = 4 if evaluated.endswith("steps") else 1
    path = write_recipe(folder, "wild", **seldom, **wild, max_steps=steps, lr_scheduler_type="constant")
    words = r"loss of step 2 is not finite.*its clips are" if steps == 4 else "scores are not finite any more: lower"
    with pytest.raises(UserError, match=words):
        run_irmas.main([str(path), "--output_dir", f"runs/wild {evaluated}"])


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_figures_three_times(folder):
    """Three runs, each a fresh interpreter with another hash seed."""
    recipe, weights, figures = write_recipe(folder, "same"), [], []
    for number in range(3):
        done = start(folder, recipe, "--output_dir", f"runs/same-{number}", PYTHONHASHSEED=str(number))
        assert done.returncode == 0, done.stderr[-2000:]
        weights.append((folder / f"runs/same-{number}/model.safetensors").read_bytes())
        results = json.loads((folder / f"runs/same-{number}/results.json").read_text())
        figures.append((results["test"], (folder / f"runs/same-{number}/predictions.parquet").read_bytes()))
    assert weights[0] == weights[1] == weights[2] and figures[0] == figures[1] == figures[2]
    done = start(folder, recipe, "--output_dir", "runs/other", "--seed", "7")
    assert done.returncode == 0 and (folder / "runs/other/model.safetensors").read_bytes() != weights[0]


@pytest.mark.slow
def test_bf16_and_fp32_evaluate_alike(folder, monkeypatch):
    """The same weights give the same scores, whatever precision a run trains in."""
    monkeypatch.chdir(folder)
    recipe = write_recipe(folder, "precision", weight_averaging="none", max_steps=30)
    run_irmas.main([str(recipe), "--bf16", "true", "--output_dir", "runs/trained"])
    scores = {}
    for name, flag in (("fp32", "false"), ("bf16", "true")):
        options = ["--model_name_or_path", "runs/trained", "--max_steps", "-1", "--num_train_epochs", "0"]
        run_irmas.main([str(recipe), *options, "--model_config", "{}", "--bf16", flag, "--output_dir", f"runs/{name}"])
        scores[name] = pd.read_parquet(f"runs/{name}/predictions.parquet").select_dtypes("number").to_numpy()
        assert json.loads(Path(f"runs/{name}/results.json").read_text())["train"]["precision"] == name
    np.testing.assert_array_equal(scores["fp32"], scores["bf16"])
