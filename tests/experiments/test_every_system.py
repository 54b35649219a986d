"""The table of all systems: one system really timed, trained with and without mixing, and compared; and gone on with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import every_system
from irmas_dataset.errors import UserError
from irmas_dataset.synthetic import synthesize

ROOT = Path(__file__).parents[2]


def test_every_recipe_and_every_part_of_an_ensemble_is_there():
    recipes = every_system.NETWORKS | every_system.PRETRAINED | every_system.ZERO_SHOT
    assert all((ROOT / recipe).is_file() for recipe in recipes.values())
    assert all(set(parts) <= set(recipes) for parts, _ in every_system.ENSEMBLES.values())


def test_the_runs_of_a_system_differ_in_mixing_only(tmp_path):
    arguments = every_system.parse_arguments(["--data_dir=D", f"--output_dir={tmp_path}", "--only", "mfcc"])
    (tmp_path / "budget.json").write_text(
        '{"data_dir": "D", "seconds": 180, "batch_size": 16, "mobilenet": null, "epochs": {"mfcc-subnetworks": 2.5}}'
    )
    mixed, single = every_system.network_jobs(arguments)
    assert {*mixed.command} ^ {*single.command} == {
        "--mix_probability=0.5", "--mix_max_clips=3", "--mix_probability=0",
        f"--output_dir={tmp_path / 'mfcc-subnetworks-mixed'}", f"--output_dir={tmp_path / 'mfcc-subnetworks-single'}",
    }  # fmt: skip
    assert "--num_train_epochs=2.5" in mixed.command


def test_tables_of_other_data_or_budgets_are_not_mixed(tmp_path):
    given = [f"--output_dir={tmp_path}", "--only", "nothing"]
    every_system.network_jobs(every_system.parse_arguments(["--data_dir=D", *given]))
    budget = json.loads((tmp_path / "budget.json").read_text())
    (tmp_path / "budget.json").write_text(json.dumps(budget | {"epochs": {"ast-small": 3.0}}))
    every_system.network_jobs(every_system.parse_arguments(["--data_dir=D", *given]))
    assert json.loads((tmp_path / "budget.json").read_text())["epochs"] == {"ast-small": 3.0}
    for other in (["--data_dir=E"], ["--data_dir=D", "--seconds=9"]):
        with pytest.raises(UserError, match=r"holds runs with (data_dir D|seconds 180)"):
            every_system.network_jobs(every_system.parse_arguments([*given, *other]))


@pytest.mark.slow
def test_one_command_times_trains_compares_and_goes_on(tmp_path):
    synthesize(tmp_path / "data", train=66, test=12, seed=0)
    command = [sys.executable, "-m", "experiments.every_system", "--data_dir", str(tmp_path / "data"), "--seconds", "2"]
    command += ["--output_dir", str(tmp_path / "out"), "--only", "ast-small"]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    table = (tmp_path / "out" / "table" / "comparison.md").read_text()
    assert "ast-small-mixed" in table and "ast-small-single" in table
    seconds = json.loads((tmp_path / "out" / "ast-small-mixed" / "results.json").read_text())["train"]["seconds"]
    assert seconds < 60
    made = (tmp_path / "out" / "ast-small-single" / "results.json").stat().st_mtime_ns
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert (tmp_path / "out" / "ast-small-single" / "results.json").stat().st_mtime_ns == made
