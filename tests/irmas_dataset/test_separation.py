"""Separation on sounds whose parts are known: the wanted part stands out more than before."""

import pickle

import librosa
import numpy as np
import pytest
import soundfile

from irmas_dataset import WaveformColumn, load_irmas, prepare
from irmas_dataset.separation import (
    SEPARATIONS,
    Separation,
    accompaniment,
    from_spectrum,
    harmonic,
    harmonic_mask,
    percussive,
    solo,
    solo_mask,
)
from irmas_recipe.models.pipeline.separation import separation_of

RATE = 22_050
SAMPLES = int(1.2 * RATE)


def decibels(wanted: np.ndarray, rest: np.ndarray) -> float:
    return 10 * np.log10(np.sum(wanted**2) / np.sum(rest**2))


def interference_db(estimate: np.ndarray, wanted: np.ndarray, unwanted: np.ndarray) -> float:
    """Return how much louder the wanted part is in an estimate than the unwanted one, by least squares."""
    gains, *_ = np.linalg.lstsq(np.stack([wanted, unwanted], axis=1), estimate, rcond=None)
    return decibels(gains[0] * wanted, gains[1] * unwanted)


@pytest.fixture(scope="module")
def tone() -> np.ndarray:
    seconds = np.arange(SAMPLES) / RATE
    return sum(0.2 / n * np.sin(2 * np.pi * 330 * n * seconds) for n in (1, 2, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def clicks() -> np.ndarray:
    waveform = np.zeros(SAMPLES, dtype=np.float32)
    waveform[2000::4000] = 0.9
    return waveform


@pytest.fixture(scope="module")
def melody() -> np.ndarray:
    """Four notes with five partials each."""
    pitch = np.repeat([262.0, 330.0, 392.0, 294.0], SAMPLES // 4)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    return sum(0.25 / n * np.sin(n * phase) for n in range(1, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return (0.08 * np.random.default_rng(0).normal(size=SAMPLES)).astype(np.float32)


def test_tone_and_clicks_come_apart(tone, clicks):
    mixture = tone + clicks
    before = decibels(tone, clicks)
    assert interference_db(harmonic(mixture, RATE), tone, clicks) > before + 10
    assert interference_db(percussive(mixture, RATE), clicks, tone) > -before + 10


def test_melody_stands_out_from_noise(melody, noise):
    noise = noise[: len(melody)]
    mixture = melody + noise
    kept = solo(mixture, RATE)
    before = decibels(melody, noise)
    assert decibels(melody, kept - melody) > before + 1.5  # what is lost of the melody counts too
    _, mask = solo_mask(mixture, RATE)
    parts = [
        from_spectrum(mask * librosa.stft(part, n_fft=2048, hop_length=512), len(part)) for part in (melody, noise)
    ]
    assert decibels(*parts) > before + 4
    left = accompaniment(mixture, RATE)
    assert np.sum(left**2) < 0.5 * np.sum(mixture**2)
    np.testing.assert_allclose(kept + left, mixture, atol=1e-4)


def test_melody_stands_out_from_another_voice(melody):
    """A chord an octave below and quieter, whose partials lie elsewhere, is mostly left out."""
    seconds = np.arange(len(melody)) / RATE
    chord = sum(0.06 * np.sin(2 * np.pi * hz * seconds) for hz in (110.3, 466.2, 617.5, 932.3)).astype(np.float32)
    assert interference_db(solo(melody + chord, RATE), melody, chord) > decibels(melody, chord) + 6


def test_mask_lies_around_the_partials():
    bins_hz = np.arange(0, 11_025, 10.0)
    mask = harmonic_mask(np.array([400.0, np.nan]), bins_hz)
    assert mask.shape == (len(bins_hz), 2)
    assert (mask[bins_hz % 400 == 0, 0][1:] == 1).all()
    assert mask[bins_hz == 600, 0] == mask[bins_hz == 0, 0] == 0
    assert not mask[:, 1].any()
    assert mask.min() >= 0 and mask.max() <= 1
    low = harmonic_mask(np.array([65.4]), bins_hz)
    assert low.mean() < 0.6


@pytest.mark.parametrize("name", SEPARATIONS)
def test_length_type_and_silence_are_kept(name):
    separate = pickle.loads(pickle.dumps(SEPARATIONS[name]))
    silence = separate(np.zeros(9001, dtype=np.float32), RATE)
    assert silence.shape == (9001,) and silence.dtype == np.float32
    assert not silence.any()


def test_prepare_separates_and_caches(tone, clicks, tmp_path):
    for recording in range(4):
        path = tmp_path / "music" / "train" / f"class{recording % 2}" / f"{recording}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.roll(tone + clicks, recording), RATE)
    train = load_irmas(tmp_path / "music", cache_dir=tmp_path / "cache", validation_fraction=0.0)["train"]
    whole = WaveformColumn(prepare(train, RATE, num_proc=1))
    held = prepare(train, RATE, num_proc=1, transform=Separation("harmonic"))
    again = prepare(train, RATE, num_proc=2, transform=Separation("harmonic"))
    assert held.cache_files == again.cache_files
    struck = prepare(train, RATE, num_proc=2, transform=Separation("percussive"))
    assert len({file["filename"] for file in held.cache_files + struck.cache_files}) == 3
    expected = harmonic(whole[0].astype(np.float32) / 2**15, RATE)
    np.testing.assert_allclose(WaveformColumn(held)[0] / 2**15, expected, atol=1e-3)


def test_long_music_is_separated_piece_by_piece(tone, clicks, monkeypatch):
    monkeypatch.setattr("irmas_dataset.separation.PIECE_SECONDS", 1)
    mixture = tone + clicks
    separated = Separation("harmonic")(mixture, RATE)
    assert separated.shape == mixture.shape
    np.testing.assert_array_equal(separated[:RATE], harmonic(mixture[:RATE], RATE))
    np.testing.assert_array_equal(separated[RATE:], harmonic(mixture[RATE:], RATE))


@pytest.mark.parametrize("name", ["harmonic", "percussive"])
@pytest.mark.parametrize("samples", [1, 512, 1025, 2047])
def test_less_than_a_frame_is_separated_too(name, samples, noise):
    for separate in (Separation(name), separation_of(name)):
        separated = separate(noise[:samples], RATE)
        assert separated.shape == (samples,) and separated.dtype == np.float32 and np.isfinite(separated).all()
