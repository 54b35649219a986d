"""Recognising the same audio after re-encoding, trimming and a change of level.

Candidates come from a robust hash (Haitsma and Kalker, "A highly robust audio fingerprinting system", ISMIR 2002): 32
bits every 16 ms, each the sign of how the difference of two neighbouring frequency bands changes in time, so that gain
and smooth equalisation cancel out. Clips that share enough hashes at one offset are then compared sample by sample: the
same audio correlates, music that only sounds alike, such as other excerpts of one recording, does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.fft import next_fast_len

RATE = 8000  # Hz, of the waveforms that are hashed and compared
WINDOW, HOP = 2048, 128  # samples: long windows with 15/16 overlap make the hash independent of where it starts
BANDS_HZ = (300.0, 3000.0)
HASHES_AT_ONCE = 4096  # about a minute
MOST_CLIPS_OF_A_HASH = 40  # a hash in more clips than this is not informative
LEAST_COMMON_HASHES = 3
MOST_DIFFERING_BITS = 0.3  # unrelated music differs in half of them
LEAST_CORRELATION = 0.94  # copies through mp3 and ogg had 0.97 and more, phrases repeated by a sampler up to 0.91
LEAST_OVERLAP_SECONDS = 1.5
OVERSAMPLING = 4  # of the cross-correlation: a copy may be shifted by a fraction of a sample


@dataclass(frozen=True)
class Candidate:
    """Two clips, by position, that may share audio; `shift` is where the second starts in the first, in hops."""

    first: int
    second: int
    shift: int


@dataclass(frozen=True)
class Match:
    """Shared audio: `offset_seconds` is where the second clip starts in the first, `correlation` is at most 1."""

    offset_seconds: float
    overlap_seconds: float
    correlation: float


def fingerprint(waveform: np.ndarray) -> np.ndarray:
    """Return the hashes of a waveform (samples,) at 8 kHz: uint32 (frames - 1,), one every 16 ms.

    Silent frames have the hash 0, which `candidates` ignores.
    """
    if len(waveform) < WINDOW + HOP:
        return np.zeros(0, dtype=np.uint32)
    if len(waveform) > WINDOW + (HASHES_AT_ONCE + 1) * HOP:  # a long recording in pieces, for the memory
        step = HASHES_AT_ONCE * HOP
        pieces = (waveform[start : start + step + WINDOW] for start in range(0, len(waveform), step))
        return np.concatenate([fingerprint(piece) for piece in pieces])
    frames = np.lib.stride_tricks.sliding_window_view(waveform, WINDOW)[::HOP] * np.hanning(WINDOW).astype(np.float32)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    edges = np.geomspace(*BANDS_HZ, 34) * WINDOW / RATE
    energy = np.add.reduceat(power, np.round(edges).astype(int), axis=1)[:, :33]
    bits = np.diff(np.diff(energy, axis=1), axis=0) > 0
    hashes = np.packbits(bits, axis=1).view(">u4")[:, 0].astype(np.uint32)
    audible = energy.sum(axis=1) > 1e-7 * WINDOW**2 / 16  # about -60 dB of full scale
    hashes[~(audible[1:] & audible[:-1])] = 0
    return hashes


def candidates(fingerprints: Sequence[np.ndarray], first_ones: int | None = None) -> list[Candidate]:
    """Return the pairs of clips whose hashes agree at one offset, each pair once, in order.

    fingerprints: for each clip, the hashes from `fingerprint`.
    first_ones: compares only the first clips, as many as this, with the others; None compares each with each.
    """
    if not any(len(hashes) for hashes in fingerprints):
        return []
    clips = np.repeat(np.arange(len(fingerprints)), [len(hashes) for hashes in fingerprints])
    times = np.concatenate([np.arange(len(hashes)) for hashes in fingerprints])
    hashes = np.concatenate(fingerprints)
    if first_ones is not None:
        shared = np.intersect1d(hashes[clips < first_ones], hashes[clips >= first_ones])
        is_shared = np.isin(hashes, shared)
        hashes, clips, times = hashes[is_shared], clips[is_shared], times[is_shared]
    pairs = common_hashes(hashes, clips, times)
    if first_ones is not None:
        pairs = pairs[(pairs["first"] < first_ones) & (pairs["second"] >= first_ones)]
    rows, counts = np.unique(pairs, return_counts=True)
    best: dict[tuple[int, int], tuple[float, int]] = {}
    for row in rows[counts >= LEAST_COMMON_HASHES]:
        first, second, shift = int(row["first"]), int(row["second"]), int(row["shift"])
        differing = differing_bits(fingerprints[first], fingerprints[second], shift)
        if differing <= MOST_DIFFERING_BITS and differing < best.get((first, second), (1.0, 0))[0]:
            best[first, second] = (differing, shift)
    return [Candidate(*pair, shift) for pair, (_, shift) in sorted(best.items())]


def common_hashes(hashes: np.ndarray, clips: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return every occurrence of a hash in two clips as a row of `first`, `second` (clips) and `shift` (hops).

    hashes, clips, times: (hashes,), where and when each occurs; of several occurrences in one clip, the first counts.
    """
    order = np.lexsort((times, clips, hashes))
    order = order[hashes[order] != 0]
    hashes, clips, times = hashes[order], clips[order], times[order]
    once = np.ones(len(hashes), dtype=bool)
    once[1:] = (hashes[1:] != hashes[:-1]) | (clips[1:] != clips[:-1])
    hashes, clips, times = hashes[once], clips[once], times[once]
    _, starts, sizes = np.unique(hashes, return_index=True, return_counts=True)
    found = [np.zeros(0, dtype=[("first", "i4"), ("second", "i4"), ("shift", "i4")])]
    for size in range(2, MOST_CLIPS_OF_A_HASH + 1):
        members = starts[sizes == size][:, None] + np.arange(size)
        low, high = (members[:, column].ravel() for column in np.triu_indices(size, 1))
        pairs = np.empty(len(low), dtype=found[0].dtype)
        pairs["first"], pairs["second"], pairs["shift"] = clips[low], clips[high], times[low] - times[high]
        found.append(pairs)
    return np.concatenate(found)


