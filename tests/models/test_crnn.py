"""The three images against their definitions in float64 and against librosa; the networks behind them."""

import librosa
import numpy as np
import pytest
import torch
from torch import nn
from transformers import SwinConfig, SwinModel

from irmas_recipe.models.crnn import CrnnConfig, CrnnFeatureExtractor, CrnnForAudioClassification
from irmas_recipe.models.crnn.feature_extraction_crnn import (
    REPRESENTATIONS,
    local_autocorrelation,
    modified_group_delay,
)
from irmas_recipe.models.crnn.modeling_crnn import BidirectionalGru

SAMPLING_RATE = 22050
FRAME, HOP, FFT = 1102, 220, 2048
TINY_SWIN = {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
SMALL = {
    "cnn_gru": {"filters": [4, 4, 8], "gru_hidden_size": 8},
    "swin": {"network": "swin", "swin": TINY_SWIN},
}


def music(seconds: float) -> np.ndarray:
    """Return a tone that begins anew four times a second, over noise."""
    time = np.arange(int(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    tone = np.sin(2 * np.pi * 440 * time) * np.exp(-8 * (time % 0.25))
    return (0.4 * tone + 0.02 * np.random.default_rng(0).normal(size=time.size)).astype(np.float32)


def standardised(image: np.ndarray) -> np.ndarray:
    return (image - image.mean()) / image.std()


def group_delay_by_definition(frame: np.ndarray, fft_length: int, alpha=0.9, gamma=0.5, lifter=10) -> np.ndarray:
    """Evaluate the modified group delay of one frame term by term in float64."""
    n = np.arange(len(frame))
    bins = np.arange(fft_length)
    kernel = np.exp(-2j * np.pi * np.outer(bins, n) / fft_length)
    x, y = kernel @ frame, kernel @ (n * frame)
    inverse = np.exp(2j * np.pi * np.outer(bins, bins) / fft_length) / fft_length
    cepstrum = (inverse @ np.log(np.abs(x))).real
    cepstrum[lifter : fft_length - lifter + 1] = 0
    smooth = np.exp((inverse.conj() * fft_length @ cepstrum).real)
    tau = (x.real * y.real + x.imag * y.imag) / smooth ** (2 * gamma)
    return (np.sign(tau) * np.abs(tau) ** alpha)[: fft_length // 2 + 1]


def small_model(network: str) -> CrnnForAudioClassification:
    torch.manual_seed(0)
    return CrnnForAudioClassification(CrnnConfig(num_labels=3, **SMALL[network]))


def test_mel_image_is_that_of_librosa():
    waveform = music(1.0)
    mel = librosa.feature.melspectrogram(
        y=waveform / np.abs(waveform).max(), sr=SAMPLING_RATE, n_fft=FFT, hop_length=HOP, win_length=FRAME, n_mels=128
    )
    image = CrnnFeatureExtractor().extract(torch.from_numpy(waveform)[None])[0].numpy()
    np.testing.assert_allclose(image, standardised(np.log(mel.T[:100] + 1e-6)), atol=1e-3)


@pytest.mark.parametrize(("gamma", "lifter"), [(0.5, 10), (0.9, 6)])
def test_group_delay_is_its_definition(gamma, lifter):
    frame = music(0.1)[:200].astype(np.float64)
    expected = group_delay_by_definition(frame, 256, gamma=gamma, lifter=lifter)
    exact = modified_group_delay(torch.from_numpy(frame), 256, gamma=gamma, lifter=lifter).numpy()
    np.testing.assert_allclose(exact, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    single = modified_group_delay(torch.from_numpy(frame).float(), 256, gamma=gamma, lifter=lifter).numpy()
    np.testing.assert_allclose(single, expected, atol=1e-4 * np.abs(expected).max())


def test_group_delay_of_an_impulse_is_its_position():
    frames = torch.zeros(3, 64)
    positions = [0, 7, 40]
    frames[range(3), positions] = 1
    delays = modified_group_delay(frames, 128, alpha=1.0)
    torch.testing.assert_close(delays, torch.tensor(positions).float()[:, None].expand(3, 65), atol=1e-3, rtol=1e-4)


def test_group_delay_image_averages_bins_of_centred_hamming_frames():
    waveform = music(0.1)
    extractor = CrnnFeatureExtractor(representation="modgd", frame_seconds=0.01, fft_length=256, num_bins=32)
    image = extractor.extract(torch.from_numpy(waveform)[None])[0].numpy()
    padded = np.pad(waveform.astype(np.float64) / np.abs(waveform).max(), 110)
    window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(220) / 220)
    frames = [padded[start : start + 220] * window for start in range(0, 10 * HOP, HOP)]
    delays = np.stack([group_delay_by_definition(frame, 256)[:128] for frame in frames])
    np.testing.assert_allclose(image, standardised(delays.reshape(10, 32, 4).mean(axis=2)), atol=2e-3)


def test_tempogram_image_is_that_of_librosa():
    waveform = music(2.0)
    onsets = librosa.onset.onset_strength(
        y=waveform / np.abs(waveform).max(), sr=SAMPLING_RATE, n_fft=FFT, hop_length=HOP, win_length=FRAME
    )
    tempogram = librosa.feature.tempogram(onset_envelope=onsets, sr=SAMPLING_RATE, hop_length=HOP, win_length=384)
    image = CrnnFeatureExtractor(representation="tempogram").extract(torch.from_numpy(waveform)[None])[0].numpy()
    np.testing.assert_allclose(image, standardised(tempogram[:128, :200].T), atol=1e-3)
    # The tone begins anew every .25 s: after lag 0 the strongest lag of the middle frame is a multiple of 25 frames.
    assert (10 + image[100, 10:].argmax()) % 25 in (0, 1, 24)


def test_autocorrelation_is_its_definition():
    envelope = np.random.default_rng(0).random(30)
    padded = np.concatenate([envelope[0] * np.arange(4) / 4, envelope, envelope[-1] * np.arange(3, -1, -1) / 4])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(8) / 8)
    expected = np.empty((30, 5))
    for frame in range(30):
        around = padded[frame : frame + 8] * window
        expected[frame] = [sum(around[i] * around[i + lag] for i in range(8 - lag)) for lag in range(5)]
    expected /= expected.max(axis=1, keepdims=True)
    actual = local_autocorrelation(torch.from_numpy(envelope)[None].float(), 8, 5)[0].numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("representation", REPRESENTATIONS)
class TestEveryRepresentation:
    @pytest.mark.parametrize(("samples", "frames"), [(66150, 300), (22050, 100), (100, 1)])
    def test_has_mean_zero_variance_one_and_a_frame_every_ten_milliseconds(self, representation, samples, frames):
        waveforms = torch.from_numpy(music(3.0)[:samples]).repeat(2, 1)
        images = CrnnFeatureExtractor(representation=representation).extract(waveforms)
        assert images.shape == (2, frames, 128)
        assert images.mean(dim=(1, 2)).abs().max() < 1e-4
        if frames > 1:
            torch.testing.assert_close(images.std(dim=(1, 2)), torch.ones(2), atol=1e-3, rtol=0)

    def test_of_a_clip_does_not_depend_on_its_batch_or_amplitude(self, representation):
        extractor = CrnnFeatureExtractor(representation=representation)
        waveforms = torch.from_numpy(music(1.5)).view(5, -1)
        together = extractor.extract(waveforms * torch.tensor([[1.0], [0.5], [0.1], [2.0], [1.0]]))
        alone = torch.cat([extractor.extract(waveform[None]) for waveform in waveforms])
        torch.testing.assert_close(together, alone, atol=1e-3, rtol=0)

    def test_of_silence_is_level_and_autocast_changes_nothing(self, representation):
        extractor = CrnnFeatureExtractor(representation=representation)
        assert extractor.extract(torch.zeros(1, 4410)).std() < 1e-6
        waveforms = torch.from_numpy(music(0.5))[None]
        with torch.autocast("cpu", torch.bfloat16):
            images = extractor.extract(waveforms)
        assert torch.equal(images, extractor.extract(waveforms))


def test_call_pads_to_the_longest_clip_and_refuses_what_it_cannot_use():
    extractor = CrnnFeatureExtractor()
    short, long = music(0.3), music(0.5)
    batch = extractor([short, long], sampling_rate=SAMPLING_RATE, return_tensors="pt")["input_values"]
    padded = torch.from_numpy(np.stack([np.pad(short, (0, len(long) - len(short))), long]))
    assert torch.equal(batch, extractor.extract(padded))
    with pytest.raises(ValueError, match="44100 Hz: resample it to 22050 Hz"):
        extractor(long, sampling_rate=44100)
    for unusable in (np.zeros((2, 2, 100)), np.zeros(0)):
        with pytest.raises(ValueError, match="mono"):
            extractor(unusable, sampling_rate=SAMPLING_RATE)


def test_gru_is_that_of_torch():
    torch.manual_seed(0)
    reference = nn.GRU(6, 5, batch_first=True, bidirectional=True)
    ours = BidirectionalGru(6, 5)
    ours.load_state_dict(reference.state_dict())
    sequence = torch.randn(3, 7, 6)
    assert torch.equal(ours(sequence), reference(sequence)[0])


@pytest.mark.parametrize(
    ("frame_stride", "maps"),
    [
        (1, [(32, 101, 44), (64, 35, 16), (128, 13, 6), (256, 17, 10)]),
        (2, [(32, 51, 44), (64, 18, 16), (128, 7, 6), (256, 11, 10)]),
    ],
)
def test_cnn_gru_has_the_blocks_of_han_and_keeps_time(frame_stride, maps):
    model = CrnnForAudioClassification(CrnnConfig(num_labels=11, frame_stride=frame_stride)).eval()
    with torch.no_grad():
        states = model(torch.randn(1, 300, 128), output_hidden_states=True).hidden_states
    assert [tuple(state.shape[1:]) for state in states] == [*maps, (maps[-1][1], 256), (256,)]


def test_gru_hears_the_order_of_events():
    model = small_model("cnn_gru").eval()
    image = torch.randn(1, 100, 32)
    image[:, 50:] = 0
    with torch.no_grad():
        states = model(torch.cat([image, image.roll(50, dims=1)]), output_hidden_states=True).hidden_states[-2]
    assert not torch.allclose(states[0], states[1], atol=1e-4)


def test_swin_is_swin_tiny_by_default():
    with torch.device("meta"):
        model = CrnnForAudioClassification(CrnnConfig(network="swin", num_labels=11))
    swin = model.network.swin.config
    assert (swin.embed_dim, list(swin.depths), swin.window_size, swin.image_size) == (96, [2, 2, 6, 2], 7, 224)
    assert (swin.num_channels, model.classifier.in_features) == (1, 768)


def test_swin_starts_from_an_imagenet_checkpoint(tmp_path):
    torch.manual_seed(1)
    pretrained = SwinModel(SwinConfig(**TINY_SWIN)).eval()
    pretrained.save_pretrained(tmp_path)
    model = small_model("swin").eval()
    model.load_swin(str(tmp_path))
    image = torch.randn(2, 32, 32)
    with torch.no_grad():
        expected = pretrained(image[:, None].repeat(1, 3, 1, 1)).pooler_output
        actual = model(image, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="network: swin"):
        small_model("cnn_gru").load_swin(str(tmp_path))
    other = CrnnForAudioClassification(CrnnConfig(network="swin", swin={**TINY_SWIN, "embed_dim": 4}))
    with pytest.raises(ValueError, match="other sizes"):
        other.load_swin(str(tmp_path))


@pytest.mark.parametrize("network", SMALL)
class TestEveryNetwork:
    @pytest.mark.parametrize("frames", [1, 40, 200])
    def test_takes_any_number_of_frames(self, network, frames):
        with torch.no_grad():
            logits = small_model(network).eval()(torch.randn(2, frames, 32)).logits
        assert logits.shape == (2, 3) and logits.isfinite().all()

    def test_gives_every_parameter_a_gradient_in_bfloat16_too(self, network):
        model = small_model(network).train()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(torch.randn(4, 60, 32), labels=torch.eye(4, 3)).loss
        loss.backward()
        assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []

    def test_saving_and_loading_changes_nothing(self, network, tmp_path):
        model, images = small_model(network).eval(), torch.randn(2, 60, 32)
        model.save_pretrained(tmp_path)
        loaded, report = CrnnForAudioClassification.from_pretrained(tmp_path, output_loading_info=True)
        assert {key: list(value) for key, value in report.items() if value} == {}
        with torch.no_grad():
            assert torch.equal(loaded(images).logits, model(images).logits)

    def test_is_one_graph(self, network):
        model, images, labels = small_model(network), torch.randn(2, 60, 32), torch.eye(2, 3)
        for training in (True, False):
            torch._dynamo.reset()
            compiled = torch.compile(model.train(training), fullgraph=True, dynamic=False, backend="eager")
            outputs = compiled(images, labels=labels)
            outputs.loss.backward()
        torch.testing.assert_close(outputs.logits, model(images).logits)


def test_errors_name_the_way_out():
    with pytest.raises(ValueError, match="choose one of cnn_gru, swin"):
        CrnnConfig(network="transformer")
    with pytest.raises(ValueError, match="choose one of mel, modgd, tempogram"):
        CrnnFeatureExtractor(representation="mfcc")
    with pytest.raises(ValueError, match="batch, frames, bins"):
        small_model("cnn_gru")(torch.randn(60, 32))
