"""What the start of a streamed run costs for a data set of many clips: seconds until the splits and the first clip, memory.

python -m experiments.streamed_start FOLDER --clips 670500

FOLDER gets Parquet tables of clips of 10 ms, since a start reads labels and places alone, whatever the audio is.
"""

import argparse
import io
import json
import resource
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import soundfile
from datasets import Audio, ClassLabel, Features, List, Value

from irmas_dataset.export.stream import load_streamed
from irmas_recipe.training.streaming import StreamedClips

CLASSES, CLIPS_PER_RECORDING, CLIPS_PER_TABLE, CLIPS_PER_GROUP, RATE, SAMPLES = 11, 3, 6705, 64, 16_000, 160
TEST_CLIPS = 20 * CLASSES


def main() -> None:
    """Write the tables unless they are there, measure a start, and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--clips", type=int, default=670_500, help="training clips (default: 100 times IRMAS's)")
    arguments = parser.parse_args()
    if not arguments.folder.exists():
        write_tables(arguments.folder, arguments.clips)
    print(json.dumps(measure(arguments.folder)))


def write_tables(folder: Path, clips: int) -> None:
    """Write training tables of `clips` clips and one table of test clips."""
    (folder / "data").mkdir(parents=True)
    for number, first in enumerate(range(0, clips, CLIPS_PER_TABLE)):
        write_table(folder / f"data/train-{number:05d}.parquet", range(first, min(first + CLIPS_PER_TABLE, clips)))
    write_table(folder / "data/test-00000.parquet", range(clips, clips + TEST_CLIPS))


def write_table(path: Path, clips: range) -> None:
    """Write one table of silent clips."""
    wav = io.BytesIO()
    soundfile.write(wav, np.zeros(SAMPLES, dtype=np.int16), RATE, format="WAV")
    labels = List(ClassLabel(names=[f"class {number}" for number in range(CLASSES)]))
    features = Features({"audio": Audio(), "instruments": labels, "recording": Value("string")})
    rows = [
        {
            "audio": {"bytes": wav.getvalue(), "path": f"{clip}.wav"},
            "instruments": [clip % CLASSES],
            "recording": f"recording {clip // CLIPS_PER_RECORDING}",
        }
        for clip in clips
    ]
    table = pa.Table.from_pylist(rows, schema=features.arrow_schema)
    pyarrow.parquet.write_table(table, path, row_group_size=CLIPS_PER_GROUP)


def measure(folder: Path) -> dict:
    """Return the counts, seconds and MiB of one start; few clips are held out, since these are fetched."""
    before, start = peak_mib(), time.perf_counter()
    splits = load_streamed(str(folder), validation_fraction=1e-4)
    split_seconds, start = time.perf_counter() - start, time.perf_counter()
    next(iter(StreamedClips(splits["train"], RATE, SAMPLES, batch_size=CLASSES, seed=0)))
    return {
        "clips": splits.num_rows,
        "splits_seconds": round(split_seconds, 1),
        "first_clip_seconds": round(time.perf_counter() - start, 1),
        "libraries_mib": before,
        "peak_mib": peak_mib(),
    }


def peak_mib() -> int:
    """Return the most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
