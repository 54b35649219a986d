"""The clips to measure with: some of IRMAS where it is at hand, otherwise synthesised ones, and longer ones made of them."""

import shutil
from pathlib import Path

import numpy as np
import soundfile
from datasets import DatasetDict

from irmas_dataset import load_irmas
from irmas_dataset.files import TRAINING_FOLDER
from irmas_dataset.synthetic import synthesize
from irmas_dataset.write_audio import write_audio

LONG_SECONDS = 20.0  # IRMAS's longest test clips


def make_clips(data_dir: str, folder: Path, clips: int) -> tuple[DatasetDict, str]:
    """Return splits of `clips` training clips whose files are copied to `folder`, and what they are in words."""
    real = sorted(Path(data_dir, TRAINING_FOLDER).glob("*/*.wav"))
    if real:
        for path in real[:: max(1, len(real) // clips)][:clips]:  # from all classes
            copy = folder / TRAINING_FOLDER / path.parent.name / path.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        words = f"training clips of {data_dir}"
    else:
        synthesize(folder, train=clips, test=1)
        words = "synthesised clips (44.1 kHz, stereo, 16 bit, as IRMAS's)"
    return load_clips(folder), words


def load_clips(folder: Path) -> DatasetDict:
    """Return the clips in `folder` as splits that all have every training clip, since no scores are reported."""
    train = load_irmas(folder, validation_fraction=0, test_fraction_if_no_test=0, cache_dir=folder / "cache")["train"]
    return DatasetDict(train=train, validation=train, test=train)


def make_long_clips(paths: list[str], folder: Path, count: int) -> list[str]:
    """Write `count` wav files of 20 s, each the given files one after another, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    rate = soundfile.info(paths[0]).samplerate
    needed, written = round(LONG_SECONDS * rate), []
    for number in range(count):
        parts, length = [], 0
        while length < needed:
            audio, _ = soundfile.read(paths[(number + len(parts)) % len(paths)], dtype="int16", always_2d=True)
            parts.append(audio)
            length += len(audio)
        path = folder / f"long {number}.wav"
        write_audio(path, np.concatenate(parts)[:needed], rate)
        written.append(str(path))
    return written
