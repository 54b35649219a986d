"""Spectrograms and short players embedded in the report as data URLs."""

import base64
import io

import matplotlib
import numpy as np
import soundfile
from PIL import Image

from irmas_dataset.audio import resample
from irmas_dataset.audit.clips import read_frames
from irmas_dataset.audit.timbre import mel_filters
from irmas_dataset.errors import UserError

PLAYER_RATE = 22_050
MOST_SECONDS = 6.0
WIDTH, HEIGHT = 320, 64  # pixels of a spectrogram; 64 mel bands
RANGE_DB = 70.0
LOUDEST_PEAK = 0.9  # excerpts are scaled to this peak, so that quiet clips can be heard


class Media:
    """Makes players and pictures until the report has `budget_bytes` of them, then no more."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes, self.used_bytes = budget_bytes, 0
        self.made: dict[tuple[str, float], dict] = {}

    def of(self, path: str, start_seconds: float = 0.0) -> dict | None:
        """Return {"audio", "picture": data URLs, "seconds"} of up to 6 s of a clip; None once the budget is used up."""
        key = (path, round(start_seconds, 2))
        if key not in self.made:
            if self.used_bytes >= self.budget_bytes:
                return None
            try:
                self.made[key] = excerpt(path, start_seconds)
            except UserError:  # damaged since it was measured; the report works without it
                return None
        self.used_bytes += len(self.made[key]["audio"]) + len(self.made[key]["picture"])
        return self.made[key]


def excerpt(path: str, start_seconds: float = 0.0) -> dict:
    """Return the player and the picture of up to 6 s of a clip, from `start_seconds`."""
    frames, rate = read_frames(path)
    start = min(round(max(0.0, start_seconds) * rate), max(0, len(frames) - 1))
    waveform = frames[start : start + round(MOST_SECONDS * rate)].mean(axis=1)
    waveform = resample(waveform, rate, PLAYER_RATE)
    peak = float(np.abs(waveform).max(initial=0))
    if peak > 1e-3:  # silence with noise in its last bits stays silent
        waveform = waveform * np.float32(LOUDEST_PEAK / peak)
    file = io.BytesIO()
    soundfile.write(file, waveform, PLAYER_RATE, format="MP3")
    return {
        "audio": data_url("audio/mpeg", file.getvalue()),
        "picture": data_url("image/png", spectrogram(waveform)),
        "seconds": len(waveform) / PLAYER_RATE,
    }


def data_url(kind: str, content: bytes) -> str:
    """Return contents of a MIME type as a data URL."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def spectrogram(waveform: np.ndarray) -> bytes:
    """Return a PNG of 320 x 64 pixels of a waveform (samples,): 64 mel bands over time, low at the bottom, in 70 dB."""
    window = 1024
    waveform = np.pad(waveform, (0, max(0, window + WIDTH - len(waveform))))
    starts = np.linspace(0, len(waveform) - window, WIDTH).astype(int)
    frames = waveform[starts[:, None] + np.arange(window)] * np.hanning(window).astype(np.float32)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    level = 10 * np.log10(power @ mel_filters(power.shape[1], PLAYER_RATE) + 1e-7)
    brightness = np.clip(1 + (level - max(float(level.max()), 0.0)) / RANGE_DB, 0, 1)
    picture = Image.fromarray((127 * brightness.T[::-1]).astype(np.uint8), mode="P")
    colours = matplotlib.colormaps["magma"](np.linspace(0, 1, 128))[:, :3]
    picture.putpalette((255 * colours).astype(np.uint8).ravel().tolist())
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return file.getvalue()
