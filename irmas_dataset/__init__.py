"""IRMAS as a `datasets` dataset: `load_irmas` returns the splits, `prepare` adds the waveforms.

Names are imported on first use (PEP 562), so that `irmas_dataset.errors` and `irmas_dataset.labels` load in
milliseconds, and load even if `datasets` or `soundfile` is missing: `doctor` has to report that in a sentence.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irmas_dataset.audio import WaveformColumn, decode, prepare, resample
    from irmas_dataset.builder import Irmas
    from irmas_dataset.files import known_faults, load_index
    from irmas_dataset.loading import describe, load_irmas

__all__ = [
    "Irmas",
    "WaveformColumn",
    "decode",
    "describe",
    "known_faults",
    "load_index",
    "load_irmas",
    "prepare",
    "resample",
]


def __getattr__(name: str) -> object:
    if name in ("load_irmas", "describe"):
        from irmas_dataset import loading as module
    elif name in ("prepare", "decode", "resample", "WaveformColumn"):
        from irmas_dataset import audio as module
    elif name == "Irmas":
        from irmas_dataset import builder as module
    elif name in ("load_index", "known_faults"):
        from irmas_dataset import files as module
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(module, name)
