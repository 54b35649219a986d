"""BEATs against the authors' code (tests/parity/beats_tiny.json), torchaudio's filter banks and the paper's definitions."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torchaudio.compliance import kaldi
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

import irmas_recipe.models  # noqa: F401  registers the classes, so that a converted folder carries its code
from irmas_dataset.errors import UserError
from irmas_recipe.models.audioset import audioset_labels
from irmas_recipe.models.beats import BeatsConfig, BeatsFeatureExtractor, BeatsForAudioClassification, BeatsModel
from irmas_recipe.models.beats.convert_beats import convert
from irmas_recipe.models.beats.modeling_beats import BeatsAttention, BeatsRelativePositionBias, convolve_by_fft

PARITY = json.loads((Path(__file__).parents[1] / "parity" / "beats_tiny.json").read_text())
BASE_KEYS = Path(__file__).parents[3] / "shared" / "parity" / "beats_base_keys.json"
RATE = 16000


def generated_weight(key: str, shape: list[int]) -> torch.Tensor:
    """Return the weight that the parity figures were made with: noise that depends on its name only."""
    weight = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32) * np.float32(0.1)
    if key.endswith(("norm.weight", "weight_g")):
        weight = np.abs(weight) + 1
    return torch.from_numpy(weight)


def generated_waveform(index: int, seconds: float) -> np.ndarray:
    """Return the waveform that the parity figures were made with."""
    time = np.arange(int(RATE * seconds)) / RATE
    frequency = 220 * (index + 1)
    tone = 0.3 * np.sin(2 * np.pi * frequency * time)
    sweep = 0.2 * np.sin(2 * np.pi * (2 * frequency + 150 * time) * time)
    return (tone + sweep + 0.02 * np.random.RandomState(index).standard_normal(time.size)).astype(np.float32)


def reference_checkpoint(**cfg) -> dict:
    """Return the tiny checkpoint in the authors' format, as a fresh dictionary."""
    weights = {key: generated_weight(key, shape) for key, shape in PARITY["keys"].items()}
    return {"cfg": PARITY["cfg"] | cfg, "model": weights}


