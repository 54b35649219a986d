"""Music of two sources for the experiments that leave sources out."""

from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000


def write_sources(folder: Path, seconds: float) -> Path:
    """Write tones of two classes, seven by each of two sources with their own noise: <folder>/train/<class>/<source>__<n>.wav."""
    generator, time = np.random.default_rng(0), np.arange(round(seconds * RATE)) / RATE
    for label, frequency in (("flu", 440), ("voi", 1500)):
        for source, noise in (("here", 0.05), ("there", 0.3)):
            of_class = folder / "train" / label
            of_class.mkdir(parents=True, exist_ok=True)
            for number in range(7):
                tone = np.sin(2 * np.pi * frequency * time) + noise * generator.normal(size=time.size)
                soundfile.write(of_class / f"{source}__{number}.wav", 0.3 * tone, RATE)
    return folder
