"""A table of results for programs, as CSV, JSON or Parquet, that an interrupted run can go on with."""

import csv
import io
import json
import os
from pathlib import Path

import pandas as pd

from irmas_dataset.errors import UserError

FORMATS = ("csv", "json", "parquet")
LIST_SEPARATOR = ";"  # between the values of a list in a CSV field


class ResultTable:
    """Rows with the same columns, `path` first, written so that nothing is lost when the run stops half-way.

    CSV is appended to row by row. JSON and Parquet cannot be: their rows go to a journal beside the file, which
    `close` turns into the file in one step.
    """

    def __init__(
        self, file: Path, columns: list[str], *, format: str, resume: bool = False, only_paths: set[str] | None = None
    ):
        """Open the table; with `resume` its rows are kept, or of them those whose path is in `only_paths`."""
        self.file, self.columns, self.format = file, columns, format
        self.journal = file if format == "csv" else file.with_name(file.name + ".journal")
        file.parent.mkdir(parents=True, exist_ok=True)
        left_over = next((path for path in (file, self.journal) if path.exists()), None)
        if left_over and not resume:
            raise UserError(f"{left_over} exists; add --resume to keep its rows and go on, or delete it.")
        rows = [row for row in self._read() if only_paths is None or row["path"] in only_paths] if left_over else []
        self.paths = {row["path"] for row in rows}
        self._write_journal(rows)
        self._appended_to = self.journal.open("a", encoding="utf-8", newline="")

    def append(self, rows: list[dict]) -> None:
        """Add rows; they are on disk when this returns."""
        self._appended_to.write("".join(self._line(row) for row in rows))
        self._appended_to.flush()
        self.paths.update(row["path"] for row in rows)

    def close(self) -> None:
        """Finish the file."""
        self._appended_to.close()
        if self.format == "csv":
            return
        rows = self._read_journal()
        unfinished = self.file.with_name(self.file.name + ".unfinished")
        if self.format == "json":
            lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
            unfinished.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        else:
            pd.DataFrame(rows, columns=self.columns).to_parquet(unfinished, index=False)
        os.replace(unfinished, self.file)
        self.journal.unlink()

    def _line(self, row: dict) -> str:
        return json.dumps(row, ensure_ascii=False) + "\n" if self.format != "csv" else csv_line(row.values())

    def _write_journal(self, rows: list[dict]) -> None:
        header = csv_line(self.columns) if self.format == "csv" else ""
        unfinished = self.journal.with_name(self.journal.name + ".unfinished")
        unfinished.write_text(header + "".join(self._line(row) for row in rows), encoding="utf-8", newline="")
        os.replace(unfinished, self.journal)

    def _read(self) -> list[dict]:
        """Return the rows of the file and of the journal that an interrupted run left; a half-written row is dropped."""
        if self.format == "csv":
            return self._read_csv()
        rows = []
        if self.file.exists():
            try:
                rows = self._read_finished()
            except ValueError as error:
                raise UserError(f"{self.file} is no table of predictions to go on with; delete it.") from error
        rows += self._read_journal()
        for row in rows:
            self._check(list(row))
        return list({(row["path"], row.get("label"), row.get("start_seconds")): row for row in rows}.values())

    def _read_finished(self) -> list[dict]:
        if self.format == "json":
            return json.loads(self.file.read_text(encoding="utf-8"))
        return json.loads(pd.read_parquet(self.file).to_json(orient="records", double_precision=15))

    def _read_journal(self) -> list[dict]:
        if not self.journal.exists():
            return []
        lines = self.journal.read_text(encoding="utf-8", errors="replace").split("\n")
        return [json.loads(line) for line in lines[:-1]]  # what follows the last line's end was cut short

    def _read_csv(self) -> list[dict]:
        text = self.file.read_text(encoding="utf-8", errors="replace")
        complete = text[: text.rfind("\n") + 1]
        header, *rows = list(csv.reader(io.StringIO(complete, newline=""))) or [self.columns]
        self._check(header)
        return [dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)]

    def _check(self, columns: list[str]) -> None:
        if columns != self.columns:
            raise UserError(
                f"{self.file} has the columns of another model or table; choose another file, or delete it."
            )


def csv_line(values) -> str:
    """Return one line of CSV; a list becomes its values with semicolons between them."""
    fields = [LIST_SEPARATOR.join(value) if isinstance(value, list) else str(value) for value in values]
    quoted = ['"' + field.replace('"', '""') + '"' if set(field) & set(',"\r\n') else field for field in fields]
    return ",".join(quoted) + "\n"
