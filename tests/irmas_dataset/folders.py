"""Small folders in IRMAS's own layout, with real wav files, for the tests of this folder."""

from pathlib import Path

import numpy as np
import soundfile

TRAINING_FILES = (
    "cel/008__[cel][nod][cla]0058__1.wav",
    "cel/008__[cel][nod][cla]0058__2.wav",
    "cel/008__[cel][nod][cla]0058__3.wav",
    "cel/[cel][cla]0001__1.wav",
    "cel/[cel][pop_roc]0002__1.wav",
    "cla/[cla][cla]0150__1.wav",
    "cla/[cla][cla]0150__2.wav",
    "cla/001__[cla][dru][jaz_blu]0160__1.wav",
    "gel/014__[gel][---][pop_roc]0978__1.wav",
    "gel/014__[gel][---][pop_roc]0978__2.wav",
    "gel/[gel][lat_sou]0979__1.wav",
    "voi/[voi][cou_fol]2431__1.WAV",
    "voi/[voi][pop_roc]2432__1.wav",
)
TEST_FILES = {
    "IRMAS-TestingData-Part1/Part1/(02) dont kill the whale-1": "gel\t\n",
    "IRMAS-TestingData-Part1/Part1/(02) dont kill the whale-12": "gel\t\nvoi\t\n",
    "IRMAS-TestingData-Part2/IRTestingData-Part2/07-Blue - Corridor (1)-3": "voi\t\ncel\t\n",
    "IRMAS-TestingData-Part3/Part3/(02) dont kill the whale-1": "cla",
}


def write_audio(
    path: Path, seed: int = 0, seconds: float = 0.05, sampling_rate: int = 44100, channels: int = 2
) -> Path:
    """Write noise that depends on the seed; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, (round(seconds * sampling_rate), channels))
    soundfile.write(path, noise, sampling_rate, format="WAV", subtype="PCM_16")
    return path


def write_irmas(root: Path, training: bool = True, test: bool = True) -> Path:
    """Write a folder with every form of name that IRMAS has; returns the root."""
    for seed, name in enumerate(TRAINING_FILES if training else ()):
        write_audio(root / "IRMAS-TrainingData" / name, seed)
    for seed, (name, annotation) in enumerate(TEST_FILES.items() if test else ()):
        write_audio(root / f"{name}.wav", 100 + seed)
        (root / f"{name}.txt").write_text(annotation, encoding="utf-8")
    return root
