"""`compare` on run folders made by the project's own functions: figures, paired differences, refusals, the picture."""

import csv
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from irmas_dataset.errors import UserError
from irmas_metric.bootstrap import paired_song_bootstrap
from irmas_metric.protocol import test_results
from irmas_recipe.commands import compare
from irmas_recipe.report.comparison import compare_runs
from irmas_recipe.report.comparison_table import as_csv, as_markdown, as_text
from irmas_recipe.report.text import with_interval
from irmas_recipe.training.evaluation import THRESHOLDS_FROM
from tests.report.example_run import make_run, read_predictions, read_results

REPOSITORY = Path(__file__).parents[2]


def altered_run(source: Path, folder: Path, *, help_from_labels: float, noise: float) -> Path:
    """Copy a run with other scores and with the figures that belong to them."""
    shutil.copytree(source, folder)
    results = read_results(source)
    codes = results["dataset"]["classes"]
    labels, scores = read_predictions(source, codes)
    logits = np.log(scores / (1 - scores)) + help_from_labels * labels
    logits += noise * np.random.default_rng(0).normal(size=scores.shape)
    table = pd.read_parquet(source / "predictions.parquet")
    table[codes] = 1 / (1 + np.exp(-logits))
    table.to_parquet(folder / "predictions.parquet", index=False)
    thresholds = [entry["threshold"] for entry in results["test"]["tuned"]["per_class"].values()]
    results["test"] = test_results(labels, table[codes], table["song"], codes, thresholds, resamples=40)
    results["train"]["inference_clips_per_second"] = 123.4
    (folder / "results.json").write_text(json.dumps(results))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """A run, a better one, and one that differs by a hair."""
    folder = tmp_path_factory.mktemp("runs")
    first = make_run(folder / "first")
    return [
        first,
        altered_run(first, folder / "better", help_from_labels=1.5, noise=0.1),
        altered_run(first, folder / "alike", help_from_labels=0, noise=0.02),
    ]


def test_rows_hold_the_runs_own_figures_and_costs(runs):
    comparison = compare_runs(runs)
    first, better, alike = comparison.of_kind("run")
    for row, folder in zip((first, better, alike), runs, strict=True):
        test = read_results(folder)["test"]
        assert row.figures == {
            "micro_f1": test["tuned"]["micro_f1"], "macro_f1": test["tuned"]["macro_f1"],
            "lrap": test["lrap"], "map": test["map"],
        }  # fmt: skip
        assert row.intervals["macro_f1"] == tuple(test["tuned"]["ci95"]["macro_f1"])
        assert row.intervals["lrap"] == tuple(test["ci95"]["lrap"])
    assert (first.parameters, first.training_seconds) == (86_192_651, 1834.2)
    assert (first.inference_clips_per_second, better.inference_clips_per_second) == (None, 123.4)


def test_differences_are_paired_and_say_whether_songs_explain_them(runs):
    first, better, alike = compare_runs(runs).of_kind("run")
    assert first.differences == {}
    (labels, scores_a), (_, scores_b) = (
        read_predictions(folder, read_results(folder)["dataset"]["classes"]) for folder in runs[:2]
    )
    thresholds = [entry["threshold"] for entry in read_results(runs[0])["test"]["tuned"]["per_class"].values()]
    songs = pd.read_parquet(runs[0] / "predictions.parquet")["song"]
    paired = paired_song_bootstrap(labels, scores_b, thresholds, scores_a, thresholds, songs, resamples=40)
    for name in ("micro_f1", "macro_f1", "lrap", "map"):
        assert better.differences[name]["difference"] == pytest.approx(paired[name]["difference"])
        assert better.differences[name]["difference"] == pytest.approx(better.figures[name] - first.figures[name])
        assert better.differences[name]["ci95"] == pytest.approx(paired[name]["ci95"])
        assert better.differences[name]["ci95"][0] > 0
    low, high = alike.differences["micro_f1"]["ci95"]
    assert low <= 0 <= high


def test_clips_are_matched_by_name_not_by_row(runs, tmp_path):
    shuffled = tmp_path / "shuffled"
    shutil.copytree(runs[1], shuffled)
    table = pd.read_parquet(shuffled / "predictions.parquet").sample(frac=1, random_state=0)
    table.to_parquet(shuffled / "predictions.parquet", index=False)
    in_order = compare_runs(runs[:2]).of_kind("run")[1].differences
    assert compare_runs([runs[0], shuffled]).of_kind("run")[1].differences == in_order


