"""The same small music in every form that the Hub has, for the tests: three classes, recordings of two clips."""

import csv
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
from datasets import Audio, ClassLabel, Features, List, Value

from tests.irmas_dataset.folders import write_audio

CLASSES = ("kora", "oud", "voice")
TRAIN, TEST = 24, 6


def clips(split: str) -> list[dict]:
    """Return the clips of a split: file name, labels and recording."""
    first = 0 if split == "train" else 1000
    return [
        {
            "file_name": f"{split}{number:02d}.wav",
            "labels": [CLASSES[number // 2 % 3]] + (["voice"] if split == "test" and number < 2 else []),
            "recording": f"{split} {number // 2}",
            "seed": first + number,
        }
        for number in range(TRAIN if split == "train" else TEST)
    ]


def write_wavs(folder: Path, split: str, seconds: float = 0.05) -> Path:
    """Write a split's files into a folder."""
    for clip in clips(split):
        write_audio(folder / clip["file_name"], clip["seed"], seconds)
    return folder


def own_folder(root: Path, seconds: float = 0.05) -> Path:
    """Write a labels.csv with its files."""
    rows = []
    for split in ("train", "test"):
        write_wavs(root / split, split, seconds)
        rows += [[f"{split}/{clip['file_name']}", ";".join(clip["labels"]), clip["recording"]] for clip in clips(split)]
    with open(root / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "instruments", "recording"], *rows])
    return root


def audio_folder(root: Path, kind: str, seconds: float = 0.05) -> Path:
    """Write an audiofolder whose metadata is csv, jsonl or parquet."""
    for split in ("train", "test"):
        write_wavs(root / split, split, seconds)
        rows = [
            {"file_name": clip["file_name"], "label": clip["labels"], "recording": clip["recording"]}
            for clip in clips(split)
        ]
        path = root / split / f"metadata.{kind}"
        if kind == "csv":
            with open(path, "w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["file_name", "label", "recording"])
                writer.writerows([row["file_name"], ";".join(row["label"]), row["recording"]] for row in rows)
        elif kind == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    return root


def parquet_folder(root: Path, labels: str, seconds: float = 0.05, extra: dict | None = None) -> Path:
    """Write Parquet with the audio inside; `labels` is ids, names, text or flags. `extra`: constant columns, name -> text."""
    kind = {
        "ids": {"instruments": List(ClassLabel(names=list(CLASSES)))},
        "names": {"instruments": List(Value("string"))},
        "text": {"instruments": Value("string")},
        "flags": {name: Value("int8") for name in CLASSES},
    }[labels]
    more = {name: Value("string") for name in extra or {}}
    features = Features({"audio": Audio(), "recording": Value("string"), **kind, **more})
    for split in ("train", "test"):
        folder = write_wavs(root.parent / f"{root.name}-wavs", split, seconds)
        rows = [
            {"audio": {"bytes": (folder / clip["file_name"]).read_bytes(), "path": clip["file_name"]}}
            | {"recording": clip["recording"]}
            | written(labels, clip["labels"])
            | (extra or {})
            for clip in clips(split)
        ]
        (root / "data").mkdir(parents=True, exist_ok=True)
        for shard in range(2):  # of several row groups each
            table = pa.Table.from_pylist(
                rows[shard * len(rows) // 2 : (shard + 1) * len(rows) // 2], features.arrow_schema
            )
            path = root / f"data/{split}-{shard:05d}-of-00002.parquet"
            pyarrow.parquet.write_table(table, path, row_group_size=5)
        shutil.rmtree(folder)
    return root


def written(kind: str, labels: list[str]) -> dict:
    """Return the label columns of a row."""
    if kind == "flags":
        return {name: int(name in labels) for name in CLASSES}
    values = {"ids": [CLASSES.index(label) for label in labels], "names": labels, "text": ";".join(labels)}
    return {"instruments": values[kind]}


WRITERS = {
    "metadata.csv": lambda root: audio_folder(root, "csv"),
    "metadata.jsonl": lambda root: audio_folder(root, "jsonl"),
    "metadata.parquet": lambda root: audio_folder(root, "parquet"),
    "Parquet with class ids": lambda root: parquet_folder(root, "ids"),
    "Parquet with names": lambda root: parquet_folder(root, "names"),
    "Parquet with text": lambda root: parquet_folder(root, "text"),
    "Parquet with 0/1 columns": lambda root: parquet_folder(root, "flags"),
}
"""Form -> what writes it."""
