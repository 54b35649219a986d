"""Measuring the samples of a clip: level, clipping, silence, identical channels and bandwidth."""

import numpy as np
import scipy.ndimage
import scipy.signal

SILENT_PEAK_DB = -60.0  # a clip whose loudest sample is below this is silent: played notes do not fade so far
SILENT_FRAME_DB = -60.0
FRAME_SECONDS = 0.05
CLIPPED_LEVEL = 0.999  # of full scale; CLIPPED_RUN samples in a row at this level are clipping, not music
CLIPPED_RUN = 3
SAME_CHANNELS_DB = -60.0  # of the difference between two channels, relative to what they have in common
EDGE_DB = 20.0  # fall of the spectrum at the edge that a resampler or a codec leaves
FIRST_EDGE_HZ = 2000  # below this, music itself can end abruptly
LAST_EDGE = 0.95  # of half the sampling rate: above this, the filter of every recorder falls
LOWEST_DB = -200.0


def measure_levels(frames: np.ndarray, sampling_rate: int) -> dict[str, float]:
    """Measure decoded audio (samples, channels), float32 in [-1, 1].

    Returns peak_db and rms_db (dB of full scale, over all channels), clipped_samples (the most in one channel),
    silent_share (of frames of 50 ms), same_channels (1.0 if all channels are equal; 0.0 for mono files), bandwidth_hz
    (above it there is almost no energy) and bandwidth_edge_db (how far the spectrum falls there: natural music fades
    out, resampled or coded music is cut off).
    """
    bandwidth_hz, edge_db = bandwidth(frames.mean(axis=1), sampling_rate)
    return {
        "peak_db": decibels(np.abs(frames).max() ** 2),
        "rms_db": decibels(np.mean(frames**2)),
        "clipped_samples": float(max(clipped_samples(channel) for channel in frames.T)),
        "silent_share": silent_share(frames, sampling_rate),
        "same_channels": float(has_same_channels(frames)),
        "bandwidth_hz": bandwidth_hz,
        "bandwidth_edge_db": edge_db,
    }


def decibels(power: float) -> float:
    """Return a power in dB, at least LOWEST_DB."""
    return float(max(LOWEST_DB, 10 * np.log10(max(float(power), 1e-30))))


def clipped_samples(waveform: np.ndarray) -> int:
    """Count the samples at full scale in runs of CLIPPED_RUN or more."""
    at_limit = np.abs(waveform) >= CLIPPED_LEVEL
    if not at_limit.any():
        return 0
    ends = np.flatnonzero(np.diff(np.concatenate([[0], at_limit.astype(np.int8), [0]])))
    runs = ends[1::2] - ends[::2]
    return int(runs[runs >= CLIPPED_RUN].sum())


def silent_share(frames: np.ndarray, sampling_rate: int) -> float:
    """Return the share of 50 ms frames whose RMS is below -60 dB of full scale; frames: (samples, channels)."""
    length = min(len(frames), max(1, round(FRAME_SECONDS * sampling_rate)))
    whole = len(frames) // length
    power = np.mean(frames[: whole * length].reshape(whole, -1) ** 2, axis=1)
    return float(np.mean(power < 10 ** (SILENT_FRAME_DB / 10)))


def has_same_channels(frames: np.ndarray) -> bool:
    """Tell whether all channels of (samples, channels) are the same signal; False for a single channel."""
    if frames.shape[1] == 1:
        return False
    common = frames.mean(axis=1, keepdims=True)
    return bool(np.mean((frames - common) ** 2) <= 10 ** (SAME_CHANNELS_DB / 10) * np.mean(common**2))


def bandwidth(waveform: np.ndarray, sampling_rate: int) -> tuple[float, float]:
    """Return the frequency in Hz above which a waveform (samples,) has no energy, and by how many dB it falls there.

    If a continuous spectrum, not one of single partials, falls by 20 dB or more within 300 Hz and stays down, that edge
    is the bandwidth. Otherwise it is the highest frequency within 80 dB of the strongest, with a fall of 0 dB.
    """
    size = min(4096, len(waveform))
    frequencies, power = scipy.signal.welch(waveform, sampling_rate, window="hann", nperseg=size, detrend=False)
    level = 10 * np.log10(power.astype(np.float64) + 1e-20)
    if level.max() <= -190 or size < 1024:
        return 0.0, 0.0
    hertz = 1 / frequencies[1]  # bins per Hz
    below = scipy.ndimage.percentile_filter(level, 20, size=round(800 * hertz))  # over 400 Hz to each side
    smooth = scipy.ndimage.uniform_filter1d(level, round(100 * hertz))
    above = np.maximum.accumulate(smooth[::-1])[::-1]
    centre, apart = round(400 * hertz), round(700 * hertz)
    fall = below[:-apart] - above[apart:]  # from a frequency to the loudest one at least 700 Hz above it
    fall[: round(FIRST_EDGE_HZ * hertz) - centre] = 0
    if fall.max(initial=0.0) >= EDGE_DB:  # there is none where the rate is below 1.4 kHz
        steepest = int(fall.argmax())
        middle = (below[steepest] + above[steepest + apart]) / 2
        edge = steepest + int(np.flatnonzero(smooth[steepest : steepest + apart] >= middle)[-1])
        if edge < LAST_EDGE * len(level):
            return float(frequencies[edge]), float(fall[steepest])
    return float(frequencies[np.flatnonzero(smooth >= smooth.max() - 80)[-1]]), 0.0
