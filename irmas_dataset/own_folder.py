"""Your own folder instead of IRMAS: `train/<class>/**`, optionally `test/`, or a labels.csv."""

import csv
import os
import re
from collections import Counter
from pathlib import Path

from irmas_dataset.audio import AUDIO_EXTENSIONS
from irmas_dataset.errors import UserError
from irmas_dataset.files import (
    SYNTHETIC_MARKER,
    Clip,
    Listing,
    check_labels,
    is_training_name,
    parse_training_name,
    read_annotation,
    to_text,
    walk_files,
    warn_of,
)


def list_own_folder(data_dir: str | Path, recording_pattern: str | None = None) -> Listing | None:
    """List the clips of your own folder, or return None if it has no train/, test/ or labels.csv.

    The classes are those of the folder, sorted. The recording of a clip is the column `recording` of labels.csv, else
    what `recording_pattern` (a regular expression: its first group, or its whole match) finds in the path, else the file.
    Raises UserError for a row of labels.csv, an annotation or a pattern that cannot be used.
    """
    root = Path(os.path.abspath(data_dir))
    warnings: list[str] = []
    if (root / "labels.csv").is_file():
        rows = _rows_of_table(root, warnings)
    elif (root / "train").is_dir() or (root / "test").is_dir():
        rows = _rows_of_folders(root)
    else:
        return None
    train_labels = {label for row in rows if row["split"] == "train" for label in row["labels"]}
    classes = tuple(sorted(train_labels or {label for row in rows for label in row["labels"]}))
    clips = [_clip(root, row, classes, recording_pattern) for row in rows]
    title = own_folder_title(to_text(root.name), (root / SYNTHETIC_MARKER).exists())
    return Listing(title, root, classes, clips, warnings)


def own_folder_title(name: str, is_synthetic: bool) -> str:
    """Return the title of an own folder's listing."""
    return f"{'synthetic' if is_synthetic else 'own'} folder {name}"


def _clip(root: Path, row: dict, classes: tuple[str, ...], recording_pattern: str | None) -> Clip:
    name = to_text(row["path"])
    recording = row.get("recording") or _recording(name, recording_pattern)
    return Clip(
        path=str(root / row["path"]),
        name=name,
        split=row["split"],
        instruments=check_labels(row["labels"], classes, row["where"]),
        recording=recording,
        song=recording,
    )


def _recording(name: str, pattern: str | None) -> str:
    if pattern is None:  # IRMAS's file names include the recording, in any folder
        return parse_training_name(name)["recording"] if is_training_name(name) else name
    try:
        match = re.search(pattern, name)
    except re.error as error:
        raise UserError(f"--recording_pattern {pattern!r} is not a regular expression: {error}.") from None
    if match is None:
        return name
    return match[1] if match.re.groups and match[1] is not None else match[0]


def _rows_of_folders(root: Path) -> list[dict]:
    """Read train/<class>/** and test/<class>/**, and files directly in train/ or test/ with a .txt of the same name."""
    rows = []
    for split in ("train", "test"):
        for path in walk_files(root / split):
            if not path.lower().endswith(AUDIO_EXTENSIONS):
                continue
            relative = Path(path).relative_to(root)
            row = {"path": relative.as_posix(), "split": split, "labels": [to_text(relative.parts[1])], "where": path}
            if len(relative.parts) == 2:
                row["where"] = os.path.splitext(path)[0] + ".txt"
                if not os.path.exists(row["where"]):
                    raise UserError(
                        f"{to_text(path)} is not in a class folder and has no .txt of the same name: "
                        f"move it to {split}/<class>/ or write its labels into the .txt, one per line."
                    )
                row["labels"] = read_annotation(row["where"])
            rows.append(row)
    return rows


def _rows_of_table(root: Path, warnings: list[str]) -> list[dict]:
    """Read labels.csv: `path,instruments[,recording]`, with instruments separated by ; or by commas in quotes."""
    table = root / "labels.csv"
    try:
        with open(table, encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, restval="")
            columns = set(reader.fieldnames or ())
            rows = [(f"{table} line {reader.line_num}", row) for row in reader]
    except UnicodeDecodeError:
        raise UserError(f"{table} is not encoded in UTF-8: save it as UTF-8.") from None
    if not {"path", "instruments"} <= columns:
        raise UserError(f"{table} needs the columns path and instruments in its first line.")
    rows = [_row_of_table(root, where, row) for where, row in rows]
    listed = Counter(str(root / row["path"]) for row in rows)
    if rows and max(listed.values()) > 1:
        raise UserError(f"{table} lists {listed.most_common(1)[0][0]} twice: put all its labels in one line.")
    unlisted = [path for path in walk_files(root) if path.lower().endswith(AUDIO_EXTENSIONS) and path not in listed]
    warn_of(warnings, unlisted, "is not in labels.csv and will be skipped", "are not in labels.csv and will be skipped")
    return rows


def _row_of_table(root: Path, where: str, row: dict) -> dict:
    path = Path(row["path"].strip()).as_posix()
    if not (root / path).is_file():
        raise UserError(f"{where}: there is no file {root / path}.")
    labels = [label.strip() for label in re.split("[;,]", row["instruments"]) if label.strip()]
    if not labels:
        raise UserError(f"{where}: {path} has no label in the column instruments.")
    split = "test" if path.startswith("test/") else "train"
    return {"path": path, "split": split, "labels": labels, "recording": row.get("recording"), "where": where}
