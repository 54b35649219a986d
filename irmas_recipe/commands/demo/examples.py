"""Short synthetic clips for the page, whose instruments change halfway."""

from pathlib import Path

import numpy as np

from irmas_dataset.labels import readable_name
from irmas_dataset.synthetic_music import SAMPLE_RATE, draw_style, play
from irmas_dataset.write_audio import write_audio

EXAMPLES = ((("pia",), ("pia", "vio")), (("sax",), ("org",)), (("gac",), ("gac", "voi")))
"""Instruments of each example's first and second half."""
HALF_SECONDS = 5


def write_examples(folder: Path) -> list[Path]:
    """Write the clips as wav files, the same ones every time, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    examples = []
    for number, halves in enumerate(EXAMPLES):
        rng = np.random.default_rng(number)
        ensemble = tuple(dict.fromkeys(code for half in halves for code in half))
        style = draw_style(ensemble, drums=False, rng=rng)
        clip = np.concatenate([play(style, half, HALF_SECONDS * SAMPLE_RATE, rng) for half in halves])
        names = [" and ".join(readable_name(code) for code in half) for half in halves]
        examples.append(folder / f"{names[0]}, then {names[1]}.wav")
        write_audio(examples[-1], clip, SAMPLE_RATE)
    return examples
