"""Two runs on the same fixed training mixtures, whose difference is printed."""

import pytest

from experiments.separated_training import main
from irmas_dataset.errors import UserError
from irmas_dataset.synthetic import synthesize

FIELDS = ["--use_cpu=true", "--max_steps=1", "--per_device_train_batch_size=4", "--eval_strategy=no", "--save_strategy=no",
          "--load_best_model_at_end=false", "--disable_tqdm=true"]  # fmt: skip


@pytest.mark.slow
def test_both_kinds_are_trained_and_compared(tmp_path, capsys):
    synthesize(tmp_path / "music", train=33, test=2)
    data = [f"--data_dir={tmp_path / 'music'}", "--window_seconds=1", "--hop_seconds=1", "--separation=percussive"]
    own = ["--output_dir", str(tmp_path / "out"), "--draws=1", "--seeds=1", "--thresholds_from=validation"]
    main(["recipes/cnn/gomez2018.yaml", *data, *own, *FIELDS, "--learning_rate=0"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [row.split("|")[1].strip() for row in rows[2:]] == [
        "sums of separated clips",
        "separated sums",
        "difference",
    ]
    assert rows[2].split("|")[2:] == rows[3].split("|")[2:], "both begin with the same weights, which stay as they are"


def test_a_recipe_that_hears_everything_is_refused(tmp_path):
    with pytest.raises(UserError, match="--separated_mixtures 3 needs a --separation"):
        main(["recipes/cnn/han2017.yaml", "--output_dir", str(tmp_path / "out"), *FIELDS])
