"""MFCCs against librosa, and one sub-network an instrument: frozen or added."""

import librosa
import numpy as np
import pytest
import torch
from torch import nn

from irmas_recipe.models.mfcc import (
    MfccConfig,
    MfccFeatureExtractor,
    MfccForAudioClassification,
    with_labels,
)

SAMPLING_RATE = 44100
LABELS = ["cello", "organ", "voice"]


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    samples = int(seconds * SAMPLING_RATE)
    return np.random.default_rng(seed).normal(scale=0.1, size=samples).astype(np.float32)


def features(clips: int = 4, frames: int = 50) -> torch.Tensor:
    generator = torch.Generator().manual_seed(clips)
    return 20 * torch.randn(clips, frames, 40, generator=generator) - 3


def small_model(labels: list[str] = LABELS, **options) -> MfccForAudioClassification:
    torch.manual_seed(0)
    options = {"filters": [4, 8], "dense_sizes": [8, 4], "id2label": dict(enumerate(labels)), **options}
    return MfccForAudioClassification(MfccConfig(**options))


def trained(model: MfccForAudioClassification, steps: int = 3) -> MfccForAudioClassification:
    """Train with decay and momentum, which would move even weights without a gradient."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    targets = (torch.arange(4)[:, None] == torch.arange(model.config.num_labels)).float()
    for _ in range(steps):
        model(features(), labels=targets).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def weights(model: MfccForAudioClassification, label: str) -> dict[str, torch.Tensor]:
    """Return a copy of all that a label's sub-network stores, running statistics included."""
    state = model.subnetworks[model.label_names.index(label)].state_dict()
    return {name: value.clone() for name, value in state.items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_features_are_those_of_librosa():
    extractor = MfccFeatureExtractor()
    loud_and_quiet = np.concatenate([noise(0.5), 1e-6 * noise(0.5)])  # reaches the floor of 80 dB below the maximum
    expected = librosa.feature.mfcc(
        y=loud_and_quiet, sr=SAMPLING_RATE, n_mfcc=40, n_fft=1024, hop_length=512, window="hamming", n_mels=128
    )
    actual = extractor.extract(torch.from_numpy(loud_and_quiet)[None])[0].numpy()
    assert actual.shape == (87, 40)
    np.testing.assert_allclose(actual, expected.T, atol=2e-2, rtol=1e-4)


def test_features_of_a_clip_do_not_depend_on_its_batch_or_on_autocast():
    extractor = MfccFeatureExtractor()
    waveforms = torch.from_numpy(np.stack([noise(0.2), 0.001 * noise(0.2, seed=1), 0 * noise(0.2)]))
    with torch.autocast("cpu", torch.bfloat16):
        together = extractor.extract(waveforms)
    alone = torch.cat([extractor.extract(waveform[None]) for waveform in waveforms])
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=1e-5)
    assert together.isfinite().all()


def test_call_pads_to_the_longest_clip_and_refuses_what_it_cannot_use():
    extractor = MfccFeatureExtractor()
    short, long = noise(0.1), noise(0.2)
    batch = extractor([short, long], sampling_rate=SAMPLING_RATE, return_tensors="pt")["input_values"]
    padded = torch.from_numpy(np.stack([np.pad(short, (0, len(long) - len(short))), long]))
    assert torch.equal(batch, extractor.extract(padded))
    with pytest.raises(ValueError, match="22050 Hz: resample it to 44100 Hz"):
        extractor(long, sampling_rate=22050)
    for unusable in (np.zeros((2, 2, 100)), np.zeros(0)):
        with pytest.raises(ValueError, match="mono"):
            extractor(unusable, sampling_rate=SAMPLING_RATE)


@pytest.mark.parametrize("frames", [1, 3, 259])
def test_logits_of_any_length_have_one_column_a_label(frames):
    model = small_model().eval()
    with torch.no_grad():
        together = model(features(frames=frames)).logits
        alone = torch.cat([model(clip[None]).logits for clip in features(frames=frames)])
    assert together.shape == (4, 3)
    torch.testing.assert_close(together, alone)


def test_every_logit_comes_from_its_own_subnetwork():
    model = trained(small_model()).eval()
    before = model(features()).logits
    with torch.no_grad():
        model.subnetworks[1].dense[0].weight.zero_()
    changed = (model(features()).logits != before).any(dim=0)
    assert changed.tolist() == [False, True, False]


