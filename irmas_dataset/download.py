"""Downloading IRMAS from its public record: resumable, verified, extracted safely, and only what is missing.

The transfer uses `requests` with a Range header. pooch, which mirdata uses, restarts interrupted downloads from the
beginning, and huggingface_hub's `http_get` refuses every address while HF_HUB_OFFLINE is set.
"""

import hashlib
import logging
import os
import shutil
import stat
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import requests
from filelock import FileLock
from huggingface_hub import is_offline_mode
from tqdm import tqdm

from irmas_dataset.errors import UserError, did_you_mean
from irmas_dataset.files import SYNTHETIC_MARKER, TEST_FOLDERS, TRAINING_FOLDER, find_irmas, published_name, walk_files

logger = logging.getLogger(__name__)

ZENODO = "https://zenodo.org/record/1290750/files"
LOCK = ".irmas-download.lock"
DEFAULT_FOLDER = Path("data/irmas")  # the only one that a training fills unasked
SIZE = "about 12 GB once extracted"
TRIES = 5  # in a row without a new byte
FIRST_WAIT_SECONDS = 1.0  # doubles with each try
TIMEOUT_SECONDS = (15, 60)  # to connect, and between two pieces
PIECE_BYTES = 1 << 14  # at most this much is lost when a connection breaks
MAX_EXTRACTED_BYTES = 20 << 30  # of one archive; IRMAS's largest is about 4 GB
MAX_EXTRACTED_FILES = 50_000
ENCRYPTED = 0x1  # the bit of a zip member's flags


@dataclass(frozen=True)
class Archive:
    """One zip of the record: the folder in it, its checksum, and its number of clips."""

    folder: str
    md5: str
    clips: int

    @property
    def zip_name(self) -> str:
        return f"{self.folder}.zip"

    @property
    def part_name(self) -> str:
        return f"{self.folder}.zip.part"


ARCHIVES = (
    Archive("IRMAS-TrainingData", "4fd9f5ed5a18d8e2687e6360b5f60afe", 6705),
    Archive("IRMAS-TestingData-Part1", "5a2e65520dcedada565dff2050bb2a56", 807),
    Archive("IRMAS-TestingData-Part2", "afb0c8ea92f34ee653693106be95c895", 1301),
    Archive("IRMAS-TestingData-Part3", "9b3fb2d0c89cdc98037121c25bd5b556", 766),
)


def download(data_dir: str | Path, *, parts: tuple[Archive, ...] = ARCHIVES, base_url: str = ZENODO) -> None:
    """Complete IRMAS in `data_dir`: keep what is extracted, extract the zips that are there, download the rest.

    The next call resumes an interrupted transfer. Downloaded zips are removed once they are extracted; zips that were
    there before are kept. Several processes may call this at once.
    Raises UserError if the server or the disk fails, or an archive differs from the published one. Finished work is
    kept, and nothing unfinished has a final name.
    """
    data_dir = Path(os.path.abspath(data_dir))
    if data_dir in find_irmas(data_dir).values():
        raise UserError(f"{data_dir} is one of IRMAS's folders: give its parent folder as --data_dir.")
    if (data_dir / SYNTHETIC_MARKER).exists():
        raise UserError(f"{data_dir} is a synthetic IRMAS: give another folder for the real one.")
    try:
        if all(is_complete(data_dir, archive) for archive in parts):
            remove_left_overs(data_dir, parts)
            return  # without writing anything: a shared copy may be read-only
        data_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(data_dir / LOCK):
            missing = [archive for archive in parts if not is_complete(data_dir, archive)]
            to_fetch = [archive for archive in missing if not (data_dir / archive.zip_name).exists()]
            for archive in to_fetch:
                (data_dir / archive.part_name).touch()  # tells `ensure_irmas` to resume after an interruption
            for archive in missing:
                path = data_dir / (archive.part_name if archive in to_fetch else archive.zip_name)
                if archive in to_fetch:
                    fetch(f"{base_url.rstrip('/')}/{archive.zip_name}?download=1", path, f"md5:{archive.md5}")
                else:
                    check_contents(path, f"md5:{archive.md5}", None, str(path), "delete it to download it again")
                extract(path, archive, data_dir)
                remove_left_overs(data_dir, (archive,))
    except OSError as error:
        raise UserError(f"Cannot write IRMAS into {data_dir}: {error.strerror or error}.") from error


