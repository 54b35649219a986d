"""What all HTML pages share: their look (html_page.css), their players (html_page.js) and the way to an audio file."""

import os
from pathlib import Path
from urllib.parse import quote_from_bytes

import jinja2

HERE = Path(__file__).parent


def templates(folder: Path) -> jinja2.Environment:
    """Return the templates of a folder, which may also include html_page.css and html_page.js; values are escaped."""
    loader = jinja2.FileSystemLoader([folder, HERE])
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)


def address_of(file: str | Path, page_folder: Path) -> str:
    """Return the address of a file for a page in `page_folder`.

    It is relative where the file lies in the folder around the page's, so that both can move together, and absolute
    elsewhere, so that the page can move alone.
    """
    file, page_folder = os.path.abspath(file), os.path.abspath(page_folder)
    around = os.path.dirname(page_folder)
    if around == os.path.dirname(around) or not file.startswith(os.path.join(around, "")):
        return Path(file).as_uri()
    return quote_from_bytes(os.fsencode(os.path.relpath(file, page_folder)).replace(os.fsencode(os.sep), b"/"))
