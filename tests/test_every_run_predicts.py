"""Every run that `compare` lists hears files: networks, each kind of classical system, each way to fuse, `evaluate`'s too."""

import json
import re
import shlex
import shutil
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io

import run_irmas
from irmas_dataset.errors import UserError
from irmas_recipe.baselines.classical.recipe import CLASSIFIER_NAMES
from irmas_recipe.baselines.classical.stored import FILE
from irmas_recipe.commands.ensemble.arguments import METHODS
from irmas_recipe.commands.predict.tagging import Tagger
from irmas_recipe.commands.system import load_system
from irmas_recipe.report.comparison import compare_runs
from tests.test_run_own_folder import PITCHES, write_clip, write_recipe

ROOT = Path(__file__).parents[1]
TOLERANCE = 1e-4
QUICK = {
    "random_forest": {"n_estimators": [5]}, "bagging": {"n_estimators": [4]}, "decision_tree": {"min_samples_leaf": [3]},
    "nearest_neighbours": {"n_neighbors": [7], "p": [1, 2]}, "naive_bayes": {"var_smoothing": [1e-2]}, "svm": {"C": [4.0]},
    "gradient_boosting": {"max_iter": [5]},
}  # fmt: skip
RUNS = ["network", *CLASSIFIER_NAMES, *METHODS, "of_ensembles", "measured"]
MEMBERS = ("network", "decision_tree", "svm")
ALWAYS = (*MEMBERS, "mean", "stacking", "measured")
"""What the fast tests train; the others take a minute."""
FIELDS = ["--validation_fraction", "0.4", "--bootstrap_resamples", "20"]
EVERY_RUN = [pytest.param(run, marks=[] if run in ALWAYS else pytest.mark.slow) for run in RUNS]


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A working folder with music of three classes; the runs on it are made when they are asked for."""
    path = tmp_path_factory.mktemp("every")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setattr("datasets.config.HF_DATASETS_CACHE", path / "cache")
        write_music(Path("music"))
        write_recipe("music", window_seconds=1.0, max_steps=20, eval_steps=20, save_steps=20, learning_rate=1e-2)
        yield path


def made(run: str) -> Path:
    """Return a run's folder, in which it is made if it is not there yet: the network hears 16 kHz, the others 22.05 kHz."""
    path = Path("runs", run)
    if path.exists():
        return path
    if run == "network":
        run_irmas.main(["own.yaml", *FIELDS, "--output_dir", str(path)])
    elif run in CLASSIFIER_NAMES:
        train_classical(run, path)
    elif run == "measured":
        run_irmas.main(["evaluate", str(made("network")), "--output_dir", str(path)])
    else:
        members = ("mean", "naive_bayes") if run == "of_ensembles" else MEMBERS
        method = run if run in METHODS else "mean"
        run_irmas.main(["ensemble", *map(str, map(made, members)), "--method", method, "--output_dir", str(path)])
    return path


def write_music(folder: Path) -> None:
    """Write a folder of one's own: 60 training clips of one class, and 8 test clips of one to three."""
    lines, names = ["path,instruments,recording"], list(PITCHES)
    for number in range(68):
        heard = [names[number % 3]] if number < 60 else names[number % 3 :][: 1 + number % 2] + names[:1] * (number % 3)
        file = f"{'clips' if number < 60 else 'test'}/{number}.wav"
        write_clip(folder / file, heard, number, seconds=1.5 if number < 60 else 0.7 + (number - 60) * 0.61)
        lines.append(f"{file},{';'.join(dict.fromkeys(heard))},{number}")
    (folder / "labels.csv").write_text("\n".join(lines), encoding="utf-8")


def train_classical(name: str, path: Path) -> None:
    """Train a small classical system, every other one on selected columns."""
    selection = ("none", "l1")[CLASSIFIER_NAMES.index(name) % 2]
    grid = QUICK[name] | ({"selection_C": [0.1]} if selection == "l1" else {})
    options = {
        "data_dir": "music", "window_seconds": "1", "classifier": name, "feature_selection": selection,
        "grid": json.dumps(grid), "processes": "1", "importance_repeats": "1", "search_folds": "2", "output_dir": str(path),
    }  # fmt: skip
    given = [word for field, value in options.items() for word in (f"--{field}", value)]
    run_irmas.main([str(ROOT / "recipes/classical/sarwar.yaml"), *FIELDS, *given])


def stored_scores(run: Path) -> tuple[list[str], list[str], np.ndarray]:
    """Return a run's test clips, their files' labels, and its scores of them."""
    stored = pd.read_parquet(run / "predictions.parquet")
    return [f"music/{clip}" for clip in stored["clip"]], list(stored.columns[3:]), stored.iloc[:, 3:].to_numpy()


