"""A run of any audio model: trained from its authors' encoder, evaluated, saved, and the same again in both pipelines."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer, ClapModel, pipeline

import run_irmas
from irmas_dataset.audio import read_mono, resample
from irmas_dataset.errors import UserError
from irmas_dataset.labels import INSTRUMENT_CODES, readable_name
from irmas_recipe.models.encoder import EncoderForAudioClassification
from irmas_recipe.training.checkpoint import load_checkpoint, strictly_from_pretrained
from irmas_recipe.training.features import device_features
from irmas_recipe.training.fields import ModelArguments
from irmas_recipe.training.layers import may_leave_parameters_out
from irmas_recipe.training.model import load_model
from irmas_recipe.training.trainer import InstrumentTrainer
from irmas_recipe.training.training_arguments import IrmasTrainingArguments
from tests.tiny import encoder, label_options, released, save
from tests.tiny_speech import CONFIGURATIONS, saved_clap, tiny_encoder, tiny_speech

CLASSES = ["cel", "flu", "voi"]
RUN = {
    "data_dir": "synthetic", "synthetic_train": 44, "synthetic_test": 6, "window_seconds": 1.0, "max_steps": 2,
    "per_device_train_batch_size": 4, "learning_rate": 1e-4, "layer_decay": 0.9,
    "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False, "bootstrap_resamples": 20, "use_cpu": True,
    "bf16": False, "activation_checkpointing": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("any-model")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
        yield folder


@torch.no_grad()
def telling_clips_apart(name: str, folder: Path) -> Path:
    """Save a random classifier whose answers depend on the clip: its output layer is scaled and shifted to say so."""
    torch.manual_seed(0)
    model, extractor = tiny_speech(name, **label_options())
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(8, 16000, generator=generator).cumsum(dim=1) * torch.logspace(-3, -1.5, 8)[:, None]
    noise = torch.lerp(noise - noise.mean(dim=1, keepdim=True), torch.randn(8, 16000, generator=generator), 0.01)
    logits = model.eval()(device_features(extractor)(noise.clamp(-1, 1))).logits
    scale = 1 / logits.std(dim=0)
    model.classifier.weight *= scale[:, None]
    model.classifier.bias.copy_((model.classifier.bias - logits.mean(dim=0)) * scale)
    return save(model, extractor, folder)


def run(workplace: Path, name: str, start: Path, **fields) -> pd.DataFrame:
    """Run a recipe from a checkpoint; return its predictions."""
    recipe = RUN | {"model_name_or_path": str(start), "output_dir": f"runs/{name}"} | fields
    (workplace / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run_irmas.main(["recipe.yaml"])
    return pd.read_parquet(workplace / "runs" / name / "predictions.parquet")


def check_pipelines(workplace: Path, folder: Path, stored: pd.DataFrame) -> None:
    """The windowed pipeline gives the run's scores; the plain one gives sigmoids of the whole clip, without remote code."""
    data = next(workplace.glob("data/synthetic-*"))
    files = [str(data / clip) for clip in stored["clip"]]
    labels = [readable_name(code) for code in stored.columns[3:]]
    recognise = pipeline("instrument-recognition", model=str(folder), trust_remote_code=True)
    results = [{entry["label"]: entry["score"] for entry in result} for result in recognise(files, all_labels=True)]
    given = np.array([[result[label] for label in labels] for result in results])
    np.testing.assert_allclose(given, stored[stored.columns[3:]].to_numpy(), rtol=0, atol=1e-3)
    tagger = pipeline("audio-classification", model=str(folder))
    waveform, rate = read_mono(files[0])
    samples = resample(waveform, rate, 16000)[:16000].astype(np.float32)
    scores = tagger(samples, top_k=None)
    inputs = tagger.feature_extractor(samples, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        expected = tagger.model(**inputs).logits[0].sigmoid().sort(descending=True).values
    np.testing.assert_allclose([score["score"] for score in scores], expected, atol=1e-5)


def test_masks_of_features_are_refused_where_the_model_hears_the_waveform(workplace):
    start = encoder("hubert", workplace / "hubert")
    with pytest.raises(UserError, match="hubert hears the waveform itself"):
        run(workplace, "masked", start, time_masks=1, max_time_mask_frames=4)


FAST = ("hubert", "whisper")
"""A waveform and features; the others take the same way."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in sorted(CONFIGURATIONS)]
)
def test_a_run_trains_evaluates_and_answers_alike_in_every_pipeline(name, workplace):
    start = telling_clips_apart(name, workplace / "classifiers" / name)
    frozen = name not in ("whisper", "wav2vec2-bert")
    stored = run(workplace, name, start, freeze="feature_encoder" if frozen else "none")
    assert stored[stored.columns[3:]].to_numpy().std(axis=0).max() > 0.02, "or equality would say nothing"
    folder = workplace / "runs" / name
    config = json.loads((folder / "config.json").read_text())
    assert not list(folder.glob("modeling_*.py")) and config["model_type"] == name
    check_pipelines(workplace, folder, stored)


def load(start: Path, window_seconds: float = 1.0, trained: bool = True, **fields):
    return load_model(ModelArguments(model_name_or_path=str(start), **fields), CLASSES, window_seconds, trained)


def test_a_probe_trains_the_linear_layers_alone(workplace):
    start = encoder("wavlm", workplace / "wavlm")
    model, _ = load(start, freeze="backbone", model_config={"use_weighted_layer_sum": True})
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"layer_weights", "projector.weight", "projector.bias", "classifier.weight", "classifier.bias"}


def test_whisper_is_told_what_its_30_seconds_cost_and_can_be_shortened(workplace, caplog):
    start = encoder("whisper", workplace / "whisper")  # this one's 4 s
    whole, _ = load(start)
    assert "fills every window up to 4 s: one of 1 s costs 4 times what it would alone" in caplog.text
    assert """--feature_extractor_config '{"chunk_length": 1}'""" in caplog.text
    caplog.clear()
    cut, extractor = load(start, feature_extractor_config={"chunk_length": 1})
    assert "costs" not in caplog.text and extractor.n_samples == 16000
    assert cut.config.max_source_positions == 50 and torch.equal(
        cut.encoder.embed_positions.weight, whole.encoder.embed_positions.weight[:50]
    )
    with pytest.raises(UserError, match="whisper hears 4 s at a time"):
        load(start, window_seconds=5.0)
    with pytest.raises(UserError, match="chunk_length 9: this whisper hears 1 to 4 s"):
        load(start, feature_extractor_config={"chunk_length": 9})


def test_a_whole_encoder_is_needed_and_a_bare_one_answers_nothing(workplace):
    start = encoder("hubert", workplace / "incomplete")
    with pytest.raises(UserError, match="is not a trained classifier"):
        load(start, trained=False)
    weights = load_file(start / "model.safetensors")
    weights.pop("encoder.layer_norm.weight")
    save_file(weights, start / "model.safetensors", metadata={"format": "pt"})
    for architecture in ("ast", "encoder"):
        with pytest.raises(UserError, match=r"encoder\.layer_norm\.weight"):
            load(start, architecture=architecture)


@pytest.mark.parametrize("name", ["beats", "mobilenet"])
def test_a_network_without_an_encoder_that_stands_alone_is_refused(name, workplace):
    start = released(name, workplace / f"whole-{name}")
    with pytest.raises(UserError, match=f"irmas_{name}.* is no encoder of audio that stands alone.*--freeze backbone"):
        load(start, architecture="encoder")


@pytest.mark.parametrize("name", ["whisper", "wav2vec2-bert"])
def test_an_encoder_is_mixed_and_probed(name, workplace):
    model, _ = load(encoder(name, workplace / name), architecture="encoder", freeze="backbone")
    assert model.layer_weights.shape == (4,) and not model.layer_weights.any()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"layer_weights", "classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_an_encoder_comes_back_as_it_was_saved(name, workplace):
    """SEW has a layer norm beside its layers and one among them: the names must not be taken for each other's."""
    model, _ = load(encoder(name, workplace / name), architecture="encoder")
    model.save_pretrained(workplace / f"{name}-saved")
    again, report = EncoderForAudioClassification.from_pretrained(workplace / f"{name}-saved", output_loading_info=True)
    assert not any(report.values())
    for key, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key


@pytest.mark.parametrize("name", ["hubert", pytest.param("clap", marks=pytest.mark.slow)])
def test_a_run_from_an_encoder_is_measured_and_trained_on(name, workplace):
    if name == "clap":
        untrained = {"num_train_epochs": 0, "max_steps": -1, "feature_extractor_config": {"max_length_s": 1}}
        fields = {"head_initialization": "text"} | untrained
    else:
        fields = {"architecture": "encoder", "layerdrop": 0.0}
    start = saved_clap(workplace / "clap") if name == "clap" else encoder(name, workplace / name)
    stored = run(workplace, f"from-{name}", start, activation_checkpointing=False, **fields)
    folder = workplace / "runs" / f"from-{name}"
    run_irmas.main(["evaluate", str(folder), "--output_dir", f"{name}-again"])
    again = pd.read_parquet(workplace / f"{name}-again" / "predictions.parquet")
    pd.testing.assert_frame_equal(again, stored[again.columns], atol=1e-6)
    model, _ = load_model(ModelArguments(str(folder), architecture="encoder"), list(INSTRUMENT_CODES), 1.0)
    for key, tensor in load_file(folder / "model.safetensors").items():
        assert torch.equal(model.state_dict()[key], tensor), key


def test_an_encoder_saved_in_half_precision_is_trained_in_full(workplace):
    start = encoder("hubert", workplace / "half")
    AutoModel.from_pretrained(start, dtype=torch.bfloat16).save_pretrained(start)
    model, _ = load(start, architecture="encoder")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    model.save_pretrained(workplace / "half-saved")
    again = EncoderForAudioClassification.from_pretrained(workplace / "half-saved", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in again.parameters()} == {torch.bfloat16}


def test_a_mixture_of_layers_keeps_every_layer(workplace):
    start = encoder("hubert", workplace / "hubert")  # with a layer drop of .1
    assert load(start)[0].config.layerdrop == 0.1
    mixture = {"use_weighted_layer_sum": True}
    assert load(start, model_config=mixture)[0].config.layerdrop == 0
    assert load(start, architecture="encoder")[0].encoder.config.layerdrop == 0
    for fields in ({"model_config": mixture}, {"architecture": "encoder"}):
        with pytest.raises(UserError, match="a learned mixture of layers needs every layer"):
            load(start, layerdrop=0.1, **fields)


def test_a_layer_drop_that_only_a_checkpoints_configuration_knows_is_refused(workplace):
    start = encoder("sew-d", workplace / "sew-d")  # with a layer drop of .1, as if it dropped layers
    with pytest.raises(UserError, match="sew-d has no layerdrop"):
        load(start, layerdrop=0.1)


@pytest.mark.slow
def test_two_processes_train_a_model_that_drops_layers(workplace):
    model, extractor = tiny_speech("hubert", use_weighted_layer_sum=False, layerdrop=0.5)
    save(model, extractor, workplace / "dropping")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    recipe = RUN | {"max_steps": 8, "model_name_or_path": "dropping", "output_dir": "runs/dropping"}
    (workplace / "dropping.yaml").write_text(yaml.safe_dump(recipe))
    program = str(Path(run_irmas.__file__))
    done = subprocess.run([*command, program, "dropping.yaml"], cwd=workplace, capture_output=True, text=True)
    assert done.returncode == 0 and "The run folder is" in done.stdout, done.stderr


def test_processes_look_for_skipped_parameters_where_there_may_be_some():
    def may(name: str, **options) -> bool:
        return may_leave_parameters_out(tiny_speech(name, **options)[0])

    assert may("hubert", layerdrop=0.1) and may("whisper", encoder_layerdrop=0.1) and may("wav2vec2-conformer")
    assert not may("hubert") and not may_leave_parameters_out(tiny_encoder()[0])


def test_a_static_graph_is_refused_where_layers_may_be_dropped(tmp_path):
    model, _ = tiny_speech("hubert", layerdrop=0.1)
    arguments = IrmasTrainingArguments(str(tmp_path), ddp_static_graph=True, use_cpu=True)
    with pytest.raises(UserError, match="ddp_static_graph true: this model's steps may leave layers out"):
        InstrumentTrainer(model, arguments, features=torch.nn.Identity())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_clap_starts_each_class_from_its_text_however_it_was_saved(workplace, dtype):
    torch.manual_seed(0)
    start = saved_clap(workplace / f"clap-{dtype}")
    ClapModel.from_pretrained(start).to(dtype).save_pretrained(start)
    model, extractor = load(start, trained=False, head_initialization="text")
    clap = ClapModel.from_pretrained(start, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(start)
    texts = ["the sound of a flute", "the sound of music"]
    waveform = 0.1 * torch.randn(48000, generator=torch.Generator().manual_seed(0))
    inputs = extractor(waveform.numpy(), sampling_rate=48000, return_tensors="pt")
    with torch.no_grad():
        of_clap = clap(**tokenizer(texts, padding=True, return_tensors="pt"), **inputs).logits_per_audio[0]
        logits = model(device_features(extractor)(waveform[None])).logits[0]
    assert logits[1].item() == pytest.approx((of_clap[0] - of_clap[1]).item(), abs=1e-4)
    assert list(model.config.id2label.values()) == ["cello", "flute", "voice"]
    with pytest.raises(UserError, match="text_prompt 'music' does not say"):
        load(start, head_initialization="text", text_prompt="music")
    with pytest.raises(UserError, match="needs a CLAP"):
        load(encoder("hubert", workplace / f"hubert-{dtype}"), head_initialization="text")


def test_a_text_encoder_that_hears_no_difference_is_refused(workplace):
    start = saved_clap(workplace / "collapsed")
    clap = ClapModel.from_pretrained(start)
    torch.nn.init.zeros_(clap.text_projection.linear2.weight)  # leaves its bias, whatever the text
    torch.nn.init.ones_(clap.text_projection.linear2.bias)
    clap.save_pretrained(start)
    with pytest.raises(
        UserError, match=r"nearly the same vector for every class \(mean cosine 1.0000\).*larger_clap_general"
    ):
        load(start, trained=False, head_initialization="text")


OWN_CODE = {
    "configuration_own.py": """
from transformers import HubertConfig


class OwnConfig(HubertConfig):
    model_type = "an_encoder_of_its_own"
""",
    "modeling_own.py": """
from transformers import HubertModel

from .configuration_own import OwnConfig


class OwnModel(HubertModel):
    config_class = OwnConfig
""",
}
STRANGER = """
import sys
import numpy as np
from transformers import pipeline

tag = pipeline("audio-classification", model=sys.argv[1], trust_remote_code=True)
assert type(tag.model.encoder).__name__ == "OwnModel"
np.save("scores.npy", [answer["score"] for answer in tag(np.load("waveform.npy"), top_k=None)])
assert not [module for module in sys.modules if module.startswith("irmas_")]
"""


def test_an_encoder_with_code_of_its_own_is_trained_saved_and_loaded_by_a_stranger(workplace):
    start = encoder("hubert", workplace / "own")
    for name, code in OWN_CODE.items():
        (start / name).write_text(code)
    config = json.loads((start / "config.json").read_text())
    of_code = {"AutoConfig": "configuration_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
    config |= {"model_type": "an_encoder_of_its_own", "auto_map": of_code}
    (start / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="comes with its own code"):
        load(start)
    stored = run(workplace, "own", start, trust_remote_code=True, layerdrop=0.0)
    folder = workplace / "runs" / "own"
    with pytest.raises(UserError, match="comes with its own code"):
        load(folder)
    assert len(stored) == 6 and (folder / "modeling_own.py").is_file() and (folder / "modeling_encoder.py").is_file()
    waveform = 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    np.save(workplace / "waveform.npy", waveform)
    (workplace / "stranger.py").write_text(STRANGER)
    command = [sys.executable, "-I", "stranger.py", str(folder)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=workplace, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    model, extractor = load_checkpoint(str(folder), trust_remote_code=True)
    strictly_from_pretrained(type(model), str(folder), model.config)  # as the Trainer loads its best checkpoint
    with torch.no_grad():
        logits = model.eval()(**extractor(waveform, sampling_rate=16000, return_tensors="pt")).logits[0]
    expected = logits.sigmoid().sort(descending=True).values
    np.testing.assert_allclose(np.load(workplace / "scores.npy"), expected[: model.config.num_labels], atol=1e-5)
