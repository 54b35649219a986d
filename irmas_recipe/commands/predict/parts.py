"""Results as Parquet files of equal numbers of songs, each with a marker that says that it is whole."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet

from irmas_dataset.errors import UserError
from irmas_dataset.whole_file import whole_file, write_json


class Parts:
    """The parts of one shard in a folder that all shards share.

    `part-INDEX-of-COUNT-NUMBER.parquet` has a row for each file; the `.done` beside it, written last, has the digest of
    the files' names, how many could not be read, and by which model and settings they were heard. Only markers are read
    to resume: memory and time do not grow with the rows that are there.
    """

    def __init__(self, folder: Path, shard: tuple[int, int], part_files: int, heading: dict, *, resume: bool) -> None:
        """Look for markers of this shard.

        Args:
            shard: its index, and how many there are.
            part_files: files per part.
            heading: the model and the settings, which all parts must share.

        Raises:
            UserError: there are markers, and `resume` is not asked for, or they are of other settings or shards.
        """
        self.folder, self.shard, self.part_files = folder, shard, part_files
        self.heading = heading | {"part_files": part_files}
        folder.mkdir(parents=True, exist_ok=True)
        if any(f"-of-{shard[1]:05d}-" not in marker.name for marker in folder.glob("part-*.done")):
            raise UserError(
                f"{folder} has parts of another number of shards; resume with the same, or name a new folder."
            )
        found = self.markers()
        if found and not resume:
            raise UserError(f"{folder} has parts already; add --resume to keep them, or name a new folder.")
        if found and json.loads(found[0].read_text(encoding="utf-8"))["heading"] != self.heading:
            raise UserError(
                f"{folder} has parts of another model or settings; resume with the same, or name a new folder."
            )

    def markers(self) -> list[Path]:
        """Return the markers of this shard, first part first."""
        index, count = self.shard
        return sorted(self.folder.glob(f"part-{index:05d}-of-{count:05d}-*.done"))

    def place(self, number: int) -> Path:
        """Return where a part goes."""
        return self.folder / f"part-{self.shard[0]:05d}-of-{self.shard[1]:05d}-{number:06d}.parquet"

    def without_finished(self, names: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        """Yield (number, names) of each part that has no marker.

        Raises:
            UserError: a finished part had other files, or is beyond the last name.
        """
        names, number = iter(names), 0
        while of_part := list(islice(names, self.part_files)):
            marker = self.place(number).with_suffix(".done")
            if not marker.exists():
                yield number, of_part
            elif json.loads(marker.read_text(encoding="utf-8"))["files_sha256"] != digest_of(of_part):
                raise of_other_files(marker)
            number += 1
        if beyond := [marker for marker in self.markers() if int(marker.stem.rsplit("-", 1)[1]) >= number]:
            raise of_other_files(beyond[0])

    def write(self, number: int, names: list[str], rows: list[dict], schema: pa.Schema) -> None:
        """Write one part, then its marker."""
        file = self.place(number)
        with whole_file(file) as unfinished:
            parquet.write_table(pa.Table.from_pylist(rows, schema=schema), unfinished, compression="zstd")
        unread = sum(row["error"] is not None for row in rows)
        marker = {"files": len(rows), "unread": unread, "files_sha256": digest_of(names), "heading": self.heading}
        write_json(file.with_suffix(".done"), marker)


def of_other_files(marker: Path) -> UserError:
    """Return the error about a finished part whose files the list no longer has."""
    return UserError(f"{marker} is of other files: the list has changed; name a new folder for --parts.")


def digest_of(names: list[str]) -> str:
    """Return the SHA-256 of names."""
    return hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()
