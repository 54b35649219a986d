"""What a start does to the folder that it is to write to: resume, begin anew, or leave it alone and say why."""

import json
from pathlib import Path

import pytest
import yaml

from irmas_dataset.errors import UserError
from irmas_recipe.training import run_folder
from irmas_recipe.training.recipe import parse_recipe
from irmas_recipe.training.run_folder import RunFolder


@pytest.fixture
def choose(tmp_path):
    """Choose the run folder of a small recipe with other fields; nothing may change by that alone."""

    def start(*fields: str, output_dir: Path | str = tmp_path / "run") -> RunFolder:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({"architecture": "ast", "data_dir": "synthetic", "use_cpu": True}))
        recipe = parse_recipe([str(path), f"--output_dir={output_dir}", *fields])
        before = content(tmp_path)
        try:
            run_folder.check_sources(recipe)
            training = recipe.training
            return run_folder.choose(
                recipe, Path(output_dir), training.overwrite_output_dir, training.resume_from_checkpoint
            )
        finally:
            assert content(tmp_path) == before
            start.recipe = recipe

    return start


@pytest.fixture
def begin(choose):
    """Choose the run folder and take it; return the checkpoint that the run resumes from."""

    def start(*fields: str, **options: Path) -> Path | None:
        folder = choose(*fields, **options)
        folder.claim(choose.recipe)
        return folder.checkpoint

    return start


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def add_checkpoint(folder: Path, step: int) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return checkpoint


def finish(folder: Path, what: str = "run") -> None:
    for name in ("results.json", "README.md"):
        (folder / name).write_text(json.dumps({what: name}))


def test_an_interrupted_run_resumes_from_its_newest_whole_checkpoint(begin, tmp_path):
    assert begin() is None
    for step in (5, 10):
        add_checkpoint(tmp_path / "run", step)
    (tmp_path / "run/checkpoint-15").mkdir()
    (tmp_path / "run/checkpoint-best").mkdir()
    assert begin() == tmp_path / "run/checkpoint-10"


def test_the_same_finished_recipe_has_nothing_left_to_do(begin, choose, tmp_path):
    begin()
    finish(tmp_path / "run")
    assert choose().is_finished
    assert choose("--push_to_hub=true", "--disable_tqdm=true").is_finished


@pytest.mark.parametrize("fields", [["--learning_rate=0.5"], ["--resume_from_checkpoint=true"]])
def test_a_finished_run_is_not_replaced_unasked(begin, choose, tmp_path, fields):
    begin()
    add_checkpoint(tmp_path / "run", 5)
    finish(tmp_path / "run")
    with pytest.raises(UserError, match=r"has a finished run.*--overwrite_output_dir true"):
        choose(*fields)


def test_a_finished_run_stays_until_the_one_that_replaces_it_is_whole(begin, choose, tmp_path):
    run = tmp_path / "run"
    begin()
    add_checkpoint(run, 5)
    (run / "checkpoint-best").mkdir()
    finish(run, "old")
    before = content(run)
    fields = ["--learning_rate=0.5", "--overwrite_output_dir=true"]
    folder = choose(*fields)
    folder.claim(choose.recipe)
    add_checkpoint(folder.work, 3)
    assert before.items() <= content(run).items()
    assert choose(*fields).checkpoint == folder.work / "checkpoint-3", "an interrupted replacement is resumed"
    with pytest.raises(FileNotFoundError):
        folder.settle()
    assert before.items() <= content(run).items()
    (folder.work / "results.json").write_text('{"new": 1}')
    folder.settle()
    assert {path.name for path in run.iterdir()} == {"recipe.yaml", "checkpoint-best", "checkpoint-3", "results.json"}
    assert (run / "results.json").read_text() == '{"new": 1}'


@pytest.mark.parametrize("moved", [["recipe.yaml"], ["recipe.yaml", "checkpoint-3"]])
def test_a_replacement_killed_while_it_moved_is_moved_by_the_next_start(begin, choose, tmp_path, moved):
    run = tmp_path / "run"
    begin()
    finish(run, "old")
    fields = ["--learning_rate=0.5", "--overwrite_output_dir=true"]
    folder = choose(*fields)
    folder.claim(choose.recipe)
    add_checkpoint(folder.work, 3)
    (folder.work / "results.json").write_text('{"new": 1}')
    run_folder.remove_written(run)
    for name in moved:
        (folder.work / name).replace(run / name)
    recipe = choose.recipe
    again = run_folder.choose(recipe, run, True)
    assert (again.path, again.work, again.checkpoint) == (run, run, run / "checkpoint-3")
    assert not (run / ".replacement").exists()