def heard_scores(run: Path, files: list[str], labels: list[str]) -> np.ndarray:
    """Return the scores that a run gives to files, as `predict` asks for them."""
    results = load_system(str(run), device="cpu")(files, all_labels=True, return_activity=True)
    scores = [{entry["label"]: entry["score"] for entry in result["instruments"]} for result in results]
    return np.array([[of_clip[label] for label in labels] for of_clip in scores])


@pytest.mark.slow
def test_compare_lists_them_all():
    assert [row.name for row in compare_runs([made(run) for run in RUNS]).of_kind("run")] == RUNS


@pytest.mark.parametrize("run", EVERY_RUN)
def test_a_run_hears_its_test_clips_as_it_was_measured(run):
    files, labels, stored = stored_scores(made(run))
    assert stored.std(axis=0).max() > 10 * TOLERANCE, "or equality within the tolerance would say nothing"
    np.testing.assert_allclose(heard_scores(made(run), files, labels), stored, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("run", ["svm", "stacking", pytest.param("of_ensembles", marks=pytest.mark.slow)])
def test_the_cards_command_works(run, capsys):
    card = (made(run) / "README.md").read_text()
    (command,) = re.findall(r"```bash\n(irmas predict .*song\.mp3)\n```", card)
    run_irmas.main([*shlex.split(command.replace("song.mp3", "music/test/67.wav"))[1:], "--timeline", f"drawn/{run}"])
    shown = capsys.readouterr().out
    assert "67.wav" in shown and all(label in shown for label in PITCHES)
    assert len(list(Path("drawn", run).glob("*.png"))) == 1
    assert "no weights here: run the recipe again" not in card and "pipeline(" not in card


def test_an_ensembles_timeline_is_its_members_fused():
    files, labels, _ = stored_scores(made("mean"))
    heard = [
        load_system(str(made(run)), device="cpu")(files[-1], return_activity=True)["activity"]
        for run in ("mean", *MEMBERS)
    ]
    ends = [of_one["edges_seconds"][-1] for of_one in heard]
    assert np.ptp(ends) < 1e-3
    for moment in (0.2, 1.1, ends[0] - 0.1):
        at_moment = np.array(
            [
                [of_one["scores"][label][np.searchsorted(of_one["edges_seconds"], moment) - 1] for label in labels]
                for of_one in heard
            ]
        )
        np.testing.assert_allclose(at_moment[0], at_moment[1:].mean(axis=0), atol=TOLERANCE)


def test_an_ensemble_works_from_anywhere_and_tells_which_file_it_cannot_read(folder, monkeypatch, tmp_path):
    (tmp_path / "broken.wav").write_text("no audio")
    run = made("stacking").resolve()
    monkeypatch.chdir(tmp_path)
    Path("linked").symlink_to(run)
    recognise = load_system("linked", device="cpu")
    paths = (str(path) for path in (tmp_path / "broken.wav", folder / "music/test/60.wav"))
    bad, good = recognise(paths, skip_unreadable=True, all_labels=True)
    assert "broken.wav cannot be read" in bad["error"] and len(good) == 3


def test_an_ensemble_tags_a_catalogue_into_parts_and_is_resumed():
    files, labels, stored = stored_scores(made("mean"))
    Path("gone and bad.wav").write_text("no audio")
    Path("songs.txt").write_text("\n".join([*files, "gone and bad.wav"]))
    asked = ["predict", "runs/mean", "--list", "songs.txt", "--parts", "tags", "--part_files", "4", "--device", "cpu"]
    run_irmas.main(asked)
    parts = sorted(Path("tags").glob("*.parquet"))
    assert len(parts) == 3
    rows = pd.concat(map(pd.read_parquet, parts)).set_index("path")
    assert "cannot be read" in rows.error["gone and bad.wav"]
    scores = rows.loc[files, [f"score_{label}" for label in labels]]
    np.testing.assert_allclose(scores, stored, rtol=0, atol=TOLERANCE)
    parts[1].with_suffix(".done").unlink()
    written = [part.stat().st_mtime_ns for part in parts]
    run_irmas.main([*asked, "--resume"])
    again = [part.stat().st_mtime_ns for part in parts]
    assert [before == after for before, after in zip(written, again, strict=True)] == [True, False, True]
    with pytest.raises(UserError, match="--embeddings is for networks"):
        run_irmas.main([*asked[:-6], "--parts", "vectors", "--device", "cpu", "--embeddings", "file"])
    with pytest.raises(UserError, match="--bf16 is for networks"):
        run_irmas.main([*asked[:-6], "--parts", "vectors", "--device", "cpu", "--bf16"])
    Path("none.txt").touch()
    with pytest.raises(UserError, match="The --list names no file"):
        run_irmas.main(["predict", "runs/mean", "--list", "none.txt", "--device", "cpu"])


def test_parts_are_not_resumed_by_another_system_without_a_network():
    systems = [
        Tagger(load_system(str(made(run)), device="cpu")) for run in ("decision_tree", "svm", "mean", "stacking")
    ]
    assert len({system.fingerprint() for system in systems}) == 4
    again = Tagger(load_system(str(made("svm")), device="cpu"))
    assert again.fingerprint() == systems[1].fingerprint()


def test_an_ensemble_does_not_read_far_ahead():
    """A catalogue has more names than memory should hold."""
    read = []

    def names():
        for number in range(2000):
            read.append(number)
            yield "music/test/60.wav"

    recognise = load_system(str(made("mean")), device="cpu")
    next(iter(recognise(names(), all_labels=True)))
    assert len(read) < 100


def test_a_threshold_is_the_ensembles_own_and_windows_are_its_members():
    run = str(made("mean"))
    assert len(load_system(run, device="cpu", thresholds=0.0)("music/test/60.wav")) == 3
    with pytest.raises(UserError, match="--window_seconds is not for runs/mean, an ensemble"):
        load_system(run, device="cpu", window_seconds=1.0)


def test_a_member_that_is_missing_or_has_changed_is_named(tmp_path):
    for run in ("mean", *MEMBERS):
        shutil.copytree(made(run), tmp_path / run)
    load_system(str(tmp_path / "mean"), device="cpu")
    shutil.copy(made("network") / "predictions.parquet", tmp_path / "svm")
    with pytest.raises(UserError, match=r"svm has changed since .*mean was made of it.*--overwrite_output_dir true"):
        load_system(str(tmp_path / "mean"), device="cpu")
    shutil.rmtree(tmp_path / "svm")
    with pytest.raises(UserError, match=r"needs the run .*svm, which is missing"):
        load_system(str(tmp_path / "mean"), device="cpu")


def test_runs_of_earlier_versions_are_to_be_made_again(tmp_path):
    old = shutil.copytree(made("svm"), tmp_path / "svm")
    (old / FILE).unlink()
    with pytest.raises(UserError, match=r"classifiers\.skops is missing.*--overwrite_output_dir true"):
        load_system(str(old))
    old = shutil.copytree(made("mean"), tmp_path / "mean")
    results = json.loads((old / "results.json").read_text())
    del results["members"], results["fusion"]
    (old / "results.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match="make the ensemble again with --overwrite_output_dir true"):
        load_system(str(old))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (datetime(2026, 1, 1), "has objects that no run of this project has"),
        ({"classifiers": skops.io.loads, "slopes": 1, "offsets": 1}, "has objects that no run of this project has"),
        ([1, 2], "is damaged"),
        ({"classifiers": 1, "slopes": np.ones(3), "offsets": np.ones(3)}, "does not hold the classifiers of"),
        (None, "is damaged"),
    ],
    ids=["another class", "a function", "a list", "a number", "no archive"],
)
def test_a_file_that_is_not_what_a_run_writes_is_refused_in_one_sentence(tmp_path, content, sentence):
    run = shutil.copytree(made("svm"), tmp_path / "svm")
    if content is None:
        (run / FILE).write_bytes((run / FILE).read_bytes()[:-100])
    else:
        skops.io.dump(content, run / FILE)
    with pytest.raises(UserError, match=sentence) as refused:
        load_system(str(run))
    assert str(refused.value).count("\n") == 0 and FILE in str(refused.value)


def test_the_classifiers_of_another_run_are_refused(tmp_path):
    run = shutil.copytree(made("svm"), tmp_path / "svm")
    results = json.loads((run / "results.json").read_text())
    results["recipe"]["features"] = "full"
    (run / "results.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match="does not hold the classifiers of"):
        load_system(str(run))


@pytest.mark.parametrize(
    "command", [["onnx", "runs/svm", "graph"], ["evaluate", "runs/mean"]], ids=["onnx", "evaluate"]
)
def test_what_needs_a_network_says_so(command):
    made("svm"), made("mean")
    with pytest.raises(
        UserError, match=r"is a run of another system \((classical|ensemble)\): give .* a network's run"
    ):
        run_irmas.main(command)
