"""A data folder as the Hub wants it: Parquet with the audio inside, and a data card.

Files are copied into the tables byte for byte, so that nothing is encoded again and no codec is needed.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
from datasets import Audio, Dataset, Features
from huggingface_hub import DatasetCard, DatasetCardData
from tqdm import tqdm

from irmas_dataset.builder import Irmas
from irmas_dataset.errors import UserError
from irmas_dataset.export.unpack import CARD, MARKER, is_exported
from irmas_dataset.files import SYNTHETIC_MARKER, from_text, to_text
from irmas_dataset.hub import upload_folder
from irmas_dataset.labels import GENRES, readable_name
from irmas_dataset.splits import hold_out, merge_groups
from irmas_dataset.whole_file import whole_file

SHARD_BYTES = 400 << 20  # the Hub likes files of less than 500 MB
ROW_GROUP_BYTES = 32 << 20  # what a reader has to hold at once
METADATA_ROWS = 50_000
COLUMNS = ("path", "instruments", "recording", "song", "genre", "drums", "duration", "md5")


def export(
    data_dir: str | Path,
    output_dir: str | Path,
    *,
    metadata_only: bool = False,
    recording_pattern: str | None = None,
    cache_dir: str | Path | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, int]:
    """Write `data/{train,test}-*.parquet` and a data card; `datasets.load_dataset(output_dir)` reads them offline.

    Columns: audio ({bytes, path}, read as `datasets.Audio`; left out with `metadata_only`), path (as published, or
    relative to a folder of one's own), instruments, recording, song, genre, drums, duration, md5. Damaged files are left out.
    Returns the number of clips of each split. Raises UserError for a folder that cannot be read or written.
    """
    root, output_dir = Path(os.path.abspath(os.path.expanduser(data_dir))), Path(output_dir)
    if is_exported(root):
        raise UserError(f"--data_dir {data_dir} is an export already; name the folder that it was made from.")
    builder = Irmas(data_dir=str(root), recording_pattern=recording_pattern, cache_dir=cache_dir)
    builder.download_and_prepare()
    names = {to_text(clip.path): clip.name for clip in builder.config.listing.clips}
    make_empty(output_dir)
    (output_dir / "data").mkdir(parents=True, exist_ok=True)
    splits = {name: split.filter(_is_sound, input_columns="problem") for name, split in builder.as_dataset().items()}
    splits = {name: split.select_columns(list(COLUMNS)) for name, split in splits.items() if len(split)}
    if "train" in splits:  # folders come class by class, and so would the batches of whoever streams them
        splits["train"] = validation_first(splits["train"].shuffle(seed=0))
    try:
        for name, split in splits.items():
            write_shards(split, names, output_dir / "data", name, metadata_only, shard_bytes)
        if "synthetic" in builder.info.description:
            (output_dir / SYNTHETIC_MARKER).touch()
        with whole_file(output_dir / CARD) as unfinished:  # last: a folder without a card is no export
            card(splits, builder.info.description, metadata_only, builder.config.listing.is_irmas).save(unfinished)
    except OSError as error:
        raise UserError(f"The export into {output_dir} broke off: {error}.") from error
    return {name: len(split) for name, split in splits.items()}


def validation_first(train: Dataset) -> Dataset:
    """Put the recordings first that `load_irmas` holds out unless told otherwise: who streams then finds them together."""
    groups = merge_groups(train["recording"][:], train["md5"][:])
    held_out = hold_out(groups, train["instruments"][:], fraction=0.15, seed=0)
    return train.select(sorted(range(len(train)), key=lambda i: not held_out[i]))


def _is_sound(problem: str | None) -> bool:
    return problem is None


def make_empty(output_dir: Path) -> None:
    """Clear a folder of an earlier export; UserError where it holds anything else."""
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"--output_dir {output_dir} is a file; name a folder for the export.")
    found = (
        {path.relative_to(output_dir).as_posix() for path in output_dir.rglob("*")} if output_dir.exists() else set()
    )
    foreign = sorted(name for name in found if not _is_ours(name))
    if MARKER in foreign:
        raise UserError(
            f"--output_dir {output_dir} is an export that was unpacked to be read: delete it, or name a new folder."
        )
    if foreign:
        raise UserError(f"--output_dir {output_dir} holds {foreign[0]}, which no export writes; name a new folder.")
    (output_dir / CARD).unlink(missing_ok=True)  # first: what is left is no export any more
    for name in found - {"data", CARD}:
        (output_dir / name).unlink()


def _is_ours(name: str) -> bool:
    is_shard = name.startswith(("data/train-", "data/test-")) and name.endswith((".parquet", ".unfinished"))
    return is_shard or name in ("data", CARD, f"{CARD}.unfinished", SYNTHETIC_MARKER)


def write_shards(
    split: Dataset, names: dict[str, str], folder: Path, name: str, metadata_only: bool, shard_bytes: int = SHARD_BYTES
) -> list[Path]:
    """Write one split as `name-00000-of-N.parquet`, ...; a shard ends before its audio exceeds `shard_bytes`.

    names: path on disk -> the path that is written. A single file may be larger than a shard.
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
    """Yield rows as they are exported, in groups of up to `most_bytes` of audio, and the bytes of each group."""
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


def card(splits: dict[str, Dataset], name: str, metadata_only: bool, is_irmas: bool) -> DatasetCard:
    """Return the data card: YAML with `configs` for the Hub, and counts, columns, source and licence for people."""
    clips = sum(map(len, splits.values()))
    size = next(
        (words for most, words in ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K")) if clips < most),
        "100K<n<1M",
    )
    data = DatasetCardData(
        pretty_name=name + (" (labels only)" if metadata_only else ""),
        license="cc-by-nc-sa-3.0" if is_irmas else None,
        task_categories=["audio-classification"],
        size_categories=[size],
        tags=["music", "instrument-recognition", *(["irmas"] if is_irmas else [])],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits],
            }
        ],
    )
    return DatasetCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(_card_text(splits, name, metadata_only, is_irmas)))


