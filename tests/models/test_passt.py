"""PaSST against the authors' code (tests/parity/passt_tiny.json) and against its definition, written out a second time."""

import json
import math
import os
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from irmas_dataset.errors import UserError
from irmas_recipe.models.passt import PasstConfig, PasstFeatureExtractor, PasstForAudioClassification
from irmas_recipe.models.passt.convert_passt import authors_name, convert, longest_input
from irmas_recipe.models.passt.modeling_passt import PasstLayer, kept_patches

PARITY = json.loads((Path(__file__).parents[1] / "parity" / "passt_tiny.json").read_text())
BASE_KEYS = Path(__file__).parents[3] / "shared" / "parity" / "passt_base_keys.json"
RATE = 32000


def generated_weight(key: str, shape: list[int]) -> torch.Tensor:
    """Return the weight that the parity figures were made with: noise that depends on its name only."""
    weight = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape) * 0.1
    if key.endswith(("norm.weight", "norm1.weight", "norm2.weight")):
        weight = np.abs(weight) + 1
    return torch.from_numpy(np.asarray(weight, dtype=np.float32))


def generated_waveform(index: int, seconds: float) -> np.ndarray:
    """Return the waveform that the parity figures were made with."""
    time = np.arange(int(RATE * seconds)) / RATE
    frequency = 220 * (index + 1)
    tone = 0.3 * np.sin(2 * np.pi * frequency * time)
    sweep = 0.2 * np.sin(2 * np.pi * (2 * frequency + 150 * time) * time)
    return (tone + sweep + 0.02 * np.random.RandomState(index).standard_normal(time.size)).astype(np.float32)


def authors_shapes(width=64, depth=2, rows=12, positions=20, classes=11) -> dict[str, list[int]]:
    """Return the name and shape of every parameter of a PaSST in the authors' code."""
    shapes = {
        "cls_token": [1, 1, width],
        "dist_token": [1, 1, width],
        "new_pos_embed": [1, 2, width],
        "freq_new_pos_embed": [1, width, rows, 1],
        "time_new_pos_embed": [1, width, 1, positions],
        "patch_embed.proj.weight": [width, 1, 16, 16],
        "patch_embed.proj.bias": [width],
    }
    for block in range(depth):
        for name, outputs, inputs in [
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.fc1", 4 * width, width),
            ("mlp.fc2", width, 4 * width),
        ]:
            shapes |= {f"blocks.{block}.{name}.weight": [outputs, inputs], f"blocks.{block}.{name}.bias": [outputs]}
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{block}.{name}.weight": [width], f"blocks.{block}.{name}.bias": [width]}
    for name in ("norm", "head.0"):
        shapes |= {f"{name}.weight": [width], f"{name}.bias": [width]}
    for name in ("head.1", "head_dist"):
        shapes |= {f"{name}.weight": [classes, width], f"{name}.bias": [classes]}
    return shapes


def authors_weights(**sizes) -> dict[str, torch.Tensor]:
    return {name: generated_weight(name, shape) for name, shape in authors_shapes(**sizes).items()}


def converted(weights: dict, folder: Path, name: str = "passt.pt") -> Path:
    """Write `weights` as a file and return the folder of the converted model."""
    torch.save(weights, folder / name)
    convert(folder / name, folder / "converted")
    return folder / "converted"


def tiny_config(**options) -> PasstConfig:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return PasstConfig(**({"max_frames": 100, "num_labels": 3} | sizes | options))


def tiny_model(**options) -> PasstForAudioClassification:
    torch.manual_seed(0)
    return PasstForAudioClassification(tiny_config(**options))


def reference_features(waveform: np.ndarray) -> np.ndarray:
    """Return features (frames, 128) of one clip in float64 by numpy alone."""
    signal = waveform[1:].astype(np.float64) - 0.97 * waveform[:-1].astype(np.float64)
    signal = np.pad(signal, 512, mode="reflect")
    starts = np.arange(0, len(signal) - 1024 + 1, 320)
    window = np.zeros(1024)
    window[112:912] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(800) / 799)  # symmetric Hann, in the middle
    power = np.abs(np.fft.rfft(signal[starts[:, None] + np.arange(1024)] * window)) ** 2

    edges = np.linspace(0, 1127 * np.log(1 + 15000 / 700), 130)  # kaldi's mel scale
    mel = 1127 * np.log(1 + np.arange(512) * (RATE / 1024) / 700)
    left, center, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    filters = np.maximum(0, np.minimum((mel - left) / (center - left), (right - mel) / (right - center)))
    return (np.log(power[:, :512] @ filters.T + 1e-5) + 4.5) / 5


