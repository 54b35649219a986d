"""IRMAS, or a folder of your own, as a `datasets` builder: one row per clip, everything except the samples.

Each file is read once, for its MD5 and duration; `datasets` caches the table until a file changes.
"""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import datasets
from datasets import ClassLabel, Features, List, Value

from irmas_dataset.cores import usable_cores
from irmas_dataset.decoding import Mono, open_file, read_frames
from irmas_dataset.errors import UserError
from irmas_dataset.export.layout import check_no_pattern, is_exported
from irmas_dataset.export.unpack import list_unpacked
from irmas_dataset.files import Clip, Listing, list_irmas, to_text
from irmas_dataset.forms.flags import Columns
from irmas_dataset.forms.form import has_form, is_remote
from irmas_dataset.forms.listing import list_form
from irmas_dataset.openmic import TITLE as OPENMIC
from irmas_dataset.openmic import list_openmic
from irmas_dataset.own_folder import list_own_folder

BUILDER_VERSION = "1.1.0"
"""Increased whenever the builder writes different rows than before, so that older caches are not read."""

ANY_COLUMNS = Columns()
"""No flag is set: everything is guessed."""

_CITATION = """@inproceedings{bosch2012irmas,
  title={A Comparison of Sound Segregation Techniques for Predominant Instrument Recognition in Musical Audio Signals},
  author={Bosch, Juan J. and Janer, Jordi and Fuhrmann, Ferdinand and Herrera, Perfecto},
  booktitle={Proc. of the International Society for Music Information Retrieval Conference (ISMIR)},
  year={2012}
}"""


def list_clips(
    data_dir: str | Path,
    recording_pattern: str | None = None,
    columns: Columns = ANY_COLUMNS,
    cache_dir: str | Path | None = None,
) -> Listing:
    """List the clips of a data set: IRMAS's layout, OpenMIC's, a folder of your own, or one of the Hub's forms.

    Raises UserError for a folder that has none of them.
    """
    if is_remote(data_dir):
        return list_form(data_dir, columns, recording_pattern, cache_dir)
    if not Path(data_dir).is_dir():
        raise UserError(
            f"--data_dir {data_dir} is not a folder: give the folder that contains IRMAS or your own train/<class>/."
        )
    if is_exported(data_dir) and not columns.are_given:
        check_no_pattern(data_dir, recording_pattern)
        return list_unpacked(data_dir)
    listing = None if is_exported(data_dir) else list_irmas(data_dir) or list_openmic(data_dir)
    has_table = (Path(data_dir) / "labels.csv").is_file()
    is_form = (columns.are_given or not (listing or has_table)) and has_form(Path(data_dir))
    useless = columns.given if has_table and not is_form else []
    useless = [*columns.given, *["recording_pattern"] * bool(recording_pattern)] if listing else useless
    if useless:
        raise UserError(
            f"--{useless[0]} is of no use for IRMAS, OpenMIC-2018 and a labels.csv, which have names of their own for columns, "
            f"splits and recordings, as in {data_dir}: leave it out."
        )
    if listing is None and (columns.are_given or is_form):
        listing = list_form(data_dir, columns, recording_pattern, cache_dir)
    listing = listing or list_own_folder(data_dir, recording_pattern)
    if listing is None:
        raise UserError(
            f"{data_dir} has no IRMAS-TrainingData, IRMAS-TestingData-Part1..3, train/<class>/, labels.csv, metadata.csv or "
            f"Parquet tables: give another --data_dir, or run `irmas download --data_dir {data_dir}`."
        )
    if not listing.clips:
        raise UserError(
            f"{data_dir} has no audio files in its class folders: add .wav files or give another --data_dir."
        )
    return listing