def test_a_run_resumes_from_a_named_checkpoint_and_saves_its_recipe(begin, tmp_path):
    begin()
    named = add_checkpoint(tmp_path / "run", 5)
    newer = add_checkpoint(tmp_path / "run", 10)
    elsewhere = tmp_path / "elsewhere"
    assert begin(f"--resume_from_checkpoint={newer}", output_dir=elsewhere) == newer
    assert (elsewhere / "recipe.yaml").is_file()
    assert begin(f"--resume_from_checkpoint={named}") == named


def test_only_checkpoints_that_lead_to_the_resumed_one_stay_with_it(begin, tmp_path):
    begin()
    first, named, newer = (add_checkpoint(tmp_path / "run", step) for step in (3, 5, 10))
    assert begin(f"--resume_from_checkpoint={named}", "--max_steps=20") == named
    assert first.is_dir() and named.is_dir() and not newer.exists()
    elsewhere = add_checkpoint(tmp_path / "elsewhere", 8)
    assert begin(f"--resume_from_checkpoint={elsewhere}", "--max_steps=20") == elsewhere
    assert not first.exists() and not named.exists(), "the Trainer would take one of the same step for the best"


def test_a_checkpoint_behind_a_link_is_one_of_its_run(begin, tmp_path):
    begin()
    add_checkpoint(tmp_path / "run", 5)
    (tmp_path / "link").symlink_to(tmp_path / "run/checkpoint-5")
    assert begin(f"--resume_from_checkpoint={tmp_path / 'link'}") and (tmp_path / "run/checkpoint-5").is_dir()
    moved = (tmp_path / "run/checkpoint-5").rename(tmp_path / "moved")
    (tmp_path / "run/checkpoint-5").symlink_to(moved)
    assert begin() == tmp_path / "run/checkpoint-5" and moved.is_dir()


def test_a_folder_that_was_moved_is_resumed(begin, tmp_path):
    begin()
    add_checkpoint(tmp_path / "run", 5)
    (tmp_path / "run").rename(tmp_path / "moved")
    assert begin(output_dir=tmp_path / "moved") == tmp_path / "moved/checkpoint-5"


def test_an_unfinished_run_does_not_give_way_to_the_checkpoint_of_another(begin, tmp_path):
    begin()
    kept, elsewhere = add_checkpoint(tmp_path / "run", 5), add_checkpoint(tmp_path / "elsewhere", 5)
    fields = ["--learning_rate=0.5", f"--resume_from_checkpoint={elsewhere}"]
    with pytest.raises(UserError, match="unfinished run of another recipe"):
        begin(*fields)
    assert kept.is_dir() and begin(*fields, "--overwrite_output_dir=true") == elsewhere


def test_an_unfinished_run_of_another_recipe_is_discarded_only_when_asked_and_when_work_begins(begin, choose, tmp_path):
    begin()
    add_checkpoint(tmp_path / "run", 5)
    with pytest.raises(UserError, match=r"unfinished run of another recipe \(it differs in learning_rate\)"):
        choose("--learning_rate=0.5")
    assert choose("--overwrite_output_dir=true").checkpoint, "the same recipe is resumed all the same"
    assert begin("--learning_rate=0.5", "--overwrite_output_dir=true") is None
    assert not (tmp_path / "run/checkpoint-5").exists()


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


def test_null_differs_from_a_default_that_is_not_none(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("use_cpu: true\n")
    plain, emptied = parse_recipe([str(path)]), parse_recipe([str(path), "--save_total_limit", "null"])
    plain.save(tmp_path / "saved.yaml")
    assert run_folder.differences(tmp_path / "saved.yaml", plain) == []
    assert run_folder.differences(tmp_path / "saved.yaml", emptied) == ["save_total_limit"]