def _card_text(splits: dict[str, Dataset], name: str, metadata_only: bool, is_irmas: bool) -> list[str]:
    codes = next(iter(splits.values())).features["instruments"].feature.names
    hours = {split: sum(rows["duration"][:]) / 3600 for split, rows in splits.items()}
    held = (
        "labels, recordings, songs, checksums and durations, without the audio" if metadata_only else "audio and labels"
    )
    lines = [
        f"# {name}",
        "",
        f"Instrument recognition: {held}.",
        "",
        "| split | clips | recordings | songs | hours |",
        "|---|---|---|---|---|",
    ]
    for split, rows in splits.items():
        recordings, songs = (len(set(rows[column][:]) - {None}) for column in ("recording", "song"))
        lines.append(f"| {split} | {len(rows):,} | {recordings or '-'} | {songs or '-'} | {hours[split]:.2f} |")
    lines += ["", "## Classes", "", f"| class | {' | '.join(splits)} |", "|---|" + "---|" * len(splits)]
    counts = {
        split: Counter(label for labels in rows["instruments"][:] for label in labels) for split, rows in splits.items()
    }
    for label, code in enumerate(codes):
        words = code if readable_name(code) == code else f"{code} ({readable_name(code)})"
        lines.append(f"| {words} | " + " | ".join(f"{counts[split][label]:,}" for split in splits) + " |")
    lines += [
        "",
        "A clip with several labels counts for each. Training clips lie in random order, so that a stream mixes the classes.",
        "",
        "## Columns",
        "",
    ]
    if not metadata_only:
        lines += [
            "- `audio`: the file, byte for byte. With `torchcodec` installed it decodes itself; without it, read the bytes:",
            '  `soundfile.read(io.BytesIO(row["audio"]["bytes"]))` after `dataset.cast_column("audio", Audio(decode=False))`.',
        ]
    lines += [
        "- `path`: of the file as published, or in the original folder. `md5`: of its bytes. `duration`: in seconds.",
        "- `instruments`: the labels, a list of class ids.",
        "- `recording`, `song`: clips with the same one belong on the same side of any split.",
        f"- `genre` ({', '.join(f'{code}: {words}' for code, words in GENRES.items())}) and `drums`: what the file's name says.",
    ]
    if is_irmas:
        lines += [
            "", "## Source and licence", "",
            "IRMAS, Bosch, Janer, Fuhrmann and Herrera (ISMIR 2012), https://doi.org/10.5281/zenodo.1290750, CC BY-NC-SA 3.0.",
            "Its authors also say that the audio may not be redistributed or modified"
            + (": this set holds none." if metadata_only else ": keep this repository private unless you may publish it."),
        ]  # fmt: skip
    elif "synthetic" in name:
        lines += [
            "",
            "## Source",
            "",
            "Synthesised music in the shape of IRMAS: figures measured on it say nothing about real music.",
        ]
    return [*lines, ""]


def push(output_dir: str | Path, repo_id: str, *, public: bool = False, token: str | None = None) -> str:
    """Upload an export as a dataset repository and return its address; private unless `public`.

    Raises UserError as `upload_folder` does.
    """
    repo_id = upload_folder(
        Path(output_dir),
        repo_id,
        repo_type="dataset",
        private=not public,
        token=token,
        allow_patterns=["data/*.parquet", CARD, SYNTHETIC_MARKER],
        delete_patterns=["data/*.parquet"],  # of an earlier export with other shards
        commit_message="Upload the dataset",
    )
    return f"https://huggingface.co/datasets/{repo_id}"
