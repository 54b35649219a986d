"""The error for mistakes that a user can fix, and how a command ends with it."""

import errno
import logging
import os
import sys
from collections.abc import Callable

STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class UserError(Exception):
    """A mistake in the input, in one sentence that names the file or flag and the remedy.

    `run_irmas.py` prints the sentence without a traceback and exits with code 2.
    """


def storage_problem(error: BaseException) -> str | None:
    """Return one sentence if an error or its cause is a disk that is full, over quota or read-only; otherwise None.

    Libraries wrap the system's error: `datasets` in its own exceptions, safetensors and torch in text.
    """
    seen: BaseException | None = error
    while seen is not None:
        said = str(seen)
        if isinstance(seen, OSError) and seen.errno in STORAGE_ERRORS:
            where = f" ({seen.filename})" if seen.filename else ""
            return f"Cannot write: {os.strerror(seen.errno)}{where}. Free some space or choose another folder, then run the command again."
        for number in STORAGE_ERRORS:
            if f"os error {number})" in said or f"code: {number}," in said:
                return f"Cannot write: {os.strerror(number)}. Free some space or choose another folder, then run the command again."
        if "PytorchStreamWriter failed writing file" in said or "unexpected pos" in said:  # all that torch.save says
            return "Cannot write a checkpoint: the disk is full. Free some space or choose another folder, then run the command again."
        seen = seen.__cause__ or seen.__context__
    return None


def start(main: Callable[[list[str]], None]) -> None:
    """Run a command with the arguments of the shell; a user's mistake or a full disk ends in one sentence and exit code 2."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader, such as `head`, has stopped reading
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if (sentence := storage_problem(error)) is None:
            raise
        print(sentence, file=sys.stderr)
        sys.exit(2)
