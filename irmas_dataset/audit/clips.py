"""The table that the whole audit works on: one row per clip, with the facts of its file and of its samples."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset, Features, List, Value, concatenate_datasets
from datasets.fingerprint import Hasher

from irmas_dataset import decoding
from irmas_dataset.audio import resample
from irmas_dataset.audit.fingerprint import RATE, fingerprint
from irmas_dataset.audit.levels import SILENT_PEAK_DB, measure_levels
from irmas_dataset.audit.timbre import timbre
from irmas_dataset.builder import ANY_COLUMNS
from irmas_dataset.cores import usable_cores
from irmas_dataset.errors import UserError
from irmas_dataset.files import from_text, to_text
from irmas_dataset.forms.flags import Columns
from irmas_dataset.loading import load_irmas, open_builder

AUDIT_VERSION = 2
"""Increased whenever a measurement changes, so that older caches are not read."""

TRAINING_SPLITS = ("train", "validation")
USED_SPLITS = (*TRAINING_SPLITS, "test")  # by a run
SPLITS = (*USED_SPLITS, "left out", "damaged")
CLIPPED_SAMPLES = 10  # fewer are inaudible
UPSAMPLED_SHARE = 0.65  # of half the sampling rate: a lower cutoff means a lower original rate; codecs cut off higher

_LEVELS = ("peak_db", "rms_db", "clipped_samples", "silent_share", "same_channels", "bandwidth_hz", "bandwidth_edge_db")


@dataclass
class Clips:
    """All clips of a folder: `table` (one row per clip), `fingerprints` and `timbres` in the same order, and the classes.

    The table's columns: path (relative to `root`), split (one of SPLITS), instruments and unknown (tuples of codes), recording,
    song, genre, drums, duration (seconds), md5, problem, sampling_rate (Hz), channels, those of `measure_levels`, and
    the verdicts silent, cancelled, clipped, mono, upsampled (bool).
    """

    name: str
    root: Path
    classes: list[str]
    table: pd.DataFrame
    fingerprints: list[np.ndarray]
    timbres: np.ndarray

    def file(self, row: int) -> str:
        """Return the path of the file of a row."""
        return str(self.root / from_text(self.table["path"][row]))

    @property
    def is_training(self) -> pd.Series:
        """Whether each clip is in the training or validation split, (clips,) bool."""
        return self.table["split"].isin(TRAINING_SPLITS)


def read_clips(
    data_dir: str | Path,
    *,
    validation_fraction: float = 0.15,
    seed: int = 0,
    recording_pattern: str | None = None,
    columns: Columns = ANY_COLUMNS,
    cache_dir: str | Path | None = None,
    num_proc: int | None = None,
) -> Clips:
    """Read and measure every clip of a data folder; files unchanged since an earlier audit are not read again.

    The arguments are those of `load_irmas`: the splits are the ones that a run with them uses. num_proc: number of
    processes (default: one per core, fewer for small folders). Raises UserError for a folder that cannot be used.
    """
    options = {"recording_pattern": recording_pattern, "columns": columns, "cache_dir": cache_dir}
    splits = load_irmas(data_dir, validation_fraction=validation_fraction, seed=seed, **options)
    split_of = {path: name for name, split in splits.items() for path in split["path"][:]}
    builder = open_builder(data_dir, **options)
    root = builder.config.listing.root
    rows = concatenate_datasets(list(builder.as_dataset().values()))
    measured = measure(rows, num_proc).with_format("numpy")

    table = rows.to_pandas()
    for name in ("sampling_rate", "channels", *_LEVELS):
        table[name] = measured[name][:]
    classes = rows.features["instruments"].feature.names
    table["instruments"] = [tuple(classes[i] for i in labels) for labels in table["instruments"]]
    of_clips = table["unknown"] if "unknown" in table else [()] * len(table)
    table["unknown"] = [tuple(classes[i] for i in labels) for labels in of_clips]
    readable = table["problem"].isna()
    table["split"] = [split_of.get(path, "left out") for path in table["path"]]
    table.loc[~readable, "split"] = "damaged"
    table["path"] = [to_text(os.path.relpath(from_text(path), root)).replace(os.sep, "/") for path in table["path"]]
    table["silent"] = readable & (table["peak_db"] < SILENT_PEAK_DB)
    table["cancelled"] &= ~table["silent"]
    table["clipped"] = readable & (table["clipped_samples"] >= CLIPPED_SAMPLES)
    table["mono"] = readable & ~table["silent"] & ((table["channels"] == 1) | (table["same_channels"] == 1))
    cut_off = (table["bandwidth_edge_db"] > 0) & (table["bandwidth_hz"] < UPSAMPLED_SHARE * table["sampling_rate"] / 2)
    table["upsampled"] = readable & ~table["silent"] & cut_off
    fingerprints = [np.asarray(hashes, dtype=np.uint32) for hashes in measured["fingerprint"][:]]
    timbres = np.stack(list(measured["timbre"][:])).astype(np.float32)
    return Clips(splits["test"].info.description, root, classes, table, fingerprints, timbres)


def measure(rows: Dataset, num_proc: int | None = None) -> Dataset:
    """Return one row of measurements per clip; `datasets` caches them under the fingerprint of the rows."""
    features = Features(
        {name: Value("float32") for name in _LEVELS}
        | {"sampling_rate": Value("int32"), "channels": Value("int32")}
        | {"fingerprint": List(Value("uint32")), "timbre": List(Value("float32"))}
    )
    if num_proc is None:
        num_proc = min(usable_cores(), max(1, len(rows) // 32))
    return rows.select_columns(["path", "problem"]).map(
        _measure_row,
        remove_columns=["path", "problem"],
        features=features,
        num_proc=num_proc if num_proc > 1 else None,
        new_fingerprint=Hasher.hash([rows._fingerprint, "audit", AUDIT_VERSION]),
        desc="Measuring clips",
    )


def _measure_row(row: dict) -> dict:
    if row["problem"]:
        frames, sampling_rate = np.zeros((1, 1), dtype=np.float32), 1
        return {
            **{name: 0.0 for name in _LEVELS},
            "sampling_rate": 0,
            "channels": 0,
            "fingerprint": fingerprint(frames[:, 0]),
            "timbre": timbre(np.zeros(RATE, dtype=np.float32), RATE),
        }
    frames, sampling_rate = read_frames(row["path"])
    waveform = frames.mean(axis=1)
    return {
        **measure_levels(frames, sampling_rate),
        "sampling_rate": sampling_rate,
        "channels": frames.shape[1],
        "fingerprint": fingerprint(resample(waveform, sampling_rate, RATE)),
        "timbre": timbre(waveform, sampling_rate),
    }


def read_frames(path: str) -> tuple[np.ndarray, int]:
    """Return a file's audio, float32 (samples, channels), and its sampling rate; raises UserError if it is unreadable."""
    try:
        rate, blocks = decoding.read_frames(from_text(path))
        return np.concatenate(list(blocks)), rate
    except ValueError as error:
        raise UserError(f"{path} {error}: replace or remove it, and run the audit again.") from None
