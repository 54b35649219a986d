"""The clips of a data set in one of the Hub's forms, each as a file: its own on disk, or one taken out of a table."""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
from datasets.fingerprint import Hasher
from filelock import FileLock
from fsspec.core import url_to_fs
from tqdm import tqdm

from irmas_dataset.errors import UserError
from irmas_dataset.export.layout import is_exported
from irmas_dataset.export.tables import TRANSFER_ERRORS, WHOLE_FILE, files_folder, transfer_problem
from irmas_dataset.files import Clip, Listing, to_text, warn_of
from irmas_dataset.forms.columns import without_point
from irmas_dataset.forms.flags import Columns
from irmas_dataset.forms.form import Form, form_title, has_form, is_remote, keeps_files, open_form
from irmas_dataset.label_text import normalised, safe_name
from irmas_dataset.own_folder import recording_of_path
from irmas_dataset.whole_file import whole_file

logger = logging.getLogger(__name__)

MARKER = "TAKEN_FROM"
"""Written last into the folder of the files: what they were taken from."""
FETCHED = "fetched.txt"
"""Beside them: the files that `export.stream` wrote, each with its checksum or the state of the tables."""
LONGEST_END = 200
"""Bytes of a name in a table that the name of its file ends in: file systems take 255 in all."""
NO_RECORDINGS = (
    "no column names the recording of a clip, so each file counts as one: clips of one recording may be on both sides of a "
    "split, which makes figures too good; name the column with --recording_column, or give --recording_pattern"
)


def list_form(
    location: str | Path, columns: Columns, recording_pattern: str | None = None, cache_dir: str | Path | None = None
) -> Listing:
    """List the clips of a data set; those without a file on this disk are written into `home_of` first.

    The recording of a clip is its column, else what `recording_pattern` finds in the file's name, else the file.
    Raises UserError for a data set that cannot be read, or whose columns have to be named.
    """
    form = open_form(location, columns)
    home = home_of(form.location, columns, cache_dir, is_form=True)
    try:
        warnings = [*form.warnings, *recordings_warning(form, recording_pattern)]
        if home != Path(os.path.realpath(form.location)):
            take_files(form, home)
        clips = [clip for split in form.splits for clip in clips_of(form, split, home, recording_pattern)]
    except UserError:
        raise
    except TRANSFER_ERRORS as error:
        raise UserError(f"--data_dir {location} cannot be read: {transfer_problem(error)}.") from error
    classes = form.labels.classes
    nothing = [clip.name for clip in clips if len(clip.unknown) == len(classes)]
    warn_of(warnings, nothing, "has no label and will be skipped", "have no label and will be skipped")
    clips = [clip for clip in clips if len(clip.unknown) < len(classes)]
    warnings += form.empty_test([clip.split for clip in clips])
    return Listing(form_title(form.location), home, classes, clips, warnings)


def home_of(location: str | Path, columns: Columns, cache_dir: str | Path | None = None, is_form: bool = False) -> Path:
    """Return the folder in which a data set's audio files are, or will be once they are taken out of it.

    It is without links where the data set is read as one of the Hub's forms (`is_form`: in any case, as streaming does), since
    `datasets` gives such paths.
    """
    if is_remote(location):
        return files_folder(location, cache_dir)
    folder = Path(os.path.abspath(os.path.expanduser(location)))
    if is_exported(folder):
        return files_folder(folder, cache_dir) if columns.are_given else folder
    if not (has_form(folder) or is_form or columns.are_given):
        return folder
    return Path(os.path.realpath(folder)) if keeps_files(folder) else files_folder(folder, cache_dir)


def clips_of(form: Form, split: str, home: Path, recording_pattern: str | None) -> list[Clip]:
    """Return the clips of train or test."""
    return [clip for clip, _ in placed_clips(form, split, home, recording_pattern)]


def placed_clips(
    form: Form, split: str, home: Path, recording_pattern: str | None
) -> Iterator[tuple[Clip, dict[str, str | int]]]:
    """Yield the clips of train or test, each with the columns that say where its audio is (`export.stream.PLACE`).

    Raises UserError for a file that a metadata table lists twice.
    """
    seen = set()
    for number, (row, place) in enumerate(placed_rows(form, split)):
        inside = row[form.audio]["path"]
        if form.is_folder and inside in seen:
            raise UserError(
                f"{form.location} lists {inside} twice in {form.splits[split]}: put all its labels into one row, with ; between them."
            )
        seen.add(inside)
        on_disk = place["row_group"] == WHOLE_FILE and os.path.isfile(place["shard"])
        path = Path(place["shard"]) if on_disk else home / file_name(split, number, inside)
        name = to_text(Path(os.path.relpath(path, home)).as_posix())
        present, unknown = form.labels.read(row, f"{form.location}, row {number + 1} of {form.splits[split]}")
        recording, song = (text_of(row.get(column)) for column in (form.recording, "song"))
        recording = normalised(recording) or recording_of_path(name, recording_pattern)
        song = song or recording
        yield Clip(str(path), name, split, present, recording, song, unknown=unknown), place


