"""What a run depended on: the versions of its libraries and the commit of this code."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

from irmas_recipe.home import PACKAGE

PACKAGES = (
    "torch", "torchaudio", "transformers", "datasets", "accelerate", "evaluate", "numpy", "scipy", "scikit-learn", "librosa",
)  # fmt: skip


def provenance(recipe: dict, seed: int) -> dict:
    """Return the first parts of results.json: recipe, commit, seed, versions."""
    return {"recipe": recipe, "commit": commit(), "seed": seed, "versions": versions()}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed libraries that move figures."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Return the repository's commit, with `-dirty` after it where files differ from it; None outside a clone."""
    clone = PACKAGE.parent
    if not (clone / ".git").exists():
        return None
    command = ["git", "-C", str(clone), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
