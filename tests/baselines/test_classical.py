"""A classical system from recipe to run folder, on real files; its recipes; what it refuses."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from irmas_dataset.errors import UserError
from irmas_metric.figures import figures
from irmas_recipe.baselines.classical import feature_table
from irmas_recipe.baselines.classical import main as classical
from irmas_recipe.baselines.classical.features import SAMPLING_RATE
from irmas_recipe.baselines.classical.recipe import parse_classical_recipe
from irmas_recipe.commands.system import load_system
from irmas_recipe.report.comparison import compare_runs
from irmas_recipe.training.data import load_data, prepare_splits
from irmas_recipe.training.recipe_file import system_of
from irmas_recipe.training.songs import MOMENTS_FILE, read_moments, tune_timeline
from run_irmas import classical as run_classical
from run_irmas import ensemble as run_ensemble
from tests.report.example_run import read_predictions, read_results

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes" / "classical").glob("*.yaml"))
TINY = [
    "--data_dir", "synthetic", "--synthetic_train", "66", "--synthetic_test", "6", "--validation_fraction", "0.3",
    "--processes", "1", "--bootstrap_resamples", "20", "--importance_repeats", "1", "--search_folds", "2",
]  # fmt: skip
TREE = ["--classifier", "decision_tree", "--grid", '{"min_samples_leaf": [2, 4]}']


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classical")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def run_dir(workplace) -> Path:
    """The Sarwar recipe with a small tree."""
    run_classical([str(ROOT / "recipes/classical/sarwar.yaml"), *TINY, *TREE, "--output_dir", "runs/tree"])
    return workplace / "runs" / "tree"


def test_the_run_folder_is_that_of_any_system(run_dir):
    results = read_results(run_dir)
    codes = results["dataset"]["classes"]
    labels, scores = read_predictions(run_dir, codes)
    assert len(labels) == results["dataset"]["clips"]["test"] == 6
    tuned = results["test"]["tuned"]
    thresholds = [entry["threshold"] for entry in tuned["per_class"].values()]
    assert tuned["micro_f1"] == pytest.approx(figures(labels, scores, thresholds, codes)["micro_f1"])
    assert results["protocol"] | {"bootstrap_resamples": 20} == results["protocol"]
    assert results["protocol"]["hop_seconds"] == 1.5
    assert results["protocol"]["aggregation"] == "mean_probability"
    assert results["train"]["seconds"] > 0 and "epochs" not in results["train"]
    assert results["train"]["inference_clips_per_second"] > 0
    validation = pd.read_parquet(run_dir / "validation_predictions.parquet")
    assert len(validation) == results["dataset"]["clips"]["validation"]
    assert validation["clip"].str.contains(r" \+ ").any()
    assert ((validation[codes] >= 0) & (validation[codes] <= 1)).all(axis=None)
    card = (run_dir / "README.md").read_text()
    assert "98 hand-made features" in card and "decision trees" in card and "min_samples_leaf" in card
    assert "pipeline(" not in card and "irmas predict runs/tree song.mp3" in card
    pictures = {path.name for path in (run_dir / "figures").iterdir()}
    assert pictures == {"per_class_f1.png", "precision_recall.png", "confusions.png", "feature_importance.png"}
    with Image.open(run_dir / "figures" / "feature_importance.png") as picture:
        assert picture.height > 500


def test_thresholds_of_the_timeline_are_tuned_on_songs(run_dir):
    results = read_results(run_dir)
    moments = read_moments(run_dir / MOMENTS_FILE, results["dataset"]["classes"])
    tuned = results["moments"]["window_thresholds"]
    assert tuned == tune_timeline(moments)["window_thresholds"].tolist()
    recognise = load_system(str(run_dir))
    assert recognise.resolve_thresholds(of_moments=True) == tuned != recognise.resolve_thresholds()


def test_the_search_is_kept(run_dir):
    search = read_results(run_dir)["search"]
    assert len(search["tried"]) == 6  # two leaf sizes, three strengths of the selection
    best = max(search["tried"], key=lambda tried: tried["map"])
    assert {name: best[name] for name in search["chosen"]} == search["chosen"]


def test_mixtures_are_made_within_folds(workplace, run_dir):
    recipe = parse_classical_recipe(
        [str(ROOT / "recipes/classical/gradient_boosting.yaml"), *TINY, "--output_dir", "runs/mixed"]
    )
    prepared = prepare_splits(load_data(recipe.data), recipe.data, SAMPLING_RATE)["train"]
    _, fold_of_clip = classical.training_windows(
        parse_classical_recipe([str(ROOT / "recipes/classical/svm.yaml"), *TINY]), prepared
    )
    windows, fold = classical.training_windows(recipe, prepared)
    members = windows.clips.members
    assert len(members) == len(prepared) == len(fold)
    sizes = np.array([len(mixture) for mixture in members])
    assert 0.3 < (sizes > 1).mean() < 0.7
    recordings = prepared["recording"][:]
    for mixture, number in zip(members, fold, strict=True):
        assert {fold_of_clip[clip] for clip in mixture} == {number}
        assert len({recordings[clip] for clip in mixture}) == len(mixture)
    assert (windows.labels.sum(axis=1) == sizes).all()


def test_features_are_read_from_the_cache(workplace, run_dir, monkeypatch):
    monkeypatch.setattr(feature_table, "rows_between", None)  # computing anything would fail
    command = [str(ROOT / "recipes/classical/sarwar_naive_bayes.yaml"), *TINY, "--grid", '{"var_smoothing": [0.1]}']
    run_classical([*command, "--output_dir", "runs/bayes"])
    again = read_results(workplace / "runs" / "bayes")
    assert "inference_clips_per_second" not in again["train"]  # nothing was heard
    rows = compare_runs([run_dir, workplace / "runs" / "bayes"]).of_kind("run")
    assert [row.name for row in rows] == ["tree", "bayes"]
    assert rows[0].training_seconds > 0
    run_ensemble([str(run_dir), "runs/bayes", "--method", "weights", "--output_dir", "runs/both"])
    assert "tuned" in read_results(workplace / "runs" / "both")["test"]


@pytest.mark.slow
def test_features_in_processes_equal_features_in_one(workplace, run_dir):
    recipe = parse_classical_recipe([str(ROOT / "recipes/classical/svm.yaml"), *TINY])
    prepared = prepare_splits(load_data(recipe.data), recipe.data, SAMPLING_RATE)["test"]
    windows = classical.evaluation.windows_of(prepared, recipe.data, SAMPLING_RATE)
    path = feature_table.cache_path(windows, "sarwar", prepared)
    kept = np.load(path)
    path.unlink()
    np.testing.assert_array_equal(feature_table.feature_table(windows, "sarwar", prepared, 2, "the test"), kept)
    assert path.is_file()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_a_classical_one(path):
    assert system_of([str(path)]) == "classical"
    recipe = parse_classical_recipe([str(path)])
    for name, value in yaml.safe_load(path.read_text()).items():
        assert recipe.values()[name] == value
    assert recipe.run_dir == Path("runs") / f"classical-{path.stem}"


def test_recipes_cover_what_was_published():
    parsed = [parse_classical_recipe([str(path)]).classical for path in RECIPES]
    of_sarwar = {one.classifier for one in parsed if one.features == "sarwar" and one.feature_selection == "l1"}
    assert of_sarwar == {"bagging", "random_forest", "decision_tree", "nearest_neighbours", "naive_bayes"}
    assert {one.classifier for one in parsed if one.features == "full"} == {"svm", "gradient_boosting"}


def test_a_recipe_without_a_system_is_a_networks(tmp_path):
    assert system_of(["quickstart"]) == "network"
    (tmp_path / "odd.yaml").write_text("system: tea leaves\n")
    with pytest.raises(UserError, match="system tea leaves is not one of classical"):
        system_of([str(tmp_path / "odd.yaml")])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--learning_rate", "1"], "Unknown recipe field --learning_rate"),
        (["--classifer", "svm"], "did you mean `classifier`"),
        (["--classifier", "perceptron"], "invalid choice"),
        (["--mix_probability", "2"], "between 0 and 1"),
        (["--bootstrap_resamples", "0"], "at least 1"),
        (["--mix_max_clips", "1"], "between 2 and 5"),
        (["--window_seconds", "0.1"], "too short for features"),
        (["--search_folds", "1"], "at least 2"),
        (["--grid", "[1]"], "mapping of non-empty lists"),
        (["--grid", '{"C": []}'], "mapping of non-empty lists"),
        (["--grid", "{1"], "not valid JSON"),
    ],
)
def test_user_errors_name_the_field(options, sentence):
    with pytest.raises(UserError, match=sentence):
        parse_classical_recipe([str(RECIPES[0]), *options])


def test_a_networks_folder_is_left_alone(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="holds a network's run"):
        run_classical([str(RECIPES[0]), *TINY, "--output_dir", str(tmp_path)])


def test_a_parameter_that_the_classifier_lacks_is_named_before_the_data_is_read(tmp_path):
    options = ["--grid", '{"depth": [1]}', "--data_dir", str(tmp_path / "nowhere")]
    with pytest.raises(UserError, match="--grid: depth is no parameter of"):
        run_classical([str(RECIPES[0]), *options, "--output_dir", str(tmp_path / "run")])


def test_importing_the_arguments_loads_no_librosa():
    code = "import sys; import irmas_recipe.baselines.classical.recipe; sys.exit('librosa' in sys.modules or 'sklearn.svm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
