"""Leaving sources out: who is left out, and one tiny experiment from files to table."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from experiments.leave_source_out import (
    CHOSEN,
    FINE_TUNED,
    MIN_TRAINING_CLIPS,
    SOUP,
    SourceClip,
    choose_on_other_folds,
    link_fold,
    list_clips,
    main,
    source_folds,
    summary,
)
from irmas_dataset.errors import UserError
from tests.experiments.music import write_sources
from tests.tiny import released

SIZES = {
    ("flu", "here"): 20,
    ("flu", "there"): 6,
    ("voi", "here"): 12,
    ("voi", "far"): 30,
    ("voi", "there"): 7,
    ("cel", "here"): 9,
}


def clips_of(sizes, root="/music"):
    return [
        SourceClip(Path(root, label, f"{source}__{number}.wav"), label, source)
        for (label, source), count in sizes.items()
        for number in range(count)
    ]


def test_every_source_is_left_out_once_and_no_class_is_lost():
    folds = source_folds(clips_of(SIZES), 3)
    assert sorted(pair for fold in folds for pair in fold) == sorted(set(SIZES) - {("cel", "here")})
    for fold in folds:
        for label in ("flu", "voi"):
            assert (
                sum(count for pair, count in SIZES.items() if pair[0] == label and pair not in fold)
                >= MIN_TRAINING_CLIPS
            )
    assert source_folds(clips_of(SIZES), 3) == folds


def test_one_source_a_class_leaves_nothing_to_leave_out():
    with pytest.raises(UserError, match="two sources"):
        source_folds(clips_of({("flu", "here"): 9, ("voi", "there"): 9}), 3)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere has no train/<class>/"):
        list_clips(tmp_path / "nowhere", "([^/]+?)__")


def test_a_pattern_that_finds_no_source_is_refused(tmp_path):
    for name in ("a.wav", "b.wav"):
        (tmp_path / "train/flu").mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "train/flu" / name, np.zeros(800), 16000)
    with pytest.raises(UserError, match="--source_pattern"):
        list_clips(tmp_path, "([^/]+?)__")


def test_files_of_one_name_in_folders_of_one_class_are_refused(tmp_path):
    for folder in ("train/flu", "train/flu/more"):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(2):
            soundfile.write(tmp_path / folder / f"here__{number}.wav", np.zeros(800), 16000)
    with pytest.raises(UserError, match=r"several files flu/here__\d\.wav"):
        list_clips(tmp_path, "([^/]+?)__")


def test_accuracies_and_intervals_of_known_answers():
    rows = [
        {"label": "flu", "source": f"s{number % 4}", "unseen": unseen, "fold": 1 + number % 2,
         "answers": {"zero-shot": "flu" if number < 5 else "voi", "logistic regression": "flu", "tuned": "flu"}}
        for unseen in (True, False) for number in range(10)
    ]  # fmt: skip
    unseen = summary(rows, resamples=200)["unseen"]
    assert unseen["methods"]["zero-shot"]["accuracy"] == 0.5 and unseen["methods"]["tuned"]["ci95"] == [1.0, 1.0]
    low, high = unseen["methods"]["zero-shot"]["ci95"]
    assert low < 0.5 < high
    assert unseen["differences"]["tuned - zero-shot"]["difference"] == 0.5
    assert unseen["methods"]["zero-shot"]["folds"] == [0.6, 0.4]


def test_a_weight_is_chosen_without_the_fold_that_it_is_judged_on():
    low, high = "fine-tuned, initial_weight 0", "fine-tuned, initial_weight 0.5"
    better = {1: low, 2: high, 3: high}  # so that fold 1 is judged by high, and the others by either
    rows = [
        {"label": "flu", "fold": fold, "unseen": unseen,
         "answers": {method: "flu" if method == better[fold] or number < 2 else "voi" for method in (low, high)}}
        for fold, count in ((1, 8), (2, 4), (3, 4)) for unseen in (True, False) for number in range(count)
    ]  # fmt: skip
    choose_on_other_folds(rows)
    for row in rows:
        assert row["answers"][f"{FINE_TUNED} {CHOSEN}"] == row["answers"][high if row["fold"] == 1 else low]


def test_the_experiment_runs_from_files_to_a_table(tmp_path, monkeypatch, capsys):
    """Two classes of tones, two sources each with their own noise."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    write_sources(tmp_path / "music", 0.5)
    released("mobilenet", tmp_path / "narrow")
    main([
        str(tmp_path / "narrow"), str(tmp_path / "music"), "--output_dir", str(tmp_path / "out"), "--folds", "2",
        "--initial_weights", "0", "1", "--soup", "--seed 1", "--seed 2", "--resamples", "50", "--max_steps=2", "--window_seconds=0.5", "--use_cpu",
        "--eval_strategy=no", "--save_strategy=no", "--load_best_model_at_end=False", "--bf16=False", "--disable_tqdm=True",
        "--preparation_processes=1", "--per_device_train_batch_size=4",
    ])  # fmt: skip
    report = json.loads((tmp_path / "out/leave_source_out.json").read_text())
    unseen = [row for row in report["clips"] if row["unseen"]]
    assert len(unseen) == 28 and {row["source"] for row in unseen} == {"here", "there"}
    assert all([row["label"], row["source"]] in report["left_out"][row["fold"] - 1] for row in unseen)
    for row in report["clips"]:  # with a weight of 1 nothing of the training is left
        assert row["answers"][f"{FINE_TUNED} 1"] == row["answers"][f"{SOUP} 1"] == row["answers"]["zero-shot"]
    regression = report["results"]["seen"]["methods"]["logistic regression"]
    assert regression["accuracy"] > 0.8, "tones of two pitches are told apart by any embedding"
    methods = report["results"]["unseen"]["methods"]
    assert f"{SOUP} 0 - {FINE_TUNED} 0" in report["results"]["seen"]["differences"]
    assert methods[f"{FINE_TUNED} {CHOSEN}"]["folds"] and methods[f"{SOUP} {CHOSEN}"]["folds"]
    assert "| logistic regression |" in capsys.readouterr().out


def test_recordings_of_seen_sources_are_drawn_by_their_names_wherever_they_lie(tmp_path):
    def drawn(place):
        clips = [SourceClip(place / "sax" / f"a__{n}.wav", "sax", "a") for n in range(20)]
        link_fold(place / "fold", clips, set(), seen_fraction=0.25)
        return {path.name for path in (place / "fold" / "test" / "sax").iterdir()}

    places = [drawn(tmp_path / name) for name in ("here", "there", "elsewhere")]
    assert len(places[0]) == 5
    assert places[0] == places[1] == places[2]
