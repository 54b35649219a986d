"""The page of `predict --html`: what was heard in many files, to listen to, in one HTML file without a network."""

import os
from collections.abc import Sequence
from pathlib import Path

from irmas_dataset.files import from_text
from irmas_dataset.html_page import address_of, templates
from irmas_dataset.whole_file import whole_file
from irmas_recipe.report.view import FILTERS


def write_page(file: Path, views: dict[str, dict], model: str, errors: Sequence[tuple[str, str]] = ()) -> Path:
    """Write the page, in a folder that is made where it is missing; return its path.

    Args:
        views: path, as `to_text` spells it, -> its view; in the order of the page.
        model: its name.
        errors: (path, sentence) of each file that could not be read.
    """
    around = folder_around(list(views))
    files = [(inside(path, around), view, address_of(from_text(path), file.parent)) for path, view in views.items()]
    environment = templates(Path(__file__).parent)
    environment.filters |= FILTERS
    html = environment.get_template("page.html.jinja").render(
        around=around,
        model=model,
        files=files,
        errors=errors,
        seconds=sum(view["duration_seconds"] for view in views.values()),
        instruments=summary(list(views.values())),
        unheard=sum(bool(view["nothing"]) for view in views.values()),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as unfinished:
        unfinished.write_text(html, encoding="utf-8", errors="backslashreplace")
    return file


def folder_around(paths: list[str]) -> str:
    """Return the folder that all files share, or nothing where they share none."""
    try:
        return os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:  # no files, other drives, or paths from here beside paths from the root
        return ""


def inside(path: str, folder: str) -> str:
    """Return the path inside a folder around it."""
    return os.path.relpath(path, folder) if folder else path


def summary(views: list[dict]) -> list[dict]:
    """Return each label that was heard, in most files first: label, place, number of files, and the seconds in them."""
    found: dict[str, dict] = {}
    for row in (row for view in views for row in view["instruments"] if row["is_heard"]):
        label = found.setdefault(row["label"], {"label": row["label"], "place": row["place"], "files": 0, "seconds": 0})
        label["files"] += 1
        label["seconds"] += row["seconds"]
    return sorted(found.values(), key=lambda label: (-label["files"], -label["seconds"]))
