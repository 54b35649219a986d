"""`ensemble`: the fusion methods against their definitions, and the run folder that `compare` reads."""

import json
import shlex
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import average_precision_score, log_loss

import run_irmas
from irmas_dataset.errors import UserError
from irmas_metric.protocol import test_results
from irmas_recipe.commands.ensemble.arguments import METHODS
from irmas_recipe.commands.ensemble.fusion import Fusion, as_numbers, fit, fit_weights, logits, regress, votes
from irmas_recipe.commands.ensemble.members import digest
from irmas_recipe.commands.system import load_system
from irmas_recipe.report.comparison import compare_runs
from irmas_recipe.report.results import Results
from irmas_recipe.training.songs import MOMENTS_FILE, Moments, read_moments, tune_timeline, write_moments
from irmas_recipe.training.thresholds import tune_thresholds
from run_irmas import ensemble as run_ensemble
from tests.report.example_run import FREQUENCIES, make_run, random_test_set, read_predictions, read_results


def noisy(labels: np.ndarray, noise: float, seed: int) -> np.ndarray:
    """Return scores that hear the labels through noise."""
    values = 3 * labels - 2 + noise * np.random.default_rng(seed).normal(size=labels.shape)
    return 1 / (1 + np.exp(-values))


def mean_average_precision(labels, scores) -> float:
    return float(np.mean([average_precision_score(labels[:, c], scores[:, c]) for c in range(labels.shape[1])]))


@pytest.fixture(scope="module")
def heard():
    """Labels and scores of validation and test clips as three runs hear them: a good, a middling, and a deaf one."""
    generator = np.random.default_rng(0)
    sides = {}
    for side, clips in (("validation", 300), ("test", 400)):
        labels, _ = random_test_set(generator, clips, FREQUENCIES)
        scores = [noisy(labels, 1.5, 1 + clips), noisy(labels, 2.0, 2 + clips), generator.random(labels.shape)]
        sides[side] = labels, np.stack(scores)
    return sides


def test_mean_is_the_mean(heard):
    (labels, validation), (_, test) = heard["validation"], heard["test"]
    fusion, fused = fit("mean", validation, labels, np.full((3, 11), 0.5))
    np.testing.assert_allclose(fusion(test), (test[0] + test[1] + test[2]) / 3)
    np.testing.assert_allclose(fused[5], validation[:, 5].mean(axis=0))


def test_votes_rank_by_votes_then_by_mean_and_half_is_the_majority():
    scores = np.array([[[0.9, 0.3, 0.1]], [[0.2, 0.35, 0.1]], [[0.4, 0.1, 0.1]]])  # (3 runs, 1 clip, 3 classes)
    thresholds = np.array([[0.5, 0.3, 0.5], [0.5, 0.3, 0.5], [0.5, 0.3, 0.05]])
    np.testing.assert_allclose(votes(scores, thresholds)[0], [(1 + 0.5) / 4, (2 + 0.25) / 4, (1 + 0.1) / 4])
    random, cuts = np.random.default_rng(0).random((5, 50, 4)), np.full((5, 4), 0.5)
    majority = (random >= 0.5).sum(axis=0) >= 3
    np.testing.assert_array_equal(votes(random, cuts) >= 0.5, majority)
    pair = votes(random[:2], cuts[:2])
    tied = (random[:2] >= 0.5).sum(axis=0) == 1
    np.testing.assert_array_equal((pair >= 0.5)[tied], (random[:2].mean(axis=0) >= 0.5)[tied])


def test_weights_are_the_best_on_the_simplex(heard):
    labels, scores = heard["validation"]
    weights = fit_weights(scores, labels)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    assert weights[2] < 0.05 < weights[1] < weights[0]

    def loss(candidate):
        return log_loss(labels.ravel(), np.tensordot(candidate, scores, axes=1).ravel())

    best = loss(weights)
    for candidate in np.random.default_rng(1).dirichlet(np.ones(3), size=50):
        assert loss(candidate) >= best - 1e-6


