"""Fixed training mixtures, and two runs on them whose difference is printed."""

import numpy as np
import pytest

from experiments.separated_training import drawn_members, main
from irmas_dataset.errors import UserError
from irmas_dataset.synthetic import synthesize


def test_mixtures_begin_with_every_clip_and_join_no_two_of_a_class():
    labels = np.eye(4, dtype=np.float32)[np.arange(12) % 4]
    members = drawn_members(labels, draws=5)
    assert [clips[0] for clips in members] == np.repeat(np.arange(12), 5).tolist()
    assert all((labels[list(clips)].sum(axis=0) <= 1).all() for clips in members)
    assert {len(clips) for clips in members} == {1, 2, 3}


FIELDS = ["--use_cpu=true", "--max_steps=1", "--per_device_train_batch_size=4", "--mix_probability=0", "--eval_strategy=no",
          "--save_strategy=no", "--load_best_model_at_end=false", "--disable_tqdm=true"]  # fmt: skip


@pytest.mark.slow
def test_both_kinds_are_trained_and_compared(tmp_path, capsys):
    synthesize(tmp_path / "music", train=33, test=2)
    data = [f"--data_dir={tmp_path / 'music'}", "--window_seconds=1", "--hop_seconds=1", "--separation=percussive"]
    own = ["--output_dir", str(tmp_path / "out"), "--draws=1", "--seeds=1", "--thresholds_from=validation"]
    main(["recipes/cnn/gomez2018.yaml", *data, *own, *FIELDS])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [row.split("|")[1].strip() for row in rows[2:]] == [
        "sums of separated clips",
        "separated sums",
        "difference",
    ]


def test_a_recipe_that_hears_everything_is_refused(tmp_path):
    with pytest.raises(UserError, match="must separate"):
        main(["recipes/cnn/han2017.yaml", "--output_dir", str(tmp_path / "out"), *FIELDS])
