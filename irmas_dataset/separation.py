"""Separating music into parts, for networks that hear only one of them (Gomez 2018): waveform in, waveform out.

Harmonic and percussive parts come from median-filtering the spectrogram (Fitzgerald 2010) with librosa's parameters.
Solo and accompaniment come from the pitch of the melody (pYIN, Mauch and Dixon 2014) and a mask around its harmonics.

Drums, bass, vocals and the rest come from a network (`demucs`), if its weights are there.

Each function takes a waveform float32 (samples,) and its rate in Hz and returns a waveform of the same length. A
`Separation` works piece by piece; `irmas_dataset.prepare(transform=...)` can send it to other processes and caches its
result.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import librosa
import numpy as np
from filelock import FileLock

from irmas_dataset.demucs import SOURCES, source

PIECE_SECONDS = 60  # longer music is separated piece by piece, so that memory does not grow with its length
FFT_SIZE, HOP = 2048, 512
LOWEST_HZ, HIGHEST_HZ = 65.4, 2093.0  # C2 to C7, the range of IRMAS's melody instruments
MASK_WIDTH_HZ = (
    30.0  # half the width of a partial's mask: about the main lobe of a Hann window of 2048 samples at 22 kHz
)
VIBRATO = 0.015  # added to it, as a share of the partial's frequency: a quarter tone either way


def harmonic(waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Return the part that is smooth along time: sustained notes."""
    return librosa.effects.harmonic(waveform).astype(np.float32)


def percussive(waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Return the part that is smooth along frequency: drums and attacks."""
    return librosa.effects.percussive(waveform).astype(np.float32)


def solo(waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Return the partials of the most salient pitch at each moment; silence where there is no pitch."""
    spectrum, mask = solo_mask(waveform, sampling_rate)
    return from_spectrum(spectrum * mask, len(waveform))


def accompaniment(waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Return the rest that `solo` removes: the two add up to the waveform."""
    spectrum, mask = solo_mask(waveform, sampling_rate)
    return from_spectrum(spectrum * (1 - mask), len(waveform))


SEPARATIONS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "harmonic": harmonic,
    "percussive": percussive,
    "solo": solo,
    "accompaniment": accompaniment,
}


@dataclass(frozen=True)
class Separation:
    """One of SEPARATIONS, or one of Hybrid Demucs' SOURCES, applied to music of any length in consecutive pieces of PIECE_SECONDS."""

    name: str

    @property
    def by_network(self) -> bool:
        """Whether a network separates, which one process should do: it has all cores or the GPU."""
        return self.name in SOURCES

    def __call__(self, waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
        length = PIECE_SECONDS * sampling_rate
        pieces = [waveform[start : start + length] for start in range(0, max(len(waveform), 1), length)]
        return np.concatenate([self.of_piece(piece, sampling_rate) for piece in pieces])

    def of_piece(self, piece: np.ndarray, sampling_rate: int) -> np.ndarray:
        """Separate one piece, padded to at least one frame: librosa returns NaN for less, as at the end of a clip."""
        if self.by_network:
            return source(self.name, piece, sampling_rate)
        compile_alone(self.name)
        padded = np.pad(piece, (0, max(FFT_SIZE - len(piece), 0)))
        return SEPARATIONS[self.name](padded, sampling_rate)[: len(piece)]


@cache
def compile_alone(name: str) -> None:
    """Separate a moment of noise once in each process, one process of the machine at a time.

    librosa's functions are compiled on first use and cached on disk; two processes that compile at once can leave a
    cache there that crashes every later process. So the lock lies beside that cache, which all of them share.
    """
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * FFT_SIZE).astype(np.float32)
    with FileLock(compiled_folder() / "compile_separation.lock"):
        SEPARATIONS[name](noise, 22050)


def compiled_folder() -> Path:
    """Return the folder of numba's cache of librosa: NUMBA_CACHE_DIR, else librosa's own, else the user's."""
    own = Path(librosa.__path__[0])
    given = os.environ.get("NUMBA_CACHE_DIR")
    folder = Path(given) if given else own if os.access(own, os.W_OK) else Path.home() / ".cache" / "numba"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def solo_mask(waveform: np.ndarray, sampling_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the complex spectrum and the share of the melody in each of its bins, both (bins, frames)."""
    spectrum = librosa.stft(waveform, n_fft=FFT_SIZE, hop_length=HOP)
    if not waveform.any():
        return spectrum, np.zeros(spectrum.shape, dtype=np.float32)
    pitches, _, _ = librosa.pyin(
        waveform, fmin=LOWEST_HZ, fmax=min(HIGHEST_HZ, 0.45 * sampling_rate), sr=sampling_rate,
        frame_length=FFT_SIZE, hop_length=HOP,
    )  # fmt: skip
    bins_hz = librosa.fft_frequencies(sr=sampling_rate, n_fft=FFT_SIZE)
    return spectrum, harmonic_mask(pitches[: spectrum.shape[1]], bins_hz)


def harmonic_mask(pitches_hz: np.ndarray, bins_hz: np.ndarray) -> np.ndarray:
    """Return a mask in [0, 1], (bins, frames): a raised cosine around every whole multiple of a frame's pitch.

    pitches_hz: (frames,), NaN for a frame without a pitch, which has no melody.
    bins_hz: (bins,), the frequencies of the spectrum's bins.
    """
    voiced = np.isfinite(pitches_hz)
    pitch = np.where(voiced, pitches_hz, 1.0)[None, :]
    number = np.maximum(np.rint(bins_hz[:, None] / pitch), 1)  # of the nearest partial
    distance = np.abs(bins_hz[:, None] - number * pitch)
    # A partial reaches at most halfway to its neighbour, or a low melody would claim everything.
    width = np.minimum(MASK_WIDTH_HZ + VIBRATO * number * pitch, pitch / 2)
    mask = np.where(distance < width, 0.5 + 0.5 * np.cos(np.pi * distance / width), 0.0)
    return (mask * voiced).astype(np.float32)


def from_spectrum(spectrum: np.ndarray, samples: int) -> np.ndarray:
    """Return the waveform (samples,) float32 of a spectrum."""
    return librosa.istft(spectrum, hop_length=HOP, n_fft=FFT_SIZE, length=samples).astype(np.float32)