def test_fitted_methods_ignore_the_deaf_run(heard):
    (labels, validation), (test_labels, test) = heard["validation"], heard["test"]
    reached = {
        method: mean_average_precision(test_labels, fit(method, validation, labels, np.full((3, 11), 0.5))[0](test))
        for method in METHODS
    }
    best_alone = max(mean_average_precision(test_labels, scores) for scores in test)
    assert reached["weights"] > best_alone
    assert reached["stacking"] > best_alone
    assert reached["weights"] > reached["mean"]


def test_stacking_learns_what_no_mean_can():
    """The second run calls every class by its neighbour's name: only a regression over all classes sees through it."""
    generator = np.random.default_rng(0)
    labels = (generator.random((400, 5)) < 0.4).astype(int)
    scores = np.stack([generator.random(labels.shape), np.roll(noisy(labels, 1.0, 3), 1, axis=1)])
    fusion, fused = fit("stacking", scores[:, :200], labels[:200], np.full((2, 5), 0.5))
    assert mean_average_precision(labels[200:], fusion(scores[:, 200:])) > 0.9
    assert mean_average_precision(labels[200:], scores[:, 200:].mean(axis=0)) < 0.7
    assert ((fused > 0) & (fused < 1)).all()


def test_stacked_validation_scores_are_out_of_fold():
    """On labels that nothing can tell, learnt scores would look good and out-of-fold ones do not."""
    generator = np.random.default_rng(0)
    labels, scores = (generator.random((60, 4)) < 0.5).astype(int), generator.random((6, 60, 4))
    _, fused = fit("stacking", scores, labels, np.full((6, 4), 0.5))
    assert mean_average_precision(labels, fused) < 0.7


def test_a_regression_in_plain_numbers_says_what_the_fitted_one_says(heard):
    (labels, scores), (_, test) = heard["validation"], heard["test"]
    read = [0, 13, 25]
    model, _ = regress(logits(scores)[:, read], labels[:, 2].astype(bool))
    kept = Fusion("stacking", regressions=[None, None, as_numbers(model, read, 33), *[None] * 8])
    again = Fusion(**json.loads(json.dumps(asdict(kept))))(test)
    np.testing.assert_allclose(again[:, 2], model.predict_proba(logits(test)[:, read])[:, 1], atol=1e-9)
    np.testing.assert_allclose(again[:, 3], test[:, :, 3].mean(axis=0))


def test_a_class_without_validation_clips_keeps_the_mean(heard):
    (labels, validation), (_, test) = heard["validation"], heard["test"]
    labels = labels.copy()
    labels[:, 3] = 0
    fusion, _ = fit("stacking", validation, labels, np.full((3, 11), 0.5))
    np.testing.assert_allclose(fusion(test)[:, 3], test[:, :, 3].mean(axis=0))


def test_logits_stand_run_by_run():
    scores = np.random.default_rng(0).uniform(0.1, 0.9, (2, 3, 4))
    np.testing.assert_allclose(1 / (1 + np.exp(-logits(scores)[1])), [*scores[0, 1], *scores[1, 1]])
    assert np.isfinite(logits(np.array([[[0.0, 1.0]]]))).all()


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """Two run folders with scores of test clips and of validation mixtures; the second one's rows stand otherwise."""
    folder = tmp_path_factory.mktemp("runs")
    first = make_run(folder / "first")
    codes = read_results(first)["dataset"]["classes"]
    labels, _ = random_test_set(np.random.default_rng(5), 120, FREQUENCIES)
    mixtures = pd.DataFrame(
        {
            "clip": [f"a{row}.wav + b{row}.wav" for row in range(119)] + ["a0.wav + b0.wav"],  # one occurs twice
            "song": None,
            "instruments": [[code for code, on in zip(codes, row, strict=True) if on] for row in labels],
        }
    )
    labels[-1] = labels[0]
    mixtures.at[119, "instruments"] = mixtures.at[0, "instruments"]
    mixtures[codes] = noisy(labels, 1.5, 6)
    mixtures.to_parquet(first / "validation_predictions.parquet", index=False)
    second = folder / "second"
    shutil.copytree(first, second)
    test = pd.read_parquet(first / "predictions.parquet")
    test_labels, _ = read_predictions(first, codes)
    test[codes] = noisy(test_labels, 2.0, 7)
    results = read_results(first)
    results["test"] = test_results(test_labels, test[codes], test["song"], codes, np.full(11, 0.4), resamples=40)
    results["train"]["inference_clips_per_second"] = 50.0
    (second / "results.json").write_text(json.dumps(results))
    test.sample(frac=1, random_state=0).to_parquet(second / "predictions.parquet", index=False)
    mixtures[codes] = noisy(labels, 2.0, 8)
    mixtures.sample(frac=1, random_state=1).to_parquet(second / "validation_predictions.parquet", index=False)
    return [first, second]


