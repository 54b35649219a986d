"""A small OpenMIC-2018 of made sounds, in exactly the published layout, to try everything without a download."""

import csv
import json
from pathlib import Path

import numpy as np
import soundfile

from irmas_dataset.errors import UserError
from irmas_dataset.files import SYNTHETIC_MARKER
from irmas_dataset.openmic import CLASSES, LABELS, PARTITIONS

SAMPLE_RATE = 22_050
SECONDS = 10.0
CLIPS_PER_ARTIST = 2
JUDGED_BESIDES = 2  # classes, on average, beside the one that a clip was chosen for: the real one has about two in all


def synthesize_openmic(folder: Path, *, train: int, test: int, seed: int = 0, seconds: float = SECONDS) -> None:
    """Write `train` and `test` clips into `folder`/openmic-2018: audio, labels, class map, metadata and partitions.

    Each class is a tone of its own pitch and spectrum. A clip has one to three of them, and was judged for one of its
    classes or one that it has not, and for some others, as in the real one. Clips come in pairs of one artist.
    Raises UserError for a folder that has anything in it.
    """
    home = Path(folder) / "openmic-2018"
    if home.exists():
        raise UserError(f"{home} is there already: give a new folder for the synthetic OpenMIC.")
    rng = np.random.default_rng(seed)
    keys = [f"{number:06d}_{3840 * (number % 5)}" for number in range(train + test)]
    present = np.zeros((len(keys), len(CLASSES)), dtype=bool)
    judged = np.zeros_like(present)
    for row in range(len(keys)):
        first = row % len(CLASSES)
        present[row, [first, *rng.choice(len(CLASSES), rng.integers(0, 3), replace=False)]] = True
        judged[row] = rng.random(len(CLASSES)) < JUDGED_BESIDES / len(CLASSES)
        judged[row, first if row // len(CLASSES) % 2 == 0 else (first + 7) % len(CLASSES)] = True
        write_clip(home / "audio" / keys[row][:3] / f"{keys[row]}.ogg", np.flatnonzero(present[row]), seconds, rng)
    relevance = np.where(
        judged, np.where(present, rng.uniform(0.6, 1, present.shape), rng.uniform(0, 0.4, present.shape)), 0.5
    )
    features = np.zeros((len(keys), 10, 128), dtype=np.int64)  # of VGGish, which nothing here reads
    np.savez(home / LABELS, X=features, Y_true=relevance, Y_mask=judged, sample_key=np.array(keys, dtype=object))
    (home / "class-map.json").write_text(json.dumps({name: column for column, name in enumerate(CLASSES)}))
    (home / "partitions").mkdir()
    for split, of_split in (("train", keys[:train]), ("test", keys[train:])):
        (home / PARTITIONS[split]).write_text("".join(f"{key}\n" for key in of_split))
    with open(home / "openmic-2018-metadata.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["track_id", "artist_id", "sample_key"])
        pairs = [*(row // CLIPS_PER_ARTIST for row in range(train)), *(10**6 + row // 2 for row in range(test))]
        writer.writerows([key.split("_")[0].lstrip("0"), artist, key] for key, artist in zip(keys, pairs, strict=True))
    (home / SYNTHETIC_MARKER).touch()


def write_clip(path: Path, classes: np.ndarray, seconds: float, rng: np.random.Generator) -> None:
    """Write an ogg in which the tones of some classes sound together."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    waveform = 0.01 * rng.standard_normal(len(time))
    for number in classes:
        pitch = 110 * 2 ** (number / 4) * rng.uniform(0.98, 1.02)
        harmonics = range(1, 2 + int(number) % 4)
        waveform += 0.15 * sum(np.sin(2 * np.pi * pitch * k * time + rng.uniform(0, 6)) / k for k in harmonics)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform / max(1.0, np.abs(waveform).max()), SAMPLE_RATE, format="OGG", subtype="VORBIS")
