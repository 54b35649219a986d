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


SIXTEEN_BITS = np.round(music(0.5) * 32_768).astype(np.int16)


@pytest.mark.parametrize(
    "array",
    [
        np.array(SIXTEEN_BITS.tolist()),
        SIXTEEN_BITS.astype(np.int32),
        SIXTEEN_BITS.astype(np.int32) * 2**16,
        SIXTEEN_BITS.astype(">i2"),
        (SIXTEEN_BITS.astype(np.int32) + 32_768).astype(np.uint16),
        SIXTEEN_BITS.astype(np.longdouble) / 32_768,
        torch.from_numpy(SIXTEEN_BITS).long(),
        torch.from_numpy(SIXTEEN_BITS / 32_768),
        torch.from_numpy(SIXTEEN_BITS / 32_768).bfloat16(),
        torch.from_numpy(SIXTEEN_BITS / 32_768).float().requires_grad_(),
    ],
    ids=[
        "int64",
        "int32",
        "scaled_int32",
        "big_endian",
        "uint16",
        "longdouble",
        "long",
        "float64",
        "bfloat16",
        "gradient",
    ],
)
def test_samples_are_the_same_in_every_type_of_array(array):
    """16-bit samples are 16-bit samples, however many bits numpy or torch keep for each."""
    rate, blocks = read_blocks(array, RATE)
    tolerance = 1e-3 if getattr(array, "dtype", None) == torch.bfloat16 else 0
    assert rate == RATE
    np.testing.assert_allclose(np.concatenate(list(blocks)), SIXTEEN_BITS / 32_768, atol=tolerance)


def test_dither_of_24_bits_in_an_array_of_32_stays_as_quiet_as_it_is():
    dither = np.random.default_rng(0).integers(-2, 3, 1000).astype(np.int32) * 256  # as soundfile gives 24 bits
    assert np.abs(np.concatenate(list(read_blocks(dither, RATE)[1]))).max() < 1e-6


@pytest.mark.parametrize("array", [np.array([0, 2**20]), np.zeros(5, np.uint32), torch.tensor([0, -(2**40)])])
def test_integers_of_an_unknown_scale_are_refused(array):
    with pytest.raises(
        ValueError, match=r"^The audio is an array of u?int(64|32), whose full scale is not known: divide"
    ):
        read_blocks(array, RATE)


class AudioSamples:
    """What torchcodec's decoder answers."""

    def __init__(self, data: torch.Tensor, sample_rate: int) -> None:
        self.data, self.sample_rate = data, sample_rate


class AudioDecoder:
    """What `datasets` gives for an Audio column: torchcodec's decoder, (channels, samples)."""

    def get_all_samples(self) -> AudioSamples:
        return AudioSamples(torch.from_numpy(music(0.5, 44_100, 2, seed=3).T), 44_100)


def test_the_decoder_of_an_audio_column_is_audio():
    for audio in (AudioDecoder(), AudioDecoder().get_all_samples()):
        rate, blocks = read_blocks(audio)
        assert rate == 44_100
        np.testing.assert_allclose(np.concatenate(list(blocks)), music(0.5, 44_100, seed=3), atol=1e-7)
