"""A clip's timbre in a few hundred numbers, for a small classifier that can check labels without a training run."""

import numpy as np

WINDOW_SECONDS, HOP_SECONDS = 0.046, 0.023
MEL_BANDS = 64
RANGE_HZ = (40.0, 11_000.0)
RANGE_DB = 80.0  # below the loudest band and frame


def timbre(waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Summarise a waveform (samples,) independently of its level, as float32 (256,).

    The values are the mean, standard deviation, 95th percentile and mean absolute change over time of 64 mel bands, in
    dB below the loudest band and frame of the clip.
    """
    window, hop = round(WINDOW_SECONDS * sampling_rate), round(HOP_SECONDS * sampling_rate)
    waveform = np.pad(waveform, (0, max(0, window + hop - len(waveform))))
    frames = np.lib.stride_tricks.sliding_window_view(waveform, window)[::hop] * np.hanning(window).astype(np.float32)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    mel = power @ mel_filters(power.shape[1], sampling_rate)
    level = 10 * np.log10(np.maximum(mel, 1e-12))
    level = np.maximum(level, level.max() - RANGE_DB) - level.max()
    change = np.abs(np.diff(level, axis=0)).mean(axis=0)
    return np.concatenate([level.mean(0), level.std(0), np.percentile(level, 95, axis=0), change]).astype(np.float32)


def mel_filters(num_bins: int, sampling_rate: int) -> np.ndarray:
    """Return triangular filters of unit area, float32 (bins, 64), evenly spaced on O'Shaughnessy's mel scale."""
    low, high = 2595 * np.log10(1 + np.array(RANGE_HZ) / 700)
    edges = 700 * (10 ** (np.linspace(low, high, MEL_BANDS + 2) / 2595) - 1)
    bins = np.linspace(0, sampling_rate / 2, num_bins)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0, np.minimum(rising, falling))
    return (filters / np.maximum(filters.sum(axis=0), 1e-9)).astype(np.float32)