def text_of(value: object) -> str:
    """Return a cell as text; none where it is empty: None, or NaN as pandas writes it."""
    return "" if value is None or value != value else str(without_point(value))


def placed_rows(form: Form, split: str) -> Iterator[tuple[dict, dict[str, str | int]]]:
    """Yield every row without its audio's bytes, and where these are; of a Parquet table nothing else is read."""
    if not form.is_parquet:
        for row in form.rows(split, form.described, with_audio=True):
            where = {"shard": row[form.audio]["path"], "row_group": WHOLE_FILE, "row": 0, "audio_column": form.audio}
            yield row, where
        return
    names = [name for name in dict.fromkeys(form.described) if name in form.features]
    for shard, table in form.tables(split):
        for group in range(table.num_row_groups):
            rows = table.read_row_group(group, columns=[*names, f"{form.audio}.path"]).to_pylist()
            for place, row in enumerate(rows):
                row[form.audio] = row[form.audio] or {"path": None}
                yield row, {"shard": shard, "row_group": group, "row": place, "audio_column": form.audio}


def recordings_warning(form: Form, recording_pattern: str | None) -> list[str]:
    """Return a sentence where nothing says which clips belong to one recording."""
    return [] if form.recording or recording_pattern else [f"{form.location}: {NO_RECORDINGS}."]


def file_name(split: str, number: int, path: str | None) -> str:
    """Return the name of a row's file: unlike any other, and with the end that it had."""
    name = safe_name(Path(path or "clip").name).encode()[-LONGEST_END:].decode(errors="ignore")
    return f"{split}/{number:06d}_{name}"


def take_files(form: Form, home: Path) -> None:
    """Write every row's audio into a file in `home`, unless that is done; several processes may call this at once."""
    home.mkdir(parents=True, exist_ok=True)
    facts = state_of(form)
    with FileLock(home / ".lock"):
        marker = home / MARKER
        if marker.exists() and json.loads(marker.read_text())["facts"] == facts:
            return
        marker.unlink(missing_ok=True)
        (home / FETCHED).unlink(missing_ok=True)
        for split in form.splits:
            shutil.rmtree(home / split, ignore_errors=True)
            (home / split).mkdir()
            rows = form.rows(split, (), with_audio=True)
            for number, row in enumerate(tqdm(rows, desc=f"Taking out {split} files", unit="clip")):
                audio = row[form.audio] or {}
                content, path = audio.get("bytes"), audio.get("path")
                if content is None and path is not None:
                    content = read_whole(form, path)
                (home / file_name(split, number, path)).write_bytes(content or b"")
        with whole_file(marker) as unfinished:
            unfinished.write_text(json.dumps({"location": form.location, "facts": facts}))


def read_whole(form: Form, path: str) -> bytes:
    """Return the bytes of a file that a table names; none, with a warning, where there is no such file.

    A table may name files of its own disk only: nothing is fetched from an address in it, and a table of the Hub or of a
    web server has no say about the files of this machine. `datasets` itself lists the files of a folder, wherever it is.
    """
    try:
        if not form.is_folder and (is_remote(form.location) or not os.path.isfile(path)):
            raise FileNotFoundError(path)
        with fsspec.open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        logger.warning("%s, which a table names, does not exist on the table's disk.", path)
        return b""


def state_of(form: Form) -> str:
    """Return a name for what the audio of a data set comes from: its column, its splits and their files."""
    return Hasher.hash([form.audio, sorted(form.splits.items()), [facts_of(form, split) for split in form.splits]])


def facts_of(form: Form, split: str) -> list[tuple]:
    """Return what says that a split's files are still the same: their addresses and sizes, on disk their times too."""
    facts = []
    for address in form.shards(split):
        files, path = url_to_fs(address)
        info = files.info(path)
        facts.append((address, info.get("size"), info.get("mtime"), info.get("ETag") or info.get("etag")))
    return facts
