"""The figures and the text table, from run folders made of random scores."""

import re

import numpy as np
import pytest
from matplotlib._pylab_helpers import Gcf
from PIL import Image

from irmas_dataset.errors import UserError
from irmas_recipe.report.comparison import compare_runs
from irmas_recipe.report.comparison_figure import draw_comparison
from irmas_recipe.report.figures import (
    confusion_rates,
    draw_confusions,
    draw_figures,
    draw_per_class_f1,
    draw_training_curves,
)
from irmas_recipe.report.results import Results
from irmas_recipe.report.table import results_table
from tests.report.example_run import make_run, read_results


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


def test_four_readable_pictures_of_modest_size(run_dir):
    paths = draw_figures(run_dir)
    names = ["per_class_f1", "precision_recall", "confusions", "training_curves"]
    assert paths == [run_dir / "figures" / f"{name}.png" for name in names]
    for path in paths:
        with Image.open(path) as picture:
            assert picture.info["dpi"] == pytest.approx((150, 150), abs=0.1)
            assert np.asarray(picture.convert("L")).std() > 5  # something is drawn
        assert path.stat().st_size < 220_000
    assert Gcf.get_all_fig_managers() == []  # pyplot was told nothing


def test_without_training_there_are_no_training_curves(tmp_path):
    names = [path.stem for path in draw_figures(make_run(tmp_path, trained=False))]
    assert names == ["per_class_f1", "precision_recall", "confusions"]


def test_the_bars_are_the_figures_best_on_top(run_dir):
    results = read_results(run_dir)
    axes = draw_per_class_f1(Results.read(run_dir)).axes[0]
    f1 = {code: entry["f1"] for code, entry in results["test"]["tuned"]["per_class"].items()}
    assert [bar.get_width() for bar in axes.patches] == sorted(f1.values())
    assert axes.get_yticklabels()[-1].get_text() == "voice" == max(f1, key=f1.get).replace("voi", "voice")
    texts = " ".join(text.get_text() for text in axes.texts)
    entry = results["test"]["tuned"]["per_class"]["voi"]
    assert f"{entry['support']} clips, {entry['songs']} songs" in texts


@pytest.mark.parametrize("num_classes", [2, 5, 17])
def test_a_collection_of_ones_own_is_drawn_too(tmp_path, num_classes):
    classes = [f"instrument number {number}" for number in range(num_classes)]
    run_dir = make_run(tmp_path, classes=classes, frequencies=(0.4,) * num_classes, tuned=False, num_clips=80)
    assert len(draw_figures(run_dir)) == 4


def test_dollar_signs_in_names_are_no_formulas(tmp_path):
    names = [r"$\frac$", "A$$AP", "5 $ to 6 $", "_$^$_"]
    run_dir = make_run(tmp_path / "$^$", classes=names, frequencies=(0.4,) * 4, tuned=False, num_clips=80)
    assert len(draw_figures(run_dir)) == 4
    assert draw_comparison(compare_runs([run_dir]), tmp_path / "comparison.png").is_file()


def test_pictures_of_many_classes_show_those_with_the_most_clips(tmp_path):
    classes = [f"instrument number {number}" for number in range(60)]
    frequencies = tuple(0.05 + 0.01 * number for number in range(60))
    run_dir = make_run(tmp_path, classes=classes, frequencies=frequencies, num_clips=80, tuned=False, trained=False)
    for path in draw_figures(run_dir):
        with Image.open(path) as picture:
            assert max(picture.size) < 8000
    figure = draw_per_class_f1(Results.read(run_dir))
    shown = {label.get_text() for label in figure.axes[0].get_yticklabels()}
    entries = read_results(run_dir)["test"]["fixed"]["per_class"]
    left_out = [entries[name]["support"] for name in classes if name not in shown]
    assert len(shown) == 40 and max(left_out) <= min(entries[name]["support"] for name in shown)
    words = " ".join(text.get_text() for text in (*figure.texts, *figure.axes[0].texts))
    assert "40 of 60 classes" in words


def test_a_class_without_test_clips_is_drawn_as_such(tmp_path):
    with pytest.warns(UserWarning, match="No clip carries silent"):
        run_dir = make_run(tmp_path, classes=["a", "b", "silent"], frequencies=(0.5, 0.9, 0.0), num_clips=30)
    assert len(draw_figures(run_dir)) == 4
    axes = draw_per_class_f1(Results.read(run_dir)).axes[0]
    assert "0 clips, 0 songs" in [text.get_text() for text in axes.texts]


