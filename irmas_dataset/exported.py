"""Reading an export again: as a folder of files, or as a stream that needs no room on disk."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet
import soundfile
from datasets import Audio, IterableDataset, load_dataset
from datasets.distributed import split_dataset_by_node
from filelock import FileLock
from tqdm import tqdm

from irmas_dataset.audio import read_mono, resample, to_int16
from irmas_dataset.errors import UserError
from irmas_dataset.splits import hold_out, merge_groups

MARKER = "UNPACKED"
LOCK = ".unpack.lock"
SHUFFLE_BUFFER = 256  # clips, compressed as they came; with shards in random order


def is_exported(data_dir: str | Path) -> bool:
    """Tell whether a folder holds an export."""
    return bool(shards(Path(data_dir)))


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
            marker.write_text(json.dumps(found))
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


def stream_training_clips(
    location: str,
    *,
    sampling_rate: int,
    clip_samples: int,
    validation_fraction: float = 0.15,
    seed: int = 0,
    shuffle_seed: int | None = None,
    process_index: int = 0,
    processes: int = 1,
) -> IterableDataset:
    """Stream the training clips of an export, local or on the Hub, without preparing or storing anything.

    location: the folder or the repository. Every process gets its own clips: its own shards where their number divides
    by that of the processes, and every n-th clip of all otherwise. The recordings that `load_irmas` holds out for
    validation with the same `validation_fraction` and `seed` are left out; its look for training recordings that the
    test set has too is not repeated here, so audit before you export. With a `shuffle_seed` clips come in random
    order, another one after each `set_epoch`.
    Yields {"waveform": int16 (clip_samples,), zero-padded or cut at the end, "instruments": class ids}.
    Raises UserError for a location that is no export with audio.
    """
    try:
        held_out = validation_paths(location, validation_fraction, seed)
        stream = load_dataset(str(location), split="train", streaming=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{location} cannot be streamed: {str(error).splitlines()[0]}") from error
    if "audio" not in (stream.features or {}):
        raise UserError(f"{location} holds no audio: export it again without --metadata_only.")
    stream = split_dataset_by_node(stream.cast_column("audio", Audio(decode=False)), process_index, processes)
    stream = stream.filter(_is_kept, input_columns="path", fn_kwargs={"held_out": held_out})
    if shuffle_seed is not None:
        # One shard at a time: exports are mixed, and with several `datasets` sleeps 5 s at the end of an epoch.
        stream = stream.shuffle(seed=shuffle_seed, buffer_size=SHUFFLE_BUFFER, max_buffer_input_shards=1)
    columns = [name for name in stream.features if name != "instruments"]
    options = {"sampling_rate": sampling_rate, "clip_samples": clip_samples}
    return stream.map(_decode_row, remove_columns=columns, fn_kwargs=options)


def validation_paths(location: str, validation_fraction: float, seed: int) -> set[str]:
    """Return the paths of the training clips that `load_irmas` holds out; reads no audio."""
    columns = ["path", "recording", "md5", "instruments"]
    rows = list(load_dataset(str(location), split="train", streaming=True, columns=columns))
    groups = merge_groups([row["recording"] for row in rows], [row["md5"] for row in rows])
    held_out = hold_out(groups, [row["instruments"] for row in rows], validation_fraction, seed)
    return {row["path"] for row, is_held_out in zip(rows, held_out, strict=True) if is_held_out}


def _is_kept(path: str, held_out: set[str]) -> bool:
    return path not in held_out


def _decode_row(row: dict, sampling_rate: int, clip_samples: int) -> dict:
    with soundfile.SoundFile(io.BytesIO(row["audio"]["bytes"])) as file:
        waveform = to_int16(resample(read_mono(file), file.samplerate, sampling_rate))[:clip_samples]
    return {"waveform": np.pad(waveform, (0, clip_samples - len(waveform)))}
