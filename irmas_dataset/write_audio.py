"""Writing audio so that readers find the file complete or not at all."""

import io
from pathlib import Path

import numpy as np
import soundfile

from irmas_dataset.whole_file import whole_file


def write_audio(path: Path, samples: np.ndarray, sampling_rate: int, subtype: str = "PCM_16") -> None:
    """Write audio (samples,) or (samples, channels), in the format of the suffix, that a reader finds whole or not at all.

    Raises OSError where the disk is full, which libsndfile would call a "System error".
    """
    content = io.BytesIO()
    soundfile.write(content, samples, sampling_rate, subtype, format=path.suffix[1:])
    with whole_file(path) as unfinished:
        unfinished.write_bytes(content.getbuffer())