def converted(checkpoint: dict, folder: Path) -> Path:
    """Write `checkpoint` as a .pt file and return the folder of the converted model."""
    torch.save(checkpoint, folder / "reference.pt")
    convert(folder / "reference.pt", folder / "converted")
    return folder / "converted"


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Return (model, extractor) converted from the tiny checkpoint and loaded again."""
    folder = converted(reference_checkpoint(), tmp_path_factory.mktemp("beats"))
    return BeatsForAudioClassification.from_pretrained(folder).eval(), BeatsFeatureExtractor.from_pretrained(folder)


def tiny_config(**options) -> BeatsConfig:
    defaults = {
        "patch_embedding_size": 12,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 24,
        "position_kernel_size": 8,
        "position_groups": 4,
        "num_buckets": 32,
        "max_distance": 64,
    }
    return BeatsConfig(**(defaults | options))


def tiny_model(seed: int = 0, **options) -> BeatsForAudioClassification:
    torch.manual_seed(seed)
    return BeatsForAudioClassification(tiny_config(**options)).eval()


@pytest.mark.parametrize("case", PARITY["cases"], ids=lambda case: f"{case['seconds']} s")
@torch.no_grad()
def test_features_tokens_and_logits_are_those_of_the_authors(reference, case):
    model, extractor = reference
    waveforms = [generated_waveform(index, case["seconds"]) for index in range(2)]
    inputs = extractor(waveforms, sampling_rate=RATE, return_tensors="pt")
    outputs = model(**inputs, output_hidden_states=True)
    features, tokens = inputs["input_values"], outputs.hidden_states[-1]
    assert list(features.shape) == case["fbank_shape"]
    assert list(tokens.shape) == case["tokens_shape"]
    found_and_expected = [
        (features.mean(), case["fbank_mean"]),
        (features.std(), case["fbank_std"]),
        (features[0, 0, :8], case["fbank_first_frame_first_8"]),
        (features[-1, -1, -8:], case["fbank_last_frame_last_8"]),
        (tokens.mean(), case["tokens_mean"]),
        (tokens.std(), case["tokens_std"]),
        (tokens[0, 0, :8], case["tokens_0_0_first_8"]),
        (tokens[1, -1, -8:], case["tokens_1_last_last_8"]),
        (outputs.logits, case["logits"]),
        (model(features).logits, case["logits"]),
    ]
    for found, expected in found_and_expected:
        torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=0)


@torch.no_grad()
def test_padded_clip_is_masked_as_by_the_authors(reference):
    model, extractor = reference
    case = PARITY["padding_case"]
    waveforms = [generated_waveform(index, case["seconds"]) for index in range(2)]
    waveforms[1] = waveforms[1][: case["second_clip_valid_samples"]]
    inputs = extractor(waveforms, sampling_rate=RATE, return_tensors="pt")
    num_tokens = inputs["input_values"].shape[1] // 16 * 8
    padding = ~model.beats.token_mask(inputs["attention_mask"], num_tokens)
    assert padding.sum(dim=1).tolist() == case["token_padding_mask_true_per_clip"]
    torch.testing.assert_close(model(**inputs).logits, torch.tensor(case["logits"]), atol=1e-4, rtol=0)


NOISE = np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
SIGNALS = {
    "noise": 0.1 * NOISE,
    "one frame": 0.1 * NOISE[:400],
    "odd length": 0.1 * NOISE[:5557],
    "full scale": np.clip(NOISE, -1, 1),
    "quiet on an offset": 0.5 + 1e-3 * NOISE,
    "constant": np.full(RATE, 0.5, dtype=np.float32),
    "silence": np.zeros(RATE, dtype=np.float32),
    "tone": 0.5 * np.sin(2 * np.pi * 440 / RATE * np.arange(RATE)).astype(np.float32),
}


@pytest.mark.parametrize("name", SIGNALS)
def test_features_are_kaldi_filter_banks(name):
    waveform = torch.from_numpy(SIGNALS[name])
    expected = kaldi.fbank(2**15 * waveform[None], num_mel_bins=128, sample_frequency=RATE)
    features = BeatsFeatureExtractor().extract(waveform[None])
    torch.testing.assert_close(features[0], (expected - 15.41663) / (2 * 6.55582), atol=1e-5, rtol=0)


def test_padding_value_is_the_feature_of_silence():
    extractor = BeatsFeatureExtractor()
    silence = extractor.extract(torch.zeros(1, 400))
    torch.testing.assert_close(silence, torch.full_like(silence, extractor.padding_value), atol=1e-5, rtol=0)


def test_autocast_and_half_precision_leave_features_in_float32():
    extractor = BeatsFeatureExtractor()
    waveforms = torch.from_numpy(0.1 * NOISE)[None].bfloat16()
    expected = extractor.extract(waveforms.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(extractor.extract(waveforms), expected)


def test_extractor_pads_to_the_longest_clip_only():
    extractor = BeatsFeatureExtractor()
    inputs = extractor([0.1 * NOISE, 0.1 * NOISE[:8000]], sampling_rate=RATE, return_tensors="pt")
    assert inputs["input_values"].shape == (2, 98, 128)
    # 98 frames share 16000 samples out by 163; the first 8000 samples reach into the 50th share.
    assert inputs["attention_mask"].sum(dim=1).tolist() == [98, 50]
    assert inputs["attention_mask"][1, :50].all()
    alone = extractor(0.1 * NOISE, sampling_rate=RATE, return_tensors="np")
    np.testing.assert_array_equal(alone["input_values"][0], inputs["input_values"][0].numpy())
    assert alone["attention_mask"].all()


@torch.no_grad()
def test_clip_shorter_than_a_patch_is_padded_to_one(reference):
    model, extractor = reference
    inputs = extractor(0.1 * NOISE[:100], sampling_rate=RATE, return_tensors="pt")
    assert inputs["input_values"].shape == (1, 16, 128)
    assert inputs["attention_mask"].sum() == 1
    assert model(**inputs).logits.isfinite().all()
    with pytest.raises(ValueError, match="16 frames"):
        model(inputs["input_values"][:, :15])


def test_long_clip_is_cut_only_where_the_extractor_says_so():
    clip = np.tile(0.1 * NOISE, 40)
    assert BeatsFeatureExtractor()(clip)["input_values"].shape == (1, 3998, 128)
    assert BeatsFeatureExtractor(max_length_seconds=1.0)(clip)["input_values"].shape == (1, 98, 128)


@pytest.mark.parametrize(
    "clips", [NOISE, NOISE[None], [NOISE], torch.from_numpy(NOISE), NOISE.tolist(), NOISE.astype(np.float64)]
)
def test_extractor_takes_what_transformers_extractors_take(clips):
    found = BeatsFeatureExtractor()(clips, sampling_rate=RATE)["input_values"]
    expected = BeatsFeatureExtractor().extract(torch.from_numpy(NOISE)[None]).numpy()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "clips", [[], NOISE[:0], (1000 * NOISE).astype(np.int16), [NOISE[None].repeat(2, axis=0)], 1.0 * NOISE[None, None]]
)
def test_extractor_refuses_what_is_no_mono_float_waveform(clips):
    with pytest.raises(ValueError, match="mono, not empty, and of floats"):
        BeatsFeatureExtractor()(clips, sampling_rate=RATE)


def test_extract_refuses_a_clip_shorter_than_a_frame():
    with pytest.raises(ValueError, match="400 samples at least"):
        BeatsFeatureExtractor().extract(torch.zeros(2, 399))


@torch.no_grad()
def test_frames_that_fill_no_patch_are_dropped():
    model = tiny_model()
    features = torch.randn(2, 47, 128)
    assert torch.equal(model(features).logits, model(features[:, :32]).logits)


@pytest.mark.parametrize(("frames", "time_steps"), [(16, 1), (31, 1), (98, 6), (198, 12), (298, 18)])
def test_token_is_padding_when_all_of_its_share_of_frames_is(frames, time_steps):
    model, num_tokens = tiny_model(), 8 * time_steps
    share = frames // num_tokens
    for heard_frames in (1, frames // 2, frames - 1, frames):
        mask = (torch.arange(frames) < heard_frames).long()[None]
        expected = [bool(mask[0, token * share : (token + 1) * share].any()) for token in range(num_tokens)]
        assert model.beats.token_mask(mask, num_tokens)[0].tolist() == expected


def bucket_by_definition(distance: int, num_buckets: int, max_distance: int) -> int:
    """Return T5's bidirectional bucket of one signed distance (Raffel et al. 2020)."""
    per_side = num_buckets // 2
    exact = per_side // 2
    bucket = abs(distance)
    if bucket >= exact:
        bucket = exact + int(math.log(bucket / exact) / math.log(max_distance / exact) * (per_side - exact))
    return min(bucket, per_side - 1) + (per_side if distance > 0 else 0)


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(320, 800), (32, 64), (32, 100), (12, 40)])
def test_relative_positions_fall_into_t5_buckets(num_buckets, max_distance):
    bias = BeatsRelativePositionBias(tiny_config(num_buckets=num_buckets, max_distance=max_distance))
    tokens = 7
    expected = torch.stack(
        [
            torch.stack(
                [
                    bias.embedding.weight[bucket_by_definition(key - query, num_buckets, max_distance)]
                    for key in range(tokens)
                ]
            )
            for query in range(tokens)
        ]
    )
    torch.testing.assert_close(bias(tokens), expected.permute(2, 0, 1))
    distances = torch.arange(-1500, 1501)
    buckets = [bucket_by_definition(distance, num_buckets, max_distance) for distance in distances.tolist()]
    assert bias.bucket(distances).tolist() == buckets


