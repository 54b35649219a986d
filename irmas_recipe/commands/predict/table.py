"""A table of results for programs, as CSV, JSON or Parquet, that an interrupted run can resume."""

import csv
import glob
import io
import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from irmas_dataset.errors import UserError
from irmas_dataset.label_text import join_labels
from irmas_dataset.whole_file import whole_file


class ResultTable:
    """Rows with the same columns, `path` first, written so that nothing is lost when the run is interrupted.

    CSV grows row by row. JSON and Parquet cannot: their rows go to a journal beside the file, which `close` turns into
    the file in one step. Where several processes fill one table, the first holds it and the others append to parts
    beside it (`ResultPart`); `take_parts` takes their rows in, and so does a run that resumes.
    """

    def __init__(
        self,
        file: Path,
        columns: list[str],
        *,
        format: str,
        resume: bool = False,
        only_paths: set[str] | None = None,
        heading: dict | None = None,
    ) -> None:
        """Open the table; `resume` keeps its rows, or only those whose path is in `only_paths`.

        heading: what a JSON file says before its rows, which are then its `files`; otherwise it is a list of rows.

        Raises:
            UserError: the file exists without `resume`, or is not a table with these columns.
        """
        self.file, self.columns, self.format, self.heading = file, columns, format, heading
        self.journal = journal_of(file, format)
        file.parent.mkdir(parents=True, exist_ok=True)
        found = left_over(file, format)
        if found and not resume:
            raise UserError(f"{found} exists; add --resume to keep its rows and add to them, or delete it.")
        rows = [row for row in self._read() if only_paths is None or row["path"] in only_paths] if found else []
        self._start_from(rows)

    def append(self, rows: list[dict]) -> None:
        """Add rows; they are on disk when this returns."""
        self._appended_to.write("".join(self._line(row) for row in rows))
        self._appended_to.flush()
        self.paths.update(row["path"] for row in rows)

    def take_parts(self, order: list[str]) -> None:
        """Take in the rows of the parts that other processes have closed, in the `order` of their paths."""
        self._appended_to.close()
        place = {path: index for index, path in enumerate(order)}
        self._start_from(sorted(self._read(), key=lambda row: place.get(row["path"], -1)))

    def close(self) -> None:
        """Finish the file."""
        self._appended_to.close()
        if self.format == "csv":
            return
        rows = read_lines(self.journal)
        with whole_file(self.file) as unfinished:
            if self.format == "json":
                lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
                text = f"[\n{lines}\n]"
                if self.heading is not None:
                    text = json.dumps(self.heading, indent=1, ensure_ascii=False)[:-2] + f',\n "files": {text}\n}}'
                unfinished.write_text(text + "\n", encoding="utf-8")
            else:
                pd.DataFrame(rows, columns=self.columns).to_parquet(unfinished, index=False)
        self.journal.unlink()

    def _line(self, row: dict) -> str:
        return json.dumps(row, ensure_ascii=False) + "\n" if self.format != "csv" else csv_line(row.values())

    def _start_from(self, rows: list[dict]) -> None:
        """Write the rows, those of the parts included, open the journal to append to, and remove the parts."""
        self.paths, self.kept = {row["path"] for row in rows}, rows
        self._write_journal(rows)
        self._appended_to = self.journal.open("a", encoding="utf-8", newline="")
        for part in parts_of(self.file):
            part.unlink()

    def _write_journal(self, rows: list[dict]) -> None:
        header = csv_line(self.columns) if self.format == "csv" else ""
        with whole_file(self.journal) as unfinished:
            unfinished.write_text(header + "".join(self._line(row) for row in rows), encoding="utf-8", newline="")

    def _read(self) -> list[dict]:
        """Return the rows that an interrupted run left in file, journal and parts; a half-written row is dropped."""
        if not self.file.exists():
            rows = []
        elif self.format == "csv":
            rows = self._read_csv()
        else:
            try:
                rows = self._read_finished()
                if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
                    raise ValueError("not a list of rows")
            except ValueError as error:
                raise UserError(
                    f"{self.file} is not a table of predictions and cannot be resumed; delete it."
                ) from error
        if self.format != "csv":
            rows += read_lines(self.journal)
        for part in parts_of(self.file):
            rows += read_lines(part)
        for row in rows:
            self._check(list(row))
        return list({(row["path"], row.get("label"), str(row.get("start_seconds"))): row for row in rows}.values())

    def _read_finished(self) -> list[dict]:
        if self.format == "json":
            content = json.loads(self.file.read_text(encoding="utf-8"))
            return content.get("files") if isinstance(content, dict) else content
        return json.loads(pd.read_parquet(self.file).to_json(orient="records", double_precision=15))

    def _read_csv(self) -> list[dict]:
        with self.file.open(encoding="utf-8", errors="replace", newline="") as file:  # a name may have a \r
            text = file.read()
        complete = text[: text.rfind("\n") + 1]
        header, *rows = list(csv.reader(io.StringIO(complete, newline=""))) or [self.columns]
        self._check(header)
        return [dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)]

    def _check(self, columns: list[str]) -> None:
        if columns != self.columns:
            raise UserError(
                f"{self.file} has the columns of another model or table; choose another file, or delete it."
            )


class ResultPart:
    """The rows of any process but the first, beside the table that they belong to; used like a table."""

    def __init__(self, file: Path, process: int) -> None:
        self._appended_to = file.with_name(f"{file.name}.part-{process}").open("w", encoding="utf-8")

    def append(self, rows: list[dict]) -> None:
        """Add rows; they are on disk when this returns."""
        self._appended_to.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        self._appended_to.flush()

    def close(self) -> None:
        """Finish the part."""
        self._appended_to.close()


def journal_of(file: Path, format: str) -> Path:
    """Return where a table's rows go before it is finished."""
    return file if format == "csv" else file.with_name(file.name + ".journal")


def left_over(file: Path, format: str) -> Path | None:
    """Return what there is of a table already: itself, its journal or one of its parts."""
    return next((path for path in (file, journal_of(file, format), *parts_of(file)) if path.exists()), None)


def parts_of(file: Path) -> list[Path]:
    """Return the parts beside a table."""
    return sorted(file.parent.glob(f"{glob.escape(file.name)}.part-*"))


def read_lines(journal: Path) -> list[dict]:
    """Return the rows of a file with one JSON object per line, none if there is no such file."""
    if not journal.exists():
        return []
    rows = []
    for line in journal.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            rows.append(json.loads(line))
        except ValueError:  # cut short or damaged: that file is read again
            continue
    return [row for row in rows if isinstance(row, dict)]


def csv_line(values: Iterable[object]) -> str:
    """Return one line of CSV; a list of labels becomes one field, as `join_labels` writes it."""
    fields = [join_labels(map(str, value)) if isinstance(value, list) else str(value) for value in values]
    quoted = ['"' + field.replace('"', '""') + '"' if set(field) & set(',"\r\n') else field for field in fields]
    return ",".join(quoted) + "\n"
