"""Uploads to the Hub: what would be sent, and what a refusal says; only the Hub's own answers are made up."""

import huggingface_hub
import pytest

from irmas_dataset.errors import UserError
from irmas_dataset.hub import upload_folder


@pytest.fixture
def hub(monkeypatch):
    """Record the calls to the Hub in order; `private` is what it says of the repository."""
    calls = {"order": [], "private": True}

    def create(self, repo_id, **options):
        calls["order"].append("create")
        calls["create"] = options
        kind = "datasets/" if options["repo_type"] == "dataset" else ""
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{kind}someone/{repo_id.split('/')[-1]}")

    def info(self, repo_id, *, repo_type):
        return huggingface_hub.hf_api.ModelInfo(id=repo_id, private=calls["private"], tags=[])

    def upload(self, **options):
        calls["order"].append("upload")
        calls["upload"] = options

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create)
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", info)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload)
    return calls


def push(folder, repo_id="run", **options) -> str:
    return upload_folder(
        folder, repo_id, **{"repo_type": "model", "private": True, "commit_message": "Upload"} | options
    )


@pytest.mark.parametrize("repo_type", ["model", "dataset"])
def test_a_folder_is_uploaded_and_the_full_name_returned(tmp_path, hub, repo_type):
    named = []
    full_name = push(
        tmp_path, repo_type=repo_type, ignore_patterns=["*.tmp"],
        before_upload=lambda name: named.append((name, list(hub["order"]))),
    )  # fmt: skip
    assert full_name == "someone/run"
    assert named == [("someone/run", ["create"])] and hub["order"] == ["create", "upload"]
    assert hub["create"] == {"repo_type": repo_type, "private": True, "exist_ok": True}
    assert hub["upload"] == {
        "repo_id": "someone/run", "folder_path": tmp_path, "repo_type": repo_type, "commit_message": "Upload",
        "allow_patterns": None, "ignore_patterns": ["*.tmp"], "delete_patterns": None,
    }  # fmt: skip


def test_a_public_repository_gets_nothing_unless_public_was_meant(tmp_path, hub):
    hub["private"] = False
    with pytest.raises(UserError, match=r"someone/run is a public repository.*add --hub_private_repo false.*uploaded"):
        push(tmp_path, public_flag="--hub_private_repo false")
    assert hub["order"] == ["create"]
    assert push(tmp_path, private=False) == "someone/run" and hub["create"]["private"] is False


def test_a_failed_upload_says_why_and_where_the_files_are(tmp_path, hub, monkeypatch):
    def fail(self, **options):
        raise ConnectionError("the line is down.\nsecond line")

    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", fail)
    with pytest.raises(UserError) as caught:
        push(tmp_path)
    assert str(caught.value) == f"--push_to_hub someone/run failed: the line is down. The files are in {tmp_path}."


def test_an_offline_hub_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=f"--push_to_hub run failed: .*offline.* The files are in {tmp_path}"):
        push(tmp_path)


def test_an_invalid_name_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="'a b/c' is not a repository name"):
        push(tmp_path, "a b/c")