def differing_bits(first: np.ndarray, second: np.ndarray, shift: int) -> float:
    """Return the share of bits in which two fingerprints differ when the second starts `shift` hops into the first."""
    ours, theirs = (first[shift:], second) if shift >= 0 else (first, second[-shift:])
    common = min(len(ours), len(theirs))
    ours, theirs = ours[:common], theirs[:common]
    audible = (ours != 0) & (theirs != 0)
    if audible.sum() * HOP < (LEAST_OVERLAP_SECONDS - WINDOW / RATE) * RATE:
        return 1.0
    return float(np.bitwise_count(ours[audible] ^ theirs[audible]).mean() / 32)


def compare(first: np.ndarray, second: np.ndarray, shift: int) -> Match | None:
    """Correlate two waveforms (samples,) at 8 kHz around a shift in hops; return None if they do not share audio.

    The correlation is normalised over the overlap, after a filter that gives low and high frequencies equal weight; the
    polarity of a copy does not matter.
    """
    first, second = (np.diff(waveform.astype(np.float64)) for waveform in (first, second))
    size = next_fast_len(len(first) + len(second), real=True)
    cross = np.conj(np.fft.rfft(second, size)) * np.fft.rfft(first, size)
    correlation = np.fft.irfft(cross, OVERSAMPLING * size) * OVERSAMPLING
    lags = np.arange((shift - 2) * HOP * OVERSAMPLING, (shift + 2) * HOP * OVERSAMPLING + 1)
    energies = [np.concatenate([[0], np.cumsum(waveform**2)]) for waveform in (first, second)]
    begin = np.clip(np.round(lags / OVERSAMPLING).astype(int), -len(second), len(first))
    start, stop = np.maximum(begin, 0), np.minimum(begin + len(second), len(first))
    shared = [energies[0][stop] - energies[0][start], energies[1][stop - begin] - energies[1][start - begin]]
    long_enough = stop - start >= LEAST_OVERLAP_SECONDS * RATE
    norm = np.sqrt(np.maximum(shared[0] * shared[1], 1e-12))
    likeness = np.where(long_enough, np.abs(correlation[lags % (OVERSAMPLING * size)]) / norm, 0)
    best = int(likeness.argmax())
    if likeness[best] < LEAST_CORRELATION:
        return None
    return Match(
        lags[best] / OVERSAMPLING / RATE, float(stop[best] - start[best]) / RATE, float(min(1, likeness[best]))
    )