@torch.no_grad()
def test_attention_is_the_authors_formula():
    """Their scores are divided by 32, shifted by their maximum and multiplied again, before the gated bias is added."""
    torch.manual_seed(0)
    attention = BeatsAttention(tiny_config())
    torch.nn.init.normal_(attention.grep_a)
    hidden_states = torch.randn(2, 5, 16)
    position_bias = torch.randn(4, 5, 5)
    heard = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
    output = torch.zeros(2, 5, 16)
    for clip in range(2):
        heads = []
        for head in range(4):
            part = slice(4 * head, 4 * head + 4)
            query, key, value = (
                linear(hidden_states[clip])[:, part]
                for linear in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            halves = attention.grep_linear(query).view(5, 2, 4).sum(dim=-1).sigmoid()
            gate = halves[:, 0] * (halves[:, 1] * attention.grep_a[0, head, 0, 0] - 1) + 2
            scores = (query / math.sqrt(4) / 32) @ key.T
            scores = (scores - scores.max(dim=-1, keepdim=True).values) * 32
            scores = scores.masked_fill(~heard[clip], -math.inf) + gate[:, None] * position_bias[head]
            heads.append(scores.softmax(dim=-1) @ value)
        output[clip] = attention.out_proj(torch.cat(heads, dim=-1))
    padding_bias = torch.where(heard, 0.0, torch.finfo(torch.float32).min)[:, None, None]
    torch.testing.assert_close(attention(hidden_states, position_bias, padding_bias), output)


@pytest.mark.parametrize(
    "options",
    [
        {"deep_norm": False},
        {"gru_rel_pos": False},
        {"gru_rel_pos": False, "relative_position_embedding": False},
        {"patch_embedding_size": 16},
        {"patch_bias": True, "position_kernel_size": 7},
    ],
    ids=str,
)
def test_other_options_train_and_mask(options):
    model = tiny_model(**options).train()
    mask = torch.ones(2, 48, dtype=torch.long)
    mask[1, 30:] = 0
    model(torch.randn(2, 48, 128), attention_mask=mask, labels=torch.ones(2, 2)).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@torch.no_grad()
def test_padding_does_not_reach_the_logits():
    model = tiny_model(position_kernel_size=1)
    features = torch.randn(1, 96, 128)
    mask = torch.zeros(1, 96, dtype=torch.long)
    mask[:, :48] = 1  # of 2 frames a token: the first 24 of 48 tokens, which is what the first 48 frames give
    other = features.clone()
    other[:, 48:] = 5.0
    logits = model(features, attention_mask=mask).logits
    torch.testing.assert_close(model(other, attention_mask=mask).logits, logits)
    torch.testing.assert_close(model(features[:, :48]).logits, logits, atol=1e-5, rtol=1e-5)


def test_layerdrop_skips_layers_in_training_only():
    model = tiny_model(layerdrop=1.0)
    features = torch.randn(1, 32, 128)
    states = model.train()(features, output_hidden_states=True).hidden_states
    assert torch.equal(states[0], states[-1])
    states = model.eval()(features, output_hidden_states=True).hidden_states
    assert len(states) == 3
    assert not torch.allclose(states[0], states[-1])


@pytest.mark.parametrize(
    "dropout",
    ["hidden_dropout", "attention_dropout", "activation_dropout", "input_dropout", "classifier_dropout"],
)
@torch.no_grad()
def test_each_dropout_acts_in_training_only(dropout):
    model = tiny_model(**{dropout: 0.5})
    features = torch.randn(1, 32, 128)
    assert torch.equal(model(features).logits, model(features).logits)
    model.train()
    assert not torch.allclose(model(features).logits, model(features).logits)


def test_fresh_weights_follow_deep_norm_and_weight_normalisation():
    model = BeatsModel(tiny_config(hidden_size=128, intermediate_size=256, num_hidden_layers=4))
    layer = model.layers[3]
    gain = (8 * 4) ** -0.25
    assert layer.self_attn.q_proj.weight.std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.05)
    assert layer.self_attn.v_proj.weight.std().item() == pytest.approx(gain * math.sqrt(2 / 256), rel=0.05)
    assert layer.fc1.weight.std().item() == pytest.approx(gain * math.sqrt(2 / 384), rel=0.05)
    weight = model.position_convolution.conv.parametrizations.weight
    torch.testing.assert_close(weight.original0, weight.original1.norm(dim=(0, 1), keepdim=True))
    assert weight.original1.std().item() == pytest.approx(math.sqrt(4 / (8 * 128)), rel=0.05)


