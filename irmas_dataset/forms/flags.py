"""The flags that say which columns and splits of a data set mean what; nothing here imports `datasets`, for `--help`."""

import argparse
from dataclasses import dataclass, fields

HELD_OUT = "none"
"""As --test_split: hold recordings out of the training split, whatever other splits there are. As --recording_column: no
column says which clips are of one recording."""


@dataclass(frozen=True)
class Columns:
    """What the flags of the same names say; None is a guess."""

    audio_column: str | None = None
    label_column: str | None = None
    recording_column: str | None = None
    train_split: str | None = None
    test_split: str | None = None
    data_config: str | None = None

    @property
    def given(self) -> list[str]:
        """The flags that are set."""
        return [item.name for item in fields(self) if getattr(self, item.name) is not None]

    @property
    def are_given(self) -> bool:
        """Whether any flag is set."""
        return bool(self.given)

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> "Columns":
        """Return what a command's arguments say."""
        return cls(**{item.name: getattr(arguments, item.name) for item in fields(cls)})


def add_column_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags to a command's parser."""
    for item in fields(Columns):
        parser.add_argument(f"--{item.name}", metavar="NAME", help="as in the recipe")
