"""What a recipe and its data or its checkpoint cannot have together is refused before any decoding or training."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from irmas_dataset.errors import UserError
from irmas_recipe.training.data import check_before_training, load_data
from irmas_recipe.training.fields import ModelArguments
from irmas_recipe.training.model import load_model
from irmas_recipe.training.recipe import parse_recipe
from tests.robustness.tiny_run import write_recipe
from tests.tiny import save, small_ast


def make_folder(root: Path, seconds: float, labels=("cello", "piano")) -> Path:
    for split, count in (("train", 6), ("test", 2)):
        for label in labels:
            (root / split / label).mkdir(parents=True)
            for number in range(count):
                noise = np.random.default_rng((number, len(label))).normal(0, 0.1, round(16000 * seconds))
                soundfile.write(root / split / label / f"{number}.wav", noise, 16000)
    return root


def test_a_window_longer_than_every_training_clip(tmp_path):
    music = make_folder(tmp_path / "music", seconds=1.0)
    recipe = parse_recipe([str(write_recipe(tmp_path, data_dir=str(music))), "--window_seconds", "1.05"])
    splits = load_data(recipe.data)
    check_before_training(recipe, splits)
    recipe.data.window_seconds = 3.0
    with pytest.raises(UserError, match=r"--window_seconds 3 is longer than every training clip .*1\.0 s"):
        check_before_training(recipe, splits)
    recipe.training.num_train_epochs = 0  # nothing is learnt from the padding
    check_before_training(recipe, splits)


def test_patchout_of_more_than_there_are_tokens(tmp_path):
    path = write_recipe(tmp_path)
    for option in ("--patchout_time", "--patchout_frequency", "--patchout_tokens"):
        recipe = parse_recipe([str(path), option, "5000"])
        with pytest.raises(UserError, match="patchout"):
            load_model(recipe.model, ["cel", "pia"], 3.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny AST of three labels with a threshold for each."""
    model = small_ast(["cello", "clarinet", "flute"], thresholds=[0.1, 0.2, 0.3])
    return str(save(*model, tmp_path_factory.mktemp("labels")))


def test_thresholds_follow_their_labels_and_are_not_taken_for_others(checkpoint):
    arguments = ModelArguments(model_name_or_path=checkpoint)
    assert load_model(arguments, ["cel", "cla", "flu"], 1.0)[0].config.thresholds == [0.1, 0.2, 0.3]
    assert load_model(arguments, ["flu", "cel", "cla"], 1.0, trained=False)[0].config.thresholds == [0.3, 0.1, 0.2]
    assert load_model(arguments, ["flu", "cel"], 1.0, trained=False)[0].config.thresholds == [0.3, 0.1]
    assert load_model(arguments, ["cel", "cla", "pia"], 1.0)[0].config.thresholds is None


def test_classes_that_the_checkpoint_does_not_know(checkpoint):
    with pytest.raises(UserError, match="piano"):
        load_model(ModelArguments(model_name_or_path=checkpoint), ["cel", "pia"], 1.0, trained=False)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (("piano",), "holds one class, piano"),
        (("song", "speech"), "a class named 'song'"),
        (("end_seconds", "speech"), "a class named 'end_seconds'"),
        (("label_speech", "speech"), "a class named 'label_speech'"),
    ],
)
def test_classes_that_no_table_could_hold(tmp_path, labels, sentence):
    music = make_folder(tmp_path / "music", seconds=1.0, labels=labels)
    recipe = parse_recipe([str(write_recipe(tmp_path, data_dir=str(music))), "--window_seconds", "1"])
    with pytest.raises(UserError, match=sentence):
        load_data(recipe.data)