def ensure_irmas(
    data_dir: str | Path, *, parts: tuple[Archive, ...] = ARCHIVES, base_url: str = ZENODO, may_fetch: bool = True
) -> None:
    """Download IRMAS into its default folder if that is missing or empty, resume a download, and extract zips.

    Any other folder is left unchanged, and so is that one unless `may_fetch`: extracting only two of the four archives, or
    using your own music, is allowed.
    Raises UserError as `download` does, for a folder left without music, and for a download while offline.
    """
    data_dir = Path(data_dir).expanduser()
    visible = (
        {path.name for path in data_dir.iterdir() if not path.name.startswith(".")} if data_dir.is_dir() else set()
    )
    if data_dir.is_file():
        raise UserError(
            f"--data_dir {data_dir} is a file: give the folder that contains IRMAS, its zips or your own music."
        )
    if not visible and not (may_fetch and data_dir == DEFAULT_FOLDER):
        state = "is empty; " if data_dir.is_dir() else f"does not exist{did_you_mean(data_dir)}"
        raise UserError(
            f"--data_dir {data_dir} {state}`irmas download --data_dir {data_dir}` fetches IRMAS ({SIZE}) there."
        )
    zips = [archive for archive in parts if archive.zip_name in visible]
    asked_for = may_fetch and (not visible or any(archive.part_name in visible for archive in parts))
    if asked_for and is_offline_mode():
        raise UserError(
            f"{data_dir} has no complete IRMAS, and HF_HUB_OFFLINE is set: unset it to download IRMAS ({SIZE}), or name "
            "another --data_dir."
        )
    if not visible:
        logger.warning("%s has no music: downloading IRMAS (%s) from %s.", data_dir, SIZE, base_url)
    if asked_for or zips:
        download(data_dir, parts=parts if asked_for else tuple(zips), base_url=base_url)


def is_complete(data_dir: Path, archive: Archive) -> bool:
    """Tell whether all clips of an archive are extracted; those of a test part need their annotations too."""
    folder = find_irmas(data_dir).get(archive.folder)
    if folder is None:
        return False
    files = [os.path.splitext(path) for path in walk_files(folder)]
    clips = {stem for stem, extension in files if extension == ".wav"}
    if archive.folder.startswith("IRMAS-TestingData"):
        clips &= {stem for stem, extension in files if extension == ".txt"}
    return len(clips) >= archive.clips


def remove_left_overs(data_dir: Path, extracted: tuple[Archive, ...]) -> None:
    """Remove the downloads of extracted archives; an earlier call may have been killed before it did."""
    for archive in extracted:
        if (data_dir / archive.part_name).exists():
            (data_dir / archive.part_name).unlink(missing_ok=True)


def fetch(url: str, part: Path, checksum: str | None, size_bytes: int | None = None) -> None:
    """Download `url` to `part`, resuming what is there and after every interruption.

    Args:
        checksum: of the published file, such as `md5:4fd9...` or `sha256:899a...`; None where it is not known.
        size_bytes: of the published file.

    Raises:
        UserError: the server refuses, cannot be reached several times in a row, or sends other contents.
    """
    fruitless = 0
    while True:
        size = size_of(part)
        try:
            receive(url, part)
            break
        except requests.RequestException as error:
            fruitless = 0 if size_of(part) > size else fruitless + 1
            if fruitless == TRIES or not is_transient(error):
                raise UserError(
                    f"Cannot download {url}: {reason(error)}; run the same command again to resume."
                ) from error
            wait_seconds = FIRST_WAIT_SECONDS * 2 ** max(0, fruitless - 1)
            logger.warning("%s: %s; trying again in %.0f s.", part.stem, reason(error), wait_seconds)
            time.sleep(wait_seconds)
    try:
        check_contents(part, checksum, size_bytes, url, "it was discarded, run the same command again")
    except UserError:
        part.write_bytes(b"")
        raise


def check_contents(path: Path, checksum: str | None, size_bytes: int | None, name: str, remedy: str) -> None:
    """Raise UserError unless a file has the published size and checksum, as far as they are known.

    Args:
        name, remedy: what the sentence calls the file, and how it ends.
    """
    algorithm, _, published = (checksum or "").partition(":")
    if size_bytes is not None and size_of(path) != size_bytes:
        difference = f"{size_of(path):,} bytes instead of {size_bytes:,}"
    elif checksum and digest_of(path, algorithm) != published:
        difference = f"its {algorithm.upper()} differs"
    else:
        return
    raise UserError(f"{name} is not the published file ({difference}): {remedy}.")


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def receive(url: str, part: Path) -> None:
    """Append the rest of `url` to `part`, or write it from the beginning if the server cannot resume."""
    offset = size_of(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
        if offset and response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # there is nothing left to send; the checksum is verified afterwards
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            offset = 0
        length = int(response.headers.get("Content-Length", 0))
        check_free_space(part.parent, length, f"download {part.stem}")
        progress = tqdm(desc=part.stem, initial=offset, total=offset + length or None, unit="B", unit_scale=True)
        with progress, open(part, "ab" if offset else "wb") as file:
            for piece in response.iter_content(PIECE_BYTES):
                file.write(piece)
                progress.update(len(piece))


def is_transient(error: requests.RequestException) -> bool:
    """Tell whether trying again may help."""
    if error.response is not None:
        return error.response.status_code >= 500 or error.response.status_code in (408, 429)
    return isinstance(error, requests.ConnectionError | requests.Timeout | requests.exceptions.ChunkedEncodingError)


def reason(error: requests.RequestException) -> str:
    """Return in words what went wrong."""
    if error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.ConnectionError | requests.Timeout):
        return "the server cannot be reached or does not answer"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection was interrupted"
    return f"the address is not valid ({error})"


