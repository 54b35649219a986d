"""A data set in one of the Hub's forms: Parquet with the audio inside, or files with a table or in class folders.

`datasets` finds the files, splits and types, on the Hub and on disk. The audio stays as it is stored and is decoded by
our own decoder, since `datasets.Audio` needs torchcodec.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pyarrow
import pyarrow.parquet
import yaml
from datasets import DatasetBuilder, Features, Value, load_dataset_builder
from datasets.config import REPOCARD_FILENAME, REPOYAML_FILENAME
from datasets.data_files import SPLIT_KEYWORDS
from datasets.exceptions import DatasetNotFoundError
from datasets.packaged_modules.arrow.arrow import Arrow
from datasets.packaged_modules.folder_based_builder.folder_based_builder import FolderBasedBuilder
from datasets.packaged_modules.parquet.parquet import Parquet
from huggingface_hub import DatasetCard

from irmas_dataset.download import DEFAULT_FOLDER
from irmas_dataset.errors import UserError
from irmas_dataset.export.tables import TRANSFER_ERRORS, find_shards, open_parquet, transfer_problem
from irmas_dataset.files import READ_BY_SOUNDFILE, to_text, walk_files
from irmas_dataset.forms.columns import (
    UNKNOWN,
    audio_column,
    inner,
    is_text,
    label_columns,
    recording_column,
    split_names,
)
from irmas_dataset.forms.flags import Columns
from irmas_dataset.forms.labels import LabelReader, label_reader

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
NAMES_OF_SPLITS = {name for names in SPLIT_KEYWORDS.values() for name in names}
ROWS_AT_ONCE = 64  # with their audio in memory


def is_hub_id(location: str | Path) -> bool:
    """Tell whether a location is a data set's id on the Hub, `user/name`, and not a path of this machine."""
    text = str(location)
    is_id = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", text) is not None
    return is_id and Path(text) != DEFAULT_FOLDER and not Path(text).exists() and not Path(text).parent.exists()


def is_remote(location: str | Path) -> bool:
    """Tell whether a location is on the Hub or a web server."""
    return "://" in str(location) or is_hub_id(location)


def has_form(folder: Path) -> bool:
    """Tell whether a folder is in one of the Hub's forms, by its tables or by what its card says of its files.

    It has a metadata table for its audio, a card with `configs`, or tables of Parquet or of `save_to_disk` and no audio
    in files of their own.
    """
    paths = [Path(path) for path in walk_files(folder)]
    if metadata_tables(folder) or says_what_is_where(folder / "README.md"):
        return True
    is_saved = bool(arrow_files(folder))
    return (is_saved or any(path.suffix == ".parquet" for path in paths)) and not keeps_files(folder)


def metadata_tables(folder: Path) -> list[Path]:
    """Return the tables of a folder that name its audio files."""
    paths = [Path(path) for path in walk_files(folder)]
    return [path for path in paths if path.name in METADATA and names_files(path)]


def says_what_is_where(card: Path) -> bool:
    """Tell whether a data card has a YAML head that lists the files of splits or configurations."""
    if not card.is_file():
        return False
    head = card.read_text(encoding="utf-8", errors="replace").split("\n---", 1)[0]
    return head.startswith("---") and re.search(r"^configs\s*:", head, re.MULTILINE) is not None


def arrow_files(folder: Path) -> dict[str, list[str]]:
    """Return the tables that `save_to_disk` wrote, split -> paths; of one split without a name, `train`.

    Raises UserError for a damaged list of the splits.
    """
    if (folder / "state.json").is_file():
        return {"train": sorted(map(str, folder.glob("*.arrow")))}
    if not (folder / "dataset_dict.json").is_file():
        return {}
    try:
        names = json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / 'dataset_dict.json'} is damaged ({error!r}): save the data set again.") from error
    return {name: sorted(map(str, (folder / name).glob("*.arrow"))) for name in names}


def names_files(table: Path) -> bool:
    """Tell whether a metadata table has the column `file_name`, or a name that ends so, as `datasets` asks for.

    Raises UserError for a damaged Parquet file, or a CSV without rows or commas.
    """
    if table.suffix == ".parquet":
        try:
            return any(name.endswith("file_name") for name in pyarrow.parquet.read_schema(table).names)
        except pyarrow.ArrowException as error:
            raise UserError(f"{table} is damaged ({error}): write it again, or remove it.") from error
    with open(table, encoding="utf-8", errors="replace") as lines:
        head = next(lines, "").strip()
        is_empty = not any(line.strip() for line in lines)
    if "file_name" not in head or table.suffix != ".csv":
        return "file_name" in head
    if is_empty:
        raise UserError(f"{table} lists no file: add its rows, or remove it.")
    if re.search("[;\t]", head) and "," not in head:
        raise UserError(
            f"{table} separates its columns with `;` or tabs, which `datasets` does not read: save it with commas."
        )
    return True


def keeps_files(folder: Path) -> bool:
    """Tell whether a folder's audio is in files of their own."""
    return any(map(is_heard, walk_files(folder)))