def test_default_configuration_is_the_released_model():
    with torch.device("meta"):
        model = BeatsForAudioClassification(BeatsConfig(num_labels=527))
    assert sum(parameter.numel() for parameter in model.parameters()) == 90_717_055
    assert [name for name, _ in model.named_modules() if name.endswith("beats.layers.11")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_attention_heads": 3}, "num_attention_heads"),
        ({"position_groups": 5}, "position_groups"),
        ({"relative_position_embedding": False}, "gru_rel_pos"),
        ({"num_buckets": 320, "max_distance": 80}, "max_distance"),
    ],
)
def test_configuration_refuses_sizes_that_do_not_fit(options, words):
    with pytest.raises(ValueError, match=words):
        tiny_config(**options)


def test_fine_tuned_checkpoint_keeps_its_labels_by_display_name(tmp_path):
    labels = [*(mid for mid, _ in audioset_labels()[100:110]), "theremin"]
    checkpoint = reference_checkpoint() | {"label_dict": dict(enumerate(labels))}
    folder = converted(checkpoint, tmp_path)
    model, report = AutoModelForAudioClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())
    assert model.config.id2label[0] == audioset_labels()[100][1]
    assert model.config.id2label[10] == "theremin"
    assert model.config.label2id[audioset_labels()[109][1]] == 9
    assert model.config.pretrained_head is True
    assert model.config.problem_type == "multi_label_classification"
    assert isinstance(AutoFeatureExtractor.from_pretrained(folder), BeatsFeatureExtractor)
    code = sorted(path.name for path in folder.glob("*.py"))
    assert code == ["configuration_beats.py", "feature_extraction_beats.py", "modeling_beats.py"]
    with pytest.raises(UserError, match="names 2 labels"):
        converted(checkpoint | {"label_dict": {0: "/m/09x0r", 1: "/m/04rlf"}}, tmp_path)


