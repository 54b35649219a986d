"""From the authors' weights to a model folder, and from a released checkpoint's name to its folder in the user's cache."""

import json
import logging
import os
import shutil
from pathlib import Path

from filelock import FileLock
from huggingface_hub import constants, is_offline_mode

from irmas_dataset.download import check_contents, digest_of, fetch
from irmas_dataset.errors import UserError
from irmas_dataset.whole_file import open_to_readers, write_json
from irmas_recipe.models.beats import convert_beats
from irmas_recipe.models.mobilenet import convert_mobilenet
from irmas_recipe.models.passt import convert_passt
from irmas_recipe.models.pipeline.attach import attach_pipeline
from irmas_recipe.training.released import HUB, Released, cache_folder, find_released, is_released

logger = logging.getLogger(__name__)

CONVERTERS = {"beats": convert_beats, "mobilenet": convert_mobilenet, "passt": convert_passt}
MIRROR = "IRMAS_MIRROR"
"""Environment variable: the address of a folder that has the released files too, asked first; it cannot change them."""


def convert(architecture: str, checkpoint: Path, folder: Path, released_as: str) -> None:
    """Write a model folder from the authors' weights; raise UserError unless they fit exactly.

    Args:
        released_as: the file's published name, which stays in the model's configuration, for cards.
    """
    CONVERTERS[architecture].convert(checkpoint, folder)
    attach_pipeline(folder)
    open_to_readers(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", config | {"released_as": released_as})


def local_name(name: str) -> str:
    """Return a model's name as transformers takes it: that of a released checkpoint becomes its folder in the cache."""
    return str(released_model(name)) if is_released(name) else name


def released_model(name: str) -> Path:
    """Return the folder of a released checkpoint, downloaded, checked and converted if it is not in the cache yet.

    Several processes may ask at once; one of them does the work. An interrupted download is resumed. A file that was put
    into the cache by hand is taken, and kept.

    Raises:
        UserError: there is no such checkpoint, it cannot be fetched or is not the published one, or the disk fails.
    """
    released = find_released(name)
    if released.is_cached:
        return released.folder  # without writing anything: a shared cache may be read-only
    try:
        released.by_hand.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(cache_folder() / f".{released.name}.lock"):
            if not released.is_cached:
                make_folder(released)
    except OSError as error:
        raise UserError(
            f"{released.path} cannot be written to {cache_folder()}: {error.strerror or error}; HF_HOME moves the cache."
        ) from error
    return released.folder


def make_folder(released: Released) -> None:
    """Fetch a checkpoint's file, convert it, and give the finished folder its name in one step."""
    unfinished = cache_folder() / f".{released.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    part = released.by_hand.with_name(f"{released.file_name}.part")
    if released.by_hand.is_file():
        file = released.by_hand
        check_contents(file, checksum_of(released), released.size_bytes, str(file), "delete it, or put it there again")
    else:
        file = part
        download(released, part)
    if released.sha256 is None:
        logger.warning("%s: nobody has published its SHA256; that of this file is %s.", released.path, digest_of(file, "sha256"))  # fmt: skip
    try:
        convert(released.architecture, file, unfinished, released.file_name)
        shutil.rmtree(released.folder, ignore_errors=True)  # of what somebody has deleted in part
        os.replace(unfinished, released.folder)
        part.unlink(missing_ok=True)
    except UserError:
        part.unlink(missing_ok=True)  # resuming the download would not help
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def checksum_of(released: Released) -> str | None:
    return f"sha256:{released.sha256}" if released.sha256 else None


def download(released: Released, part: Path) -> None:
    """Download a checkpoint's file to `part`, from the first address that has it.

    Raises:
        UserError: the machine is offline, or no address gives the published file.
    """
    addresses = released.addresses
    if is_offline_mode():
        raise UserError(
            f"{released.path} is not on this machine, and HF_HUB_OFFLINE is set: unset it, or fetch {addresses[0]} "
            f"({released.size}) elsewhere and put it at {released.by_hand}."
        )
    if os.environ.get(MIRROR):
        addresses = (f"{os.environ[MIRROR].rstrip('/')}/{released.file_name}", *addresses)
    logger.warning("Fetching %s (%s, %s licence) once.", released.path, released.size, released.licence)
    for address in addresses:
        try:
            hub = constants.ENDPOINT.rstrip("/") + "/"  # HF_ENDPOINT is a mirror of the Hub
            fetch(address.replace(HUB, hub, 1), part, checksum_of(released), released.size_bytes)
            return
        except UserError as error:
            failure = error
            if address != addresses[-1]:
                logger.warning("%s", error)
            if released.sha256 is None:
                part.unlink(missing_ok=True)  # the rest of it may be of another file elsewhere
    raise UserError(f"{str(failure).rstrip('.')}, or put the file at {released.by_hand} by hand.") from failure
