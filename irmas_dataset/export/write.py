"""Writing an export: a data folder as the Hub wants it, Parquet with the audio inside and a data card.

Files are copied into the tables byte for byte: nothing is encoded again and no codec is needed.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
from datasets import Audio, Dataset, Features
from tqdm import tqdm

from irmas_dataset.builder import ANY_COLUMNS, Irmas
from irmas_dataset.errors import UserError
from irmas_dataset.export.card import data_card
from irmas_dataset.export.layout import CARD, COLUMNS, SPLITS, UNPACKED_MARKER, is_exported
from irmas_dataset.files import SYNTHETIC_MARKER, from_text, to_text
from irmas_dataset.forms.columns import UNKNOWN
from irmas_dataset.forms.flags import Columns
from irmas_dataset.loading import open_builder
from irmas_dataset.splits import hold_out, merge_groups
from irmas_dataset.whole_file import UNFINISHED, whole_folder

SHARD_BYTES = 400 << 20  # the Hub recommends files of less than 500 MB
ROW_GROUP_BYTES = 32 << 20  # what a reader has to keep in memory at once
METADATA_ROWS = 50_000


def export(
    data_dir: str | Path,
    output_dir: str | Path,
    *,
    metadata_only: bool = False,
    recording_pattern: str | None = None,
    columns: Columns = ANY_COLUMNS,
    cache_dir: str | Path | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, int]:
    """Write `data/{train,test}-*.parquet` and a data card; `datasets.load_dataset(output_dir)` reads them offline.

    Columns: audio ({bytes, path}, read as `datasets.Audio`; missing with `metadata_only`), path (as published, or
    relative to the own folder), instruments, recording, song, genre, drums, duration (seconds), md5, and `unknown` where
    labels are partly known. Damaged files are skipped. The other arguments are as in `load_irmas`; a table is at most about `shard_bytes` long.
    Returns the number of clips of each split. Raises UserError for a folder that cannot be read or written.
    """
    output_dir = Path(output_dir)
    if is_exported(os.path.expanduser(data_dir)):
        raise UserError(f"--data_dir {data_dir} is already an export: give the folder that it was made from.")
    builder = open_builder(data_dir, recording_pattern, columns, cache_dir)
    builder.download_and_prepare()
    listing = builder.config.listing
    names = {to_text(clip.path): clip.name for clip in listing.clips}
    earlier = files_of_earlier_export(output_dir)
    splits = readable_clips(builder)
    try:
        with whole_folder(output_dir) as unfinished:
            (unfinished / "data").mkdir()
            for name, split in splits.items():
                write_shards(split, names, unfinished / "data", name, metadata_only, shard_bytes)
            if listing.is_synthetic:
                (unfinished / SYNTHETIC_MARKER).touch()
            facts = {"is_irmas": listing.is_irmas, "is_synthetic": listing.is_synthetic}
            card = data_card(splits, listing.title, metadata_only=metadata_only, **facts)
            card.save(unfinished / CARD)
            for name in earlier:
                (output_dir / name).unlink()
    except OSError as error:
        raise UserError(f"The export into {output_dir} failed: {error}.") from error
    return {name: len(split) for name, split in splits.items()}


def readable_clips(builder: Irmas) -> dict[str, Dataset]:
    """Return the rows to export of each split that has any: `COLUMNS` of the clips that can be read.

    Training rows are shuffled: the builder lists class by class, and so would the batches of a streamed export.
    """
    splits = {name: split.filter(_is_readable, input_columns="problem") for name, split in builder.as_dataset().items()}
    splits = {
        name: split.select_columns([*COLUMNS, *({UNKNOWN} & set(split.features))])
        for name, split in splits.items()
        if len(split)
    }
    if "train" in splits:
        splits["train"] = validation_first(splits["train"].shuffle(seed=0))
    return splits


def validation_first(train: Dataset) -> Dataset:
    """Move the recordings that `load_irmas` holds out by default to the front: a stream then finds them together."""
    groups = merge_groups(train["recording"][:], train["md5"][:])
    held_out = hold_out(groups, train["instruments"][:], fraction=0.15, seed=0)
    return train.select(sorted(range(len(train)), key=lambda i: not held_out[i]))


def _is_readable(problem: str | None) -> bool:
    return problem is None


def files_of_earlier_export(output_dir: Path) -> list[str]:
    """Return the files of an earlier export in a folder, the card first: what is left is not an export.

    Raises UserError if the folder has anything else in it.
    """
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"--output_dir {output_dir} is a file: give a folder for the export.")
    found = {path.relative_to(output_dir).as_posix() for path in output_dir.rglob("*") if UNFINISHED not in path.parts}
    foreign = sorted(name for name in found if not _is_ours(name))
    if UNPACKED_MARKER in foreign:
        raise UserError(
            f"--output_dir {output_dir} is an export that was unpacked for loading: delete it, or give a new folder."
        )
    if foreign:
        raise UserError(
            f"--output_dir {output_dir} contains {foreign[0]}, which is not part of an export: give a new folder."
        )
    return sorted(found - {"data"}, key=lambda name: name != CARD)


def _is_ours(name: str) -> bool:
    is_shard = name.startswith(tuple(f"data/{split}-" for split in SPLITS))
    return (is_shard and name.endswith((".parquet", ".unfinished"))) or name in (
        "data", CARD, f"{CARD}.unfinished", SYNTHETIC_MARKER,
    )  # fmt: skip


def write_shards(
    split: Dataset, names: dict[str, str], folder: Path, name: str, metadata_only: bool, shard_bytes: int = SHARD_BYTES
) -> list[Path]:
    """Write one split as `name-00000-of-N.parquet`, ... and return their paths.

    names: path on disk -> the path that is written.
    shard_bytes: a table ends before its audio exceeds this, unless a single file does.
    """
    audio = {} if metadata_only else {"audio": Audio()}
    schema = Features(audio | dict(split.features)).arrow_schema
    unfinished: list[Path] = []
    writer, written = None, 0
    for rows, size in row_groups(split, names, metadata_only, min(ROW_GROUP_BYTES, shard_bytes)):
        if writer is not None and written + size > shard_bytes:
            writer.close()
            writer = None
        if writer is None:
            unfinished.append(folder / f"{name}-{len(unfinished):05d}.unfinished")
            writer, written = pyarrow.parquet.ParquetWriter(unfinished[-1], schema), 0
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        written += size
    if writer is not None:
        writer.close()
    shards = [folder / f"{name}-{number:05d}-of-{len(unfinished):05d}.parquet" for number in range(len(unfinished))]
    for path, shard in zip(unfinished, shards, strict=True):
        path.rename(shard)
    return shards


def row_groups(
    split: Dataset, names: dict[str, str], metadata_only: bool, most_bytes: int
) -> Iterator[tuple[list[dict], int]]:
    """Yield the exported rows in groups of up to `most_bytes` of audio, with the bytes of each group."""
    rows, size = [], 0
    for row in tqdm(split, desc=f"Exporting {split.split}", unit="clip"):
        file, row["path"] = from_text(row["path"]), names[row["path"]]
        content = b"" if metadata_only else Path(file).read_bytes()
        if rows and (size + len(content) > most_bytes or len(rows) >= METADATA_ROWS):
            yield rows, size
            rows, size = [], 0
        if not metadata_only:
            row["audio"] = {"bytes": content, "path": row["path"].rsplit("/", 1)[-1]}
        rows.append(row)
        size += len(content)
    if rows:
        yield rows, size
