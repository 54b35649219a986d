"""Cutting segments out of files as they were recorded, and the folder and the table that they go into."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from irmas_dataset.decoding import read_frames, to_int16
from irmas_dataset.files import to_text
from irmas_dataset.label_text import folder_name, normalised, safe_name
from irmas_dataset.own_folder import recording_of_segment, segment_name
from irmas_dataset.write_audio import write_audio
from irmas_recipe.commands.predict.table import csv_line
from irmas_recipe.commands.segments.choice import Segment

COLUMNS = [
    "path", "label", "other_labels", "recording", "source", "start_seconds", "end_seconds", "score", "threshold", "margin",
]  # fmt: skip
LONGEST_RECORDING = 200  # bytes; leaves room for when a segment begins
FLAC_CHANNELS, FLAC_RATE = 8, 655_350  # the most that a flac file can have


def recordings_of(files: list[Path]) -> dict[Path, str]:
    """Return each file's recording for the names of its segments: the file's name without the suffix.

    A digest of the path tells apart files of one name; so it does where the name is too long.
    """
    stems = {file: safe_name(normalised(to_text(file.stem))) or "recording" for file in files}
    times = Counter(stem.casefold() for stem in stems.values())
    for file, stem in stems.items():
        if times[stem.casefold()] > 1 or len(stem.encode()) > LONGEST_RECORDING:
            digest = hashlib.sha256(os.fsencode(os.path.abspath(file))).hexdigest()[:8]
            stems[file] = f"{stem.encode()[:LONGEST_RECORDING].decode('utf-8', 'ignore')}-{digest}"
    return stems


def write_segments(segments: list[Segment], recording: str, folder: Path) -> dict[Segment, list]:
    """Write a file's segments as `train/<class>/<recording>__<start>s.flac`; return the row of the table of each.

    Raises:
        ValueError: the file cannot be read to the end of its last segment, in one sentence; nothing is written then.
    """
    rows = {}
    for segment, rate, samples in list(cut(segments)):
        in_flac = samples.shape[1] <= FLAC_CHANNELS and rate <= FLAC_RATE
        name = segment_name(recording, segment.start_seconds) + (".flac" if in_flac else ".wav")
        path = folder / "train" / folder_name(segment.label) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_audio(path, samples, rate)
        numbers = [round(segment.start_seconds, 3), round(segment.end_seconds, 3)]
        numbers += [round(value, 6) for value in (segment.score, segment.threshold, segment.margin)]
        names = [segment.label, list(segment.others), recording_of_segment(name), to_text(segment.file)]
        rows[segment] = [path.relative_to(folder).as_posix(), *names, *numbers]
    return rows


def cut(segments: list[Segment]) -> Iterator[tuple[Segment, int, np.ndarray]]:
    """Yield segments of one file with its rate and their samples as recorded, int16 (samples, channels)."""
    file, position, parts = segments[0].file, 0, {segment: [] for segment in segments}
    try:
        rate, blocks = read_frames(os.fspath(file))
        for block in blocks:
            for segment, of_segment in parts.items():
                start, stop = (round(edge * rate) - position for edge in (segment.start_seconds, segment.end_seconds))
                if stop > 0 and start < len(block):
                    of_segment.append(to_int16(block[max(start, 0) : stop]))
            position += len(block)
            if position >= max(segment.end_seconds for segment in segments) * rate:
                break
    except ValueError as error:
        raise ValueError(f"{to_text(file)} {error}.") from error
    for segment, of_segment in parts.items():
        if not of_segment:
            raise ValueError(f"{to_text(file)} has become shorter while it was listened to.")
        yield segment, rate, np.concatenate(of_segment)


def write_table(rows: list[list], file: Path) -> None:
    """Write the table of segments."""
    file.write_text("".join(map(csv_line, [COLUMNS, *rows])), encoding="utf-8", newline="")
