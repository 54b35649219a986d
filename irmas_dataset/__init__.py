"""IRMAS as a `datasets` dataset: `load_irmas` for the splits, `prepare` for the waveforms.

Names are imported when they are first used, so that `irmas_dataset.errors` and `irmas_dataset.labels` work where
`datasets` or `soundfile` is missing: `doctor` has to say so in a sentence.
"""

from importlib import import_module

_MODULES = {
    "load_irmas": "loading",
    "describe": "loading",
    "prepare": "audio",
    "decode": "audio",
    "resample": "audio",
    "WaveformColumn": "audio",
    "Irmas": "builder",
    "load_index": "files",
    "known_faults": "files",
}

__all__ = list(_MODULES)


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
