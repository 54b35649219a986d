"""Labels, recordings and tables as people and their programs write them, read as they are meant or refused by line."""

import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from irmas_dataset.errors import UserError

INVISIBLE = re.compile("[\u200b-\u200d\u2060\ufeff\u00ad]")
"""Zero-width characters and soft hyphens, which come along when text is copied."""
LABEL = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^;]*?))\s*(?:;|$)')
"""One label of a field: in quotes, with quotes inside doubled, or plain up to the next semicolon."""
COMMA = re.compile("[,|]")
"""What separates labels in some tables and is part of a label in others."""
LONGEST_LABEL = 100
NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]|^\.|\.$|^_(?=_MACOSX)|%(?=[0-7][0-9A-F])')
"""What some file system refuses in a name, what would hide a file or folder, and what would be read as an escape."""
LONGEST_NAME = 255  # bytes, on every common file system


def normalised(text: str) -> str:
    """Return text in one spelling: composed (NFC), without invisible characters, with single spaces."""
    return " ".join(unicodedata.normalize("NFC", INVISIBLE.sub("", text)).split())


def join_labels(labels: Iterable[str]) -> str:
    """Return labels as one field of a table, with `;` between them; `split_labels` reverses it for any labels."""
    return ";".join('"' + label.replace('"', '""') + '"' if set(label) & set(';,|"') else label for label in labels)


def split_labels(field: str) -> list[str]:
    """Return the normalised labels of a field of a table."""
    return [label for label, _ in labels_and_quotes(field)]


def labels_and_quotes(field: str) -> list[tuple[str, bool]]:
    """Return each label of a field, and whether it was in quotes."""
    found, position = [], 0
    while position < len(field):
        match = LABEL.match(field, position)
        if match is None:  # a quote that opens inside a label, or is never closed: plain text
            end = field.find(";", position)
            end = len(field) if end < 0 else end
            found.append((normalised(field[position:end]), False))
            position = end + 1
            continue
        is_quoted = match[1] is not None
        found.append((normalised(match[1].replace('""', '"') if is_quoted else match[2]), is_quoted))
        position = match.end()
    return [(label, is_quoted) for label, is_quoted in found if label]


def folder_name(label: str) -> str:
    """Return the name of a label's folder, `AC%2FDC` for `AC/DC`; `label_of_folder` reverses it for any label.

    Raises UserError for a label that is too long for a folder's name.
    """
    name = safe_name(label)
    if len(name.encode()) > LONGEST_NAME:
        raise UserError(f"The label `{label}` is too long for the name of a folder: give the class a shorter name.")
    return name


def safe_name(text: str) -> str:
    """Return text as every file system takes it as a name, with escapes such as `%2F` for what some do not."""
    return NOT_IN_NAMES.sub(_escape, text)


def _escape(match: re.Match) -> str:
    return f"%{ord(match[0]):02X}"


def label_of_folder(name: str) -> str:
    """Return the normalised label that a class folder's name stands for."""
    return normalised(re.sub("%([0-7][0-9A-F])", _unescape, name))


def _unescape(match: re.Match) -> str:
    return chr(int(match[1], 16))


def labels_of_fields(fields: dict[str, str], classes: Iterable[str] = ()) -> dict[str, list[str]]:
    """Return the labels of many fields, place -> field. A comma or | without quotes separates labels that are known apart.

    classes: labels that are known already, as they stand.
    Raises UserError for one that may or may not be part of a label.
    """
    parts = {where: labels_and_quotes(field) for where, field in fields.items()}
    classes = set(classes)
    known = {label for found in parts.values() for label, is_quoted in found if is_quoted or not COMMA.search(label)}
    known |= classes
    labels = {}
    for where, found in parts.items():
        labels[where] = []
        for label, is_quoted in found:
            of_comma = [normalised(part) for part in COMMA.split(label) if normalised(part)]
            if is_quoted or label in classes or not COMMA.search(label):
                labels[where].append(label)
            elif set(of_comma) <= known:
                labels[where] += of_comma
            else:
                raise UserError(
                    f"{where}: is `{label}` one label or several? Write ; between labels, and a label that has a comma or | "
                    'in quotes inside the field ("""Violin, fiddle""").'
                )
    return labels


def one_spelling(labels: Iterable[str]) -> dict[str, str]:
    """Return the spelling to use for each label: of those that differ in capitals alone, the most frequent one."""
    counts = Counter(labels)
    chosen: dict[str, str] = {}
    for label, _ in counts.most_common():
        chosen.setdefault(label.casefold(), label)
    return {label: chosen[label.casefold()] for label in counts}


def spellings(path: str) -> list[str]:
    """Return a path of a table as it may be meant: as it stands, with slashes, and with accents composed or not."""
    return [path, path.replace("\\", "/"), *(unicodedata.normalize(form, path) for form in ("NFC", "NFD"))]


def read_text(path: str | Path) -> str:
    """Return the text of a file in UTF-8, with or without a mark, or in UTF-16 with one; UserError for any other."""
    content = Path(path).read_bytes()
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        raise UserError(f"{path} is not encoded in UTF-8: save it as UTF-8.") from None
    if "\0" in text:
        raise UserError(f"{path} is not a text file: write it again as UTF-8.")
    return text


def read_rows(path: str | Path, *needed: str) -> list[tuple[str, dict[str, str]]]:
    """Return the rows of a CSV table, column -> field, each with its place for messages.

    Commas, semicolons or tabs separate the columns, as the first line shows. It must have the columns `needed`; of those
    with | between them, one.
    Raises UserError that names the line of a row with too many or too few fields, or what is wrong with the first line.
    """
    text = read_text(path)
    first = next(iter(text.splitlines()), "")
    dialects = {separator: [name.strip().strip('"').lower() for name in first.split(separator)] for separator in ",;\t"}
    separator, columns = max(dialects.items(), key=lambda dialect: len({*"|".join(needed).split("|")} & {*dialect[1]}))
    if any(not set(names.split("|")) & set(columns) for names in needed):
        names = " and ".join(names.replace("|", " or ") for names in needed)
        raise UserError(f"{path} needs the columns {names} in its first line.")
    if repeated := [name for name in columns if columns.count(name) > 1]:
        raise UserError(f"{path} has the column {repeated[0] or 'without a name'} twice: keep one.")
    rows = []
    for line, fields in islice(_lines(path, text, separator), 1, None):
        where = f"{path} line {line}"
        while len(fields) > len(columns) and not fields[-1].strip():
            fields.pop()
        if not any(field.strip() for field in fields):
            continue
        if len(fields) > len(columns):
            raise UserError(
                f"{where} has {len(fields)} fields for the {len(columns)} columns {', '.join(columns)}: put a field that has "
                "a comma in quotes, and write ; between several labels."
            )
        rows.append((where, dict(zip(columns, [*fields, *[""] * (len(columns) - len(fields))], strict=True))))
    return rows


def _lines(path: str | Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the fields of each row of a table, with the number of its last line."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    while True:
        first = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(
                f"{path} line {first} cannot be read ({error}): is a quote opened and never closed?"
            ) from error
        yield reader.line_num, fields
