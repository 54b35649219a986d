"""A few seconds of music that may be given away, beside every model of IRMAS's classes: the Hub's page plays it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from irmas_dataset.audio import resample
from irmas_dataset.labels import INSTRUMENT_CODES
from irmas_dataset.synthetic_music import SAMPLE_RATE, draw_style, play
from irmas_dataset.write_audio import write_audio

EXAMPLE = "example.flac"
EXAMPLE_INSTRUMENTS = ("pia", "vio")
SECONDS = 6


def write_example(run_dir: Path, classes: Sequence[str]) -> None:
    """Synthesise a piano and a violin into the run folder; nothing for a model of other classes."""
    if set(classes) != set(INSTRUMENT_CODES):
        return
    rng = np.random.default_rng(0)
    style = draw_style(EXAMPLE_INSTRUMENTS, drums=False, rng=rng)
    stereo = play(style, EXAMPLE_INSTRUMENTS, SECONDS * SAMPLE_RATE, rng)
    mono = resample(stereo.mean(axis=1, dtype=np.float32) / 2**15, SAMPLE_RATE, 16_000)
    write_audio(run_dir / EXAMPLE, mono, 16_000)
