"""The data card of an export: YAML for the Hub and `load_dataset`, counts and columns for people."""

from collections import Counter
from pathlib import Path

from datasets import Dataset
from huggingface_hub import DatasetCard, DatasetCardData

from irmas_dataset.export.layout import shard_pattern
from irmas_dataset.labels import GENRES, readable_name

TEMPLATE = Path(__file__).with_name("card.md.jinja")
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""Number of clips that a size category ends at -> the Hub's name of it."""


def data_card(
    splits: dict[str, Dataset], name: str, *, metadata_only: bool, is_irmas: bool, is_synthetic: bool
) -> DatasetCard:
    """Return the data card of an export.

    splits: the exported clips of each split, with the columns of `layout.COLUMNS`.
    name: what the data is; it becomes the heading.
    metadata_only: whether the tables have no audio.
    is_irmas: whether the clips are IRMAS's own, which adds its source and licence.
    is_synthetic: whether a program played the music, which the card says.
    """
    clips = sum(map(len, splits.values()))
    data = DatasetCardData(
        pretty_name=name + (" (labels only)" if metadata_only else ""),
        license="cc-by-nc-sa-3.0" if is_irmas else None,
        task_categories=["audio-classification"],
        size_categories=[next((size for most, size in SIZES if clips < most), "1M<n<10M")],
        tags=["music", "instrument-recognition", *(["irmas"] if is_irmas else [])],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": shard_pattern(split)} for split in splits],
            }
        ],
    )
    return DatasetCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=name,
        splits=[split_facts(split, rows) for split, rows in splits.items()],
        classes=class_counts(splits),
        has_unknown=any("unknown" in rows.features for rows in splits.values()),
        genres="; ".join(f"{code}: {words}" for code, words in GENRES.items()),
        metadata_only=metadata_only,
        is_irmas=is_irmas,
        is_synthetic=is_synthetic,
    )


def split_facts(split: str, rows: Dataset) -> dict[str, str | int | float]:
    """Return a split's name, clips, recordings, songs and hours."""
    recordings, songs = (len(set(rows[column][:]) - {None}) for column in ("recording", "song"))
    hours = sum(rows["duration"][:]) / 3600
    return {"split": split, "clips": len(rows), "recordings": recordings, "songs": songs, "hours": hours}


def class_counts(splits: dict[str, Dataset]) -> list[tuple[str, list[int]]]:
    """Return the code and name of each class, and its number of clips in each split."""
    counts = [Counter(label for labels in rows["instruments"][:] for label in labels) for rows in splits.values()]
    codes = next(iter(splits.values())).features["instruments"].feature.names
    return [
        (code if readable_name(code) == code else f"{code} ({readable_name(code)})", [found[label] for found in counts])
        for label, code in enumerate(codes)
    ]