@torch.no_grad()
def test_pretrained_checkpoint_gets_a_fresh_head_of_two_labels(tmp_path, reference):
    checkpoint = reference_checkpoint(finetuned_model=False)
    for key in ("predictor.weight", "predictor.bias"):
        del checkpoint["model"][key]
    model = BeatsForAudioClassification.from_pretrained(converted(checkpoint, tmp_path)).eval()
    assert model.config.pretrained_head is False
    assert model.classifier.out_features == 2
    features = torch.randn(1, 98, 128)
    assert torch.equal(model.beats(features).last_hidden_state, reference[0].beats(features).last_hidden_state)


def test_checkpoint_without_all_fields_takes_the_authors_defaults(tmp_path):
    checkpoint = reference_checkpoint()
    for field in ("dropout", "predictor_dropout", "max_distance"):
        del checkpoint["cfg"][field]
    config = BeatsConfig.from_pretrained(converted(checkpoint, tmp_path))
    assert (config.hidden_dropout, config.classifier_dropout, config.max_distance) == (0.1, 0.1, 1280)


def without(key: str) -> dict:
    checkpoint = reference_checkpoint()
    del checkpoint["model"][key]
    return checkpoint


def with_weight(key: str, *shape: int) -> dict:
    checkpoint = reference_checkpoint()
    checkpoint["model"][key] = torch.zeros(shape)
    return checkpoint