def test_published_systems_stand_beside_full_irmas_only(runs, tmp_path):
    assert compare_runs(runs[:1]).of_kind("published") == []
    counts = {"clips": {"train": 5702, "validation": 1003, "test": 2874}}
    whole = make_run(tmp_path / "whole", resamples=3, dataset=counts)
    published = compare_runs([whole]).of_kind("published")
    assert len(published) > 10
    assert all(row.protocol for row in published)
    synthetic = make_run(tmp_path / "synthetic", resamples=3, dataset=counts | {"name": "x", "synthetic": True})
    assert compare_runs([synthetic]).of_kind("published") == []


@pytest.mark.filterwarnings("ignore:No clip carries")
def test_few_songs_are_said(runs, tmp_path):
    """One song resampled is always that song: every difference would get a star."""
    single = [make_run(tmp_path / name, num_clips=30, num_songs=1, resamples=10) for name in ("one", "two")]
    assert "Few songs (1): their intervals are too narrow, and * says little." in as_text(compare_runs(single))
    assert "Few songs" not in as_text(compare_runs(runs))


def test_tables_hold_every_row(runs):
    comparison = compare_runs(runs)
    text, markdown = as_text(comparison), as_markdown(comparison)
    better = comparison.of_kind("run")[1]
    for table in (text, markdown):
        for row in comparison.rows:
            assert row.name in table
        assert f"{better.figures['micro_f1']:.3f} [" in table
        assert f"+{better.differences['micro_f1']['difference']:.3f} [+" in table
        assert "123.4" in table
    assert "better - first" in text
    records = list(csv.DictReader(io.StringIO(as_csv(comparison))))
    assert [record["system"] for record in records] == [row.name for row in comparison.rows]
    assert float(records[1]["map_high"]) == better.intervals["map"][1]
    assert records[1]["difference_map_excludes_0"] == "True"
    assert records[0]["difference_map"] == records[-1]["parameters"] == ""


def test_an_interval_is_written_without_leading_zeros():
    assert with_interval(0.75, (0.5, 1.0)) == "0.750 [.500, 1.000]"
    assert with_interval(0.05, (-0.0123, 0.1), signed=True) == "+0.050 [-.012, +.100]"


def test_different_test_sets_are_refused(runs, tmp_path):
    fewer = make_run(tmp_path / "fewer", num_clips=200)
    with pytest.raises(UserError, match=r"different test sets \(IRMAS, 200 clips; IRMAS, 300 clips\)"):
        compare_runs([runs[0], fewer])
    relabelled = tmp_path / "relabelled"
    shutil.copytree(runs[0], relabelled)
    table = pd.read_parquet(relabelled / "predictions.parquet")
    table.at[0, "instruments"] = ["cel", "cla", "flu"]
    codes = read_results(runs[0])["dataset"]["classes"]
    labels = np.array([[code in clip for code in codes] for clip in table["instruments"]], dtype=int)
    results = read_results(runs[0])
    results["test"] = test_results(labels, table[codes], table["song"], codes, np.full(11, 0.5), resamples=3)
    (relabelled / "results.json").write_text(json.dumps(results))
    table.to_parquet(relabelled / "predictions.parquet")
    with pytest.raises(UserError, match="different test sets"):
        compare_runs([runs[0], relabelled])


def test_scores_of_another_run_are_refused(runs, tmp_path):
    mixed_up = tmp_path / "mixed-up"
    shutil.copytree(runs[0], mixed_up)
    shutil.copy(runs[1] / "predictions.parquet", mixed_up / "predictions.parquet")
    with pytest.raises(UserError, match="they are of different runs"):
        compare_runs([mixed_up])


def test_user_errors_are_one_sentence(runs, tmp_path):
    with pytest.raises(UserError, match=r"results\.json is missing"):
        compare_runs([tmp_path])
    with pytest.raises(UserError, match="named twice"):
        compare_runs([runs[0], runs[0]])
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="is a file"):
        compare.main([str(runs[0]), "--output_dir", str(tmp_path / "taken")])


