"""Writing a file so that readers find it complete or not at all, even if the writer is killed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` when the block ends without an error.

    A killed writer leaves `<name>.unfinished`, which the next one overwrites.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    yield unfinished
    unfinished.replace(path)


def write_json(path: Path, content: dict) -> None:
    """Write JSON that a reader finds whole or not at all."""
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
