"""Labels as data sets write them: class ids, names, lists of either, or one 0/1 column for each class."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from datasets import ClassLabel, Features, Value

from irmas_dataset.errors import UserError
from irmas_dataset.forms.columns import UNKNOWN, inner, is_text
from irmas_dataset.label_text import label_of_folder, labels_of_fields, normalised, one_spelling

YES, NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")
NOT_KNOWN = ("", "-1", "-1.0", "nan", "none", "null", "unknown")


@dataclass(frozen=True)
class LabelReader:
    """Reads a row's classes: those that are present, and those that are not known to be present or absent."""

    columns: tuple[str, ...]
    classes: tuple[str, ...]
    names: tuple[str, ...] = ()  # of class ids
    meaning: dict[str, list[str]] = field(default_factory=dict)  # a text as it stands there -> its labels

    def read(self, row: dict, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return present and unknown classes, in class order; all are unknown where the label is missing.

        Raises UserError for a value that means neither yes, no nor unknown.
        """
        if len(self.columns) > 1:
            answers = {name: answer(row[name], f"{where}, column {name}") for name in self.columns}
            present = {name for name, is_present in answers.items() if is_present}
            unknown = {name for name, is_present in answers.items() if is_present is None}
        else:
            values = as_list(row[self.columns[0]])
            values = None if values and all(is_missing(value) for value in values) else values
            present = {label for value in values or () for label in self.labels_of(value)}
            unknown = set(self.classes) if values is None else self.unknown_of(row)
        unknown -= present
        return tuple(filter(present.__contains__, self.classes)), tuple(filter(unknown.__contains__, self.classes))

    def unknown_of(self, row: dict) -> set[str]:
        """Return the classes that the row's own column of unknown ones names, if it has one."""
        return {label for value in as_list(row.get(UNKNOWN)) or () for label in self.labels_of(value)}

    def labels_of(self, value: int | str | None) -> list[str]:
        """Return the labels that one value stands for."""
        if is_missing(value):
            return []
        return [self.names[value]] if self.names and isinstance(value, int) else self.meaning.get(str(value), [])


def label_reader(
    features: Features, columns: tuple[str, ...], rows: Iterable[dict], where: str, is_of_folders: bool = False
) -> LabelReader:
    """Return the reader of some columns; `rows` is read once if the classes are only to be found in it.

    is_of_folders: the classes are the names of folders, as `label_text.folder_name` writes them.
    """
    if len(columns) > 1:
        return LabelReader(columns, columns)
    kind = inner(features[columns[0]])
    if isinstance(kind, ClassLabel):
        names = tuple(label_of_folder(name) if is_of_folders else normalised(name) for name in kind.names)
        return LabelReader(columns, tuple(dict.fromkeys(names)), names)  # several ids may stand for one class
    is_whole = isinstance(features[columns[0]], Value) and "int" in kind.dtype
    if not is_text(features[columns[0]]) and not is_whole:
        raise UserError(
            f"--label_column {columns[0]}: {where} has no class names there but {kind}; name a column of class numbers "
            "or names, or several 0/1 columns with commas between them."
        )
    fields: dict[str, int] = {}
    for row in rows:
        for value in (*(as_list(row[columns[0]]) or ()), *(as_list(row.get(UNKNOWN)) or ())):
            if not is_missing(value):
                fields[str(value)] = fields.get(str(value), 0) + 1
    if is_whole:
        names = sorted(fields, key=int)
        return LabelReader(columns, tuple(names), meaning={name: [name] for name in names})
    if features[columns[0]] is kind:  # a text may hold several labels, an item of a list is one
        meaning = labels_of_fields({text: text for text in fields})
    else:
        meaning = {text: [normalised(text)] for text in fields if normalised(text)}
    spelling = one_spelling(label for text, count in fields.items() for label in meaning.get(text, []) * count)
    meaning = {text: [spelling[label] for label in labels] for text, labels in meaning.items()}
    return LabelReader(columns, tuple(sorted(set(spelling.values()))), meaning=meaning)


def as_list(value: object) -> list | None:
    """Return a cell's values; None where the cell is empty."""
    if value is None or value == "":
        return None
    return list(value) if isinstance(value, list | tuple) else [value]


def is_missing(value: object) -> bool:
    """Tell whether a value is no label: None, the class id -1, or an empty text."""
    return value is None or value == "" or value == -1


def answer(value: object, where: str) -> bool | None:
    """Return whether a cell says yes or no; None where it says neither: an empty cell, -1 or NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    text = str(value).strip().lower()
    if text in YES or text in NO:
        return text in YES
    if text in NOT_KNOWN:
        return None
    raise UserError(f"{where}: {value!r} is neither 1 (yes), 0 (no) nor empty (not known): correct it.")
