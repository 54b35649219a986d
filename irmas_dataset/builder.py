"""IRMAS, or a folder of one's own, as a `datasets` builder: one row a clip, everything but the samples.

Each file is read once, for its md5 and duration; `datasets` keeps the table until a file changes.
"""

import hashlib
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import datasets
import soundfile
from datasets import ClassLabel, Features, List, Value

from irmas_dataset.audio import read_mono, reason, refuse_no_file, usable_cores
from irmas_dataset.errors import UserError
from irmas_dataset.files import Clip, Listing, list_irmas, to_text
from irmas_dataset.own_folder import list_own_folder

BUILDER_VERSION = "1.0.0"
"""Counted up whenever the builder writes other rows than before, so that caches made earlier are not read."""

_CITATION = """@inproceedings{bosch2012irmas,
  title={A Comparison of Sound Segregation Techniques for Predominant Instrument Recognition in Musical Audio Signals},
  author={Bosch, Juan J. and Janer, Jordi and Fuhrmann, Ferdinand and Herrera, Perfecto},
  booktitle={Proc. of the International Society for Music Information Retrieval Conference (ISMIR)},
  year={2012}
}"""


def list_clips(data_dir: str | Path, recording_pattern: str | None = None) -> Listing:
    """List the clips of a data folder: IRMAS's layout, or `train/<class>/` or labels.csv of one's own.

    Raises UserError for a folder that is neither.
    """
    if not Path(data_dir).is_dir():
        raise UserError(
            f"--data_dir {data_dir} is no folder: give the folder that holds IRMAS or your own train/<class>/."
        )
    listing = list_irmas(data_dir) or list_own_folder(data_dir, recording_pattern)
    if listing is None:
        raise UserError(
            f"{data_dir} holds neither IRMAS-TrainingData or IRMAS-TestingData-Part1..3 nor train/<class>/ or labels.csv: "
            f"give another --data_dir, or run `python run_irmas.py download --data_dir {data_dir}`."
        )
    if not listing.clips:
        raise UserError(f"{data_dir} holds no audio in its class folders: add .wav files or give another --data_dir.")
    return listing


@dataclass
class IrmasConfig(datasets.BuilderConfig):
    """Where the clips are, and how the recording is read from a file name of one's own."""

    recording_pattern: str | None = None

    def create_config_id(self, config_kwargs: dict, custom_features: Features | None = None) -> str:
        """Name the cache by every file's path, size and time of change, so that a changed folder is read again."""
        self.listing = list_clips(self.data_dir, self.recording_pattern)
        facts = hashlib.sha256(f"{self.listing.title} {self.listing.classes}".encode())
        for clip in self.listing.clips:
            facts.update(f"{clip!r} {_size_and_time(clip.path)}\n".encode(errors="backslashreplace"))
        return f"{self.name}-{facts.hexdigest()[:16]}"


def _size_and_time(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:  # a link to nowhere; the builder names it as damaged
        return None
    return status.st_size, status.st_mtime_ns


class Irmas(datasets.GeneratorBasedBuilder):
    """Builds splits `train` and `test` from `data_dir`; `load_irmas` adds the validation split.

    Imported as a module (`Irmas(data_dir=...)`), never a loading script.
    """

    BUILDER_CONFIG_CLASS = IrmasConfig
    VERSION = datasets.Version(BUILDER_VERSION)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{"dataset_name": "irmas", **kwargs})

    def _info(self) -> datasets.DatasetInfo:
        features = Features(
            {
                "path": Value("string"),
                "instruments": List(ClassLabel(names=list(self.config.listing.classes))),
                "recording": Value("string"),
                "song": Value("string"),
                "genre": Value("string"),
                "drums": Value("string"),
                "duration": Value("float32"),
                "md5": Value("string"),
                "problem": Value("string"),
            }
        )
        info = datasets.DatasetInfo(description=self.config.listing.title, features=features)
        if self.config.listing.is_irmas:
            info.homepage = "https://doi.org/10.5281/zenodo.1290750"
            info.license = "CC BY-NC-SA 3.0"
            info.citation = _CITATION
        return info

    def _split_generators(self, dl_manager) -> list[datasets.SplitGenerator]:
        clips = self.config.listing.clips
        splits = {split: [clip for clip in clips if clip.split == split] for split in ("train", "test")}
        return [datasets.SplitGenerator(split, {"clips": found}) for split, found in splits.items() if found]

    def _generate_examples(self, clips: list[Clip]) -> Iterator[tuple[int, dict]]:
        with ThreadPoolExecutor(min(8, usable_cores())) as threads:
            for key, (clip, facts) in enumerate(zip(clips, threads.map(read_facts, clips), strict=True)):
                names = {"recording": clip.recording, "song": clip.song, "genre": clip.genre, "drums": clip.drums}
                yield key, {"path": to_text(clip.path), "instruments": list(clip.instruments), **names, **facts}


def read_facts(clip: Clip) -> dict:
    """Read a clip's bytes once: its md5, its duration in seconds, and what is wrong with it (None if nothing)."""
    facts = {"md5": None, "duration": 0.0, "problem": None}
    try:
        refuse_no_file(clip.path)
        content = Path(clip.path).read_bytes()
        facts["md5"] = hashlib.md5(content, usedforsecurity=False).hexdigest()
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            facts["duration"] = file.frames / file.samplerate
            is_plain = file.format.startswith("WAV") and file.subtype.startswith("PCM")
            if not is_plain or file.frames == 0:  # compressed files break off, floating ones hold NaN: read to the end
                facts["duration"] = len(read_mono(file)) / file.samplerate
    except (soundfile.LibsndfileError, OSError, ValueError) as error:
        facts["problem"] = reason(error)
    return facts