TABLE = "encoder.layers.1.self_attn.relative_attention_bias.weight"


@pytest.mark.parametrize(
    ("checkpoint", "words"),
    [
        (without("encoder.layers.1.fc1.bias"), r"missing encoder\.layers\.1\.fc1\.bias; unexpected none"),
        (without(TABLE), f"missing {TABLE}"),
        (without("predictor.weight"), r"missing predictor\.weight"),
        (with_weight("encoder.layers.3.fc1.bias", 96), r"missing none; unexpected encoder\.layers\.3\.fc1\.bias"),
        (with_weight("encoder.layers.0.fc1.bias", 95), r"other shapes of encoder\.layers\.0\.fc1\.bias"),
        (with_weight(TABLE, 31, 4), f"other shapes of {TABLE}"),
        (reference_checkpoint(layer_norm_first=True), "layer_norm_first=True"),
        (reference_checkpoint(activation_fn="glu"), "activation_fn='glu'"),
        (reference_checkpoint(input_patch_size=-1), "input_patch_size"),
        (reference_checkpoint(relative_position_embedding=False), "gru_rel_pos"),
        ({"weights": 1}, "'cfg' and 'model'"),
    ],
)
def test_converter_names_what_does_not_fit(checkpoint, words, tmp_path):
    with pytest.raises(UserError, match=words):
        converted(checkpoint, tmp_path)
    assert not (tmp_path / "converted").exists()


class Intruder:
    """An object whose unpickling would create a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_converter_runs_no_code_of_a_checkpoint(tmp_path):
    with pytest.raises(UserError, match="cannot be read as weights"):
        converted(reference_checkpoint() | {"label_dict": Intruder(tmp_path / "touched")}, tmp_path)
    assert not (tmp_path / "touched").exists()
    (tmp_path / "text.pt").write_text("no checkpoint")
    with pytest.raises(UserError, match=r"text\.pt cannot be read as weights"):
        convert(tmp_path / "text.pt", tmp_path / "converted")
    with pytest.raises(UserError, match=r"missing\.pt does not exist"):
        convert(tmp_path / "missing.pt", tmp_path / "converted")


@pytest.mark.slow
@pytest.mark.skipif(not BASE_KEYS.is_file(), reason="needs shared/parity/beats_base_keys.json beside the repository")
def test_full_size_checkpoint_converts(tmp_path):
    base = json.loads(BASE_KEYS.read_text())
    weights = {key: torch.zeros(shape) for key, shape in base["keys"].items()}
    labels = {index: mid for index, (mid, _) in enumerate(reversed(audioset_labels()))}
    folder = converted({"cfg": base["cfg"], "model": weights, "label_dict": labels}, tmp_path)
    model, report = BeatsForAudioClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())
    assert sum(parameter.numel() for parameter in model.parameters()) == base["parameters"]
    assert model.config.id2label[526] == "Speech"


@pytest.mark.parametrize("kernel_size", [8, 7])
@pytest.mark.parametrize("length", [1, 5, 30])
def test_the_position_convolution_by_fft_is_the_direct_one(kernel_size, length):
    torch.manual_seed(0)
    direct = torch.nn.Conv1d(12, 12, kernel_size, padding=kernel_size // 2, groups=3)
    maps = torch.randn(2, 12, length)
    expected, found = direct(maps)[..., :length], convolve_by_fft(direct, maps)
    torch.testing.assert_close(found, expected)
    wanted, got = (torch.autograd.grad(each.square().sum(), direct.weight)[0] for each in (expected, found))
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    assert convolve_by_fft(direct.bfloat16(), maps.bfloat16()).dtype == torch.bfloat16, "as the next layer takes it"
