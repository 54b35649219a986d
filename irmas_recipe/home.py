"""Where the files that come with the program are: beside the packages in a clone, inside this one when installed."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def shipped(name: str) -> Path:
    """Return the path of a file or folder of the project, such as `recipes` or `CITATION.cff`."""
    return PACKAGE / name if (PACKAGE / name).exists() else PACKAGE.parent / name
