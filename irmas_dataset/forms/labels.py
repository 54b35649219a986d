"""Labels as data sets write them: class ids, names, lists of either, or one 0/1 column for each class."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from datasets import ClassLabel, Features, Value

from irmas_dataset.errors import UserError
from irmas_dataset.forms.columns import UNKNOWN, inner, is_number, is_text, without_point
from irmas_dataset.label_text import join_labels, label_of_folder, labels_of_fields, normalised, one_spelling

YES, NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")
NOT_KNOWN = ("", "-1", "-1.0", "nan", "none", "null", "unknown")


@dataclass(frozen=True)
class LabelReader:
    """Reads a row's classes: those that are present, and those that are not known to be present or absent."""

    columns: tuple[str, ...]
    classes: tuple[str, ...]
    unknown: object = None  # the type of a column that lists unknown classes, where there is one
    names: tuple[str, ...] = ()  # of class ids
    kind: object = None  # the type of the column of the labels, where it has text
    meaning: dict[str, list[str]] = field(default_factory=dict)  # a field, as `field_of` returns it -> its labels

    def read(self, row: dict, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return present and unknown classes, in class order; all are unknown where the label is missing.

        Raises UserError for a value that means neither yes, no nor unknown, or a class that there is not.
        """
        unknown = self.unknown_of(row, where)
        if len(self.columns) > 1:
            answers = {name: answer(row[name], f"{where}, column {name}") for name in self.columns}
            present = {name for name, is_present in answers.items() if is_present}
            unknown |= {name for name, is_present in answers.items() if is_present is None}
        else:
            values = as_list(row[self.columns[0]])
            values = None if values and all(is_missing(value) for value in values) else values
            present = {label for value in values or () for label in self.labels_of(value, where)}
            unknown = set(self.classes) if values is None else unknown
        unknown -= present
        return tuple(filter(present.__contains__, self.classes)), tuple(filter(unknown.__contains__, self.classes))

    def unknown_of(self, row: dict, where: str) -> set[str]:
        """Return the classes that the row's own column of unknown ones lists, if it has one."""
        where = f"{where}, column {UNKNOWN}"
        spelling = {name.casefold(): name for name in self.classes} | {name: name for name in self.classes}
        found = set()
        for text in () if self.unknown is None else fields_of(row.get(UNKNOWN), self.unknown, self.names):
            for label in labels_of_fields({where: text}, self.classes)[where]:
                name = spelling.get(label, spelling.get(label.casefold()))
                if name is None:
                    raise UserError(f"{where}: {label} is no class; the classes are {', '.join(self.classes)}.")
                found.add(name)
        return found

    def labels_of(self, value: int | str | None, where: str) -> list[str]:
        """Return the labels that one value stands for; UserError for a class id that no class has."""
        if is_missing(value):
            return []
        if not self.names:
            return self.meaning.get(field_of(value, self.kind), [])
        if not 0 <= value < len(self.names):
            raise UserError(
                f"{where}: {value} is no class id; they are 0 to {len(self.names) - 1}, and -1 for no label."
            )
        return [self.names[value]]


def label_reader(
    features: Features, columns: tuple[str, ...], rows: Iterable[dict], where: str, is_of_folders: bool = False
) -> LabelReader:
    """Return the reader of some columns; `rows` is read once if the classes are only to be found in it.

    is_of_folders: the classes are the names of folders, as `label_text.folder_name` writes them.
    """
    unknown = None if UNKNOWN in columns or not lists_classes(features.get(UNKNOWN)) else features[UNKNOWN]
    if len(columns) > 1:
        return LabelReader(columns, columns, unknown)
    kind = inner(features[columns[0]])
    if isinstance(kind, ClassLabel):
        names = tuple(label_of_folder(name) if is_of_folders else normalised(name) for name in kind.names)
        return LabelReader(columns, tuple(dict.fromkeys(names)), unknown, names)  # several ids may stand for one class
    is_whole = is_whole_number(features[columns[0]])
    if not is_text(features[columns[0]]) and not is_whole:
        raise UserError(
            f"--label_column {columns[0]}: {where} has no class names there but {kind}; name a column of class numbers "
            "or names, or several 0/1 columns with commas between them."
        )
    kinds = {columns[0]: features[columns[0]]}
    if unknown is not None and (is_whole_number(inner(unknown)) if is_whole else not is_number(inner(unknown))):
        kinds[UNKNOWN] = unknown  # it may list classes that no clip has
    counts = Counter(text for row in rows for name, of in kinds.items() for text in fields_of(row.get(name), of))
    meaning = labels_of_fields({text: text for text in counts})
    spelling = one_spelling(label for text, count in counts.items() for label in meaning[text] * count)
    meaning = {text: [spelling[label] for label in labels] for text, labels in meaning.items()}
    classes = tuple(sorted(set(spelling.values()), key=int if is_whole else None))
    return LabelReader(columns, classes, unknown, kind=features[columns[0]], meaning=meaning)


def is_whole_number(kind: object) -> bool:
    """Tell whether a column's type is a whole number."""
    return isinstance(kind, Value) and "int" in kind.dtype


def lists_classes(kind: object) -> bool:
    """Tell whether a column of this type can list classes: text, class ids or numbers, or lists of them."""
    kind = inner(kind)
    return is_text(kind) or isinstance(kind, ClassLabel) or (is_number(kind) and kind.dtype != "bool")


def fields_of(cell: object, kind: object, names: tuple[str, ...] = ()) -> list[str]:
    """Return the values of a cell that are labels, as `field_of` does."""
    return [field_of(value, kind, names) for value in as_list(cell) or () if not is_missing(value)]


def field_of(value: int | float | str, kind: object, names: tuple[str, ...] = ()) -> str:
    """Return a value as a field of a table: a text may hold several labels, an item of a list or a class id is one.

    kind: the type of its column, which names class ids. names: those of numbers without names.
    """
    item = inner(kind)
    if kind is item and isinstance(value, str):
        return value
    names = item.names if isinstance(item, ClassLabel) else names
    value = without_point(value)
    is_id = isinstance(value, int) and 0 <= value < len(names)
    return join_labels([normalised(names[value] if is_id else str(value))])


def as_list(value: object) -> list | None:
    """Return a cell's values; None where the cell is empty."""
    if value is None or value == "":
        return None
    return list(value) if isinstance(value, list | tuple) else [value]


def is_missing(value: object) -> bool:
    """Tell whether a value is no label: None, NaN, the class id -1, or an empty text."""
    return value is None or value != value or value == "" or value == -1


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