def digest_of(path: str | Path, algorithm: str) -> str:
    """Return a digest of a file's contents, in hexadecimal; `algorithm` is md5 or sha256."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def extract(path: Path, archive: Archive, data_dir: Path) -> None:
    """Extract an archive into a temporary folder, then move it to its place, or its files into a folder already there.

    Raises UserError for an archive that is damaged or unsafe, or a disk that is too small.
    """
    unfinished = data_dir / f".{archive.folder}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        with zipfile.ZipFile(path) as opened:
            members = [member for member in opened.infolist() if not member.filename.startswith("__MACOSX/")]
            check_members(path, members)
            check_free_space(data_dir, sum(member.file_size for member in members), f"extract {path.name}")
            for member in tqdm(members, desc=f"Extracting {path.name}", unit="file"):
                extract_member(opened, member, unfinished)
        there = find_irmas(data_dir).get(archive.folder)
        extracted = unfinished / archive.folder if (unfinished / archive.folder).is_dir() else unfinished
        if there is None:
            extracted.rename(data_dir / archive.folder)
        else:
            add_missing_files(extracted, there, archive.folder)
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is not a readable zip ({error}): delete it and run the same command again.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Raise UserError for an archive that would write outside its folder, create links, or fill the disk."""
    for member in members:
        name = member_name(member).replace("\\", "/")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if name.startswith("/") or ":" in name.split("/")[0] or ".." in name.split("/"):
            raise UserError(
                f"{path} contains {member.filename!r}, which would be written outside its folder: not extracted."
            )
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UserError(f"{path} contains {member.filename!r}, which is not a regular file: not extracted.")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & ENCRYPTED:
            # zipfile decompresses other formats a whole piece at a time, of any size: it could fill the memory
            raise UserError(
                f"{path} contains {member.filename!r}, which is encrypted or in an unusual format: not extracted."
            )
    total = sum(member.file_size for member in members)
    if total > MAX_EXTRACTED_BYTES or len(members) > MAX_EXTRACTED_FILES:
        raise UserError(
            f"{path} would extract to {len(members)} files and {total:,} bytes, far more than IRMAS: not extracted."
        )


def extract_member(opened: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> None:
    """Write one member below `folder` under its own name; zipfile stops at the size that the archive declares."""
    target = folder / member_name(member)
    if member.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with opened.open(member) as source, open(target, "wb") as file:
        shutil.copyfileobj(source, file)


def member_name(member: zipfile.ZipInfo) -> str:
    """Return a member's name, decoded from UTF-8 where possible.

    zipfile reads code page 437 unless the archive declares UTF-8, but archives from macOS and Linux contain UTF-8
    without declaring it. A name that is not UTF-8 stays as zipfile read it.
    """
    if member.flag_bits & 0x800:
        return member.filename
    try:
        return member.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return member.filename


def add_missing_files(extracted: Path, there: Path, folder: str) -> None:
    """Move the files that `there` lacks; names garbled by an unzip tool count as present."""
    present = {published_file(path, folder) for path in walk_files(there)}
    for path in walk_files(extracted):
        if published_file(path, folder) not in present:
            inner = there / Path(path).parent.name  # the class, or the inner folder of a test part
            if folder != TRAINING_FOLDER and not inner.is_dir():
                inner = there
            inner.mkdir(exist_ok=True)
            os.replace(path, inner / os.path.basename(path))


def published_file(path: str, folder: str) -> str:
    """Return the published path of a clip or annotation that is somewhere in one of IRMAS's folders."""
    inner = dict(TEST_FOLDERS.values()).get(folder) or Path(path).parent.name
    stem, extension = os.path.splitext(os.path.basename(path))
    return published_name(f"{folder}/{inner}/{stem}.wav").removesuffix(".wav") + extension


def check_free_space(folder: Path, needed_bytes: int, purpose: str) -> None:
    """Raise UserError if the disk has less than `needed_bytes` free."""
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise UserError(
            f"The disk of {folder} has {free_bytes / 1e9:.1f} GB free but {needed_bytes / 1e9:.1f} GB are needed "
            f"to {purpose}: free some space, or choose a folder on another disk."
        )
