"""Uploading a folder to the Hugging Face Hub: datasets and models alike, private unless asked otherwise."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from irmas_dataset.errors import UserError


def upload_folder(
    folder: Path,
    repo_id: str,
    *,
    repo_type: str,
    private: bool,
    token: str | None = None,
    allow_patterns: list[str] | None = None,
    ignore_patterns: list[str] | None = None,
    delete_patterns: list[str] | None = None,
    commit_message: str,
    public_flag: str = "--public",
    before_upload: Callable[[str], None] | None = None,
) -> str:
    """Create a Hub repository unless it exists, upload a folder in one commit, and return its full name, `owner/name`.

    repo_type: "model" or "dataset".
    private: create it private, and refuse one that exists and is public.
    token: the access token; None uses the one that `hf auth login` stored.
    allow_patterns, ignore_patterns: glob patterns of the files to upload, and of those to skip; None uploads all.
    delete_patterns: glob patterns of older files to delete from the repository in the same commit.
    public_flag: how the calling command allows a public repository; the error message suggests it.
    before_upload: called with the full name once the repository exists, to write a card that names it.
    Raises UserError if the name is not valid, the repository is public and should not be, or the Hub fails.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with hub_errors(repo_id, folder):
        repo_id = api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True).repo_id
        is_public = not api.repo_info(repo_id, repo_type=repo_type).private
    if private and is_public:
        raise UserError(
            f"--push_to_hub: {repo_id} is a public repository. Make it private, choose another, or add {public_flag} "
            f"if you may publish the files. Nothing was uploaded; the files are in {folder}."
        )
    if before_upload is not None:
        before_upload(repo_id)
    with hub_errors(repo_id, folder):
        api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            repo_type=repo_type,
            allow_patterns=allow_patterns,
            ignore_patterns=ignore_patterns,
            delete_patterns=delete_patterns,
            commit_message=commit_message,
        )
    return repo_id


@contextmanager
def hub_errors(repo_id: str, folder: Path) -> Iterator[None]:
    """Turn whatever the Hub or its client raises into a UserError with the reason and where the files are."""
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except HFValidationError as error:
        raise UserError(
            f"--push_to_hub: {repo_id!r} is not a repository name (user/name): {str(error).rstrip('.')}. "
            f"The files are in {folder}."
        ) from None
    except Exception as error:  # the client passes on the errors of several HTTP libraries
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(f"--push_to_hub {repo_id} failed: {reason}. The files are in {folder}.") from error
