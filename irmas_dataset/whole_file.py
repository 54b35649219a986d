"""Files that a reader finds whole or not at all, however the writer ends."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a place beside `path` to write to; what lies there becomes `path` in one step if the block ends well.

    A killed writer leaves `<name>.unfinished`, which the next one writes over.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    yield unfinished
    unfinished.replace(path)


def write_json(path: Path, content: dict) -> None:
    """Write JSON that a reader finds whole or not at all."""
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
