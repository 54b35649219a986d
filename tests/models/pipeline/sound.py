"""Music for the pipeline's tests, and its results as an array."""

import numpy as np

LABELS = ["cello", "piano", "voice"]
RATE = 16_000


def music(seconds: float, rate: int = RATE, channels: int | None = None, seed: int = 0) -> np.ndarray:
    """Tones and noise whose loudness moves, (samples,) or (samples, channels), within [-1, 1]."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    tones = np.sin(2 * np.pi * 440 * time) * np.sin(np.pi * time / 3) + 0.1 * random.standard_normal(len(time))
    tones = (0.4 * tones).astype(np.float32)
    return tones if channels is None else np.stack([tones] * channels, axis=1)


def scores(result: list[dict]) -> np.ndarray:
    """Return the scores of a result with all labels, in the order of LABELS."""
    by_label = {entry["label"]: entry["score"] for entry in result}
    return np.array([by_label[label] for label in LABELS])
