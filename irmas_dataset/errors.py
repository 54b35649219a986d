"""The one error that a user can cause."""


class UserError(Exception):
    """A mistake in the input: one sentence that names the file or flag and the way out.

    `run_irmas.py` prints the sentence without a traceback and exits with code 2.
    """
