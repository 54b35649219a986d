"""The convolutional networks against the papers' sizes, and their front end against librosa."""

import librosa
import numpy as np
import pytest
import torch
from torch import nn

from irmas_recipe.models.cnn import CnnConfig, CnnFeatureExtractor, CnnForAudioClassification

SAMPLING_RATE = 22050
SMALL = {
    "han2017": {"filters": [4, 4, 8, 8], "hidden_size": 16},
    "spectrogram_image": {"filters": [2, 4], "hidden_size": 8},
    "mobilenet_v1": {"width_multiplier": 0.125},
}


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    samples = int(seconds * SAMPLING_RATE)
    return np.random.default_rng(seed).normal(scale=0.1, size=samples).astype(np.float32)


def small_model(architecture: str) -> CnnForAudioClassification:
    torch.manual_seed(0)
    return CnnForAudioClassification(CnnConfig(architecture=architecture, num_labels=3, **SMALL[architecture]))


def maps_of(model: nn.Module, features: torch.Tensor, kinds: tuple[type, ...]) -> list[tuple[int, ...]]:
    """Return the shape that every module of `kinds` puts out, in order."""
    shapes = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
        for module in model.modules()
        if isinstance(module, kinds)
    ]
    with torch.no_grad():
        model(features)
    for hook in hooks:
        hook.remove()
    return shapes


@pytest.fixture
def extractor():
    return CnnFeatureExtractor()


def test_features_are_those_of_librosa(extractor):
    waveform = noise(2.0)
    mel = librosa.feature.melspectrogram(
        y=waveform / np.abs(waveform).max(), sr=SAMPLING_RATE, n_fft=1024, hop_length=512, n_mels=128
    )
    features = extractor.extract(torch.from_numpy(waveform)[None])[0].numpy()
    np.testing.assert_allclose(features, np.log(mel.T[:86] + 1e-6), atol=1e-3)


@pytest.mark.parametrize(("samples", "frames"), [(22050, 43), (66150, 129), (512, 1), (1, 1)])
def test_number_of_frames(extractor, samples, frames):
    assert extractor.extract(torch.ones(2, samples)).shape == (2, frames, 128)


def test_features_do_not_depend_on_amplitude_and_survive_silence(extractor):
    waveform = torch.from_numpy(noise(0.5))[None]
    torch.testing.assert_close(extractor.extract(0.01 * waveform), extractor.extract(waveform), atol=1e-3, rtol=0)
    silence = extractor.extract(torch.zeros(1, 4096))
    torch.testing.assert_close(silence, torch.full_like(silence, np.log(1e-6)))


def test_features_ignore_autocast(extractor):
    waveform = torch.from_numpy(noise(0.5))[None]
    with torch.autocast("cpu", torch.bfloat16):
        features = extractor.extract(waveform)
    assert torch.equal(features, extractor.extract(waveform))


def test_call_pads_to_the_longest_clip_and_refuses_what_it_cannot_use(extractor):
    short, long = noise(0.3), noise(0.5)
    batch = extractor([short, long], sampling_rate=SAMPLING_RATE, return_tensors="pt")["input_values"]
    padded = torch.from_numpy(np.stack([np.pad(short, (0, len(long) - len(short))), long]))
    assert torch.equal(batch, extractor.extract(padded))
    with pytest.raises(ValueError, match="44100 Hz: resample it to 22050 Hz"):
        extractor(long, sampling_rate=44100)
    for unusable in (np.zeros((2, 2, 100)), np.zeros(0)):
        with pytest.raises(ValueError, match="mono"):
            extractor(unusable, sampling_rate=SAMPLING_RATE)


def test_han2017_has_the_sizes_of_the_paper():
    model = CnnForAudioClassification(CnnConfig(num_labels=11)).eval()
    shapes = maps_of(model, torch.randn(1, 43, 128), (nn.Conv2d, nn.MaxPool2d, nn.AdaptiveMaxPool2d, nn.Linear))
    assert shapes == [
        *[(32, 45, 130), (32, 47, 132), (32, 15, 44)],
        *[(64, 17, 46), (64, 19, 48), (64, 6, 16)],
        *[(128, 8, 18), (128, 10, 20), (128, 3, 6)],
        *[(256, 5, 8), (256, 7, 10), (256, 1, 1)],
        *[(1024,), (11,)],
    ]
    dropouts = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert sorted(dropouts) == [0.25, 0.5]


