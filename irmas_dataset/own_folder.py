"""Your own folder instead of IRMAS: `train/<class>/**`, optionally `test/`, or `<class>/**`, or a labels.csv."""

import os
import re
from collections import Counter
from pathlib import Path

from irmas_dataset.errors import UserError
from irmas_dataset.files import (
    READ_BY_FFMPEG,
    READ_BY_SOUNDFILE,
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
from irmas_dataset.label_text import (
    label_of_folder,
    labels_of_fields,
    normalised,
    one_spelling,
    read_rows,
    spellings,
)

COLUMNS = ("path", "instruments", "recording", "unknown", "split")
"""Of a labels.csv."""
SEGMENT_ENDING = re.compile(r"(?:__\d{4,}\.\d\ds)+$")
"""When a segment begins; a segment of a segment belongs to the first one's recording."""


def list_own_folder(data_dir: str | Path, recording_pattern: str | None = None) -> Listing | None:
    """List the clips of your own folder, or return None if it has no train/, test/, class folders or labels.csv.

    The classes are those of the folder, sorted. The recording of a clip is the column `recording` of labels.csv, else
    what `recording_pattern` (a regular expression: its first group, or its whole match) finds in the path, else what the
    name of a segment or of a clip of IRMAS says, else the file.
    Raises UserError for a row of labels.csv, an annotation, a folder or a pattern that cannot be used.
    """
    root = Path(os.path.abspath(data_dir))
    warnings: list[str] = []
    if (root / "labels.csv").is_file():
        rows = _rows_of_table(root, warnings)
    elif folders := _split_folders(root, warnings):
        rows = _rows_of_folders(root, folders)
    else:
        return None
    spelling = one_spelling(label for row in rows for label in (*row["labels"], *row.get("unknown", ())))
    for label, chosen in spelling.items():
        if label != chosen:
            warnings.append(
                f"{to_text(root)}: the class `{label}` is read as `{chosen}`, from which only capitals differ."
            )
    for row in rows:
        row["labels"] = [spelling[label] for label in row["labels"]]
        row["unknown"] = [spelling[label] for label in row.get("unknown", ())]
    train_labels = {
        label for row in rows if row["split"] == "train" for label in (*row["labels"], *row.get("unknown", ()))
    }
    classes = tuple(sorted(train_labels or {label for row in rows for label in row["labels"]}))
    spelled: dict[str, str] = {}
    clips = [_clip(root, row, classes, recording_pattern, spelled) for row in rows]
    _warn_of_other_audio(root, {clip.path for clip in clips}, warnings)
    is_synthetic = (root / SYNTHETIC_MARKER).exists()
    title = own_folder_title(to_text(root.name), is_synthetic)
    return Listing(title, root, classes, clips, warnings, is_synthetic=is_synthetic)


def own_folder_title(name: str, is_synthetic: bool) -> str:
    """Return the title of an own folder's listing."""
    return f"{'synthetic' if is_synthetic else 'own'} folder {name}"


def _clip(
    root: Path, row: dict, classes: tuple[str, ...], recording_pattern: str | None, spelled: dict[str, str]
) -> Clip:
    """Return a row's clip. Recordings that differ in capitals alone are one; `spelled` keeps its first spelling."""
    name = to_text(row["path"])
    recording = normalised(row.get("recording") or "")
    recording = spelled.setdefault(recording.casefold(), recording) or recording_of_path(name, recording_pattern)
    unknown = [label for label in row["unknown"] if label not in row["labels"]]
    return Clip(
        path=str(root / row["path"]),
        name=name,
        split=row["split"],
        instruments=check_labels(row["labels"], classes, row["where"]),
        recording=recording,
        song=recording,
        unknown=check_labels(unknown, classes, row["where"]),
    )


def recording_of_path(name: str, pattern: str | None) -> str:
    """Return the recording that a clip's path names: by the pattern, by the name of a segment or of IRMAS, else the path."""
    if pattern is None:  # IRMAS's file names and those of segments include the recording, in any folder
        if is_training_name(name):
            return parse_training_name(name)["recording"]
        return recording_of_segment(name) or name
    try:
        match = re.search(pattern, name)
    except re.error as error:
        raise UserError(f"--recording_pattern {pattern!r} is not a regular expression: {error}.") from None
    if match is None:
        return name
    return match[1] if match.re.groups and match[1] is not None else match[0]


def segment_name(recording: str, start_seconds: float) -> str:
    """Return the name, without a suffix, of a file cut from a recording: `song__0012.50s`."""
    return f"{recording}__{start_seconds:07.2f}s"


def recording_of_segment(name: str) -> str | None:
    """Return the recording that a file was cut from, whatever class folder it lies in; None if its name does not say."""
    stem = os.path.splitext(name.rsplit("/", 1)[-1])[0]
    recording = SEGMENT_ENDING.sub("", stem)
    return recording if recording not in ("", stem) else None


def _split_folders(root: Path, warnings: list[str]) -> dict[str, Path]:
    """Return the folders of training and test clips, whatever their capitals; warns of folders that are not read.

    Raises UserError for class folders beside instead of below train/, or for a folder that is there twice.
    """
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    found: dict[str, Path] = {}
    for path in folders:
        split = path.name.casefold()
        if split in ("train", "test") and found.setdefault(split, path) != path:
            raise UserError(f"{root} has both {found[split].name}/ and {path.name}/: move all clips into one of them.")
    others = [path for path in folders if path not in found.values() and _has_audio(path)]
    if others and not found:
        return {"train": root}
    if others and "train" not in found:
        raise UserError(
            f"{root} has audio in {', '.join(path.name + '/' for path in others[:3])} but no train/: move the class folders "
            f"into {root / 'train'}/."
        )
    for path in others:
        is_validation = path.name.casefold() in ("validation", "valid", "val", "dev")
        why = "validation clips are held out of train/ by recording" if is_validation else "only train/ and test/ are"
        warnings.append(f"{to_text(path)} has audio but is not read: {why}.")
    return found


def _has_audio(folder: Path) -> bool:
    return any(path.lower().endswith(READ_BY_SOUNDFILE) for path in walk_files(folder))


def _warn_of_other_audio(root: Path, listed: set[str], warnings: list[str]) -> None:
    """Warn of music in formats that only ffmpeg reads, which are used only where a labels.csv lists them."""
    others = [path for path in walk_files(root) if path.lower().endswith(READ_BY_FFMPEG) and path not in listed]
    words = "in a format that is not read from folders, and will be skipped: convert it to flac"
    warn_of(warnings, others, f"is {words}", f"are {words}")


def _rows_of_folders(root: Path, folders: dict[str, Path]) -> list[dict]:
    """Read train/<class>/** and test/<class>/**, or <class>/** alone, and files directly in train/ or test/ with a .txt of the same name."""
    rows = []
    for split in ("train", "test"):
        for path in walk_files(folders[split]) if split in folders else ():
            if not path.lower().endswith(READ_BY_SOUNDFILE):
                continue
            relative = Path(path).relative_to(root)
            inside = Path(path).relative_to(folders[split]).parts
            row = {"path": relative.as_posix(), "split": split, "labels": [label_of_folder(to_text(inside[0]))]}
            row["where"] = to_text(path)
            if len(inside) == 1:
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
    """Read labels.csv: `path,instruments[,recording][,unknown][,split]`, with labels separated by ; or by commas in quotes."""
    table = root / "labels.csv"
    read = read_rows(table, "path", "instruments")
    if unread := [name for name in (read[0][1] if read else ()) if name and name not in COLUMNS]:
        warnings.append(f"{table}: of its columns only {', '.join(COLUMNS)} are read, not {', '.join(unread)}.")
    fields = {
        f"{where}, column {name}": row.get(name, "") for where, row in read for name in ("instruments", "unknown")
    }
    labels = labels_of_fields(fields)  # a label that stands by itself in one column is known in the other
    rows = [
        _row_of_table(root, where, row, *(labels[f"{where}, column {name}"] for name in ("instruments", "unknown")))
        for where, row in read
    ]
    _check_recordings(rows)
    listed = Counter(str(root / row["path"]) for row in rows)
    if rows and max(listed.values()) > 1:
        raise UserError(f"{table} lists {listed.most_common(1)[0][0]} twice: put all its labels in one line.")
    unlisted = [path for path in walk_files(root) if path.lower().endswith(READ_BY_SOUNDFILE) and path not in listed]
    warn_of(warnings, unlisted, "is not in labels.csv and will be skipped", "are not in labels.csv and will be skipped")
    return rows


def _row_of_table(root: Path, where: str, row: dict, labels: list[str], unknown: list[str]) -> dict:
    path = _path_inside(root, row["path"].strip(), where)
    if not labels and not unknown:
        raise UserError(f"{where}: {path} has no label in the column instruments.")
    split = row.get("split", "").strip().casefold() or ("test" if path.casefold().startswith("test/") else "train")
    if split not in ("train", "test"):
        raise UserError(f"{where}: the split is {row['split']!r}; write train or test, or nothing.")
    kept = {"path": path, "split": split, "labels": labels, "unknown": unknown, "recording": row.get("recording")}
    return kept | {"where": where}


def _path_inside(root: Path, written: str, where: str) -> str:
    """Return a path of labels.csv relative to the folder, however it was written; UserError where it leads elsewhere."""
    path = next((root / spelling for spelling in spellings(written) if (root / spelling).is_file()), None)
    if path is None:
        raise UserError(f"{where}: there is no file {root / written}.")
    inside = Path(os.path.normpath(path))
    if not inside.is_relative_to(root):
        inside = path.resolve()
        if not inside.is_relative_to(root.resolve()):
            raise UserError(f"{where}: {written} is not inside {root}: move the file there, or link to its folder.")
        return inside.relative_to(root.resolve()).as_posix()
    return inside.relative_to(root).as_posix()


def _check_recordings(rows: list[dict]) -> None:
    """Raise UserError where a recording is named as a class: that is a second label, written without quotes."""
    classes = {label for row in rows for label in row["labels"]}
    for row in rows:
        if normalised(row["recording"] or "") in classes:
            raise UserError(
                f"{row['where']}: the recording is named as the class {row['recording']}: write several labels with ; between "
                "them, or give the recording another name."
            )