@dataclass
class Form:
    """A data set that is open: `splits` says which of its splits are our train and test."""

    location: str
    builder: DatasetBuilder
    columns: Columns
    splits: dict[str, str]
    warnings: list[str] = field(default_factory=list)

    @property
    def is_parquet(self) -> bool:
        """Whether the tables have the audio inside, so that a clip can be read by itself."""
        return isinstance(self.builder, Parquet)

    @property
    def is_folder(self) -> bool:
        """Whether the clips are audio files of their own."""
        return isinstance(self.builder, FolderBasedBuilder)

    def empty_test(self, found: list[str]) -> list[str]:
        """Return a sentence where the test split is not among those `found` to have clips."""
        if "test" not in self.splits or "test" in found:
            return []
        return [
            f"{self.location}: no clip of the split {self.splits['test']} has a label, so recordings of "
            f"{self.splits['train']} are held out as the test set."
        ]

    @cached_property
    def features(self) -> Features:
        """The types of the columns."""
        if self.is_parquet:
            with open_parquet(self.shards("train")[0]) as table:
                return self.builder.info.features or Features.from_arrow_schema(table.schema_arrow)
        rows = self.builder.as_streaming_dataset(self.splits["train"])
        return rows.features or rows._resolve_features().features

    @cached_property
    def audio(self) -> str:
        """The column of the audio."""
        return audio_column(self.features, self.columns.audio_column, self.location)

    @cached_property
    def labels(self) -> LabelReader:
        """What reads a row's labels."""
        columns = label_columns(self.features, self.columns.label_column, self.location)
        rows = (row for split in self.splits for row in self.rows(split, (*columns, UNKNOWN)))
        return label_reader(self.features, columns, rows, self.location, is_of_folders=self.is_folder)

    @cached_property
    def recording(self) -> str | None:
        """The column of the recording, if any."""
        taken = label_columns(self.features, self.columns.label_column, self.location)
        return recording_column(self.features, self.columns.recording_column, taken, self.location)

    @property
    def described(self) -> tuple[str, ...]:
        """The columns that say what a clip is, without its audio."""
        return (*self.labels.columns, UNKNOWN, *([self.recording] if self.recording else []), "song")

    def shards(self, split: str) -> list[str]:
        """Return the addresses of a split's files."""
        return [str(path) for path in self.builder.config.data_files[self.splits[split]]]

    def tables(self, split: str) -> Iterator[tuple[str, pyarrow.parquet.ParquetFile]]:
        """Yield the address of each Parquet table of train or test, and the table; UserError as `check_table` says."""
        for shard in self.shards(split):
            with open_parquet(shard) as table:
                self.check_table(shard, table.schema_arrow)
                yield shard, table

    def check_table(self, shard: str, schema: pyarrow.Schema) -> None:
        """Raise UserError where a table has no audio or labels, or its class ids are of other classes than the first table's."""
        kinds = Features.from_arrow_schema(schema)
        columns = label_columns(self.features, self.columns.label_column, self.location)
        if missing := [name for name in (self.audio, *columns) if name not in kinds]:
            raise UserError(
                f"{shard} has no column {missing[0]}, as other tables have: add it, or name other splits, such as --test_split none."
            )
        for name in columns:
            (names, text), (own_names, own_text) = (
                (getattr(inner(of[name]), "names", None), is_text(of[name])) for of in (self.features, kinds)
            )
            if text != own_text or (names and own_names and names != own_names):
                raise UserError(
                    f"{shard}: its column {name} is {inner(kinds[name])}, but {inner(self.features[name])} in other tables: "
                    "write all of them with the same classes in the same order."
                )

    def rows(self, split: str, names: tuple[str, ...], with_audio: bool = False) -> Iterator[dict]:
        """Yield the rows of train or test with the columns of `names` that there are.

        with_audio: adds {bytes, path} of the file under the audio column's name; bytes is None for a file on disk.
        """
        wanted = [name for name in dict.fromkeys(names) if name in self.features] + [self.audio] * with_audio
        if self.is_parquet:
            for _, table in self.tables(split):
                for batch in table.iter_batches(ROWS_AT_ONCE if with_audio else 2**14, columns=wanted):
                    yield from batch.to_pylist()
            return
        for shard in self.shards(split) if isinstance(self.builder, Arrow) else ():
            with pyarrow.memory_map(shard) as file:
                self.check_table(shard, pyarrow.ipc.open_stream(file).schema)
        rows = self.builder.as_streaming_dataset(self.splits[split])
        plain = Value("string") if self.is_folder else {"bytes": Value("binary"), "path": Value("string")}
        for row in rows.cast_column(self.audio, plain):
            found = row[self.audio]
            kept = {name: row[name] for name in wanted}
            yield kept | {self.audio: {"bytes": None, "path": found} if self.is_folder else found}