def test_weights_start_xavier_uniform_and_biases_zero():
    model = CnnForAudioClassification(CnnConfig(num_labels=11))
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            expected = torch.empty_like(module.weight)
            limit = np.sqrt(3) * np.sqrt(2 / sum(nn.init._calculate_fan_in_and_fan_out(expected)))
            assert 0.95 * limit < module.weight.abs().max() <= limit * 1.0001
            assert not module.bias.any()


def test_spectrogram_image_has_the_sizes_of_the_tutorial():
    model = CnnForAudioClassification(CnnConfig(architecture="spectrogram_image", num_labels=11)).eval()
    shapes = maps_of(model, torch.randn(1, 129, 128), (nn.Conv2d, nn.MaxPool2d, nn.Linear))
    assert shapes == [(32, 30, 30), (64, 28, 28), (64, 14, 14), (128,), (11,)]


def test_spectrogram_image_learns_the_mean_and_variance_of_its_training_data():
    model = small_model("spectrogram_image").train()
    for _ in range(60):
        model(3 * torch.randn(8, 32, 32) - 5)
    normalization = model.network.normalization
    assert normalization.running_mean.item() == pytest.approx(-5, abs=0.2)
    assert normalization.running_var.item() == pytest.approx(9, rel=0.1)


def test_mobilenet_has_the_widths_of_the_paper_and_statistics_over_many_batches():
    model = CnnForAudioClassification(CnnConfig(architecture="mobilenet_v1", num_labels=11)).eval()
    shapes = maps_of(model, torch.randn(1, 129, 224), (nn.Conv2d,))
    assert shapes[0] == (32, 65, 112) and shapes[-1] == (1024, 5, 7) and len(shapes) == 27
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {module.momentum for module in norms} == {0.1}
    assert small_model("mobilenet_v1").classifier.in_features == 128


@pytest.mark.parametrize("architecture", SMALL)
@pytest.mark.parametrize("frames", [1, 43, 200])
def test_any_number_of_frames_gives_finite_logits(architecture, frames):
    with torch.no_grad():
        logits = small_model(architecture).eval()(torch.randn(2, frames, 64)).logits
    assert logits.shape == (2, 3) and logits.isfinite().all()


@pytest.mark.parametrize("architecture", SMALL)
def test_every_parameter_gets_a_gradient(architecture):
    model = small_model(architecture).train()
    model(torch.randn(4, 43, 64), labels=torch.eye(4, 3)).loss.backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []


@pytest.mark.parametrize("architecture", SMALL)
def test_saving_and_loading_changes_nothing(architecture, tmp_path):
    model = small_model(architecture).train()
    model(torch.randn(4, 43, 64))  # moves the running statistics, which must be saved too
    model.eval().save_pretrained(tmp_path)
    loaded, report = CnnForAudioClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert {key: list(value) for key, value in report.items() if value} == {}
    features = torch.randn(2, 43, 64)
    with torch.no_grad():
        assert torch.equal(loaded(features).logits, model(features).logits)


@pytest.mark.parametrize("architecture", SMALL)
def test_model_is_one_graph(architecture):
    model, features, labels = small_model(architecture), torch.randn(2, 43, 64), torch.eye(2, 3)
    for training in (True, False):
        torch._dynamo.reset()
        compiled = torch.compile(model.train(training), fullgraph=True, dynamic=False, backend="eager")
        outputs = compiled(features, labels=labels)
        outputs.loss.backward()
    torch.testing.assert_close(outputs.logits, model(features).logits)


def test_hidden_states_are_the_blocks_outputs():
    model = small_model("han2017").eval()
    states = model(torch.randn(2, 43, 128), output_hidden_states=True).hidden_states
    assert [tuple(state.shape) for state in states] == [
        (2, 4, 15, 44),
        (2, 4, 6, 16),
        (2, 8, 3, 6),
        (2, 8, 1, 1),
        (2, 16),
    ]
    assert model(torch.randn(2, 43, 128)).hidden_states is None


def test_errors_name_the_way_out():
    with pytest.raises(ValueError, match="choose one of han2017, spectrogram_image, mobilenet_v1"):
        CnnConfig(architecture="han2018")
    with pytest.raises(ValueError, match="batch, frames, mel bands"):
        small_model("han2017")(torch.randn(43, 128))