def reference_logits(weights: dict[str, torch.Tensor], features: torch.Tensor, stride: int) -> torch.Tensor:
    """Return logits of features (batch, frames, 128): the authors' forward pass in evaluation mode, in float64."""
    w = {name: weight.double() for name, weight in weights.items()}
    width = w["cls_token"].shape[2]
    patches = (
        features.double().unfold(1, 16, stride).unfold(2, 16, stride)
    )  # (batch, columns, rows, 16 in time, 16 mel)
    maps = torch.einsum("bcrtm,dmt->bdrc", patches, w["patch_embed.proj.weight"][:, 0])
    maps = maps + w["patch_embed.proj.bias"][:, None, None] + w["freq_new_pos_embed"]
    positions = w["time_new_pos_embed"].shape[3]
    maps = maps[..., :positions] + w["time_new_pos_embed"][..., : maps.shape[3]]
    first = torch.cat([w["cls_token"], w["dist_token"]], dim=1) + w["new_pos_embed"]
    x = torch.cat([first.expand(len(maps), 2, width), maps.flatten(2).mT], dim=1)
    block = 0
    while f"blocks.{block}.norm1.weight" in w:
        p = {name.removeprefix(f"blocks.{block}."): weight for name, weight in w.items() if f"blocks.{block}." in name}
        y = F.layer_norm(x, (width,), p["norm1.weight"], p["norm1.bias"], 1e-6)
        heads = (y @ p["attn.qkv.weight"].T + p["attn.qkv.bias"]).unflatten(-1, (3, width // 64, 64))
        query, key, value = heads.unbind(2)  # (batch, tokens, heads, 64)
        weight = torch.einsum("bqhd,bkhd->bhqk", query, key).div(8).softmax(-1)
        y = torch.einsum("bhqk,bkhd->bqhd", weight, value).flatten(2)
        x = x + y @ p["attn.proj.weight"].T + p["attn.proj.bias"]
        y = (
            F.layer_norm(x, (width,), p["norm2.weight"], p["norm2.bias"], 1e-6) @ p["mlp.fc1.weight"].T
            + p["mlp.fc1.bias"]
        )
        y = y * (1 + torch.erf(y / math.sqrt(2))) / 2
        x = x + y @ p["mlp.fc2.weight"].T + p["mlp.fc2.bias"]
        block += 1
    x = F.layer_norm(x, (width,), w["norm.weight"], w["norm.bias"], 1e-6)
    x = F.layer_norm((x[:, 0] + x[:, 1]) / 2, (width,), w["head.0.weight"], w["head.0.bias"], 1e-5)
    return x @ w["head.1.weight"].T + w["head.1.bias"]


@pytest.mark.parametrize("case", PARITY["cases"], ids=lambda case: f"{case['seconds']} s")
@torch.no_grad()
def test_mel_features_and_logits_are_those_of_the_authors(case):
    cfg = PARITY["cfg"]
    model = PasstForAudioClassification(
        PasstConfig(
            hidden_size=cfg["embed_dim"],
            num_hidden_layers=cfg["depth"],
            num_attention_heads=cfg["num_heads"],
            intermediate_size=4 * cfg["embed_dim"],
            max_frames=cfg["img_size"][1],
            num_labels=cfg["num_classes"],
        )
    ).eval()
    names = {name: authors_name(name) for name in model.state_dict()}
    assert PARITY["keys"].keys() - names.values() == {"head_dist.weight", "head_dist.bias"}
    model.load_state_dict({name: generated_weight(key, PARITY["keys"][key]) for name, key in names.items()})

    waveforms = [generated_waveform(index, case["seconds"]) for index in range(2)]
    inputs = PasstFeatureExtractor(max_frames=100)(waveforms, sampling_rate=RATE, return_tensors="pt")
    mel = inputs["input_values"].mT
    assert list(mel.shape) == case["mel_shape"]
    assert mel.mean().item() == pytest.approx(case["mel_mean"], abs=1e-4)
    assert mel[0, :8, 10].tolist() == pytest.approx(case["mel_0_first_8_bins_frame_10"], abs=1e-4)
    assert mel[1, -8:, -1].tolist() == pytest.approx(case["mel_1_last_8_bins_last_frame"], abs=1e-4)
    features = model.passt(**inputs).pooler_output
    assert features[0, :8].tolist() == pytest.approx(case["features_0_first_8"], abs=1e-4)
    torch.testing.assert_close(model(**inputs).logits, torch.tensor(case["logits"]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("samples", [4801, 16000, 32001, 50_000])
def test_extractor_is_the_definition_in_double_precision(samples):
    waveform = generated_waveform(3, 2.0)[:samples]
    expected = reference_features(waveform)
    extracted = PasstFeatureExtractor()(waveform, return_tensors="pt")["input_values"][0]
    # torchaudio's filters are float32, as in the authors' code: in one narrow band that alone is worth 2.6e-4.
    np.testing.assert_allclose(extracted.numpy(), expected, atol=4e-4)
    np.testing.assert_allclose(np.delete(extracted.numpy(), 53, axis=1), np.delete(expected, 53, axis=1), atol=1e-4)


@pytest.mark.parametrize(
    ("stride", "rows", "frames"), [(10, 12, 109), (12, 10, 230), (14, 9, 131), (16, 8, 200), (20, 6, 219)]
)
@torch.no_grad()
def test_converted_model_is_the_definition_at_every_stride(stride, rows, frames, tmp_path):
    """Also for a clip longer than the encoding: the authors drop the patches that have no position."""
    weights = authors_weights(width=128, rows=rows, positions=frames // stride)
    folder = converted(weights, tmp_path)
    model = PasstForAudioClassification.from_pretrained(folder).eval()
    extractor = PasstFeatureExtractor.from_pretrained(folder)
    assert (model.config.frequency_stride, model.config.time_stride) == (stride, stride)
    assert model.config.num_attention_heads == 2
    for seconds in (0.3, 1.0, 3.0):
        waveforms = torch.from_numpy(np.stack([generated_waveform(index, seconds) for index in range(2)]))
        whole = PasstFeatureExtractor(max_frames=10_000).extract(waveforms)
        expected = reference_logits(weights, whole, stride)
        torch.testing.assert_close(model(extractor.extract(waveforms)).logits.double(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("stride", "positions"), [(10, 99), (12, 83), (14, 71), (16, 62), (20, 49)])
def test_converted_extractor_keeps_every_frame_that_the_released_encodings_cover(stride, positions):
    frames = longest_input(positions, stride)
    assert frames // stride == positions, "the model would be built with another time encoding"
    patches = (frames - 16) // stride + 1
    assert patches >= positions
    assert frames == (1000 if stride == 12 else 998)


@pytest.mark.parametrize("positions", [10, 20, 200, 300])
@pytest.mark.parametrize("stride", [10, 12, 14, 16, 20])
def test_any_time_encoding_is_used_in_full(stride, positions):
    frames = longest_input(positions, stride)
    assert frames // stride == positions
    assert (frames - 16) // stride + 1 == positions


@torch.no_grad()
def test_extractor_cuts_at_the_longest_input_and_the_model_refuses_more():
    extractor, model = PasstFeatureExtractor(max_frames=100), tiny_model().eval()
    long = generated_waveform(0, 2.5)
    inputs = extractor(long, return_tensors="pt")
    assert inputs["input_values"].shape == (1, 100, 128)
    assert inputs["attention_mask"].shape == (1, 100)
    np.testing.assert_allclose(inputs["input_values"][0], reference_features(long)[:100], atol=4e-4)
    assert model(**inputs).logits.isfinite().all()
    with pytest.raises(ValueError, match=r"250 frames.*100"):
        model(torch.from_numpy(reference_features(long)).float()[None])


@torch.no_grad()
def test_a_clip_gives_the_same_beside_a_longer_one():
    extractor, model = PasstFeatureExtractor(max_frames=200), tiny_model(max_frames=200).eval()
    clips = [generated_waveform(0, 0.61), generated_waveform(1, 1.7), generated_waveform(2, 0.02)]
    together = extractor(clips, return_tensors="pt")
    assert together["input_values"].shape == (3, 170, 128), "padded beyond the longest clip"
    assert together["attention_mask"].sum(1).tolist() == [61, 170, 16]
    for index, clip in enumerate(clips):
        alone = extractor(clip, return_tensors="pt")
        frames = alone["input_values"].shape[1]
        torch.testing.assert_close(together["input_values"][index, :frames], alone["input_values"][0])
        torch.testing.assert_close(model(**together).logits[index], model(**alone).logits[0], atol=1e-5, rtol=1e-5)
    unmasked = model(together["input_values"]).logits
    assert not torch.allclose(unmasked[0], model(**together).logits[0], atol=1e-4), "the mask has no effect"


def test_extractor_takes_arrays_lists_and_tensors():
    extractor, waveform = PasstFeatureExtractor(), generated_waveform(0, 0.3)
    expected = extractor(waveform, return_tensors="np")["input_values"]
    for given in (
        waveform.astype(np.float64),
        waveform.tolist(),
        torch.from_numpy(waveform),
        [waveform],
        waveform[None],
    ):
        np.testing.assert_allclose(extractor(given, return_tensors="np")["input_values"], expected, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 100, 4800])
def test_extractor_lengthens_a_clip_that_is_shorter_than_one_patch(samples):
    features = PasstFeatureExtractor()(np.ones(samples), return_tensors="pt")["input_values"]
    assert features.shape == (1, 16, 128)
    assert features.isfinite().all()


@pytest.mark.parametrize("wrong", [np.zeros((1, 2, 800)), np.zeros(0), [np.zeros(800), np.zeros(0)]])
def test_extractor_refuses_what_is_no_mono_clip(wrong):
    with pytest.raises(ValueError, match="mono"):
        PasstFeatureExtractor()(wrong)


def test_extractor_ignores_autocast_and_follows_the_dtype_of_no_one():
    waveform = torch.from_numpy(generated_waveform(0, 0.3))[None]
    expected = PasstFeatureExtractor().extract(waveform)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(PasstFeatureExtractor().extract(waveform), expected)
    assert PasstFeatureExtractor().extract(waveform.double()).dtype == torch.float32


def test_structured_patchout_drops_whole_columns_and_rows():
    torch.manual_seed(0)
    config = tiny_config(patchout_time=7, patchout_frequency=3)
    kept = kept_patches(12, 29, config, torch.device("cpu"))
    assert len(kept) == len(set(kept.tolist())) == (29 - 7) * (12 - 3)
    assert len(set((kept % 29).tolist())) == 29 - 7, "not every other column is whole"
    assert len(set((kept // 29).tolist())) == 12 - 3, "not every other row is whole"


def test_unstructured_patchout_drops_single_patches_after_the_structured():
    torch.manual_seed(0)
    single = kept_patches(12, 29, tiny_config(patchout_tokens=200), torch.device("cpu"))
    assert len(set(single.tolist())) == 12 * 29 - 200
    assert len(set((single % 29).tolist())) == 29, "whole columns are gone: that is structured patchout"
    both = kept_patches(12, 29, tiny_config(patchout_time=7, patchout_tokens=50), torch.device("cpu"))
    assert len(set(both.tolist())) == 12 * 22 - 50
    assert len(set((both % 29).tolist())) <= 22


def test_patchout_draws_anew_each_time_and_follows_the_seed():
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(kept_patches(12, 29, tiny_config(patchout_time=10), torch.device("cpu")))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_every_patch_is_kept_equally_often():
    torch.manual_seed(0)
    config = tiny_config(patchout_time=2, patchout_frequency=1)
    draws = torch.cat([kept_patches(3, 5, config, torch.device("cpu")) for _ in range(2000)])
    np.testing.assert_allclose(draws.bincount(minlength=15) / 2000, (3 / 5) * (2 / 3), atol=0.06)


def test_patchout_shortens_the_sequence_in_training_only():
    model = tiny_model(patchout_time=2, patchout_frequency=3, patchout_tokens=4)
    features = torch.randn(2, 100, 128)
    for training, tokens in ((False, 12 * 9), (True, 9 * 7 - 4)):
        assert model.train(training).passt(features).last_hidden_state.shape[1] == 2 + tokens


def test_patchout_is_the_same_for_every_clip_of_a_batch_and_keeps_positions():
    embeddings = tiny_model(patchout_time=3, patchout_tokens=5, max_frames=106).passt.embeddings
    features = torch.randn(1, 106, 128)
    every_token = embeddings.eval()(features, None)[0][0]
    tokens = embeddings.train()(features.expand(3, -1, -1), None)[0]
    assert torch.equal(tokens[0], tokens[1]) and torch.equal(tokens[0], tokens[2])
    distances = torch.cdist(tokens[0], every_token, compute_mode="donot_use_mm_for_euclid_dist")
    assert (distances.min(dim=1).values < 1e-5).all(), "a kept patch is not what it is without patchout"


def test_patchout_that_leaves_nothing_is_refused():
    model = tiny_model(patchout_time=9)
    with pytest.raises(ValueError, match=r"patchout_time=9.*12 x 9"):
        model(torch.randn(1, 100, 128))


def test_patchout_selects_the_mask_with_the_patches():
    model = tiny_model(patchout_time=4, patchout_tokens=9).train()
    inputs = PasstFeatureExtractor(max_frames=100)(
        [generated_waveform(0, 0.3), generated_waveform(1, 1.0)], return_tensors="pt"
    )
    tokens, real = model.passt.embeddings(inputs["input_values"], inputs["attention_mask"])
    assert real.shape == tokens.shape[:2]
    assert real[1].all() and real[0, :2].all() and not real[0].all()
    with_other_padding = inputs["input_values"].clone()
    with_other_padding[0, 30:] = 5.0
    torch.manual_seed(3)
    expected = model(**inputs).logits
    torch.manual_seed(3)
    torch.testing.assert_close(model(with_other_padding, inputs["attention_mask"]).logits, expected)


def time_offset(embeddings, columns: int) -> int:
    """Return the position at which the time encoding was cut for an input of `columns` columns."""
    added = embeddings._add_positions(torch.zeros(1, 16, 12, columns), frames=10 * columns + 6)
    steps = added[0, 0, 0].tolist()
    assert steps == list(range(int(steps[0]), int(steps[0]) + columns)), "not one piece of the encoding"
    return int(steps[0])


@torch.no_grad()
def test_time_encoding_is_cut_from_its_start_in_evaluation_and_anywhere_in_training():
    embeddings = tiny_model(max_frames=109).passt.embeddings
    embeddings.frequency_positions.zero_()
    embeddings.time_positions.copy_(torch.arange(10.0).expand(1, 16, 1, 10))
    torch.manual_seed(0)
    assert {time_offset(embeddings.eval(), 7) for _ in range(20)} == {0}
    assert {time_offset(embeddings.train(), 7) for _ in range(60)} == {0, 1, 2, 3}
    assert {time_offset(embeddings.train(), 10) for _ in range(5)} == {0}


def test_stochastic_depth_skips_whole_clips_and_keeps_the_mean():
    torch.manual_seed(0)
    layer = PasstLayer(tiny_config(), drop_path_rate=0.25)
    dropped = layer.train()._drop_path(torch.ones(4000, 2, 3))
    assert dropped.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert (dropped == dropped[:, :1, :1]).all()
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.05)
    assert (layer.eval()._drop_path(torch.ones(4, 2, 3)) == 1).all()


def test_stochastic_depth_grows_from_the_first_layer_to_the_last():
    model = tiny_model(num_hidden_layers=5, drop_path_rate=0.2)
    assert [layer.drop_path_rate for layer in model.passt.layers] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


@torch.no_grad()
def test_hidden_states_are_the_tokens_before_and_after_every_layer():
    outputs = tiny_model().eval()(torch.randn(2, 100, 128), output_hidden_states=True)
    assert [tuple(state.shape) for state in outputs.hidden_states] == [(2, 2 + 12 * 9, 16)] * 3


def test_converter_drops_the_unused_distillation_head_only(tmp_path):
    weights = authors_weights(classes=527)
    folder = converted(weights, tmp_path)
    saved = load_file(folder / "model.safetensors")
    assert {authors_name(name) for name in saved} == weights.keys() - {"head_dist.weight", "head_dist.bias"}
    for name, weight in saved.items():
        assert torch.equal(weight, weights[authors_name(name)])
    config = PasstConfig.from_pretrained(folder)
    assert (len(config.id2label), config.id2label[193], config.label2id["Cello"]) == (527, "Cello", 193)
    assert config.problem_type == "multi_label_classification"


def test_converter_keeps_the_depth_of_a_light_model_and_other_classes(tmp_path):
    config = PasstConfig.from_pretrained(converted(authors_weights(depth=3, classes=20), tmp_path))
    assert (config.num_hidden_layers, config.num_labels) == (3, 20)


def test_converter_reads_the_hop_from_the_name_of_the_released_file(tmp_path):
    folder = converted(authors_weights(positions=320), tmp_path, "passt-s-f128-stfthop100-p16-s10-ap.473-swa.pt")
    extractor = PasstFeatureExtractor.from_pretrained(folder)
    assert extractor.hop_length == 100
    assert extractor(generated_waveform(0, 1.0), return_tensors="pt")["input_values"].shape == (1, 320, 128)


@pytest.mark.parametrize("key", [name for name in authors_shapes(depth=1)])
def test_converter_names_any_missing_key(key, tmp_path):
    weights = authors_weights(depth=1)
    del weights[key]
    with pytest.raises(UserError, match=re.escape(f"the key {key} is missing")):
        converted(weights, tmp_path)


def test_converter_names_unexpected_keys_and_wrong_shapes(tmp_path):
    with pytest.raises(UserError, match=r"the key blocks.0.attn.gate is unexpected"):
        converted(authors_weights() | {"blocks.0.attn.gate": torch.zeros(1)}, tmp_path)
    with pytest.raises(UserError, match=r"blocks.1.mlp.fc2.bias has the shape \(3,\) instead of \(64,\)"):
        converted(authors_weights() | {"blocks.1.mlp.fc2.bias": torch.zeros(3)}, tmp_path)
    with pytest.raises(UserError, match="7 rows"):
        converted(authors_weights(rows=7), tmp_path)
    with pytest.raises(UserError, match="width of 48"):
        converted(authors_weights(width=48), tmp_path)
    assert not (tmp_path / "converted").exists()


class RunsCode:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_converter_runs_no_code_of_the_file(tmp_path):
    with pytest.raises(UserError, match="refused"):
        converted(authors_weights() | {"cls_token": RunsCode(tmp_path / "marker")}, tmp_path)
    assert not (tmp_path / "marker").exists()


def test_converter_refuses_other_files_in_one_sentence(tmp_path):
    (tmp_path / "text.pt").write_text("no weights")
    torch.save({"state_dict": authors_weights()}, tmp_path / "nested.pt")
    for name in ("absent.pt", "text.pt", "nested.pt"):
        with pytest.raises(UserError, match=name) as error:
            convert(tmp_path / name, tmp_path / "converted")
        assert "\n" not in str(error.value)


@pytest.mark.slow
def test_full_size_checkpoint_converts(tmp_path):
    if not BASE_KEYS.is_file():
        pytest.skip(f"the released checkpoint's keys are not at {BASE_KEYS}")
    base = json.loads(BASE_KEYS.read_text())
    assert authors_shapes(width=768, depth=12, rows=12, positions=99, classes=527) == base["keys"]
    folder = converted({name: torch.zeros(shape) for name, shape in base["keys"].items()}, tmp_path)
    model = PasstForAudioClassification.from_pretrained(folder)
    dropped = 527 * 768 + 527
    assert model.num_parameters() == base["parameters"] - dropped
    assert model.config.max_frames == 998
    assert PasstFeatureExtractor.from_pretrained(folder).max_frames == 998
