"""MobileNet against the authors' code (tests/parity/mn04.json) and against its definition, written out a second time."""

import json
import os
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from irmas_dataset.errors import UserError
from irmas_recipe.models.mobilenet import (
    MobileNetAudioConfig,
    MobileNetAudioFeatureExtractor,
    MobileNetAudioForAudioClassification,
)
from irmas_recipe.models.mobilenet.convert_mobilenet import convert
from irmas_recipe.models.mobilenet.modeling_mobilenet import round_to_eight
from irmas_recipe.models.passt import PasstFeatureExtractor

PARITY = json.loads((Path(__file__).parents[1] / "parity" / "mn04.json").read_text())
MN04 = Path(__file__).parents[3] / "shared" / "weights" / PARITY["weights"]
RATE = 32000
TABLE = """
    16 3 16 16 - RE 1, 16 3 64 24 - RE 2, 24 3 72 24 - RE 1, 24 5 72 40 SE RE 2, 40 5 120 40 SE RE 1, 40 5 120 40 SE RE 1,
    40 3 240 80 - HS 2, 80 3 200 80 - HS 1, 80 3 184 80 - HS 1, 80 3 184 80 - HS 1, 80 3 480 112 SE HS 1,
    112 3 672 112 SE HS 1, 112 5 672 160 SE HS 2, 160 5 960 160 SE HS 1, 160 5 960 160 SE HS 1
"""


def generated_waveform(index: int, seconds: float) -> np.ndarray:
    """Return the waveform that the parity figures were made with."""
    time = np.arange(int(RATE * seconds)) / RATE
    frequency = 220 * (index + 1)
    tone = 0.3 * np.sin(2 * np.pi * frequency * time)
    sweep = 0.2 * np.sin(2 * np.pi * (2 * frequency + 150 * time) * time)
    return (tone + sweep + 0.02 * np.random.RandomState(index).standard_normal(time.size)).astype(np.float32)


def divisible(channels: float) -> int:
    """Return `channels` as MobileNet rounds them."""
    result = max(8, 8 * int((channels + 4) / 8))
    return result + 8 if result < 0.9 * channels else result


