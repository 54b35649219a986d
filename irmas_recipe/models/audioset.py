"""AudioSet's 527 classes, in the order in which every AudioSet checkpoint scores them, and those that are instruments."""

import csv
from pathlib import Path


def audioset_labels() -> list[tuple[str, str]]:
    """Return (machine id, display name) of AudioSet's 527 classes, e.g. ("/m/09x0r", "Speech") at index 0.

    Source: `class_labels_indices.csv` of the AudioSet release (Google, CC BY 4.0).
    """
    with Path(__file__).with_name("audioset_labels.csv").open(encoding="utf-8", newline="") as file:
        return [(row["mid"], row["display_name"]) for row in csv.DictReader(file)]


def musical_instruments() -> list[str]:
    """Return the display names of "Music > Musical instrument" in AudioSet's ontology, groups and playing techniques included.

    "Cowbell" and "Singing" are elsewhere in the ontology.
    """
    with Path(__file__).with_name("audioset_instruments.csv").open(encoding="utf-8", newline="") as file:
        return [row["display_name"] for row in csv.DictReader(file)]