def test_thresholds_of_the_timeline_are_tuned_on_fused_moments(runs, tmp_path, caplog):
    codes, random, members = read_results(runs[0])["dataset"]["classes"], np.random.default_rng(0), []
    playing = [random.integers(0, 2, (4, len(codes))) for _ in range(8)]  # in the sections of 12 s of each song
    for run, hop in zip(runs, (1.5, 2.0), strict=True):
        songs, edges = [], np.arange(0, 48.1, hop)
        section = (edges[:-1] // 12).astype(int)
        for song in playing:
            songs.append(Moments(edges, song[section], noisy(song[section], 1.0, 3)))
        members.append(tmp_path / run.name)
        shutil.copytree(run, members[-1])
        write_moments(members[-1] / MOMENTS_FILE, songs, codes)
    run_ensemble([*map(str, members), "--output_dir", str(tmp_path / "both")])
    fused = read_moments(tmp_path / "both" / MOMENTS_FILE, codes)
    assert [len(song.scores) for song in fused] == [48] * 8, "edges every 1.5 and every 2 s: 48 moments"
    first = [read_moments(member / MOMENTS_FILE, codes)[0].scores[0] for member in members]
    np.testing.assert_allclose(fused[0].scores[0], np.mean(first, axis=0))
    for song, truth in zip(fused, playing, strict=True):
        np.testing.assert_array_equal(song.labels, truth[(song.edges[:-1] // 12).astype(int)])
    tuned = read_results(tmp_path / "both")["moments"]
    assert tuned["window_thresholds"] == tune_timeline(fused)["window_thresholds"].tolist()
    assert Results.read(tmp_path / "both").as_config()["window_thresholds"] == tuned["window_thresholds"]

    write_moments(members[1] / MOMENTS_FILE, read_moments(members[1] / MOMENTS_FILE, codes)[:5], codes)
    run_ensemble([*map(str, members), "--output_dir", str(tmp_path / "shorter")])
    assert len(read_moments(tmp_path / "shorter" / MOMENTS_FILE, codes)) == 5, "the songs that both have heard"

    halves = [Moments(song.edges[:25], song.labels[:24], song.scores[:24]) for song in fused]  # other songs
    write_moments(members[1] / MOMENTS_FILE, halves, codes)
    run_ensemble([*map(str, members), "--output_dir", str(tmp_path / "apart")])
    assert "moments" not in read_results(tmp_path / "apart")
    assert "judged by the thresholds of clips" in caplog.text


def test_the_command_of_the_card_can_be_pasted(runs, tmp_path, capsys):
    members = [shutil.copytree(run, tmp_path / f"{run.name}, (my 1st)") for run in runs]
    asked = [*map(str, members), "--output_dir", str(tmp_path / "my ensemble"), "--method", "mean"]
    run_ensemble(asked)
    card = (tmp_path / "my ensemble/README.md").read_text()
    command = card.split("```bash\nirmas ensemble ")[1].split("\n```")[0]
    assert shlex.split(command) == asked
    capsys.readouterr()
    run_ensemble([f"{word}/" if word.startswith("/") else word for word in asked])
    assert "finished before" in capsys.readouterr().out, "a / at the end of a folder makes no other recipe"


def test_a_saved_recipe_replaces_no_run(runs, tmp_path):
    """--overwrite_output_dir was for the start that had it, whatever system's."""
    for name in ("first", "second"):
        run_ensemble([*map(str, runs), "--output_dir", str(tmp_path / name), "--overwrite_output_dir"])
    again = [str(tmp_path / "first/recipe.yaml"), "--output_dir", str(tmp_path / "second"), "--method", "voting"]
    with pytest.raises(UserError, match="second has a finished run of another recipe"):
        run_irmas.main(again)


@pytest.mark.parametrize("method", METHODS)
def test_the_run_folder_is_whole_and_compares(runs, tmp_path, method, capsys):
    folder = tmp_path / method
    run_ensemble([*map(str, runs), "--output_dir", str(folder), "--method", method])
    assert "tuned thresholds" in capsys.readouterr().out
    results = read_results(folder)
    _, scores = read_predictions(folder, results["dataset"]["classes"])
    validation = pd.read_parquet(folder / "validation_predictions.parquet")
    validation_labels = np.array(
        [[code in clip for code in results["dataset"]["classes"]] for clip in validation["instruments"]]
    )
    thresholds = tune_thresholds(validation_labels, validation[results["dataset"]["classes"]])
    tuned = results["test"]["tuned"]
    np.testing.assert_allclose([entry["threshold"] for entry in tuned["per_class"].values()], thresholds)
    _, fused = compare_runs([runs[0], folder]).of_kind("run")
    assert fused.figures["micro_f1"] == tuned["micro_f1"]
    assert fused.parameters == 2 * 86_192_651
    card = (folder / "README.md").read_text()
    assert "ensemble of 2 runs" in card
    assert "pipeline(" not in card and f"irmas predict {folder} song.mp3" in card
    assert f"--method {method}" in card
    assert len(list((folder / "figures").glob("*.png"))) == 3
    if method == "mean":
        one, other = [read_predictions(run, results["dataset"]["classes"])[1] for run in runs]
        order = {clip: row for row, clip in enumerate(pd.read_parquet(runs[1] / "predictions.parquet")["clip"])}
        clips = pd.read_parquet(folder / "predictions.parquet")["clip"]
        np.testing.assert_allclose(scores, (one + other[[order[clip] for clip in clips]]) / 2)
    if method == "weights":
        assert sum(results["recipe"]["weights"].values()) == pytest.approx(1, abs=1e-5)
        assert list(results["recipe"]["weights"]) == ["first", "second"]


def test_without_validation_scores_only_unfitted_methods_go_on(runs, tmp_path, caplog):
    bare = tmp_path / "bare"
    shutil.copytree(runs[1], bare)
    (bare / "validation_predictions.parquet").unlink()
    with pytest.raises(UserError, match="is fitted on validation scores"):
        run_ensemble([str(runs[0]), str(bare), "--output_dir", str(tmp_path / "out"), "--method", "stacking"])
    run_ensemble([str(runs[0]), str(bare), "--output_dir", str(tmp_path / "out")])
    assert "no thresholds can be tuned" in caplog.text
    assert "tuned" not in read_results(tmp_path / "out")["test"]
    assert not (tmp_path / "out" / "validation_predictions.parquet").exists()


def test_a_run_of_another_kind_is_not_written_over(runs, tmp_path):
    classical = shutil.copytree(runs[0], tmp_path / "classical")
    (classical / "recipe.yaml").write_text("system: classical")
    before = (classical / "results.json").read_bytes()
    with pytest.raises(UserError, match="run of another recipe"):
        run_ensemble([*map(str, runs[:2]), "--output_dir", str(classical)])
    assert (classical / "results.json").read_bytes() == before


def test_a_finished_ensemble_says_which_member_has_changed(runs, tmp_path, capsys):
    members = [shutil.copytree(run, tmp_path / run.name) for run in runs]
    command = [*map(str, members), "--output_dir", str(tmp_path / "both")]
    run_ensemble(command)
    run_ensemble(command)
    assert capsys.readouterr().out.count("tuned thresholds") == 2
    table = pd.read_parquet(members[1] / "predictions.parquet")
    table.sample(frac=1, random_state=2).to_parquet(members[1] / "predictions.parquet", index=False)
    with pytest.raises(
        UserError, match=r"second has changed since .*both was made of it: .*--overwrite_output_dir true"
    ):
        run_ensemble(command)
    run_ensemble([*command, "--overwrite_output_dir", "true"])
    run_ensemble(command)


def test_a_cost_that_a_member_does_not_say_is_not_that_of_the_ensemble(runs, tmp_path):
    """A classical system counts no parameters, and nothing is known of what `evaluate` measured."""
    members, known = [shutil.copytree(run, tmp_path / run.name) for run in runs], read_results(runs[0])["train"]
    for kept in ({}, {"seconds": 5.0, "peak_memory_bytes": 1, "device": "a CPU"}):
        (members[1] / "results.json").write_text(json.dumps(read_results(runs[1]) | {"train": kept}))
        folder = tmp_path / f"with {len(kept)}"
        run_ensemble([*map(str, members), "--output_dir", str(folder)])
        cost = read_results(folder)["train"]
        assert "parameters" not in cost and "inference_clips_per_second" not in cost
        assert cost.get("seconds") == (known["seconds"] + 5 if kept else None)
        assert cost.get("peak_memory_bytes") == (known["peak_memory_bytes"] if kept else None)
        row = compare_runs([folder]).of_kind("run")[0]
        assert row.parameters is None and row.training_seconds == cost.get("seconds")


def test_user_errors_are_one_sentence(runs, tmp_path):
    out = ["--output_dir", str(tmp_path / "out")]
    with pytest.raises(UserError, match="at least two runs"):
        run_ensemble([str(runs[0]), *out])
    with pytest.raises(UserError, match="is one of the runs"):
        run_ensemble([*map(str, runs), "--output_dir", str(runs[0])])
    other = tmp_path / "other"
    shutil.copytree(runs[1], other)
    mixtures = pd.read_parquet(other / "validation_predictions.parquet")
    mixtures["clip"] = mixtures["clip"] + "x"
    mixtures.to_parquet(other / "validation_predictions.parquet")
    with pytest.raises(UserError, match="validated on different mixtures"):
        run_ensemble([str(runs[0]), str(other), *out])
    assert not (tmp_path / "out").exists()


def test_a_recipe_lists_the_runs(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    listed = yaml.safe_dump({"system": "ensemble", "runs": [str(run) for run in runs], "method": "voting"})
    Path("fusion.yaml").write_text(listed)
    run_irmas.main(["fusion.yaml"])
    run_irmas.main(["fusion.yaml", "--method", "mean", "--output_dir", "mean"])
    run_ensemble([*map(str, runs), "--output_dir", "verb", "--method", "mean"])
    assert read_results(Path("runs/fusion"))["recipe"]["method"] == "voting"
    assert read_results(Path("mean"))["test"] == read_results(Path("verb"))["test"]
    with pytest.raises(UserError, match="at least two runs"):
        run_irmas.main(["fusion.yaml", "--runs", str(runs[0])])


def test_an_ensemble_of_itself_is_refused(runs, tmp_path):
    folder = tmp_path / "ensemble"
    run_ensemble([*map(str, runs), "--output_dir", str(folder)])
    results = read_results(folder)
    results["members"] = [{"run": ".", "sha256": digest(folder / "predictions.parquet")}]
    (folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match="has itself among its runs"):
        load_system(str(folder))
