"""Level, clipping, silence, channels and bandwidth of signals whose figures are known."""

import io

import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr

from irmas_dataset.audit.levels import bandwidth, clipped_samples, measure_levels

RATE = 44_100


def tone(amplitude: float = 0.5, seconds: float = 1.0) -> np.ndarray:
    """Return 441 Hz, mono (samples, 1)."""
    return (amplitude * np.sin(2 * np.pi * 441 * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)[:, None]


def noise(seed: int = 0, seconds: float = 2.0) -> np.ndarray:
    """Return noise that falls by 6 dB an octave from 500 Hz on, as music roughly does; (samples,)."""
    white = np.random.default_rng(seed).standard_normal(int(seconds * RATE))
    b, a = scipy.signal.butter(1, 500, fs=RATE)
    return (0.2 * scipy.signal.lfilter(b, a, white)).astype(np.float32)


def to_16_bit(waveform: np.ndarray) -> np.ndarray:
    return (np.round(np.clip(waveform, -1, 1) * 32767) / 32768).astype(np.float32)


def test_the_level_of_a_tone():
    levels = measure_levels(np.repeat(tone(0.5), 2, axis=1), RATE)
    assert levels["peak_db"] == pytest.approx(-6.02, abs=0.01)
    assert levels["rms_db"] == pytest.approx(-9.03, abs=0.01)
    assert levels["clipped_samples"] == levels["silent_share"] == 0


def test_silence_is_measured_without_a_warning(recwarn):
    levels = measure_levels(np.zeros((4410, 2), dtype=np.float32), RATE)
    assert (levels["peak_db"], levels["rms_db"], levels["silent_share"]) == (-200, -200, 1)
    assert levels["bandwidth_hz"] == 0
    assert not recwarn.list


def test_the_silent_half_of_a_clip():
    assert measure_levels(np.concatenate([tone(), np.zeros_like(tone())]), RATE)["silent_share"] == pytest.approx(0.5)


def test_a_tone_that_is_too_loud_is_clipped_and_one_at_full_scale_is_not():
    clipped = np.clip(tone(1.5), -1, 1)
    held = int((np.abs(clipped) == 1).sum())
    assert measure_levels(np.concatenate([tone(), clipped], axis=1), RATE)["clipped_samples"] == pytest.approx(
        held, rel=0.1
    )
    assert clipped_samples(tone(0.998)[:, 0]) == 0


@pytest.mark.parametrize("samples, counted", [([0, 1, 1, 0], 0), ([0, 1, 1, 1], 3), ([-1, -1, -1, 0, 1, 1, 1, 1], 7)])
def test_only_runs_at_full_scale_count(samples, counted):
    assert clipped_samples(np.array(samples, dtype=np.float32)) == counted


@pytest.mark.parametrize(
    "frames, same",
    [
        (tone(), False),  # one channel has no second
        (np.concatenate([tone(), tone()], axis=1), True),
        (np.concatenate([tone(), tone() + np.float32(1e-5)], axis=1), True),
        (np.concatenate([tone(), 0.9 * tone()], axis=1), False),
        (np.concatenate([tone(), -tone()], axis=1), False),
    ],
)
def test_identical_channels(frames, same):
    assert measure_levels(frames, RATE)["same_channels"] == same


@pytest.mark.parametrize("rate", [11_025, 16_000, 22_050])
def test_upsampled_music_ends_at_half_its_own_rate(rate):
    upsampled = to_16_bit(soxr.resample(soxr.resample(noise(), RATE, rate), rate, RATE))
    edge_hz, fall_db = bandwidth(upsampled, RATE)
    assert 0.9 * rate / 2 < edge_hz < rate / 2
    assert fall_db >= 20


def test_full_music_has_no_edge():
    edge_hz, fall_db = bandwidth(to_16_bit(noise()), RATE)
    assert (edge_hz, fall_db) == (pytest.approx(RATE / 2, rel=0.01), 0)


@pytest.mark.parametrize("rate", [1_000, 1_400, 2_000])
def test_the_lowest_rates_have_no_edge(rate):
    assert bandwidth(to_16_bit(noise()), rate) == (pytest.approx(rate / 2, rel=0.01), 0)


def test_partials_with_nothing_between_them_are_no_edge():
    time = np.arange(2 * RATE) / RATE
    partials = sum(np.sin(2 * np.pi * 440 * k * time) / k for k in range(1, 10))
    assert bandwidth(to_16_bit(0.2 * partials), RATE)[1] == 0


def test_a_codec_leaves_an_edge():
    coded = io.BytesIO()
    soundfile.write(coded, noise(), RATE, format="MP3", compression_level=0.9)
    coded.seek(0)
    edge_hz, fall_db = bandwidth(soundfile.read(coded, dtype="float32")[0], RATE)
    assert 3000 < edge_hz < 20_500
    assert fall_db >= 20