@dataclass
class IrmasConfig(datasets.BuilderConfig):
    """Where the clips are, and how the recording is read from the file names of your own folder."""

    recording_pattern: str | None = None
    columns: Columns = ANY_COLUMNS
    files_dir: str | None = None  # of files that are taken out of tables; None is the default cache

    def create_config_id(self, config_kwargs: dict, custom_features: Features | None = None) -> str:
        """Name the cache by the path, size and modification time of every file, so that a changed folder is read again."""
        self.listing = list_clips(self.data_dir, self.recording_pattern, self.columns, self.files_dir)
        facts = hashlib.sha256(f"{self.listing.title} {self.listing.classes}".encode())
        for clip in self.listing.clips:
            facts.update(f"{clip!r} {_size_and_time(clip.path)}\n".encode(errors="backslashreplace"))
        return f"{self.name}-{facts.hexdigest()[:16]}"


def _size_and_time(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:  # a broken link; the builder lists it as damaged
        return None
    return status.st_size, status.st_mtime_ns


class Irmas(datasets.GeneratorBasedBuilder):
    """Builds the splits `train` and `test` from `data_dir`; `load_irmas` adds the validation split.

    Use it as a class, `Irmas(data_dir=...)`: `datasets` no longer runs loading scripts.
    """

    BUILDER_CONFIG_CLASS = IrmasConfig
    VERSION = datasets.Version(BUILDER_VERSION)

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **{"dataset_name": "irmas", **kwargs})

    def _info(self) -> datasets.DatasetInfo:
        labels = List(ClassLabel(names=list(self.config.listing.classes)))
        features = Features(
            {
                "path": Value("string"),
                "instruments": labels,
                "recording": Value("string"),
                "song": Value("string"),
                "genre": Value("string"),
                "drums": Value("string"),
                "duration": Value("float32"),
                "md5": Value("string"),
                "problem": Value("string"),
                "cancelled": Value("bool"),
            }
        )
        if self.config.listing.is_partly_known:
            features["unknown"] = labels
        info = datasets.DatasetInfo(description=self.config.listing.title, features=features)
        if self.config.listing.is_irmas:
            info.homepage = "https://doi.org/10.5281/zenodo.1290750"
            info.license = "CC BY-NC-SA 3.0"
            info.citation = _CITATION
        if self.config.listing.title == OPENMIC:
            info.homepage, info.license = "https://doi.org/10.5281/zenodo.1432913", "CC BY 4.0"
        return info

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        clips = self.config.listing.clips
        splits = {split: [clip for clip in clips if clip.split == split] for split in ("train", "test")}
        return [datasets.SplitGenerator(split, {"clips": found}) for split, found in splits.items() if found]

    def _generate_examples(self, clips: list[Clip]) -> Iterator[tuple[int, dict]]:
        with ThreadPoolExecutor(min(8, usable_cores())) as threads:
            for key, (clip, facts) in enumerate(
                zip(clips, threads.map(read_facts, (clip.path for clip in clips)), strict=True)
            ):
                names = {"recording": clip.recording, "song": clip.song, "genre": clip.genre, "drums": clip.drums}
                if self.config.listing.is_partly_known:
                    names["unknown"] = list(clip.unknown)
                yield key, {"path": to_text(clip.path), "instruments": list(clip.instruments), **names, **facts}


def read_facts(path: str) -> dict:
    """Read a file's bytes once; return its md5, its duration in seconds, and what is wrong with it.

    problem: why it cannot be read, None if it can; cancelled: whether its channels cancel each other out.
    """
    facts = {"md5": None, "duration": 0.0, "problem": None, "cancelled": False}
    try:
        with open_file(path) as file:
            content = file.read()
        facts["md5"] = hashlib.md5(content, usedforsecurity=False).hexdigest()
        rate, blocks = read_frames(content)
        mono = Mono(blocks)
        facts["duration"] = sum(map(len, mono)) / rate  # all are read: files may be cut short, and floats NaN
        facts["cancelled"] = mono.is_cancelled
    except OSError as error:
        facts["problem"] = f"cannot be read as audio ({error.strerror})"
    except ValueError as error:
        facts["problem"] = str(error)
    except Exception as error:  # whatever a file does to a decoder must cost only that file
        facts["problem"] = f"cannot be read as audio ({type(error).__name__}: {error})"
    return facts