def open_form(location: str | Path, columns: Columns) -> Form:
    """Open a data set: a folder, the address of a served folder, or an id on the Hub.

    Raises UserError for one that cannot be reached or read, or whose configuration or splits have to be named.
    """
    location = str(location) if is_remote(location) else os.path.abspath(os.path.expanduser(location))
    try:
        if "://" in location:
            shards = {split: [path for path, _ in found] for split, found in find_shards(location).items()}
            builder = load_dataset_builder("parquet", data_files=shards)
        elif not is_hub_id(location) and (saved := arrow_files(Path(location))):
            builder = load_dataset_builder("arrow", data_files=saved)
        else:
            if not is_hub_id(location):
                check_card(Path(location))
            builder = load_dataset_builder(location, columns.data_config)
            if hasattr(builder.config, "decode_num_threads"):
                builder.config.decode_num_threads = None  # of torchcodec, which would decode what it streams
        there = list(builder.config.data_files or builder.info.splits or [])
    except DatasetNotFoundError as error:
        raise UserError(
            f"--data_dir {location} is neither a folder here nor a data set on the Hub that you can read "
            f"({transfer_problem(error)}): check the name, or log in with `hf auth login`."
        ) from error
    except RuntimeError as error:  # what `datasets` says of a loading script
        raise UserError(
            f"--data_dir {location} cannot be read: {problem_of(error)}. Give its Parquet files, or rename a program that is "
            "called as its folder is."
        ) from error
    except TRANSFER_ERRORS as error:
        raise UserError(f"--data_dir {location} cannot be read: {problem_of(error)}.") from error
    if not there:
        raise UserError(f"--data_dir {location} has no audio or tables that `datasets` can read.")
    if isinstance(builder, FolderBasedBuilder) and not is_remote(location):
        check_tables_are_read(Path(location), builder)
        check_class_folders(Path(location), builder)
    splits, warnings = split_names([str(name) for name in there], columns, location)
    return Form(location, builder, columns, splits, warnings)


def problem_of(error: Exception) -> str:
    """Return what went wrong in one line; where a configuration has to be chosen, with the flag that does it."""
    text = " ".join(str(error).split())
    if "Config name is missing" in text or "BuilderConfig" in text:
        names = re.findall(r"'([^']+)'", text)
        return f"it has several configurations: name one, such as --data_config {names[0]}" if names else text
    return transfer_problem(error)


def check_card(folder: Path) -> None:
    """Raise UserError where a folder's card lists files that are not in the folder: `datasets` would fetch or read them."""
    card, standalone = folder / REPOCARD_FILENAME, folder / REPOYAML_FILENAME
    said = {card: DatasetCard.load(card).data.to_dict()} if card.is_file() else {}
    said |= {standalone: yaml.safe_load(standalone.read_text(encoding="utf-8"))} if standalone.is_file() else {}
    for path, head in said.items():
        configs = head.get("configs") if isinstance(head, dict) else None
        for text in texts_in(configs, under=("data_dir", "data_files")):
            if "://" in text or "::" in text or os.path.isabs(text) or ".." in Path(text).parts:
                raise UserError(f"{path} lists {text} under `configs`, which is not inside {folder}: remove it there.")


def texts_in(value: object, under: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the texts in nested lists and mappings; with `under`, those below these names only."""
    if isinstance(value, str) and not under:
        yield value
    for part in value if isinstance(value, list) else ():
        yield from texts_in(part, under)
    for name, part in value.items() if isinstance(value, dict) else ():
        yield from texts_in(part, () if name in under else under)


def check_tables_are_read(folder: Path, builder: DatasetBuilder) -> None:
    """Raise UserError for a metadata table that `datasets` passes over, as it does with one above the splits' folders."""
    read = {os.path.realpath(path) for files in builder.config.data_files.values() for path in files}
    tables = metadata_tables(folder)
    if tables and not any(os.path.realpath(path) in read for path in tables):
        raise UserError(
            f"{tables[0]} is not read by `datasets`, which takes train and test in the names of files or folders for splits: "
            "put a table into the folder of each split, with `file_name` relative to it, or list both under `configs` in "
            f"{folder / 'README.md'}."
        )


def check_class_folders(folder: Path, builder: DatasetBuilder) -> None:
    """Raise UserError where `datasets` would take another folder for the class of a clip than is meant in a folder of one's own."""
    if metadata_tables(folder) or says_what_is_where(folder / "README.md"):
        return
    root = os.path.realpath(folder)  # as `datasets` names files
    for path in (path for files in builder.config.data_files.values() for path in files if is_heard(path)):
        *around, _ = Path(os.path.relpath(path, root)).parts
        of_splits = [not NAMES_OF_SPLITS.isdisjoint(re.split("[^a-z]+", name.lower())) for name in around]
        first = of_splits.index(True) + 1 if any(of_splits) else int(around[:1] == ["data"])
        if len(around) - first != 1:
            raise UserError(
                f"{to_text(path)}: `datasets`, which reads {folder} for --streaming or flags such as --test_split, takes the "
                "innermost folder for the class: leave these out, or put every clip into <class>/ or train/<class>/ itself."
            )


def is_heard(path: str) -> bool:
    return str(path).lower().endswith(READ_BY_SOUNDFILE)


def form_title(location: str) -> str:
    """Return the name of a data set in reports."""
    return location if is_remote(location) else f"folder {Path(location).name}"
