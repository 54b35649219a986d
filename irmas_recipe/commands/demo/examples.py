"""Short synthetic clips for the page, whose instruments change halfway."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from irmas_dataset.labels import INSTRUMENT_CODES, readable_name
from irmas_dataset.synthetic_music import SAMPLE_RATE, draw_style, play
from irmas_dataset.write_audio import write_audio

EXAMPLES = ((("pia",), ("pia", "vio")), (("sax",), ("org",)), (("gac",), ("gac", "voi")))
"""Instruments of each example's first and second half."""
HALF_SECONDS = 5


def write_examples(folder: Path, labels: Sequence[str] | None = None) -> list[Path]:
    """Write the clips as wav files, the same ones every time, and return their paths.

    labels: the model's, which the examples keep to (default: IRMAS's). A model that knows fewer than two of IRMAS's
        instruments has no example.
    """
    folder.mkdir(parents=True, exist_ok=True)
    examples = []
    for number, halves in enumerate(halves_for(labels)):
        rng = np.random.default_rng(number)
        ensemble = tuple(dict.fromkeys(code for half in halves for code in half))
        style = draw_style(ensemble, drums=False, rng=rng)
        clip = np.concatenate([play(style, half, HALF_SECONDS * SAMPLE_RATE, rng) for half in halves])
        names = [" and ".join(readable_name(code) for code in half) for half in halves]
        examples.append(folder / f"{names[0]}, then {names[1]}.wav")
        write_audio(examples[-1], clip, SAMPLE_RATE)
    return examples


def halves_for(labels: Sequence[str] | None) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return those of EXAMPLES whose instruments are all among the labels, or else pairs of instruments that are."""
    known = [code for code in INSTRUMENT_CODES if labels is None or readable_name(code) in labels]
    fitting = [halves for halves in EXAMPLES if set().union(*halves) <= set(known)]
    pairs = [((first,), (second,)) for first, second in zip(known[::2], known[1::2], strict=False)]
    return fitting or pairs[: len(EXAMPLES)]
