"""Downloading OpenMIC-2018: one archive, resumable and verified, extracted without following it out of its folder."""

import os
import shutil
import tarfile
from pathlib import Path

from filelock import FileLock

from irmas_dataset.download import check_contents, check_free_space, fetch, size_of
from irmas_dataset.errors import UserError
from irmas_dataset.openmic import LABELS

ZENODO = "https://zenodo.org/records/1432913/files"
ARCHIVE = "openmic-2018-v1.0.0.tgz"
MD5 = "e4ccf187e2bb5ab2e115416e8aafe7f4"
SIZE_BYTES = 2_623_376_754
"""MD5 and size as several public projects that use the archive state them; the record itself was not read here."""
FOLDER = "openmic-2018"
UNFINISHED = ".openmic-2018.unfinished"
EXTRACTED_BYTES = 6 << 30  # at most, by guess: the audio of the archive is compressed already
LOCK = ".openmic-download.lock"


def download_openmic(
    data_dir: str | Path, *, base_url: str = ZENODO, md5: str = MD5, size_bytes: int | None = SIZE_BYTES
) -> None:
    """Fetch and extract OpenMIC-2018 into `data_dir`/openmic-2018, unless it is there; an archive in `data_dir` is used.

    The next call resumes an interrupted transfer. Several processes may call this at once.
    Raises UserError if the server or the disk fails, or the archive is not the published one.
    """
    data_dir = Path(os.path.abspath(data_dir))
    if any((folder / LABELS).is_file() for folder in (data_dir, data_dir / FOLDER)):
        return
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(data_dir / LOCK):
            there, part = data_dir / ARCHIVE, data_dir / f"{ARCHIVE}.part"
            if there.is_file():
                check_contents(there, f"md5:{md5}", size_bytes, str(there), "delete it to download it again")
            else:
                check_free_space(
                    data_dir, max(0, (size_bytes or 0) - size_of(part)) + EXTRACTED_BYTES, "download OpenMIC-2018"
                )
                fetch(f"{base_url.rstrip('/')}/{ARCHIVE}?download=1", part, f"md5:{md5}", size_bytes)
            extract(there if there.is_file() else part, data_dir)
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write OpenMIC-2018 into {data_dir}: {error.strerror or error}.") from error


def extract(archive: Path, data_dir: Path) -> None:
    """Extract the archive; its folder has its name only when it is whole.

    Raises UserError for an archive that is damaged, has no such folder, or would write elsewhere.
    """
    unfinished = data_dir / UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with tarfile.open(archive, "r:gz") as opened:
            opened.extractall(unfinished, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{archive} cannot be extracted: {error}; delete it to download it again.") from error
    if not (unfinished / FOLDER / LABELS).is_file():
        raise UserError(f"{archive} has no {FOLDER}/{LABELS}: delete it to download it again.")
    (unfinished / FOLDER).replace(data_dir / FOLDER)
    shutil.rmtree(unfinished)
