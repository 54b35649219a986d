"""Loading is strict, the head starts from the right rows, and what cannot be loaded is named in a sentence."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ASTForAudioClassification, SwinConfig, SwinModel

from irmas_dataset.errors import UserError
from irmas_dataset.labels import INSTRUMENT_CODES, INSTRUMENT_NAMES
from irmas_recipe.training.features import device_features
from irmas_recipe.training.fields import ModelArguments
from irmas_recipe.training.head import output_layer
from irmas_recipe.training.model import load_model
from tests.tiny import build, save
from tests.tiny_speech import saved_clap

CLASSES = list(INSTRUMENT_CODES)
AUDIOSET_IDS = {"cel": 193, "cla": 198, "flu": 196, "gac": 143, "gel": 141, "org": 155, "pia": 153, "sax": 197, "tru": 187, "vio": 191, "voi": 27}  # fmt: skip


def arguments(**values):
    return ModelArguments(**values)


def test_the_head_starts_from_audiosets_rows_and_nothing_else_changes(audioset_ast):
    released = ASTForAudioClassification.from_pretrained(audioset_ast)
    model, extractor = load_model(arguments(model_name_or_path=str(audioset_ast)), CLASSES, 3.0)
    rows = [AUDIOSET_IDS[code] for code in CLASSES]
    assert torch.equal(model.classifier.dense.weight, released.classifier.dense.weight[rows])
    assert torch.equal(model.classifier.dense.bias, released.classifier.dense.bias[rows])
    changed = {
        name
        for name, tensor in model.state_dict().items()
        if tensor.shape != released.state_dict()[name].shape or not torch.equal(tensor, released.state_dict()[name])
    }
    assert changed == {
        "audio_spectrogram_transformer.embeddings.position_embeddings",
        "classifier.dense.weight",
        "classifier.dense.bias",
    }
    assert model.config.id2label == dict(enumerate(INSTRUMENT_NAMES.values()))
    assert (model.config.max_length, extractor.max_length) == (298, 298)
    assert model.config.problem_type == "multi_label_classification" and model.accepts_loss_kwargs is False


def test_zero_shot_scores_are_the_checkpoints_own_for_the_instruments(audioset_ast):
    """10.24 s are 1,022 frames, which give the same 12 x 101 patches as the checkpoint's 1,024."""
    released = ASTForAudioClassification.from_pretrained(audioset_ast).eval()
    model, extractor = load_model(arguments(model_name_or_path=str(audioset_ast)), CLASSES, 10.24, trained=False)
    features = device_features(extractor)(0.1 * torch.randn(2, 163840))
    expected = released(torch.nn.functional.pad(features, (0, 0, 0, 2))).logits[:, [AUDIOSET_IDS[c] for c in CLASSES]]
    assert torch.allclose(model.eval()(features).logits, expected, atol=1e-5)


def test_zero_shot_needs_every_class(audioset_ast):
    with pytest.raises(UserError, match="no class for kazoo, and nothing is trained here: name a checkpoint or data"):
        load_model(arguments(model_name_or_path=str(audioset_ast)), ["cel", "kazoo"], 3.0, trained=False)


def test_an_unknown_class_starts_fresh_and_is_named(audioset_ast, caplog):
    model, _ = load_model(arguments(model_name_or_path=str(audioset_ast)), ["cel", "kazoo"], 3.0)
    assert "kazoo" in caplog.text and "cello" not in caplog.text
    released = ASTForAudioClassification.from_pretrained(audioset_ast)
    assert torch.equal(model.classifier.dense.weight[0], released.classifier.dense.weight[193])


def test_a_model_of_the_same_classes_keeps_its_head(audioset_ast, tmp_path):
    first, extractor = load_model(arguments(model_name_or_path=str(audioset_ast)), CLASSES, 3.0)
    first.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    again, _ = load_model(arguments(model_name_or_path=str(tmp_path)), CLASSES, 3.0)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_a_random_head_is_fresh_whatever_classes_the_checkpoint_has(tmp_path):
    folder = str(save(*build("mobilenet"), tmp_path))
    stored = load_file(tmp_path / "model.safetensors")
    for trained in (True, False):  # a finished run is measured with the head that it has learned
        start = arguments(model_name_or_path=folder, head_initialization="random")
        name, layer = output_layer(load_model(start, CLASSES, 1.0, trained)[0])
        assert torch.equal(layer.weight, stored[f"{name}.weight"]) is not trained
    start = arguments(architecture="mfcc", head_initialization="random")
    load_model(start, CLASSES, 1.0)  # from scratch it is fresh as it is, whatever its shape


