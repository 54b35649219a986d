"""What an export looks like on disk: `data/{train,test}-*.parquet` with the files inside, and a data card."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
from datasets import Features

from irmas_dataset.errors import UserError

CARD = "README.md"
"""The data card; it is written last, so a folder without one is not an export."""

UNPACKED_MARKER = "UNPACKED"
"""Written by `unpack`: the sizes of the tables whose files are unpacked beside them."""

SPLITS = ("train", "test")
COLUMNS = ("path", "instruments", "recording", "song", "genre", "drums", "duration", "md5")
"""Columns of every table; tables with audio have the column `audio` as well."""


def is_exported(data_dir: str | Path) -> bool:
    """Tell whether a folder is a finished export: tables of our columns (or damaged ones) beside a card."""
    data_dir = Path(data_dir).expanduser()
    shards = list_shards(data_dir)
    if not shards or not (data_dir / CARD).is_file():
        return False
    try:
        return set(COLUMNS) <= set(pyarrow.parquet.read_schema(shards[0]).names)
    except (OSError, pa.ArrowException):
        return True


def check_no_pattern(location: str | Path, recording_pattern: str | None) -> None:
    """Raise UserError for a pattern of recordings, which an export has in its tables."""
    if recording_pattern is not None:
        raise UserError(
            f"--recording_pattern: {location} is an export, whose tables name the recordings: give it to `irmas export`, or "
            "leave it out."
        )


def list_shards(data_dir: Path) -> list[Path]:
    """Return the paths of an export's tables, training split first."""
    return [path for split in SPLITS for path in sorted(data_dir.glob(shard_pattern(split)))]


def shard_pattern(split: str) -> str:
    """Return the glob pattern of a split's tables within the export."""
    return f"data/{split}-*.parquet"


def stored_features(schema: pa.Schema) -> Features:
    """Return the `datasets` features of a table; raises ValueError for one without audio or not written by `export`."""
    if "audio" not in schema.names:
        raise ValueError("it has labels but no audio: export it again without --metadata_only")
    stored = (schema.metadata or {}).get(b"huggingface")
    if stored is None or not set(COLUMNS) <= set(schema.names):
        raise ValueError("its tables were not written by `export`")
    return Features.from_dict(json.loads(stored)["info"]["features"])


def path_within(folder: Path, name: str) -> Path:
    """Return the path of a row's file within a folder; raises ValueError for a name that leads out of it."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"its tables name the file {name}, which is outside the folder")
    return path