class Reference:
    """The authors' network in evaluation mode, in float64, on weights that it makes itself under the authors' names."""

    def __init__(self, width: float, classes: int = 11):
        self.width, self.classes, self.weights = width, classes, {}
        self.logits(torch.zeros(1, 32, 128))  # meets every weight once

    def weight(self, name: str, *shape: int, low: float = -1.0, high: float = 1.0) -> torch.Tensor:
        if name not in self.weights:
            draw = np.random.RandomState(zlib.crc32(name.encode())).uniform(low, high, shape)
            self.weights[name] = torch.from_numpy(draw.astype(np.float32))
        return self.weights[name].double()

    def convolve(self, x, name, outputs, kernel=1, stride=1, groups=1, activation=None):
        fan_in = x.shape[1] // groups * kernel**2
        bound = (6 / fan_in) ** 0.5
        shape = (outputs, x.shape[1] // groups, kernel, kernel)
        weight = self.weight(f"{name}.0.weight", *shape, low=-bound, high=bound)
        x = F.conv2d(x, weight, stride=stride, padding=(kernel - 1) // 2, groups=groups)
        scale = self.weight(f"{name}.1.weight", outputs, low=0.5, high=1.5)
        shift, mean = (self.weight(f"{name}.1.{part}", outputs) for part in ("bias", "running_mean"))
        variance = self.weight(f"{name}.1.running_var", outputs, low=0.5, high=1.5)
        self.weights[f"{name}.1.num_batches_tracked"] = torch.tensor(7)
        x = (x - mean[:, None, None]) / (variance[:, None, None] + 0.001).sqrt() * scale[:, None, None]
        x = x + shift[:, None, None]
        return {"HS": lambda v: v * (v + 3).clamp(0, 6) / 6, "RE": lambda v: v.clamp(min=0), None: lambda v: v}[
            activation
        ](x)

    def linear(self, x, name, outputs):
        bound = (1 / x.shape[1]) ** 0.5
        weight = self.weight(f"{name}.weight", outputs, x.shape[1], low=-bound, high=bound)
        return x @ weight.T + self.weight(f"{name}.bias", outputs, low=-bound, high=bound)

    def embeddings(self, features: torch.Tensor) -> torch.Tensor:
        x = features.double().mT[:, None]
        x = self.convolve(x, "features.0", divisible(16 * self.width), kernel=3, stride=2, activation="HS")
        for number, row in enumerate(TABLE.split(","), start=1):
            _, kernel, expanded, outputs, squeeze, activation, stride = row.split()
            expanded, outputs = divisible(int(expanded) * self.width), divisible(int(outputs) * self.width)
            given, parts = x, 0
            if expanded != x.shape[1]:
                x = self.convolve(x, f"features.{number}.block.{parts}", expanded, activation=activation)
                parts += 1
            options = {"kernel": int(kernel), "stride": int(stride), "groups": expanded, "activation": activation}
            x = self.convolve(x, f"features.{number}.block.{parts}", expanded, **options)
            parts += 1
            if squeeze == "SE":
                name = f"features.{number}.block.{parts}.conc_se_layers.0"
                gates = self.linear(x.mean(dim=(2, 3)), f"{name}.fc1", divisible(expanded // 4)).clamp(min=0)
                x = x * self.linear(gates, f"{name}.fc2", expanded).sigmoid()[:, :, None, None]
                parts += 1
            x = self.convolve(x, f"features.{number}.block.{parts}", outputs)
            if x.shape == given.shape and stride == "1":
                x = x + given
        return self.convolve(x, "features.16", 6 * x.shape[1], activation="HS").mean(dim=(2, 3))

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        hidden = self.linear(self.embeddings(features), "classifier.2", divisible(1280 * self.width))
        return self.linear(hidden * (hidden + 3).clamp(0, 6) / 6, "classifier.5", self.classes)


def converted(weights: dict, folder: Path, name: str = "mn.pt") -> Path:
    """Write `weights` as a file and return the folder of the converted model."""
    torch.save(weights, folder / name)
    convert(folder / name, folder / "converted")
    return folder / "converted"


@pytest.fixture(scope="module")
def tiny_weights():
    return Reference(0.1).weights


@pytest.fixture(scope="module")
def mn04(tmp_path_factory):
    """Return (model, extractor) converted from the released checkpoint."""
    if not MN04.is_file():
        pytest.skip(f"the released weights are not at {MN04}")
    folder = tmp_path_factory.mktemp("mn04")
    convert(MN04, folder)
    model = MobileNetAudioForAudioClassification.from_pretrained(folder).eval()
    return model, MobileNetAudioFeatureExtractor.from_pretrained(folder)


@pytest.mark.parametrize("case", PARITY["cases"], ids=lambda case: f"{case['seconds']} s")
@torch.no_grad()
def test_released_mn04_gives_the_authors_mel_features_and_logits(mn04, case):
    model, extractor = mn04
    waveforms = [generated_waveform(index, case["seconds"]) for index in range(2)]
    inputs = extractor(waveforms, sampling_rate=RATE, return_tensors="pt")
    mel = inputs["input_values"].mT
    assert list(mel.shape) == case["mel_shape"]
    assert mel.mean().item() == pytest.approx(case["mel_mean"], abs=1e-4)
    assert mel[0, :8, 10].tolist() == pytest.approx(case["mel_0_first_8_bins_frame_10"], abs=1e-4)
    features = model.forward_features(inputs["input_values"])
    assert list(features.shape) == case["features_shape"]
    assert features[0, :8].tolist() == pytest.approx(case["features_0_first_8"], abs=1e-4)
    logits = model(**inputs).logits
    torch.testing.assert_close(logits[:, :16], torch.tensor(case["logits_first_16"]), atol=1e-4, rtol=0)
    top = logits.topk(5)
    assert top.indices.tolist() == case["top5_indices"]
    torch.testing.assert_close(top.values, torch.tensor(case["top5_logits"]), atol=1e-4, rtol=0)


def test_released_mn04_scores_audioset_by_name(mn04):
    config = mn04[0].config
    assert (config.width_mult, config.num_labels) == (0.4, 527)
    assert [config.id2label[index] for index in (0, 27, 193, 526)] == ["Speech", "Singing", "Cello", "Field recording"]
    assert config.problem_type == "multi_label_classification"


@pytest.mark.parametrize("width", [0.1, 0.25, 0.4, 0.5, 0.75, 1.0, 1.3])
@torch.no_grad()
def test_converted_model_is_the_definition_at_every_width(width, tmp_path):
    reference = Reference(width)
    folder = converted(reference.weights, tmp_path)
    model = MobileNetAudioForAudioClassification.from_pretrained(folder).eval()
    assert model.config.width_mult == width
    waveforms = torch.from_numpy(np.stack([generated_waveform(index, 0.7) for index in range(2)]))
    features = MobileNetAudioFeatureExtractor.from_pretrained(folder).extract(waveforms)
    expected = reference.logits(features)
    assert (expected[0] - expected[1]).abs().max() > 1e-2, "the clips look alike: the comparison would show little"
    model = model.double()  # a random network of this depth amplifies the rounding of single precision
    torch.testing.assert_close(model(features).logits, expected, atol=1e-8, rtol=0)
    torch.testing.assert_close(model.forward_features(features), reference.embeddings(features), atol=1e-8, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "millions"), [(2.0, 17.91), (3.0, 39.09), (4.0, 68.43)])
def test_wide_released_models_convert(width, millions, tmp_path):
    """The sizes are those that the authors print for mn20, mn30 and mn40."""
    model = MobileNetAudioForAudioClassification.from_pretrained(
        converted(Reference(width, classes=527).weights, tmp_path)
    )
    assert model.config.width_mult == width
    assert model.num_parameters() / 1e6 == pytest.approx(millions, abs=0.01)


def test_channels_are_rounded_to_eight_and_never_below_ninety_percent():
    channels = {1.6: 8, 6.4: 8, 9.6: 16, 12: 16, 25.6: 24, 26: 24, 27.9: 32, 28: 32, 44: 48}
    assert {value: round_to_eight(value) for value in channels} == channels


@pytest.mark.parametrize("samples", [1024, 16000, 32001, 200_000])
def test_extractor_is_that_of_passt(samples):
    """PaSST's is checked against the definition in double precision."""
    waveforms = torch.from_numpy(np.stack([generated_waveform(index, 7.0)[:samples] for index in range(2)]))
    expected = PasstFeatureExtractor(min_frames=1).extract(waveforms)
    torch.testing.assert_close(MobileNetAudioFeatureExtractor().extract(waveforms), expected, atol=1e-5, rtol=0)


def test_extractor_cuts_nothing_and_pads_to_the_longest_clip_only():
    features = MobileNetAudioFeatureExtractor()(
        [generated_waveform(0, 31.0), generated_waveform(1, 1.0)], return_tensors="pt"
    )
    assert features.keys() == {"input_values"}
    assert features["input_values"].shape == (2, 3100, 128)
    silence = (np.log(1e-5) + 4.5) / 5
    assert features["input_values"][1, 150:].unique().tolist() == pytest.approx([silence], abs=1e-5)


@pytest.mark.parametrize("samples", [1, 500, 1023])
@torch.no_grad()
def test_a_very_short_clip_is_lengthened(samples):
    torch.manual_seed(0)
    model = MobileNetAudioForAudioClassification(MobileNetAudioConfig(width_mult=0.1, num_labels=3)).eval()
    inputs = MobileNetAudioFeatureExtractor()(np.ones(samples), return_tensors="pt")
    assert inputs["input_values"].shape == (1, 4, 128)
    assert model(**inputs).logits.isfinite().all()


@pytest.mark.parametrize("wrong", [np.zeros((1, 2, 800)), np.zeros(0), [np.zeros(800), np.zeros(0)]])
def test_extractor_refuses_what_is_no_mono_clip(wrong):
    with pytest.raises(ValueError, match="mono"):
        MobileNetAudioFeatureExtractor()(wrong)


def test_extractor_ignores_autocast():
    waveform = torch.from_numpy(generated_waveform(0, 0.3))[None]
    expected = MobileNetAudioFeatureExtractor().extract(waveform)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(MobileNetAudioFeatureExtractor().extract(waveform), expected)


@torch.no_grad()
def test_embedding_is_the_mean_of_the_last_hidden_state():
    torch.manual_seed(0)
    model = MobileNetAudioForAudioClassification(MobileNetAudioConfig(width_mult=0.1, num_labels=3)).eval()
    features = torch.randn(2, 96, 128)
    states = model(features, output_hidden_states=True).hidden_states
    assert len(states) == 1 + 15 + 1
    assert states[-1].shape == (2, 96, 4, 3), "five strides of 2: 128 mel bands and 96 frames"
    torch.testing.assert_close(model.forward_features(features), states[-1].mean(dim=(2, 3)))


def test_batch_statistics_follow_the_authors_momentum():
    model = MobileNetAudioForAudioClassification(MobileNetAudioConfig(width_mult=0.1))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


def test_converter_keeps_the_number_of_classes(tmp_path):
    config = MobileNetAudioConfig.from_pretrained(converted(Reference(0.1, classes=50).weights, tmp_path))
    assert (config.num_labels, config.id2label[49]) == (50, "LABEL_49")


@pytest.mark.parametrize(
    ("name", "hop", "bands"), [("mn10_as_hop_5_mAP_475.pt", 160, 128), ("mn10_as_mels_40_mAP_453.pt", 320, 40)]
)
def test_converter_reads_the_front_end_from_the_name_of_the_released_file(name, hop, bands, tiny_weights, tmp_path):
    extractor = MobileNetAudioFeatureExtractor.from_pretrained(converted(tiny_weights, tmp_path, name))
    features = extractor(generated_waveform(0, 1.0), return_tensors="pt")["input_values"]
    assert features.shape == (1, 32000 // hop, bands)


@pytest.mark.parametrize(
    "key",
    [
        "features.0.0.weight",
        "features.4.block.1.conc_se_layers.0.fc1.weight",
        "features.9.block.0.1.running_var",
        "features.12.block.1.1.num_batches_tracked",
        "features.16.1.bias",
        "classifier.2.weight",
        "classifier.5.weight",
        "classifier.5.bias",
    ],
)
def test_converter_names_a_missing_key(key, tiny_weights, tmp_path):
    with pytest.raises(UserError, match=re.escape(f"the key {key} is missing")):
        converted({name: weight for name, weight in tiny_weights.items() if name != key}, tmp_path)


def test_converter_names_unexpected_keys_and_wrong_shapes(tiny_weights, tmp_path):
    with pytest.raises(UserError, match=r"the key features.17.weight is unexpected"):
        converted(tiny_weights | {"features.17.weight": torch.zeros(1)}, tmp_path)
    with pytest.raises(UserError, match=r"features.0.0.weight has the shape \(16, 1, 3, 3\) instead of \(8, 1, 3, 3\)"):
        converted(tiny_weights | {"features.0.0.weight": torch.zeros(16, 1, 3, 3)}, tmp_path)
    assert not (tmp_path / "converted").exists()


class RunsCode:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_converter_runs_no_code_of_the_file(tiny_weights, tmp_path):
    with pytest.raises(UserError, match="refused"):
        converted(tiny_weights | {"classifier.5.bias": RunsCode(tmp_path / "marker")}, tmp_path)
    assert not (tmp_path / "marker").exists()


def test_converter_refuses_other_files_in_one_sentence(tiny_weights, tmp_path):
    (tmp_path / "text.pt").write_text("no weights")
    torch.save({"state_dict": tiny_weights}, tmp_path / "nested.pt")
    for name in ("absent.pt", "text.pt", "nested.pt"):
        with pytest.raises(UserError, match=name) as error:
            convert(tmp_path / name, tmp_path / "converted")
        assert "\n" not in str(error.value)
