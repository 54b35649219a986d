"""The fingerprint finds copies through coding, trimming and gain, and nothing where there is nothing."""

import io

import numpy as np
import pytest
import soundfile

from irmas_dataset.audio import resample
from irmas_dataset.audit.fingerprint import HOP, RATE, candidates, common_hashes, compare, fingerprint

FULL_RATE = 44_100


def music(seed: int, seconds: float = 3.0) -> np.ndarray:
    """Return plucked notes of random pitch and time at 44.1 kHz (samples,)."""
    rng = np.random.default_rng(seed)
    waveform = np.zeros(int(seconds * FULL_RATE), dtype=np.float32)
    for start in np.sort(rng.uniform(0, seconds - 0.3, int(8 * seconds))):
        time = np.arange(int(0.3 * FULL_RATE)) / FULL_RATE
        pitch = 440 * 2 ** (rng.integers(-18, 12) / 12)
        note = sum(np.sin(2 * np.pi * pitch * k * time + rng.uniform(0, 6)) / k for k in range(1, 7)) * np.exp(
            -6 * time
        )
        first = int(start * FULL_RATE)
        waveform[first : first + len(note)] += 0.1 * note[: len(waveform) - first].astype(np.float32)
    return waveform


def coded(waveform: np.ndarray, format: str) -> np.ndarray:
    file = io.BytesIO()
    soundfile.write(file, waveform, FULL_RATE, format=format)
    file.seek(0)
    return soundfile.read(file, dtype="float32")[0]


def found(waveforms: list[np.ndarray]) -> dict[tuple[int, int], object]:
    """Return the matches of clips at 44.1 kHz by pair."""
    low = [resample(waveform, FULL_RATE, RATE) for waveform in waveforms]
    pairs = candidates([fingerprint(waveform) for waveform in low])
    matches = {(pair.first, pair.second): compare(low[pair.first], low[pair.second], pair.shift) for pair in pairs}
    return {pair: match for pair, match in matches.items() if match}


@pytest.mark.parametrize("format", ["WAV", "MP3", "OGG"])
@pytest.mark.parametrize("gain", [0.1, -1.5])
def test_a_copy_is_found_with_its_offset(format, gain):
    original, skipped = music(1), 0.437
    copy = coded(gain * original[int(skipped * FULL_RATE) :], format)
    match = found([music(2), original, music(3), copy])
    assert set(match) == {(1, 3)}
    assert match[1, 3].offset_seconds == pytest.approx(skipped, abs=0.06)  # a codec may delay
    assert match[1, 3].overlap_seconds == pytest.approx(3 - skipped, abs=0.06)
    assert match[1, 3].correlation > 0.95


def test_the_order_of_clips_turns_the_offset_round():
    original = music(1)
    assert found([original[FULL_RATE:], original])[0, 1].offset_seconds == pytest.approx(-1, abs=0.001)


def test_an_excerpt_is_found_in_a_long_clip():
    long = music(4, seconds=15)
    match = found([music(5), long, long[8 * FULL_RATE : 11 * FULL_RATE]])
    assert set(match) == {(1, 2)}
    assert match[1, 2].offset_seconds == pytest.approx(8, abs=0.001)


def test_excerpts_of_one_recording_match_only_where_they_overlap():
    recording = music(6, seconds=9)
    excerpts = [recording[start * FULL_RATE : (start + 3) * FULL_RATE] for start in (0, 3, 6)]
    assert found(excerpts) == {}
    assert set(found([*excerpts, recording[FULL_RATE : 4 * FULL_RATE]])) == {(0, 3)}


def test_a_copy_under_another_voice_is_no_copy():
    assert found([music(1), music(1) + 2 * music(2)]) == {}


def test_silence_and_clips_that_are_too_short_match_nothing():
    silence, short = np.zeros(3 * FULL_RATE, dtype=np.float32), music(1)[:4000]
    faint = (1e-4 * np.random.default_rng(0).standard_normal(3 * FULL_RATE)).astype(np.float32)
    assert found([silence, silence, short, short, faint, faint]) == {}
    assert candidates([]) == []


def test_a_sustained_tone_is_no_copy_of_itself_later():
    time = np.arange(6 * FULL_RATE) / FULL_RATE
    tone = (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    tone += (0.001 * np.random.default_rng(0).standard_normal(len(tone))).astype(np.float32)
    assert found([tone[: 3 * FULL_RATE], tone[3 * FULL_RATE :]]) == {}


def test_common_hashes_by_hand():
    hashes = np.array([7, 0, 9, 9, 7, 5, 9], dtype=np.uint32)
    clips, times = np.array([0, 0, 0, 0, 1, 1, 2]), np.array([0, 1, 2, 3, 0, 1, 0])
    rows = sorted(tuple(map(int, row)) for row in common_hashes(hashes, clips, times))
    assert rows == [(0, 1, 0), (0, 2, 2)]


def test_a_fingerprint_has_a_hash_every_16_ms():
    assert len(fingerprint(resample(music(1), FULL_RATE, RATE))) == pytest.approx((3 - 0.256) * RATE / HOP, abs=1)
