"""Data sets in the Hub's forms through whole runs: the same figures whatever the form, streamed or not, and in reports."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

import run_irmas
from irmas_dataset.errors import UserError
from irmas_dataset.extra import add_training_clips
from irmas_dataset.loading import load_irmas
from irmas_recipe.training.clips import multi_hot
from tests.irmas_dataset.form_folders import CLASSES, audio_folder, own_folder, parquet_folder
from tests.test_run import TINY

ONE_STEP = {"max_steps": 1, "window_seconds": 0.5, "eval_strategy": "no", "save_strategy": "no"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with the same music in three forms and a recipe for each, trained for one step."""
    path = tmp_path_factory.mktemp("forms")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setattr("datasets.config.HF_DATASETS_CACHE", path / "cache")
        recipe = {name: value for name, value in TINY.items() if not name.startswith("synthetic")} | ONE_STEP
        recipe |= {"load_best_model_at_end": False, "validation_fraction": 0.3, "hop_seconds": None}
        recipe |= {"model_config": TINY.get("model_config")}
        Path("tiny.yaml").write_text(yaml.safe_dump({k: v for k, v in recipe.items() if v is not None}))
        own_folder(Path("own"), 0.5)
        audio_folder(Path("csv"), "csv", 0.5)
        parquet_folder(Path("flags"), "flags", 0.5)
        yield path


def figures(run: str) -> dict:
    test = json.loads(Path(run, "results.json").read_text())["test"]
    return {"lrap": test["lrap"], "tuned": test["tuned"]["micro_f1"]} | test["per_class_ap"]


def test_the_same_clips_give_the_same_figures_in_every_form(folder):
    run_irmas.main(["tiny.yaml", "--data_dir", "own", "--output_dir", "of-own", "--num_train_epochs", "1"])
    flags = ["--label_column", ",".join(CLASSES)]
    run_irmas.main(["tiny.yaml", "--data_dir", "csv", "--output_dir", "of-csv"])
    run_irmas.main(["tiny.yaml", "--data_dir", "flags", "--output_dir", "of-flags", *flags])
    for form, options in (("csv", []), ("flags", flags)):
        run_irmas.main(["evaluate", "of-own", "--data_dir", form, "--output_dir", f"own-on-{form}", *options])
        assert figures(f"own-on-{form}") == pytest.approx(figures("of-own"), abs=1e-6)
        assert figures(f"of-{form}") == pytest.approx(figures("of-own"), abs=1e-4)
    results = json.loads(Path("of-csv/results.json").read_text())
    assert results["dataset"]["name"] == "folder csv"
    assert "folder csv" in Path("of-csv/README.md").read_text()


def test_the_same_training_set_streamed_is_trained_on(folder):
    parquet_folder(Path("ids"), "ids", 0.5)
    run_irmas.main(["tiny.yaml", "--data_dir", "ids", "--streaming", "true", "--output_dir", "streamed"])
    assert len(pd.read_parquet("streamed/predictions.parquet")) == 6
    run_irmas.main(["evaluate", "streamed", "--data_dir", "ids", "--output_dir", "again"])
    assert figures("again")["lrap"] == pytest.approx(figures("streamed")["lrap"], abs=1e-6)


def test_a_form_is_audited_and_the_report_has_its_name(folder):
    run_irmas.main(["audit", "--data_dir", "csv", "--output_dir", "audit", "--no_label_errors", "--processes", "1"])
    assert "folder csv" in Path("audit/report.html").read_text()


def test_a_form_is_exported_by_its_flags(folder):
    label = ["--label_column", ",".join(CLASSES)]
    run_irmas.main(["export", "--data_dir", "flags", "--output_dir", "exported", *label])
    assert sorted(load_irmas("exported")["test"]["md5"]) == sorted(load_irmas("own")["test"]["md5"])


def test_other_data_join_the_training_set_by_a_map_of_labels(folder):
    splits = load_irmas("own")
    joined = add_training_clips(splits, "csv", {"kora": "oud", "oud": "voice"})
    extra = joined["train"].select(range(len(splits["train"]), len(joined["train"])))
    known_test = set(splits["test"]["md5"]) | set(splits["validation"]["md5"])
    assert len(extra) and not set(extra["md5"]) & known_test
    labels = multi_hot(extra)
    assert (labels[:, 0] == -1).all() and (labels[:, 1:] >= 0).all() and (labels == 1).any(axis=1).all()
    assert (multi_hot(joined["train"])[: len(splits["train"])] >= 0).all()
    with pytest.raises(UserError, match=r"--extra_label_map: the data has no class drum; it has kora, oud, voice"):
        add_training_clips(splits, "csv", {"kora": "drum"})
    with pytest.raises(UserError, match=r"--extra_label_map: csv has no label lute; it has kora, oud, voice"):
        add_training_clips(splits, "csv", {"lute": "kora"})


def test_a_run_with_other_data_and_a_map_counts_them(folder):
    options = [
        "--extra_train_dir",
        "csv",
        "--extra_label_map",
        json.dumps({"kora": "kora"}),
        "--validation_fraction",
        "0.5",
    ]
    run_irmas.main(["tiny.yaml", "--data_dir", "own", "--output_dir", "more", *options])
    results = json.loads(Path("more/results.json").read_text())
    assert results["dataset"]["extra_train_clips"] > 0
    run_irmas.main(["evaluate", "more", "--output_dir", "again"])
    again = json.loads(Path("again/results.json").read_text())
    assert again["trivial"] == results["trivial"], "the trivial ranking is the data set's own"
    with pytest.raises(UserError, match="--extra_label_map is of no use without --extra_train_dir"):
        run_irmas.main(["tiny.yaml", "--data_dir", "own", "--extra_label_map", "{}"])
