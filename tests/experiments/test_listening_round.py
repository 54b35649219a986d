"""One round of listening: who hears what, and one tiny experiment from files to table."""

import json
from pathlib import Path

import run_irmas
from experiments import listening_round
from tests.experiments.music import write_sources
from tests.tiny import released


def test_every_class_has_its_turn_before_any_has_a_second():
    windows = [{"label": label, "path": number} for number, label in enumerate("aaabcc")]
    assert [window["path"] for window in listening_round.in_turn(windows)] == [0, 3, 4, 1, 5, 2]


def test_gains_and_intervals_of_known_answers():
    rows = [
        {"run": run, "fold": 1 + clip % 2, "seed": seed, "clip": f"{clip}", "right": clip < right}
        for run, right in {"before": 4, "confident": 4, "unsure": 8, "random": 6}.items()
        for seed in (0, 1) for clip in range(10)
    ]  # fmt: skip
    heard = [{"choice": choice, "fold": 1, "seed": seed, "was_right": seed == 0}
             for choice in listening_round.CHOICES for seed in (0, 1) for _ in range(6)]  # fmt: skip
    results = listening_round.summary(rows, heard, resamples=200)
    assert results["recordings"] == 10
    unsure, confident = results["runs"]["unsure"], results["runs"]["confident"]
    assert unsure["accuracy"] == 0.8 and unsure["difference"] == 0.4 and unsure["folds"] == [0.8, 0.8]
    low, high = unsure["difference_ci95"]
    assert 0 < low < 0.4 < high and confident["difference_ci95"] == [0, 0]
    assert unsure["windows"] == 6 and unsure["was_right"] == 0.5
    assert listening_round.table(results).splitlines()[-2].startswith("| unsure | 6 | 50% | 0.800 [")


def test_the_experiment_runs_from_files_to_a_table(tmp_path, monkeypatch, capsys):
    """Two classes of tones, two sources each with their own noise; the program runs in this process."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(listening_round, "irmas", lambda *words: run_irmas.main(list(map(str, words))))
    write_sources(tmp_path / "music", 1.0)
    released("mobilenet", tmp_path / "narrow")
    listening_round.main([
        str(tmp_path / "narrow"), str(tmp_path / "music"), "--output_dir", str(tmp_path / "out"), "--folds", "1",
        "--budget", "4", "--resamples", "50", "--max_steps=2", "--window_seconds=0.5", "--use_cpu", "--eval_strategy=no",
        "--save_strategy=no", "--load_best_model_at_end=False", "--bf16=False", "--disable_tqdm=True",
        "--preparation_processes=1", "--per_device_train_batch_size=4", "--bootstrap_resamples=20",
    ])  # fmt: skip
    report = json.loads((tmp_path / "out/listening_round.json").read_text())
    assert {row["run"] for row in report["clips"]} == {"before", *listening_round.CHOICES}
    tested = {row["clip"].removeprefix("test/") for row in report["clips"]}
    heard = {window["source"] for window in report["heard"]}
    left_out = {tuple(pair) for pair in report["left_out"][0]}
    assert heard and tested and not heard & tested
    assert {(Path(clip).parent.name, Path(clip).name.split("__")[0]) for clip in heard | tested} <= left_out
    fold = tmp_path / "out/fold-1-seed-0"
    for choice in listening_round.CHOICES:
        windows = [window for window in report["heard"] if window["choice"] == choice]
        assert len(windows) <= 4
        assert len(list((fold / "heard" / choice).rglob("*.flac"))) == len(windows)
        assert all((fold / "heard" / choice / "train" / window["label"]).is_dir() for window in windows)
    results = json.loads((fold / "random/results.json").read_text())
    assert results["dataset"]["extra_train_clips"] == 4
    assert "| random | 4 |" in capsys.readouterr().out
