"""Unpacking an export: its files are written beside its tables, as the folder that it was made from."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
from filelock import FileLock
from tqdm import tqdm

from irmas_dataset.errors import UserError
from irmas_dataset.export.layout import UNPACKED_MARKER, list_shards, path_within, stored_features
from irmas_dataset.label_text import join_labels
from irmas_dataset.whole_file import whole_file

LOCK = ".unpack.lock"


def unpack(data_dir: str | Path) -> None:
    """Write the files of an export beside its tables, in their original layout, unless that is already done.

    Several processes may call this at once. Raises UserError for an export that is damaged or has no audio.
    """
    data_dir = Path(data_dir)
    shards = list_shards(data_dir)
    sizes = {shard.name: shard.stat().st_size for shard in shards}
    try:
        with FileLock(data_dir / LOCK):
            marker = data_dir / UNPACKED_MARKER
            if marker.exists() and json.loads(marker.read_text()) == sizes:
                return
            rows = [
                row for shard in shards for row in tqdm(unpack_shard(shard, data_dir), desc=f"Unpacking {shard.name}")
            ]
            if rows and not rows[0]["path"].startswith("IRMAS-T"):
                write_labels(data_dir / "labels.csv", rows)
            with whole_file(marker) as unfinished:
                unfinished.write_text(json.dumps(sizes))
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise UserError(f"{data_dir} cannot be unpacked: {error}.") from error


def unpack_shard(shard: Path, data_dir: Path) -> Iterator[dict[str, str]]:
    """Write the files of one table and yield a row of labels.csv for each; several labels are joined by ;."""
    table = pyarrow.parquet.ParquetFile(shard)
    features, split = stored_features(table.schema_arrow), shard.name.split("-")[0]
    names = features["instruments"].feature.names
    columns = [name for name in ("audio", "path", "instruments", "recording", "unknown") if name in features]
    for batch in table.iter_batches(batch_size=16, columns=columns):
        for row in batch.to_pylist():
            path = path_within(data_dir, row["path"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(row["audio"]["bytes"])
            labels = [names[label] for label in row["instruments"]]
            if row["path"].startswith("IRMAS-TestingData"):
                path.with_suffix(".txt").write_text("".join(f"{label}\t\n" for label in labels))
            unknown = join_labels(names[label] for label in row.get("unknown") or ())
            yield {
                "path": row["path"], "instruments": join_labels(labels), "recording": row["recording"], "unknown": unknown,
                "split": split,
            }  # fmt: skip


def write_labels(path: Path, rows: list[dict[str, str]]) -> None:
    """Write the labels.csv of an own folder."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["path", "instruments", "recording", "unknown", "split"])
        writer.writeheader()
        writer.writerows(rows)