@pytest.mark.slow
def test_command_in_a_shell(runs, tmp_path):
    """A process of its own loads transformers anew, which takes seconds on a crowded machine."""
    command = [sys.executable, "run_irmas.py", "compare", *map(str, runs), "--output_dir", str(tmp_path / "out")]
    done = subprocess.run([*command, "--format", "markdown"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (tmp_path / "out" / "comparison.md").read_text()
    refused = subprocess.run([*command, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1


def test_a_name_that_the_terminal_cannot_show_is_escaped(runs, tmp_path):
    run = shutil.copytree(runs[0], tmp_path / "señor")
    command, plain = [sys.executable, "run_irmas.py", "compare", str(run)], os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env=plain)
    assert done.returncode == 0 and r"se\xf1or" in done.stdout, done.stderr
    closed = subprocess.run(f"{shlex.join(command)} >&-", shell=True, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    assert closed.returncode == 0, closed.stderr


def test_files_are_written(runs, tmp_path, capsys):
    compare.main([*map(str, runs), "--output_dir", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert (tmp_path / "out" / "comparison.txt").read_text().rstrip() in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "comparison.txt", "comparison.md", "comparison.csv", "comparison.png",
    }  # fmt: skip
    with Image.open(tmp_path / "out" / "comparison.png") as picture:
        assert picture.width > 1500
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 50


def test_every_run_is_given_its_own_number_of_resamples(runs, tmp_path):
    for render in (as_text, as_markdown):
        assert "[95 % interval], 40 resamples of whole songs, thresholds held fixed." in render(compare_runs(runs))
    fewer = make_run(tmp_path / "fewer", resamples=3)
    said = "[95 % interval], resamples of whole songs (fewer 3, first 40; differences 3), thresholds held fixed."
    for render in (as_text, as_markdown):
        assert said in render(compare_runs([fewer, runs[0]]))


def half_of(source: Path, folder: Path) -> Path:
    """Copy a run as if its figures were of the songs of an even number."""
    shutil.copytree(source, folder)
    results, table = read_results(source), pd.read_parquet(source / "predictions.parquet")
    table = table[table["song"].str.split().str[1].astype(int) % 2 == 0].sample(frac=1, random_state=0)
    table.to_parquet(folder / "predictions.parquet", index=False)
    codes = results["dataset"]["classes"]
    labels, scores = read_predictions(folder, codes)
    results["test"] = test_results(labels, scores, list(table["song"]), codes, np.full(len(codes), 0.4), resamples=40)
    results["protocol"]["thresholds_from"] = THRESHOLDS_FROM["test_half"]
    results["dataset"]["clips"]["test"] = len(table)
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_a_half_is_compared_on_its_own_clips_whatever_the_order(runs, tmp_path):
    half = half_of(runs[1], tmp_path / "half")
    row = compare_runs([runs[0], half]).of_kind("run")[1]
    whole, part = read_results(runs[0]), read_results(half)
    codes = whole["dataset"]["classes"]
    table = pd.read_parquet(half / "predictions.parquet").set_index("clip")
    of_first = pd.read_parquet(runs[0] / "predictions.parquet").set_index("clip").loc[table.index]
    labels = np.array([[code in of_clip for code in codes] for of_clip in table["instruments"]], dtype=int)
    thresholds = [entry["threshold"] for entry in whole["test"]["tuned"]["per_class"].values()]
    paired = paired_song_bootstrap(
        labels, table[codes].to_numpy(), np.full(len(codes), 0.4), of_first[codes].to_numpy(), np.array(thresholds),
        list(table["song"]), 40,
    )  # fmt: skip
    assert row.differences["micro_f1"]["difference"] == pytest.approx(paired["micro_f1"]["difference"])
    assert row.figures["micro_f1"] == part["test"]["tuned"]["micro_f1"]
    back = compare_runs([half, runs[0]]).of_kind("run")[1].differences["micro_f1"]["difference"]
    assert back == pytest.approx(-row.differences["micro_f1"]["difference"])
    for render in (as_text, as_markdown):
        assert "half: figures of half of the test set" in render(compare_runs([runs[0], half]))
    assert f"measured on {len(table)} clips, half of the test set" in as_csv(compare_runs([runs[0], half]))


def test_the_test_set_and_what_needs_no_listening_are_the_whole_ones_where_a_half_comes_first(runs, tmp_path):
    half = half_of(runs[1], tmp_path / "half")
    results = read_results(half)
    results["trivial"]["constant"]["micro_f1"] = 0.123  # of its own clips
    (half / "results.json").write_text(json.dumps(results))
    orders = [compare_runs([half, runs[0]]), compare_runs([runs[0], half])]
    assert orders[0].test_set == orders[1].test_set and orders[0].of_kind("trivial") == orders[1].of_kind("trivial")
    assert compare_runs([half]).of_kind("trivial")[0].figures["micro_f1"] == 0.123


def test_a_half_of_another_test_set_is_refused(runs, tmp_path):
    other = half_of(make_run(tmp_path / "other", num_clips=400), tmp_path / "half")
    with pytest.raises(UserError, match="different test sets"):
        compare_runs([runs[0], other])


def test_published_systems_stay_where_a_half_joins_full_irmas(runs, tmp_path):
    counts = {"clips": {"train": 5702, "validation": 1003, "test": 2874}}
    whole = make_run(tmp_path / "whole", dataset=counts)
    half = half_of(whole, tmp_path / "half")
    assert compare_runs([whole, half]).of_kind("published") and not compare_runs([half]).of_kind("published")
