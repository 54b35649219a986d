"""Blocks of audio: resampled as a whole file would be, read ahead in order, and few in memory."""

import tracemalloc

import numpy as np
import pytest
import soundfile
import soxr
import torch
import torchaudio

from irmas_recipe.models.pipeline import audio_blocks
from irmas_recipe.models.pipeline.audio_blocks import read_ahead, read_blocks, resample_blocks
from irmas_recipe.models.pipeline.windows import cut_windows, window_starts
from tests.models.pipeline.sound import RATE, music


@pytest.mark.parametrize(("rate", "new_rate"), [(44_100, 16_000), (8_000, 16_000), (192_000, 16_000), (11_025, 22_050)])
def test_resampling_block_by_block_is_resampling_at_once(rate, new_rate, monkeypatch):
    clip = music(2.01, rate)
    blocks = [clip[start : start + 9_999] for start in range(0, len(clip), 9_999)]
    with_soxr = np.concatenate(list(resample_blocks(blocks, rate, new_rate)))
    assert with_soxr == pytest.approx(soxr.resample(clip, rate, new_rate), abs=1e-6)

    monkeypatch.setattr(audio_blocks, "soxr", None)
    monkeypatch.setattr(audio_blocks, "BLOCK_FRAMES", 8_000)
    with_torchaudio = np.concatenate(list(resample_blocks(blocks, rate, new_rate)))
    at_once = torchaudio.functional.resample(torch.from_numpy(clip), rate, new_rate).numpy()
    assert with_torchaudio == pytest.approx(at_once, abs=1e-5)


def test_resampling_tones_with_torchaudio_agrees_with_soxr(monkeypatch):
    time = np.arange(44_100) / 44_100
    tone = np.sin(2 * np.pi * 1_000 * time).astype(np.float32)
    with_soxr = np.concatenate(list(resample_blocks([tone], 44_100, RATE)))
    monkeypatch.setattr(audio_blocks, "soxr", None)
    with_torchaudio = np.concatenate(list(resample_blocks([tone], 44_100, RATE)))
    middle = slice(200, -200)
    assert with_torchaudio[middle] == pytest.approx(with_soxr[middle], abs=0.01)


def test_two_rates_without_a_common_divisor_ask_for_soxr_when_it_is_missing(monkeypatch):
    assert len(np.concatenate(list(resample_blocks([music(1, 44_101)], 44_101, RATE)))) == RATE
    monkeypatch.setattr(audio_blocks, "soxr", None)
    with pytest.raises(ValueError, match="pip install soxr"):
        list(resample_blocks([music(0.1, 44_101)], 44_101, RATE))


def test_a_long_file_is_read_in_bounded_memory(tmp_path):
    """Ten minutes of stereo at 44.1 kHz (212 MB as float32) never take more than a few blocks."""
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 44_100, 2, "PCM_16") as file:
        for _ in range(60):
            file.write(np.zeros((441_000, 2), np.float32))
    tracemalloc.start()
    rate, blocks = read_blocks(path)
    windows = sum(1 for _ in cut_windows(resample_blocks(blocks, rate, RATE), 3 * RATE, 3 * RATE // 2))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert windows == len(window_starts(600 * RATE, 3 * RATE, 3 * RATE // 2))
    assert peak < 20e6


def test_read_ahead_keeps_order_passes_errors_on_and_stops_when_abandoned():
    fetched = []

    def items():
        for index in range(1_000_000):
            fetched.append(index)
            yield index

    ahead = read_ahead(items(), depth=4)
    assert [next(ahead) for _ in range(3)] == [0, 1, 2]
    ahead.close()
    assert len(fetched) < 20

    def failing():
        yield 1
        raise OSError("the disk is gone")

    ahead = read_ahead(failing(), depth=4)
    assert next(ahead) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(ahead)
