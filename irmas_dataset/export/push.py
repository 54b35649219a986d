"""Uploading an export to the Hub as a dataset repository."""

from pathlib import Path

from irmas_dataset.export.layout import CARD, SPLITS, shard_pattern
from irmas_dataset.files import SYNTHETIC_MARKER
from irmas_dataset.hub import upload_folder


def push(output_dir: str | Path, repo_id: str, *, public: bool = False, token: str | None = None) -> str:
    """Upload an export's tables and card, and return the address of the repository; private unless `public`.

    Raises UserError as `upload_folder` does.
    """
    tables = [shard_pattern(split) for split in SPLITS]
    repo_id = upload_folder(
        Path(output_dir),
        repo_id,
        repo_type="dataset",
        private=not public,
        token=token,
        allow_patterns=[*tables, CARD, SYNTHETIC_MARKER],
        delete_patterns=tables,  # an earlier export may have had other shards
        commit_message="Upload the dataset",
    )
    return f"https://huggingface.co/datasets/{repo_id}"
