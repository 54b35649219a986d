"""Write docs/licences.md: every package that requirements.txt brings, its version and its licence.

python docs/licences.py
"""

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def required(names: list[str]) -> dict[str, Distribution]:
    """Return the installed packages that these need, and those that they need in turn, by name."""
    found: dict[str, Distribution] = {}
    while names:
        key = re.sub(r"[-_.]+", "-", names.pop()).lower()
        if key in found:
            continue
        try:
            found[key] = distribution(key)
        except PackageNotFoundError:  # of another platform
            continue
        needed = map(Requirement, found[key].requires or ())
        names += [item.name for item in needed if item.marker is None or item.marker.evaluate({"extra": ""})]
    return found


def licence_of(package: Distribution) -> str:
    """Return what a package says of its licence: the expression, else the classifiers, else the first line of its text."""
    said = package.metadata
    classifiers = [
        line.rsplit(" :: ", 1)[1] for line in said.get_all("Classifier") or () if line.startswith("License ::")
    ]
    return (
        said.get("License-Expression") or ", ".join(classifiers) or (said.get("License") or "not said").splitlines()[0]
    )


def main() -> None:
    pins = re.findall(r"^([\w.-]+)==", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    rows = [
        f"| {name} | {package.version} | {licence_of(package)} |" for name, package in sorted(required(pins).items())
    ]
    lines = ["# Licences of what requirements.txt installs", "", "Made by `make licences`. What each package says of itself.", "",
             "| package | version | licence |", "|---|---|---|", *rows, ""]  # fmt: skip
    (ROOT / "docs/licences.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
