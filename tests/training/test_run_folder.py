"""What a start does to the folder that it is to write to: go on, begin anew, or leave it alone and say why."""

import json
from pathlib import Path

import pytest
import yaml

from irmas_dataset.errors import UserError
from irmas_recipe.training import run_folder
from irmas_recipe.training.recipe import parse_recipe


@pytest.fixture
def begin(tmp_path):
    """Open the run folder of a small recipe with other fields."""

    def start(*fields: str, output_dir: Path | str = tmp_path / "run") -> Path | None:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({"architecture": "ast", "data_dir": "synthetic", "use_cpu": True}))
        return run_folder.open_run_folder(parse_recipe([str(path), f"--output_dir={output_dir}", *fields]))

    return start


def add_checkpoint(folder: Path, step: int) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return checkpoint


def finish(folder: Path) -> None:
    for name in ("results.json", "README.md"):
        (folder / name).write_text("{}")


def test_an_interrupted_run_goes_on_from_its_newest_whole_checkpoint(begin, tmp_path):
    assert begin() is None
    for step in (5, 10):
        add_checkpoint(tmp_path / "run", step)
    (tmp_path / "run/checkpoint-15").mkdir()
    (tmp_path / "run/checkpoint-best").mkdir()
    assert begin() == tmp_path / "run/checkpoint-10"


def test_a_finished_run_is_made_again_and_what_a_user_kept_stays(begin, tmp_path):
    begin()
    add_checkpoint(tmp_path / "run", 5)
    (tmp_path / "run/checkpoint-best").mkdir()
    finish(tmp_path / "run")
    assert begin() is None
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"recipe.yaml", "checkpoint-best"}


def test_going_on_from_a_named_checkpoint_makes_the_run_unfinished_and_saves_its_recipe(begin, tmp_path):
    begin()
    named = add_checkpoint(tmp_path / "run", 5)
    finish(tmp_path / "run")
    assert begin(f"--resume_from_checkpoint={named}") == named
    assert not run_folder.is_finished(tmp_path / "run")
    newer = add_checkpoint(tmp_path / "run", 10)
    assert begin(f"--resume_from_checkpoint={named}") == named, "asked for again"
    elsewhere = tmp_path / "elsewhere"
    assert begin(f"--resume_from_checkpoint={newer}", output_dir=elsewhere) == newer
    assert (elsewhere / "recipe.yaml").is_file()


@pytest.mark.parametrize("name", ["README.md", "model.safetensors", "figures"])
def test_a_folder_that_no_run_wrote_is_left_as_it_is(begin, tmp_path, name):
    stranger = tmp_path / "stranger" / name
    stranger.mkdir(parents=True)
    with pytest.raises(UserError, match=f"its {name} would be lost"):
        begin(output_dir=stranger.parent)
    assert list(stranger.parent.iterdir()) == [stranger]


@pytest.mark.parametrize("source", ["run", "run/checkpoint-5"])
def test_a_run_does_not_overwrite_what_it_starts_from(begin, tmp_path, source):
    begin()
    weights = tmp_path / source / "model.safetensors"
    add_checkpoint(tmp_path / "run", 5)
    finish(tmp_path / "run")
    weights.write_text("weights")
    with pytest.raises(UserError, match="would overwrite --model_name_or_path"):
        begin(f"--model_name_or_path={tmp_path / source}", "--num_train_epochs=0")
    assert weights.is_file() and run_folder.is_finished(tmp_path / "run")
