"""The error for mistakes that a user can fix, and how a command ends with it."""

import difflib
import errno
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

OWN_PACKAGES = ("irmas_dataset", "irmas_metric", "irmas_recipe", "run_irmas", "experiments")
EXTRAS = {"gradio": "demo", "onnx": "onnx", "onnxruntime": "onnx", "onnxscript": "onnx"}
"""Optional library -> the extra that brings it."""

STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class UserError(Exception):
    """A mistake in the input, in one sentence that names the file or flag and the remedy.

    The program prints the sentence without a traceback and exits with code 2.
    """

    def __init__(self, sentence: str) -> None:
        sentence = sentence.rpartition("UserError: ")[2]  # before it, a worker of a DataLoader puts its traceback
        super().__init__(" ".join(sentence.splitlines()))  # what a user gave may have line breaks in it


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, then the one that it was raised from or after, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def storage_problem(error: BaseException) -> str | None:
    """Return one sentence if an error or its cause is a disk that is full, over quota, read-only or not ours; otherwise None.

    Libraries wrap the system's error: `datasets` in its own exceptions, safetensors and torch in text.
    """
    for seen in chain_of(error):
        said = str(seen)
        if isinstance(seen, OSError) and seen.errno in STORAGE_ERRORS:
            where = f" ({seen.filename})" if seen.filename else ""
            return f"Cannot write: {os.strerror(seen.errno)}{where}. Free some space or choose another folder, then run the command again."
        if isinstance(seen, PermissionError) and seen.filename:
            return f"You may not read or write {seen.filename}. Change its permissions or name another place, then run the command again."
        for number in STORAGE_ERRORS:
            if f"os error {number})" in said or f"code: {number}," in said:
                return f"Cannot write: {os.strerror(number)}. Free some space or choose another folder, then run the command again."
        if "PytorchStreamWriter failed writing file" in said or "unexpected pos" in said:  # all that torch.save says
            return "Cannot write a checkpoint: the disk is full. Free some space or choose another folder, then run the command again."
    return None


def did_you_mean(path: Path) -> str:
    """Return how a sentence on a missing folder goes on: `; did you mean X? ` with the existing one nearest by name, or `; `."""
    parent = next(folder for folder in (path.parent, *path.parents) if folder.is_dir() or folder == folder.parent)
    missing = path.relative_to(parent).parts[0] if path.is_relative_to(parent) else path.name
    there = [folder.name for folder in sorted(parent.iterdir()) if folder.is_dir()] if parent.is_dir() else []
    nearest = difflib.get_close_matches(missing, there, n=1)
    return f"; did you mean {parent / nearest[0]}? " if nearest else "; "


def missing_package(error: ModuleNotFoundError) -> str | None:
    """Return one sentence on a library that is not installed; None where the missing module is this project's own."""
    name = (error.name or "").split(".")[0]
    if not name or name in OWN_PACKAGES:
        return None
    if name in EXTRAS:
        return f'{name} is not installed: in a clone run `pip install ".[{EXTRAS[name]}]"`, elsewhere `pip install "irmas-recipe[{EXTRAS[name]}]"`.'
    return (
        f"{name} is not installed for {sys.executable}: activate the environment that has it (`. .venv/bin/activate`), or "
        "run `pip install -r requirements.txt` in a clone."
    )


def message_alone(message: Warning | str, *_: object) -> str:
    """Return a warning for users: its sentence, without the line of code."""
    return f"{message}\n"


def keep_error_stream() -> None:
    """Give Python's error stream a descriptor of its own: threads that decode take C libraries' (`decoding.Silence`)."""
    if sys.stderr is not None and sys.stderr is sys.__stderr__:
        own = os.dup(sys.stderr.fileno())
        sys.stderr = os.fdopen(own, "w", 1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)


def start(main: Callable[[list[str]], None]) -> None:
    """Run a command with the arguments of the shell; a user's mistake or a disk that takes nothing ends in one sentence and exit code 2."""
    keep_error_stream()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    warnings.simplefilter("ignore")  # what libraries tell programmers
    warnings.filterwarnings("default", module="irmas_")
    warnings.formatwarning = message_alone
    if sys.stdout is not None:  # as the error stream: a name that it cannot show ends nothing
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        if (sentence := missing_package(error)) is None:
            raise
        print(sentence, file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader, such as `head`, has stopped reading
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (Exception, KeyboardInterrupt) as error:
        # `datasets` may raise another error after an interrupt.
        if any(isinstance(seen, KeyboardInterrupt) for seen in chain_of(error)):
            print("Stopped.", file=sys.stderr)
            sys.exit(130)
        if (sentence := storage_problem(error)) is None:
            raise
        print(sentence, file=sys.stderr)
        sys.exit(2)
