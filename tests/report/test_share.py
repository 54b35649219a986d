"""Pushing a run: up to the upload call everything is real; only the Hub's answer is made up."""

from types import SimpleNamespace

import huggingface_hub
import pytest

from irmas_dataset.errors import UserError
from irmas_recipe.report import share
from irmas_recipe.training.recipe import parse_recipe


@pytest.fixture
def hub(monkeypatch):
    """Record what would go to the Hub."""
    calls = {}

    def create_repo(self, repo_id, **options):
        calls["create"] = {"repo_id": repo_id, **options}
        return SimpleNamespace(repo_id=f"someone/{repo_id}")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(
        huggingface_hub.HfApi,
        "repo_info",
        lambda self, repo_id, **options: SimpleNamespace(private=calls.get("private", True)),
    )
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", lambda self, **options: calls.update(upload=options))
    monkeypatch.setattr(share, "write_card", lambda folder, repo_id: calls.update(card=repo_id))
    return calls


def push_run(tmp_path, *arguments) -> None:
    (tmp_path / "recipe.yaml").write_text("use_cpu: true\n")
    recipe = parse_recipe([str(tmp_path / "recipe.yaml"), "--output_dir", str(tmp_path / "my-run"), *arguments])
    assert recipe.training.push_to_hub is False, "the Trainer itself must not push checkpoints and its own card"
    share.push(recipe)


def test_nothing_is_pushed_unless_asked_for(tmp_path, hub):
    push_run(tmp_path)
    assert hub == {}


def test_the_run_folder_is_pushed_privately_with_a_card_that_names_it(tmp_path, hub, capsys):
    push_run(tmp_path, "--push_to_hub")
    assert hub["create"] == {"repo_id": "my-run", "repo_type": "model", "private": True, "exist_ok": True}
    assert hub["card"] == "someone/my-run" == hub["upload"]["repo_id"]
    assert hub["upload"]["folder_path"] == tmp_path / "my-run"
    ignored = huggingface_hub.utils.filter_repo_objects(
        ["model.safetensors", "README.md", "figures/a.png", "checkpoint-5/model.safetensors", "training_args.bin"],
        ignore_patterns=hub["upload"]["ignore_patterns"],
    )
    assert list(ignored) == ["model.safetensors", "README.md", "figures/a.png"]
    assert "https://huggingface.co/someone/my-run (private)" in capsys.readouterr().out


def test_of_an_interrupted_replacement_nothing_is_pushed(tmp_path, hub):
    pushed = ["README.md", "classifiers.skops", "config.json", "figures/per_class_f1.png", "instrument_recognition.py",
              "model.safetensors", "predictions.parquet", "recipe.yaml", "results.json", "validation_moments.parquet"]  # fmt: skip
    kept = ["checkpoint-4/training_args.bin", "tuned/training_args.bin", "results.json.unfinished"]
    kept += [".env", ".netrc", ".ssh/id_rsa", "figures/.DS_Store"]
    kept += [f".replacement/{name}" for name in ("checkpoint-2/training_args.bin", "checkpoint-2/model.safetensors")]
    kept += [f".replacement/{name}" for name in ("recipe.yaml", "runs/events.out", "results.json")]
    for name in (*pushed, *kept):
        (tmp_path / "my-run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "my-run" / name).touch()
    push_run(tmp_path, "--push_to_hub", "--hub_token", "hf_secret")
    folder = hub["upload"]["folder_path"]
    found = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    sent = huggingface_hub.utils.filter_repo_objects(found, ignore_patterns=hub["upload"]["ignore_patterns"])
    assert list(sent) == pushed


def test_public_only_when_said_so(tmp_path, hub):
    push_run(tmp_path, "--push_to_hub", "--hub_private_repo", "false", "--hub_model_id", "named")
    assert hub["create"] == {"repo_id": "named", "repo_type": "model", "private": False, "exist_ok": True}


def test_a_repository_that_is_public_already_is_not_pushed_to_as_private(tmp_path, hub):
    hub["private"] = False
    with pytest.raises(UserError, match="someone/my-run is a public repository"):
        push_run(tmp_path, "--push_to_hub")
    assert "upload" not in hub
