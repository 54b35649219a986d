"""Separating music into drums, bass, vocals and the rest with Hybrid Demucs (Defossez 2021): waveform in, waveform out.

The network is torchaudio's HDEMUCS_HIGH_MUSDB_PLUS. It hears 44.1 kHz stereo in chunks that overlap and are faded into
each other. Its weights are never fetched here: whoever wants it fetches them once, with the command that the error names.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import soxr

from irmas_dataset.errors import UserError

SOURCES = ("drums", "bass", "other", "vocals")
NETWORK_RATE = 44_100
WEIGHTS = "torchaudio/models/hdemucs_high_trained.pt"  # in torch.hub's folder, where torchaudio leaves it
CHUNK_SECONDS, OVERLAP_SECONDS = 10.0, 1.0
CHUNKS_AT_ONCE = 4


def source(name: str, waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Return one of SOURCES of a waveform float32 (samples,), of the same length and rate.

    Raises:
        UserError: the network's weights are not on this machine, or are not its own.
    """
    at_rate = soxr.resample(waveform, sampling_rate, NETWORK_RATE, quality="HQ").astype(np.float32)
    found = soxr.resample(overlapped(at_rate, SOURCES.index(name)), NETWORK_RATE, sampling_rate, quality="HQ")
    return np.pad(found, (0, max(len(waveform) - len(found), 0)))[: len(waveform)].astype(np.float32)


def overlapped(waveform: np.ndarray, number: int) -> np.ndarray:
    """Return source `number` of a waveform (samples,) at NETWORK_RATE, added up from chunks whose weights sum to 1."""
    length, overlap = round(CHUNK_SECONDS * NETWORK_RATE), round(OVERLAP_SECONDS * NETWORK_RATE)
    spread = float(waveform.std())
    if not spread:
        return np.zeros_like(waveform)
    middle = float(waveform.mean())
    starts = range(0, max(len(waveform) - overlap, 1), length - overlap)
    padded = np.pad((waveform - middle) / spread, (0, starts[-1] + length - len(waveform)))
    ramp = np.linspace(0, 1, overlap, dtype=np.float32)
    total = np.zeros(len(padded), np.float32)
    for start, part in zip(starts, separated_chunks(padded, starts, length, number), strict=True):
        if start > 0:
            part[:overlap] *= ramp
        if start < starts[-1]:
            part[-overlap:] *= 1 - ramp
        total[start : start + length] += part
    return total[: len(waveform)] * spread


def separated_chunks(padded: np.ndarray, starts: range, length: int, number: int) -> Iterator[np.ndarray]:
    """Yield source `number` of each chunk, mono (length,), CHUNKS_AT_ONCE at a time through the network."""
    import torch

    network = load_network()
    device = next(network.parameters()).device
    for first in range(0, len(starts), CHUNKS_AT_ONCE):
        chunks = np.stack([padded[start : start + length] for start in starts[first : first + CHUNKS_AT_ONCE]])
        with torch.inference_mode():
            stereo = torch.from_numpy(chunks).to(device)[:, None].expand(-1, 2, -1)
            yield from network(stereo)[:, number].mean(dim=1).cpu().numpy()


@cache
def load_network():  # noqa: ANN201 (torch is imported only where it is used)
    """Return the network with its weights, on the first GPU if there is one, once in each process.

    Raises:
        UserError: the weights are not there, or do not fit.
    """
    import torch

    path = Path(torch.hub.get_dir()) / WEIGHTS
    if not path.is_file():
        raise UserError(
            f"--separation {', '.join(SOURCES)} need Hybrid Demucs' weights in {path}: fetch them once (about 320 MB) with "
            "`python -c 'from torchaudio.pipelines import HDEMUCS_HIGH_MUSDB_PLUS as d; d.get_model()'`."
        )
    network = build_network()
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # of an unpickler or of a state that does not fit: each has its own types
        raise UserError(f"{path} does not hold Hybrid Demucs' weights: remove it and fetch it again.") from error
    return network.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def build_network():  # noqa: ANN201
    """Return the network of HDEMUCS_HIGH_MUSDB_PLUS with random weights."""
    from torchaudio.models import hdemucs_high

    return hdemucs_high(sources=list(SOURCES))
