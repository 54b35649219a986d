"""Reading an export again, as the folder of files that it was."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
from filelock import FileLock
from tqdm import tqdm

from irmas_dataset.errors import UserError
from irmas_dataset.whole_file import whole_file

CARD = "README.md"
MARKER = "UNPACKED"
LOCK = ".unpack.lock"


def is_exported(data_dir: str | Path) -> bool:
    """Tell whether a folder holds an export, of which the card is written last."""
    return (Path(data_dir) / CARD).is_file() and bool(shards(Path(data_dir)))


def shards(data_dir: Path) -> list[Path]:
    return [path for split in ("train", "test") for path in sorted(data_dir.glob(f"data/{split}-*.parquet"))]


def unpack(data_dir: str | Path) -> None:
    """Write the files of an export beside its tables, in the layout that they came from, unless that was done.

    Several processes may call this at once. Raises UserError for an export without audio, or one that is damaged.
    """
    data_dir = Path(data_dir)
    found = {path.name: path.stat().st_size for path in shards(data_dir)}
    try:
        with FileLock(data_dir / LOCK):
            marker = data_dir / MARKER
            if marker.exists() and json.loads(marker.read_text()) == found:
                return
            rows = [
                row
                for path in shards(data_dir)
                for row in tqdm(_unpacked(path, data_dir), desc=f"Unpacking {path.name}")
            ]
            if rows and not rows[0]["path"].startswith("IRMAS-T"):
                _write_table(data_dir / "labels.csv", rows)
            with whole_file(marker) as unfinished:
                unfinished.write_text(json.dumps(found))
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{data_dir} cannot be unpacked: {error}.") from error


def _unpacked(shard: Path, data_dir: Path) -> Iterator[dict]:
    """Write the files of one shard; yields the path, labels and recording of each."""
    table = pyarrow.parquet.ParquetFile(shard)
    if "audio" not in table.schema_arrow.names:
        raise UserError(f"{data_dir} holds labels without audio: export it again without --metadata_only.")
    features = json.loads(table.schema_arrow.metadata[b"huggingface"])["info"]["features"]
    names = features["instruments"]["feature"]["names"]
    for batch in table.iter_batches(batch_size=16, columns=["audio", "path", "instruments", "recording"]):
        for row in batch.to_pylist():
            path = data_dir / row["path"]
            if not path.resolve().is_relative_to(data_dir.resolve()):
                raise UserError(f"{shard} holds the path {row['path']}, which leads out of its folder.")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(row["audio"]["bytes"])
            labels = [names[label] for label in row["instruments"]]
            if row["path"].startswith("IRMAS-TestingData"):
                path.with_suffix(".txt").write_text("".join(f"{label}\t\n" for label in labels))
            yield {"path": row["path"], "instruments": ";".join(labels), "recording": row["recording"]}


def _write_table(path: Path, rows: list[dict]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["path", "instruments", "recording"])
        writer.writeheader()
        writer.writerows(rows)