def test_loss_is_binary_cross_entropy_and_every_parameter_gets_a_gradient():
    model, targets = small_model().train(), torch.eye(4, 3)
    outputs = model(features(), labels=targets)
    torch.testing.assert_close(outputs.loss, nn.functional.binary_cross_entropy_with_logits(outputs.logits, targets))
    outputs.loss.backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []


def test_bfloat16_is_close():
    model = trained(small_model()).eval()
    with torch.no_grad():
        expected = model(features()).logits
        with torch.autocast("cpu", torch.bfloat16):
            actual = model(features()).logits
    torch.testing.assert_close(actual.float(), expected, atol=0.05, rtol=0.05)


def test_model_is_one_graph():
    model, targets = small_model(LABELS[:2]), torch.eye(4, 2)
    for training in (True, False):
        torch._dynamo.reset()
        compiled = torch.compile(model.train(training), fullgraph=True, dynamic=False, backend="eager")
        outputs = compiled(features(), labels=targets)
        outputs.loss.backward()
    torch.testing.assert_close(outputs.logits, model(features()).logits)


def test_frozen_subnetworks_keep_weights_and_statistics_while_the_others_learn():
    model = small_model()
    model.freeze_except(["organ"])
    before = {label: weights(model, label) for label in LABELS}
    trained(model)
    assert {label: same(weights(model, label), before[label]) for label in LABELS} == {
        "cello": True,
        "organ": False,
        "voice": True,
    }
    model.freeze_except(LABELS)
    trained(model)
    assert not any(same(weights(model, label), before[label]) for label in LABELS)
    with pytest.raises(ValueError, match="No sub-network for harp; the model has cello, organ, voice"):
        model.freeze_except(["harp"])


def test_trainable_labels_of_the_configuration_hold_from_the_start_and_after_loading(tmp_path):
    model = small_model(trainable_labels=["voice"])
    model.save_pretrained(tmp_path)
    loaded = MfccForAudioClassification.from_pretrained(tmp_path)
    for candidate in (model, loaded):
        learning = {name.split(".")[1] for name, parameter in candidate.named_parameters() if parameter.requires_grad}
        assert learning == {"2"}
        frozen = weights(candidate, "cello")
        assert same(weights(trained(candidate), "cello"), frozen)


def test_added_labels_leave_the_old_logits_exactly_as_they_were(tmp_path):
    small = trained(small_model()).eval()
    small.config.thresholds = [0.3, 0.4, 0.6]
    small.save_pretrained(tmp_path / "small")
    saved = MfccForAudioClassification.from_pretrained(tmp_path / "small")
    large = with_labels(saved, [*LABELS, "harp", "tuba"])
    assert large.config.id2label == dict(enumerate([*LABELS, "harp", "tuba"]))
    assert large.config.label2id["tuba"] == 4
    assert large.config.trainable_labels == ["harp", "tuba"]
    assert large.config.thresholds == [0.3, 0.4, 0.6, 0.5, 0.5]
    before = weights(large, "harp")
    trained(large).eval().save_pretrained(tmp_path / "large")
    assert not same(weights(large, "harp"), before)
    loaded = MfccForAudioClassification.from_pretrained(tmp_path / "large")
    with torch.no_grad():
        assert torch.equal(loaded(features()).logits[:, :3], small(features()).logits)
        assert torch.equal(loaded(features()).logits, large(features()).logits)
    assert small.config.num_labels == 3 and small.config.trainable_labels is None


def test_a_label_may_have_a_sub_network_of_its_own_size():
    model = small_model(label_filters={"organ": [2, 2, 2]})
    assert [len(subnetwork.blocks) for subnetwork in model.subnetworks] == [2, 3, 2]


def test_default_sizes_are_three_blocks_and_dense_64_and_32():
    model = MfccForAudioClassification(MfccConfig(num_labels=2))
    linears = [(layer.in_features, layer.out_features) for layer in model.modules() if isinstance(layer, nn.Linear)]
    assert linears == [(64 * 5, 64), (64, 32), (32, 1)] * 2
    hidden = model(features(), output_hidden_states=True).hidden_states
    assert [state.shape for state in hidden] == [(4, 2, 32)]


def test_wrong_number_of_coefficients_is_named():
    with pytest.raises(ValueError, match=r"must be \(batch, frames, 40\), not \(2, 50, 13\)"):
        small_model()(torch.randn(2, 50, 13))