def test_a_missing_weight_is_an_error_not_a_fresh_start(audioset_ast, tmp_path):
    for path in audioset_ast.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    removed = next(name for name in weights if name.endswith("layernorm_after.weight"))
    save_file({k: v for k, v in weights.items() if k != removed}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="missing keys"):
        load_model(arguments(model_name_or_path=str(tmp_path)), CLASSES, 3.0)


def test_a_truncated_file_is_named(audioset_ast, tmp_path):
    for path in audioset_ast.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.safetensors").write_bytes((audioset_ast / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(UserError, match="could not be loaded"):
        load_model(arguments(model_name_or_path=str(tmp_path)), CLASSES, 3.0)


def test_offline_without_a_copy_the_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="hf download no-one/no-such-model") as error:
        load_model(arguments(model_name_or_path="no-one/no-such-model"), CLASSES, 3.0)
    assert "\n" not in str(error.value) and str(error.value).startswith("no-one/no-such-model is neither")


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        load_model(arguments(model_name_or_path=str(tmp_path)), CLASSES, 3.0)


def test_a_linear_probe_trains_the_last_layer_only(audioset_ast):
    model, _ = load_model(arguments(model_name_or_path=str(audioset_ast), freeze="backbone"), CLASSES, 3.0)
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trainable == ["classifier.dense.weight", "classifier.dense.bias"]
    assert output_layer(model)[0] == "classifier.dense"


def test_from_scratch_an_unknown_field_is_refused():
    with pytest.raises(UserError, match="no field `hiden_size`"):
        load_model(arguments(model_config={"hiden_size": 8}), CLASSES, 3.0)
    with pytest.raises(UserError, match="--architecture"):
        load_model(arguments(architecture="no_such_folder"), CLASSES, 3.0)


