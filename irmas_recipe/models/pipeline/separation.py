"""The part of the music that a model was trained on, taken out of mono blocks."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

PIECE_SECONDS = 60  # music is separated piece by piece, as it was for training


def separation_of(name: str | None) -> Callable[[np.ndarray, int], np.ndarray] | None:
    """Return the function that separates the part of the music a model was trained on; None if that is all of it.

    Raises:
        ValueError: librosa is missing, or cannot separate this part.
    """
    if name in (None, "none"):
        return None
    if name not in ("harmonic", "percussive"):
        raise ValueError(
            f"This model hears only the {name} part of the music: pass `separate`, a function of samples and rate that "
            "separates it, such as this project's irmas_dataset.separation.Separation, or use `irmas predict`."
        )
    try:
        import librosa
    except ImportError as error:
        raise ValueError(f"This model hears only the {name} part of the music: run `pip install librosa`.") from error
    effect = getattr(librosa.effects, name)

    def separate(waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
        padded = np.pad(waveform, (0, max(2048 - len(waveform), 0)))  # librosa returns NaN for less than its one frame
        return effect(padded).astype(np.float32)[: len(waveform)]

    return separate


def separate_blocks(
    blocks: Iterable[np.ndarray], rate: int, separate: Callable[[np.ndarray, int], np.ndarray]
) -> Iterator[np.ndarray]:
    """Yield the separated part of mono blocks (samples,) in pieces of PIECE_SECONDS."""
    length, buffer = PIECE_SECONDS * rate, np.zeros(0, np.float32)
    for block in blocks:
        buffer = np.concatenate([buffer, block])
        while len(buffer) >= length:
            yield separate(buffer[:length], rate)
            buffer = buffer[length:]
    if len(buffer):
        yield separate(buffer, rate)
