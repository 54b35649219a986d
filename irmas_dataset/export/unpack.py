"""Unpacking an export: its files are written beside its tables, as the folder that it was made from."""

import json
import os
from pathlib import Path

import pyarrow.parquet
from filelock import FileLock
from tqdm import tqdm

from irmas_dataset.errors import UserError
from irmas_dataset.export.layout import UNPACKED_MARKER, list_shards, path_within, stored_features
from irmas_dataset.files import SYNTHETIC_MARKER, Clip, Listing, irmas_listing, to_text
from irmas_dataset.own_folder import own_folder_title
from irmas_dataset.whole_file import whole_file

LOCK = ".unpack.lock"


def unpack(data_dir: str | Path) -> None:
    """Write the files of an export beside its tables, in their original layout, unless that is already done.

    Several processes may call this at once. Raises UserError for an export that is damaged or has no audio.
    """
    data_dir = Path(data_dir)
    shards = list_shards(data_dir)
    sizes = {shard.name: shard.stat().st_size for shard in shards}
    marker = data_dir / UNPACKED_MARKER

    def is_done() -> bool:
        return marker.exists() and json.loads(marker.read_text()) == sizes

    try:
        if is_done():
            return  # without writing anything: a shared copy may be read-only
        with FileLock(data_dir / LOCK):
            if is_done():
                return
            for shard in shards:
                unpack_shard(shard, data_dir)
            with whole_file(marker) as unfinished:
                unfinished.write_text(json.dumps(sizes))
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise UserError(f"{data_dir} cannot be unpacked: {error}.") from error


def unpack_shard(shard: Path, data_dir: Path) -> None:
    """Write the files of one table, and the annotations of IRMAS's test clips."""
    table = pyarrow.parquet.ParquetFile(shard)
    names = stored_features(table.schema_arrow)["instruments"].feature.names
    batches = table.iter_batches(batch_size=16, columns=["audio", "path", "instruments"])
    rows = (row for batch in batches for row in batch.to_pylist())
    for row in tqdm(rows, desc=f"Unpacking {shard.name}", total=table.metadata.num_rows, unit="clip"):
        path = path_within(data_dir, row["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(row["audio"]["bytes"])
        if row["path"].startswith("IRMAS-TestingData"):
            path.with_suffix(".txt").write_text("".join(f"{names[label]}\t\n" for label in row["instruments"]))


def list_unpacked(data_dir: str | Path) -> Listing:
    """List the clips of an export that is unpacked: what its tables say, exactly, whatever else lies beside them."""
    root = Path(os.path.abspath(data_dir))
    clips: list[Clip] = []
    for shard in list_shards(root):
        features, split = stored_features(pyarrow.parquet.read_schema(shard)), shard.name.split("-")[0]
        classes = tuple(features["instruments"].feature.names)
        for row in pyarrow.parquet.read_table(
            shard, columns=[name for name in features if name != "audio"]
        ).to_pylist():
            labels, unknown = (
                tuple(classes[label] for label in row.get(name) or ()) for name in ("instruments", "unknown")
            )
            kept = {name: row[name] for name in ("recording", "song", "genre", "drums")}
            clips.append(Clip(str(root / row["path"]), row["path"], split, labels, **kept, unknown=unknown))
    return listing_of_export(root, root, to_text(root.name), classes, clips, (root / SYNTHETIC_MARKER).exists())


def listing_of_export(
    root: Path, home: str | Path, name: str, classes: tuple[str, ...], clips: list[Clip], is_synthetic: bool
) -> Listing:
    """Return the listing of an export's clips; `home` is the folder or address that a warning names."""
    if clips and clips[0].name.startswith("IRMAS-T"):
        return irmas_listing(root, home, clips, [], is_synthetic)
    return Listing(own_folder_title(name, is_synthetic), root, classes, clips, is_synthetic=is_synthetic)
