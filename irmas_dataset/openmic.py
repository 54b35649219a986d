"""OpenMIC-2018: 20,000 clips of 10 s from the Free Music Archive, of which each was judged for some of 20 instruments.

Humphrey, Durand and McFee, "OpenMIC-2018: an open dataset for multiple instrument recognition", ISMIR 2018;
https://zenodo.org/records/1432913, CC BY 4.0, with a licence of its own for each clip in openmic-2018-metadata.csv.
"""

import csv
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np

from irmas_dataset.errors import UserError
from irmas_dataset.files import SYNTHETIC_MARKER, Clip, Listing, to_text, warn_of

LABELS = "openmic-2018.npz"
TITLE = "OpenMIC-2018"
CLIPS = 20_000
PRESENT = 0.5
"""From this relevance on, a judged class is present, as in the authors' own example of training and evaluation."""
PARTITIONS = {split: f"partitions/split01_{split}.csv" for split in ("train", "test")}
"""Of the record; artists are on one side only, its authors say. Each line is a sample_key."""
CLASSES = (
    "accordion", "banjo", "bass", "cello", "clarinet", "cymbals", "drums", "flute", "guitar", "mallet_percussion", "mandolin",
    "organ", "piano", "saxophone", "synthesizer", "trombone", "trumpet", "ukulele", "violin", "voice",
)  # fmt: skip
"""In the order of class-map.json, which is what counts."""
SAFE_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"), ("numpy", "ndarray"),
    ("numpy", "dtype"),
}  # fmt: skip


def list_openmic(data_dir: str | Path) -> Listing | None:
    """List the clips of OpenMIC-2018 in its published layout, at `data_dir` or in a folder of it; None for other data.

    A class is present where `Y_true` is at least PRESENT, absent where it is less, and unknown where `Y_mask` is false.
    The recording, which validation clips are held out by, is the artist as far as the metadata name one, as in the
    official split; the song is the track.
    Raises UserError for labels, a class map or partitions that are missing, damaged or contradict each other.
    """
    root = Path(os.path.abspath(data_dir))
    home = next((folder for folder in (root, root / "openmic-2018") if (folder / LABELS).is_file()), None)
    if home is None:
        return None
    classes = read_class_map(home / "class-map.json")
    relevance, judged, keys = read_labels(home / LABELS, len(classes))
    row_of = {key: row for row, key in enumerate(keys)}
    artists = read_artists(home / "openmic-2018-metadata.csv")
    clips, missing = [], []
    for split, partition in PARTITIONS.items():
        for key in read_partition(home / partition):
            if key not in row_of:
                raise UserError(
                    f"{home / partition} names {key}, which {LABELS} does not have: extract the archive again."
                )
            row, track = row_of[key], key.split("_")[0]
            path = home / "audio" / key[:3] / f"{key}.ogg"
            if not path.is_file():
                missing.append(str(path))
                continue
            present = judged[row] & (relevance[row] >= PRESENT)
            clips.append(
                Clip(
                    path=str(path),
                    name=to_text(path.relative_to(root).as_posix()),
                    split=split,
                    instruments=tuple(classes[i] for i in np.flatnonzero(present)),
                    recording=f"artist {artists[key]}" if key in artists else f"track {track}",
                    song=f"track {track}",
                    unknown=tuple(classes[i] for i in np.flatnonzero(~judged[row])),
                )
            )
    return openmic_listing(root, home, classes, clips, missing)


def openmic_listing(root: Path, home: Path, classes: tuple[str, ...], clips: list[Clip], missing: list[str]) -> Listing:
    """Return the listing, whose title says whether the clips are OpenMIC-2018, a part of it, or made ones."""
    warnings: list[str] = []
    warn_of(warnings, missing, "is missing and will be skipped", "are missing and will be skipped")
    if (home / SYNTHETIC_MARKER).exists():
        return Listing("synthetic, OpenMIC-shaped", root, classes, clips, warnings, is_synthetic=True)
    if len(clips) == CLIPS:
        return Listing(TITLE, root, classes, clips, warnings)
    counts = f"{len(clips):,} of {CLIPS:,} clips"
    warnings.insert(
        0, f"OpenMIC-2018 in {home} is incomplete: it has {counts}, so figures cannot be compared with published ones."
    )
    return Listing(f"incomplete {TITLE} ({counts})", root, classes, clips, warnings)


def read_labels(path: Path, num_classes: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return relevances (clips, classes), whether each was judged (bool, the same shape), and the clips' keys.

    Raises UserError for a file that is damaged or of other shapes.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            relevance, judged = np.asarray(arrays["Y_true"], dtype=float), np.asarray(arrays["Y_mask"], dtype=bool)
        keys = read_keys(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is damaged ({error}): extract the archive again.") from error
    if not relevance.shape == judged.shape == (len(keys), num_classes):
        raise UserError(
            f"{path} has labels of shape {relevance.shape}, a mask of {judged.shape} and {len(keys)} keys, which do not fit "
            f"the {num_classes} classes of class-map.json: extract the archive again."
        )
    return relevance, judged, keys


def read_keys(path: Path) -> list[str]:
    """Return `sample_key`, which the published file keeps as a pickled array of text, without running code from it."""
    with zipfile.ZipFile(path) as archive, archive.open("sample_key.npy") as file:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        *_, kind = read_header[version](file)
        keys = ArrayOfText(file).load() if kind.hasobject else np.frombuffer(file.read(), dtype=kind)
    return [key.decode() if isinstance(key, bytes) else str(key) for key in keys.tolist()]


class ArrayOfText(pickle.Unpickler):
    """Loads arrays of Python's own text and nothing else."""

    def find_class(self, module: str, name: str) -> object:
        """Return what builds an array; anything else is refused."""
        if (module, name) not in SAFE_GLOBALS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of an array of text")
        return super().find_class(module, name)


def read_class_map(path: Path) -> tuple[str, ...]:
    """Return the classes in the order of the labels' columns."""
    try:
        columns = json.loads(path.read_text(encoding="utf-8"))
        classes = tuple(sorted(columns, key=columns.get))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({error}): extract the archive again.") from error
    if sorted(columns.values()) != list(range(len(columns))):
        raise UserError(f"{path} does not number its classes from 0: extract the archive again.")
    return classes


def read_partition(path: Path) -> list[str]:
    """Return the keys of one side of the official split."""
    try:
        return path.read_text(encoding="utf-8").split()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): extract the archive again.") from error


def read_artists(path: Path) -> dict[str, str]:
    """Return the artist of each key, as far as the metadata are there and name one."""
    if not path.is_file():
        return {}
    with open(path, encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines)
        return {row["sample_key"]: row["artist_id"] for row in rows if row.get("sample_key") and row.get("artist_id")}