def test_a_confusion_rate_counts_what_it_says():
    labels = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 1, 0]], dtype=bool)
    predicted = np.array([[0, 1, 0], [0, 1, 1], [0, 1, 1], [1, 1, 0], [0, 1, 0]], dtype=bool)
    rates, clips = confusion_rates(labels, predicted)
    # Class 0 is missed in clips 0, 1, 2; class 1 is absent from 0 and 1 (and answered in both), class 2 from all three.
    assert rates[0, 1] == 1.0
    assert clips[0, 1] == 2
    assert rates[0, 2] == pytest.approx(2 / 3)
    assert clips[0, 2] == 3
    assert np.isnan(rates[1]).all()  # never missed
    assert np.isnan(rates.diagonal()).all()


def test_percentages_of_a_few_clips_are_not_drawn(tmp_path):
    run_dir = make_run(tmp_path, classes=["a", "b", "c"], frequencies=(0.5, 0.5, 0.5), num_clips=40)
    results = Results.read(run_dir)
    labels = np.zeros((40, 3), dtype=bool)
    labels[:9, 0] = labels[9:12, 1] = True
    scores = np.zeros((40, 3))
    scores[:, 2] = 1.0
    drawn = draw_confusions(results, labels, scores).axes[0]
    assert {text.get_position() for text in drawn.texts} == {(1, 0), (2, 0)}, "class a is missed in 9 clips, b in 3"
    nothing_missed = draw_confusions(results, labels, labels.astype(float)).axes[0]
    assert [text.get_text() for text in nothing_missed.texts] == ["No instrument is missed in 5 clips or more."]


def test_one_logged_step_without_validation_is_drawn():
    figure = draw_training_curves([{"loss": 0.7, "learning_rate": 1e-4, "epoch": 0.5, "step": 1}])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Loss", "Learning rate"]


def test_the_table_shows_every_regime_beside_what_needs_no_listening(run_dir):
    results = read_results(run_dir)
    table = results_table(Results.read(run_dir))
    test, trivial = results["test"], results["trivial"]
    lines = table.splitlines()
    assert len({len(line) for line in lines if set(line) == {"-"}}) == 1
    assert max(map(len, lines)) <= 110
    rows = {re.split(r"\s{2,}", line)[0]: line for line in lines}
    for regime in ("tuned", "fixed", "oracle"):
        row = next(line for name, line in rows.items() if name.startswith(regime))
        for name in ("micro_f1", "macro_f1"):
            lo, hi = (f"{end:.3f}".removeprefix("0") for end in test[regime]["ci95"][name])
            assert f"{test[regime][name]:.3f} [{lo}, {hi}]" in row
    headline = next(line for name, line in rows.items() if name.startswith("tuned"))
    assert f"{test['lrap']:.3f}" in headline
    assert f"{test['map']:.3f}" in headline
    assert f"{trivial['constant']['micro_f1']:.3f}" in rows["constant answer"]
    assert f"{trivial['all']['micro_f1']:.3f}" in rows["every class"]
    assert f"{trivial['prior']['lrap']:.3f}" in rows["ranked by frequency"]


def test_the_columns_of_the_table_are_aligned(run_dir):
    lines = results_table(Results.read(run_dir)).splitlines()
    header = next(line for line in lines if "micro-F1" in line)
    tuned = next(line for line in lines if line.startswith("tuned"))
    for name in ("micro-F1", "macro-F1", "LRAP", "mAP"):
        start = header.index(name)
        assert re.match(r"  \d\.\d{3}", tuned[start - 2 :])


@pytest.mark.filterwarnings("ignore:No clip carries")
def test_without_tuned_thresholds_the_fixed_one_is_the_headline(tmp_path):
    table = results_table(Results.read(make_run(tmp_path, tuned=False, num_clips=60)))
    first = next(line for line in table.splitlines() if "[" in line)
    assert first.startswith("fixed threshold 0.50")
    assert first.count("[") == 4


@pytest.mark.filterwarnings("ignore:No clip carries")
def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(UserError, match=re.escape("results.json is missing")):
        draw_figures(tmp_path)
    make_run(tmp_path / "run", num_clips=30)
    (tmp_path / "run" / "predictions.parquet").unlink()
    with pytest.raises(UserError, match=re.escape("predictions.parquet is missing")):
        draw_figures(tmp_path / "run")


@pytest.mark.parametrize("content", ["{", "[]", '{"recipe": {}}'])
def test_a_damaged_results_file_is_said_in_one_sentence(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserError, match=r"results\.json is damaged"):
        Results.read(tmp_path)


def test_results_are_written_as_they_were_read(run_dir, tmp_path):
    Results.read(run_dir).write(tmp_path)
    assert read_results(tmp_path) == read_results(run_dir)
