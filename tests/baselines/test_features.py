"""Hand-made features: their columns, against librosa and against sounds whose features are known."""

import librosa
import numpy as np
import pytest

from irmas_recipe.baselines.classical.features import FEATURE_SETS, SAMPLING_RATE, column_names, feature_rows, groups


@pytest.fixture(scope="module")
def tone() -> np.ndarray:
    """Two seconds of 1 kHz at half of full scale, int16."""
    seconds = np.arange(2 * SAMPLING_RATE) / SAMPLING_RATE
    return (2**14 * np.sin(2 * np.pi * 1000 * seconds)).astype(np.int16)


def as_columns(name: str, waveform: np.ndarray) -> dict[str, float]:
    return dict(zip(column_names(name), feature_rows(name, [waveform])[0], strict=True))


def test_the_sets_have_their_columns():
    sarwar, full = column_names("sarwar"), column_names("full")
    assert len(sarwar) == len(set(sarwar)) == 98
    assert len(full) == len(set(full)) == 382
    assert sum(name.startswith("MFCC") for name in sarwar) == 80
    assert sarwar[:5] == (
        "tempo: value", "beat frames: sum", "beat frames: mean", "beat frames: variance", "beat frames: deviation",
    )  # fmt: skip


@pytest.mark.parametrize("name", FEATURE_SETS)
def test_a_tone_has_the_features_of_a_tone(tone, name):
    columns = as_columns(name, tone)
    crossings = columns["zero crossings: mean"]
    assert crossings == pytest.approx(2 * 1000 / SAMPLING_RATE, rel=0.05)
    assert columns["RMS: mean"] == pytest.approx(0.5 / np.sqrt(2), rel=0.05)
    assert columns["centroid: mean"] == pytest.approx(1000, rel=0.1)
    if name == "sarwar":
        assert columns["energy: mean"] == pytest.approx(0.125, rel=0.01)
        assert columns["MFCC 3: variance"] == pytest.approx(columns["MFCC 3: deviation"] ** 2, rel=1e-3)
        frames = columns["zero crossings: sum"] / crossings
        assert columns["MFCC 3: sum"] == pytest.approx(columns["MFCC 3: mean"] * frames, rel=1e-3)
    else:
        strongest = max(range(12), key=lambda pitch: columns[f"chroma {pitch}: mean"])
        assert strongest == 11  # 1 kHz is nearest to B5


def test_mfcc_is_librosas():
    noise = np.random.default_rng(0).normal(size=SAMPLING_RATE).astype(np.float32) / 10
    waveform = (noise * 2**15).astype(np.int16)
    expected = librosa.feature.mfcc(y=waveform.astype(np.float32) / 2**15, sr=SAMPLING_RATE, n_mfcc=20).mean(axis=1)
    columns = as_columns("full", waveform)
    np.testing.assert_allclose([columns[f"MFCC {n}: mean"] for n in range(20)], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", FEATURE_SETS)
def test_silence_and_clicks_give_finite_numbers(name):
    click = np.zeros(SAMPLING_RATE, dtype=np.int16)
    click[100] = 2**15 - 1
    rows = feature_rows(name, [np.zeros(SAMPLING_RATE, dtype=np.int16), click])
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()


@pytest.mark.parametrize("name", FEATURE_SETS)
def test_groups_hold_every_column_once(name):
    found = groups(column_names(name))
    assert sorted(index for columns in found.values() for index in columns) == list(range(len(column_names(name))))
    assert len(found["MFCC 0"]) == 4
    if name == "full":
        assert len(found["MFCC second difference"]) == 80
        assert len(found["tempogram ratio"]) == 13
