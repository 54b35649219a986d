"""Which runs an ensemble is made of: where they are beside it, and how each is known again."""

import hashlib
import os
from pathlib import Path

from irmas_dataset.errors import UserError
from irmas_recipe.report.results import Results
from irmas_recipe.report.runs import TEST_FILE, Run


def members_of(runs: list[Run], folder: Path) -> list[dict[str, str]]:
    """Return each run's path from the ensemble's folder, and the digest of its scores."""
    return [
        {"run": os.path.relpath(run.folder.resolve(), folder.resolve()), "sha256": digest(run.folder / TEST_FILE)}
        for run in runs
    ]


def find_members(folder: Path, results: Results) -> list[Path]:
    """Return the folders of an ensemble's runs.

    Raises:
        UserError: one is missing, or has been made anew since; or an earlier version made the ensemble.
    """
    again = "make the ensemble again with --overwrite_output_dir true."
    if "members" not in results.more:
        raise UserError(f"{folder} does not say how its runs are fused, as earlier versions did not: {again}")
    found = []
    for member in results.more["members"]:
        run = (folder / member["run"]).resolve()
        if not (run / TEST_FILE).is_file():
            raise UserError(
                f"{folder} is an ensemble and needs the run {run}, which is missing: bring it back, or {again}"
            )
        if digest(run / TEST_FILE) != member["sha256"]:
            raise UserError(f"{run} has changed since {folder} was made of it: {again}")
        found.append(run)
    return found


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