def test_swin_starts_from_an_imagenet_checkpoint(tmp_path):
    small = {"embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2], "image_size": 56}
    torch.manual_seed(0)
    released = SwinModel(SwinConfig(**small))
    released.save_pretrained(tmp_path / "swin")
    fields = {"network": "swin", "swin": small}
    start = {"architecture": "crnn", "model_config": fields, "backbone_name_or_path": str(tmp_path / "swin")}
    model, _ = load_model(arguments(**start), CLASSES, 1.0)
    ours, theirs = model.network.swin.state_dict(), released.state_dict()
    kernel = "embeddings.patch_embeddings.projection.weight"
    torch.testing.assert_close(ours.pop(kernel), theirs.pop(kernel).sum(dim=1, keepdim=True))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    with pytest.raises(UserError, match="neither a folder here nor in the Hub's local cache"):
        load_model(arguments(**start | {"backbone_name_or_path": "nobody/swin"}), CLASSES, 1.0)
    with pytest.raises(UserError, match="other sizes"):
        load_model(arguments(**start | {"model_config": {"network": "swin"}}), CLASSES, 1.0)
    with pytest.raises(UserError, match="no part that starts from ImageNet"):
        load_model(arguments(**start | {"architecture": "cnn", "model_config": None}), CLASSES, 1.0)


def test_fields_of_a_checkpoints_feature_extractor_reach_its_filters(tmp_path):
    folder = str(saved_clap(tmp_path))
    fields = {"frequency_max": 3000, "max_length_s": 5}
    _, extractor = load_model(arguments(model_name_or_path=folder, feature_extractor_config=fields), CLASSES, 3.0)
    assert (extractor.mel_filters_slaney[extractor.fft_window_size * 3200 // 48000 :] == 0).all()
    assert extractor.nb_max_samples == 5 * 48000
    fields = {"nb_max_samples": 240000}
    with pytest.raises(UserError, match="ClapFeatureExtractor computes `nb_max_samples` from its other fields"):
        load_model(arguments(model_name_or_path=folder, feature_extractor_config=fields), CLASSES, 3.0)


def test_a_start_that_was_trained_with_patchout_is_trained_without_where_the_recipe_says_so(tmp_path):
    folder = str(save(*build("passt"), tmp_path))
    assert build("passt")[0].config.patchout_time == 2
    model, _ = load_model(arguments(model_name_or_path=folder, patchout_frequency=1), CLASSES, 1.0)
    assert (model.config.patchout_time, model.config.patchout_frequency, model.config.patchout_tokens) == (0, 1, 0)


@pytest.mark.parametrize(
    ("architecture", "fields", "words"),
    [
        ("ast", {"model_config": {"max_length": 100}}, "--model_config max_length follows --window_seconds"),
        ("ast", {"feature_extractor_config": {"max_length": 9}}, "--feature_extractor_config max_length follows"),
        ("passt", {"model_config": {"patchout_time": 3}}, "--model_config patchout_time follows --patchout_time"),
        ("passt", {"architecture": "cnn"}, "has the architecture irmas_passt, not cnn: remove --architecture"),
        ("passt", {"architecture": "cnm"}, "--architecture cnm is not one of"),
    ],
)
def test_a_field_that_would_do_nothing_is_refused(architecture, fields, words, tmp_path):
    folder = str(save(*build(architecture), tmp_path))
    with pytest.raises(UserError, match=words):
        load_model(arguments(model_name_or_path=folder, **fields), CLASSES, 1.0)
    if "architecture" not in fields:
        with pytest.raises(UserError, match=words):
            load_model(arguments(architecture=architecture, **fields), CLASSES, 1.0)


def test_a_checkpoint_of_the_architecture_that_a_recipe_names_is_taken(tmp_path):
    folder = str(save(*build("passt"), tmp_path))
    load_model(arguments(model_name_or_path=folder, architecture="passt"), CLASSES, 1.0)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"model_config": {"hidden_size": "x"}},
            "--model_config hidden_size must be a value such as 768, not the text 'x'",
        ),
        ({"model_config": {"hidden_size": [8]}}, "--model_config is impossible for ast: .*hidden_size"),
        ({"architecture": "cnn", "model_config": {"filters": "x"}}, "--model_config filters must be a value such as"),
        (
            {"architecture": "mobilenet", "feature_extractor_config": {"sampling_rate": "16000"}},
            "--feature_extractor_config sampling_rate must be a value such as 32000, not the text '16000'",
        ),
        (
            {"architecture": "crnn", "feature_extractor_config": {"representation": "nope"}},
            "--feature_extractor_config is impossible for crnn: Unknown representation 'nope'",
        ),
        ({"architecture": "encoder"}, "--architecture encoder needs a checkpoint"),
        (
            {"architecture": "cnn", "model_config": {"architecture": "mobilenet_v1", "hidden_size": 64}},
            "--model_config: CnnConfig computes `hidden_size` from its other fields",
        ),
        (
            {"architecture": "whisper", "feature_extractor_config": {"n_samples": 16000}},
            "--feature_extractor_config: WhisperFeatureExtractor computes `n_samples`",
        ),
        (
            {"model_config": {"num_labels": 5}},
            "--model_config num_labels is how many classes the data has, 11: remove it",
        ),
        (
            {"architecture": "mfcc", "model_config": {"label_filters": {"guitar": [8, 8]}}},
            "--model_config label_filters: the data has no class guitar; its classes are cello, ",
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_flag(fields, words):
    with pytest.raises(UserError, match=words):
        load_model(arguments(**fields), CLASSES, 3.0)


def test_a_window_shorter_than_a_patch_is_refused(audioset_ast):
    for start in ({}, {"model_name_or_path": str(audioset_ast)}):
        with pytest.raises(UserError, match=r"--window_seconds 0\.01"):
            load_model(arguments(**start), CLASSES, 0.01)


def test_a_configuration_that_does_not_suit_the_weights_is_blamed_on_its_flag(audioset_ast):
    for fields in ({"hidden_size": 8}, {"hidden_act": "nope"}):
        with pytest.raises(UserError, match=r"with --model_config .*: remove from it what the weights do not have"):
            load_model(arguments(model_name_or_path=str(audioset_ast), model_config=fields), CLASSES, 3.0)
