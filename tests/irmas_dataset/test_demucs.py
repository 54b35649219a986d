"""Hybrid Demucs as a separation, with a small random network of the same form: chunks, rates, weights, refusals."""

import numpy as np
import pytest
import torch
from torchaudio.models import HDemucs

from irmas_dataset import demucs
from irmas_dataset.errors import UserError
from irmas_dataset.separation import Separation

RATE = 22_050


def small() -> HDemucs:
    return HDemucs(sources=list(demucs.SOURCES), nfft=4096, depth=6, channels=4)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A torch.hub folder with the weights of a small network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(demucs, "build_network", small)
    demucs.load_network.cache_clear()
    torch.manual_seed(0)
    path = tmp_path / "hub" / demucs.WEIGHTS
    path.parent.mkdir(parents=True)
    torch.save(small().state_dict(), path)
    yield path
    demucs.load_network.cache_clear()


def test_the_file_and_the_form_are_torchaudios():
    from torchaudio.pipelines import HDEMUCS_HIGH_MUSDB_PLUS as bundle

    assert f"torchaudio/{bundle._model_path}" == demucs.WEIGHTS and bundle.sample_rate == demucs.NETWORK_RATE
    assert tuple(bundle._model_factory_func.keywords["sources"]) == demucs.SOURCES
    with torch.device("meta"):
        ours, theirs = demucs.build_network(), bundle._model_factory_func()
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == {
        name: tensor.shape for name, tensor in theirs.state_dict().items()
    }


def test_one_chunk_is_what_the_network_gives(weights):
    noise = np.random.default_rng(0).normal(0, 0.1, 44_100).astype(np.float32)
    found = demucs.source("vocals", noise, 44_100)
    scaled = torch.from_numpy((noise - noise.mean()) / noise.std())
    padded = torch.nn.functional.pad(scaled, (0, 441_000 - 44_100))
    with torch.inference_mode():
        expected = demucs.load_network()(padded.expand(1, 2, -1))[0, 3].mean(dim=0)[:44_100].numpy() * noise.std()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found).max() > 0


def test_chunks_add_up_to_the_whole(monkeypatch):
    """With a network that changes nothing, every length comes back as it was, at any rate."""

    class Whole(torch.nn.Linear):
        def forward(self, stereo: torch.Tensor) -> torch.Tensor:
            assert len(stereo) <= demucs.CHUNKS_AT_ONCE and stereo.shape[1:] == (2, 441_000)
            return stereo[:, None].expand(-1, 4, -1, -1)

    monkeypatch.setattr(demucs, "load_network", lambda: Whole(1, 1))
    for seconds in (0.3, 10, 18.9, 19.01, 60):
        waveform = (0.2 * np.sin(2 * np.pi * 220 * np.arange(round(seconds * 44_100)) / 44_100)).astype(np.float32)
        np.testing.assert_allclose(demucs.source("bass", waveform, 44_100), waveform, atol=2e-4)
        other = waveform[::2].copy()
        np.testing.assert_allclose(Separation("bass")(other, RATE)[500:-500], other[500:-500], atol=5e-3)


def test_length_and_silence_are_kept(weights):
    for samples in (1, 9001):
        silence = Separation("drums")(np.zeros(samples, np.float32), RATE)
        assert silence.shape == (samples,) and silence.dtype == np.float32 and not silence.any()


def test_missing_or_foreign_weights_are_one_sentence_and_fetch_nothing(weights, monkeypatch):
    def refuse(*given, **named):
        raise AssertionError("something was downloaded")

    monkeypatch.setattr("torchaudio.utils._download_asset", refuse)
    torch.save({"other": torch.zeros(1)}, weights)
    noise = np.ones(2205, np.float32) * np.linspace(-1, 1, 2205, dtype=np.float32)
    with pytest.raises(UserError, match=r"does not hold Hybrid Demucs' weights"):
        Separation("other")(noise, RATE)
    weights.unlink()
    with pytest.raises(UserError, match=r"fetch them once.*HDEMUCS_HIGH_MUSDB_PLUS"):
        Separation("other")(noise, RATE)
