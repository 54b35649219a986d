"""`evaluate.load` on the folder: offline, from another directory, in a clean process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest
from huggingface_hub import RepoCard

from irmas_metric.bootstrap import song_bootstrap
from irmas_metric.figures import figures

FOLDER = Path(__file__).parents[2] / "irmas_metric"


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    return evaluate.load(str(FOLDER), cache_dir=str(tmp_path_factory.mktemp("metrics")))


@pytest.fixture
def labels_and_scores():
    generator = np.random.default_rng(0)
    labels = (generator.random((30, 3)) < 0.4).astype(int)
    return labels, np.clip(0.3 + 0.3 * labels + 0.2 * generator.normal(size=labels.shape), 0, 1)


def test_the_module_gives_the_same_figures_as_the_functions(metric, labels_and_scores):
    labels, scores = labels_and_scores
    songs = [f"song {clip % 7}" for clip in range(30)]
    thresholds = [0.4, 0.5, 0.6]
    result = metric.compute(
        predictions=scores,
        references=labels,
        thresholds=thresholds,
        songs=songs,
        class_names=["a", "b", "c"],
        bootstrap_resamples=40,
        seed=2,
    )
    interval = song_bootstrap(labels, scores, thresholds, songs, resamples=40, seed=2)
    per_class_f1 = {name: list(pair) for name, pair in zip("abc", interval.pop("per_class_f1"), strict=True)}
    ci95 = result.pop("ci95")
    assert result == figures(labels, scores, thresholds, ["a", "b", "c"])
    assert ci95 == {name: list(pair) for name, pair in interval.items()} | {"per_class_f1": per_class_f1}


def test_batches_add_up(metric, labels_and_scores):
    labels, scores = labels_and_scores
    for start in range(0, 30, 10):
        metric.add_batch(predictions=scores[start : start + 10], references=labels[start : start + 10])
    result = metric.compute()
    assert result == figures(labels, scores)
    assert "ci95" not in result


def test_no_predictions_is_an_error_in_words(metric):
    with pytest.raises(ValueError, match="no clip"):
        metric.compute(predictions=np.zeros((0, 3)), references=np.zeros((0, 3), dtype=int))


def test_it_loads_offline_in_a_clean_process_from_another_directory(tmp_path):
    script = (
        "import evaluate, json, sys\n"
        f"metric = evaluate.load({str(FOLDER)!r})\n"
        "result = metric.compute(predictions=[[0.9, 0.2], [0.4, 0.8]], references=[[1, 0], [1, 1]], songs=['a', 'b'])\n"
        "assert not any(name == 'irmas_metric' for name in sys.modules)\n"
        "print(json.dumps(result))\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["micro_f1"] == pytest.approx(0.8)
    assert set(result["ci95"]) >= {"micro_f1", "lrap", "map"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"class_names": ["a", "b", "a"]}, "Two classes have the same name"),
        ({"songs": ["s"] * 29}, "29 songs for 30 clips"),
    ],
)
def test_names_and_songs_that_do_not_fit_are_refused(metric, labels_and_scores, options, sentence):
    labels, scores = labels_and_scores
    with pytest.raises(ValueError, match=sentence):
        metric.compute(predictions=scores, references=labels, **options)


def test_every_file_the_module_needs_is_imported_by_the_module_itself():
    """evaluate copies what `irmas_metric.py` imports and does not look further."""
    imported = {
        line.split()[1].lstrip(".")
        for line in (FOLDER / "irmas_metric.py").read_text().splitlines()
        if "from ." in line
    }
    for name in imported:
        for line in (FOLDER / f"{name}.py").read_text().splitlines():
            if line.startswith("from ."):
                assert line.split()[1].lstrip(".") in imported


def test_the_card_is_valid_and_its_example_runs(monkeypatch, capsys):
    card = RepoCard.load(FOLDER / "README.md")
    assert card.data.license == "apache-2.0"
    example = card.text.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(FOLDER.parent)
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("0.8571428571428571 [")
