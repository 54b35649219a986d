"""Writing a file or a folder so that readers find it complete or as it was, even if the writer is killed."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UNFINISHED = ".unfinished"
"""Inside a folder that is being written: what is to take its place."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` when the block ends without an error.

    A killed writer leaves `<name>.unfinished`, which the next one overwrites.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    yield unfinished
    unfinished.replace(path)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a folder inside `path`; what is written there moves up when the block ends without an error.

    Otherwise `path` stays as it was, and absent if it was absent. A killed writer leaves `path/.unfinished`, which the
    next one removes.
    """
    unfinished = path / UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)
    absent = [folder for folder in (path, *path.parents) if not folder.exists()]
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        move_into(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        with suppress(OSError):  # the first that is not empty
            for folder in absent:
                folder.rmdir()


def move_into(source: Path, target: Path, last: str | None = None) -> None:
    """Move what a folder has into another one, over what has the same names there, and remove it; `last` moves last."""
    for new in sorted(source.iterdir(), key=lambda path: path.name == last):
        old = target / new.name
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        elif new.is_dir():
            old.unlink(missing_ok=True)
        new.replace(old)
    source.rmdir()


def open_to_readers(folder: Path) -> None:
    """Give weights the mode that new files have; safetensors makes files that only their owner can read."""
    mask = os.umask(0)
    os.umask(mask)
    for file in folder.glob("*.safetensors"):
        file.chmod(0o666 & ~mask)


def write_json(path: Path, content: dict) -> None:
    """Write JSON that a reader finds whole or not at all."""
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
