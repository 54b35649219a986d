"""Damaged, foreign and hostile checkpoints: one sentence that names them, and nothing in them is executed."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import run_irmas
from irmas_dataset.errors import UserError
from irmas_dataset.labels import INSTRUMENT_CODES, INSTRUMENT_NAMES
from irmas_dataset.synthetic import synthesize
from irmas_recipe.commands.evaluate import measurement as evaluate_command
from irmas_recipe.commands.evaluate.arguments import parse_arguments
from irmas_recipe.models.cnn import CnnConfig, CnnFeatureExtractor, CnnForAudioClassification
from irmas_recipe.training.fields import ModelArguments
from irmas_recipe.training.model import build_model, load_model
from irmas_recipe.training.recogniser import load_recogniser
from tests.tiny import saved_run

NAMES = dict(enumerate(INSTRUMENT_NAMES.values()))
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A tiny random AST of the eleven instruments, saved as a run is, with its recipe."""
    folder = saved_run(tmp_path_factory.mktemp("models") / "sound", NAMES.values(), [0.5] * 11)
    recipe = {"data_dir": "synthetic", "window_seconds": 1.0, "architecture": "ast", "use_cpu": True, "bf16": False}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def change_weights(folder: Path, **changes) -> None:
    weights = load_file(folder / WEIGHTS)
    for name, tensor in changes.items():
        weights.pop(name) if tensor is None else weights.update({name: tensor})
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def change_json(folder: Path, name: str = "config.json", **fields) -> None:
    values = json.loads((folder / name).read_text()) | fields
    (folder / name).write_text(json.dumps(values))


class Hostile:
    """What a pickle runs when it is read."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return Path.touch, (self.proof,)


def write_pickle(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with open(folder / "pytorch_model.bin", "wb") as file:
        pickle.dump({"classifier.dense.weight": Hostile(folder.parent / "executed")}, file)


def write_zipped_pickle(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save({"classifier.dense.weight": Hostile(folder.parent / "executed")}, folder / "pytorch_model.bin")


def bring_code(folder: Path) -> None:
    """Let the configuration name a module that leaves a trace when it is imported."""
    (folder / "code_of_a_stranger.py").write_text(
        f"open({str(folder.parent / 'executed')!r}, 'w').close()\nclass A: pass\n"
    )
    code = {
        name: "code_of_a_stranger.A"
        for name in ("AutoConfig", "AutoModelForAudioClassification", "AutoFeatureExtractor")
    }
    change_json(folder, auto_map=code)
    change_json(folder, "preprocessor_config.json", auto_map=code)


def bring_code_of_an_unknown_type(folder: Path) -> None:
    bring_code(folder)
    change_json(folder, model_type="a_model_of_next_year")


def another_models_config(folder: Path) -> None:
    config = CnnConfig(id2label=NAMES, label2id={name: index for index, name in NAMES.items()})
    config.save_pretrained(folder)
    CnnFeatureExtractor().save_pretrained(folder)


def another_models_weights(folder: Path) -> None:
    save_file(CnnForAudioClassification(CnnConfig()).state_dict(), folder / WEIGHTS, metadata={"format": "pt"})


def index_of_absent_shards(folder: Path) -> None:
    names = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    index = {"metadata": {}, "weight_map": {name: "model-00001-of-00002.safetensors" for name in names}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


def not_a_number(folder: Path) -> None:
    change_weights(folder, **{"classifier.dense.bias": torch.full((11,), torch.nan)})


EXTRACTOR = "preprocessor_config.json"
BROKEN = {
    "truncated weights": lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-3000]),
    "weights cut in the header": lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:50]),
    "empty weights": lambda folder: (folder / WEIGHTS).write_bytes(b""),
    "weights of rubbish": lambda folder: (folder / WEIGHTS).write_bytes(b"\xff" * 4000),
    "no weights": lambda folder: (folder / WEIGHTS).unlink(),
    "a pickle with code": write_pickle,
    "a zipped pickle with code": write_zipped_pickle,
    "a missing key": lambda folder: change_weights(folder, **{"classifier.dense.weight": None}),
    "an unexpected key": lambda folder: change_weights(folder, **{"classifier.extra.weight": torch.zeros(3)}),
    "a key of another shape": lambda folder: change_weights(folder, **{"classifier.dense.bias": torch.zeros(7)}),
    "weights that are no numbers": not_a_number,
    "another model's configuration": another_models_config,
    "another model's weights": another_models_weights,
    "absent shards": index_of_absent_shards,
    "an unknown type": lambda folder: change_json(folder, model_type="a_model_of_next_year"),
    "an unknown type with code": bring_code_of_an_unknown_type,
    "no type": lambda folder: change_json(folder, model_type=None),
    "labels for other weights": lambda folder: change_json(
        folder, id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1}
    ),
    "sizes of another model": lambda folder: change_json(folder, hidden_size=32),
    "sizes that are words": lambda folder: change_json(folder, hidden_size="wide"),
    "negative sizes": lambda folder: change_json(folder, num_hidden_layers=-1, num_attention_heads=0),
    "a broken configuration": lambda folder: (folder / "config.json").write_text('{"model_type": '),
    "an empty configuration": lambda folder: (folder / "config.json").write_text(""),
    "a configuration that is a list": lambda folder: (folder / "config.json").write_text("[1, 2]"),
    "a configuration of bytes": lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\x00"),
    "no feature extractor": lambda folder: (folder / EXTRACTOR).unlink(),
    "a broken feature extractor": lambda folder: (folder / EXTRACTOR).write_text("{"),
    "an unknown feature extractor": lambda folder: change_json(folder, EXTRACTOR, feature_extractor_type="NextYear"),
}
"""What is wrong -> what makes it so; every way to load a checkpoint refuses it."""

SENTENCES = {
    "a pickle with code": "has its weights in a pickle",
    "a zipped pickle with code": "has its weights in a pickle",
    "a missing key": "is not a trained classifier (it has no weights for classifier.dense.weight)",
    "an unexpected key": "does not fit its config.json (unexpected keys: classifier.extra.weight)",
    "a key of another shape": "does not fit its config.json (keys of another shape: classifier.dense.bias)",
    "weights that are no numbers": "has weights that are not finite (classifier.dense.bias)",
    "another model's configuration": "does not fit its config.json (missing keys: classifier.bias, ",
    "another model's weights": "does not fit its config.json (missing keys: audio_spectrogram_transformer.",
    "an unknown type": "(The checkpoint you are trying to load has model type `a_model_of_next_year` but ",
    "an unknown type with code": "comes with its own code: read it, then add --trust_remote_code to run it.",
    "labels for other weights": "keys of another shape: classifier.dense.bias, classifier.dense.weight)",
    "sizes of another model": "does not fit its config.json (keys of another shape: ",
    "sizes that are words": "(Validation error for field 'hidden_size': TypeError: ",
    "negative sizes": "does not fit its config.json (unexpected keys: ",
}
"""What is wrong -> part of the sentence about it; of everything else, that it could not be loaded."""

WRONG_PROTOCOL = {
    "too few thresholds": {"thresholds": [0.5] * 3},
    "too many thresholds": {"thresholds": [0.5] * 12},
    "thresholds that are words": {"thresholds": ["high"] * 11},
    "thresholds that are no numbers": {"thresholds": [float("nan")] * 11},
    "thresholds beyond 1": {"thresholds": [7.0] * 11},
    "a single threshold": {"thresholds": 0.5},
    "a negative window": {"window_seconds": -1.0},
    "a window of words": {"window_seconds": "long"},
    "a window of no length": {"window_seconds": 0},
    "an endless window": {"window_seconds": float("inf")},
    "a hop longer than the window": {"hop_seconds": 2.0},
    "an unknown aggregation": {"aggregation": "median"},
}
"""What is wrong with what a run stored beside the weights; `predict` and `evaluate` refuse it."""


@pytest.fixture
def copy(sound, tmp_path) -> Path:
    folder = tmp_path / "checkpoint"
    shutil.copytree(sound, folder)
    return folder


def refusal(call, *args, **kwargs) -> str:
    """Return the sentence of the UserError that a call has to end with."""
    with pytest.raises(UserError) as error:
        call(*args, **kwargs)
    said = str(error.value)
    assert len(said.splitlines()) == 1 and said.endswith("."), said
    return said


def evaluate(model: Path, scratch: Path) -> None:
    """Do what `evaluate MODEL` does up to the model."""
    arguments = parse_arguments([str(model), "--batch_size", "4"])
    recipe, _ = evaluate_command.evaluation_recipe(arguments, str(scratch))
    labelled = {
        "train": type(
            "Rows",
            (),
            {"features": {"instruments": type("L", (), {"feature": type("F", (), {"names": list(INSTRUMENT_CODES)})})}},
        )
    }
    build_model(recipe, labelled)


def test_the_sound_one_is_loaded_every_way(copy, tmp_path):
    load_recogniser(str(copy), device="cpu")
    load_model(ModelArguments(model_name_or_path=str(copy)), list(INSTRUMENT_CODES), 1.0)
    evaluate(copy, tmp_path)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_checkpoint_is_refused_with_the_same_sentence_every_way_and_nothing_runs(kind, copy, tmp_path):
    BROKEN[kind](copy)
    said = {
        refusal(load_recogniser, str(copy), device="cpu"),
        refusal(load_model, ModelArguments(model_name_or_path=str(copy)), list(INSTRUMENT_CODES), 1.0),
        refusal(evaluate, copy, tmp_path),
    }
    assert len(said) == 1, said
    sentence = said.pop()
    assert sentence.startswith(f"{copy} ") and SENTENCES.get(kind, "could not be loaded (") in sentence, sentence
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kind", WRONG_PROTOCOL)
def test_a_protocol_that_cannot_be_is_refused_by_predict(kind, copy):
    change_json(copy, **WRONG_PROTOCOL[kind])
    refusal(load_recogniser, str(copy), device="cpu")


@pytest.fixture(scope="module")
def music(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("music")
    synthesize(folder, train=44, test=2)
    return folder


@pytest.mark.parametrize("kind", [*WRONG_PROTOCOL, "no thresholds", "no window", "no aggregation"])
def test_a_protocol_that_cannot_be_is_refused_by_evaluate(kind, copy, music, tmp_path):
    lacking = {"no thresholds": "thresholds", "no window": "window_seconds"}
    missing = {lacking.get(kind, "aggregation"): None}  # `predict` has defaults for these; figures need the run's own
    change_json(copy, **WRONG_PROTOCOL.get(kind, missing))
    call = ["evaluate", str(copy), "--data_dir", str(music), "--output_dir", str(tmp_path / "measured")]
    assert str(copy) in refusal(run_irmas.main, call)
    assert not (tmp_path / "measured").exists()


def test_code_beside_a_known_model_is_not_run(copy, tmp_path):
    """A run of this repository carries its code for others; here the classes of the repository are taken."""
    bring_code(copy)
    load_recogniser(str(copy), device="cpu")
    load_model(ModelArguments(model_name_or_path=str(copy)), list(INSTRUMENT_CODES), 1.0)
    assert not (tmp_path / "executed").exists()


def test_a_configuration_of_a_newer_version_is_loaded_only_if_nothing_is_missing(copy):
    change_json(copy, transformers_version="99.0.0", a_field_of_next_year=True)
    load_recogniser(
        str(copy), device="cpu"
    )  # the weights fit, whole: the field is one that this version can do without


@pytest.mark.parametrize("architecture", ["beats", "passt", "mobilenet"])
def test_convert_refuses_every_file_that_is_no_checkpoint(architecture, tmp_path):
    proof = tmp_path / "executed"
    contents = {
        "rubbish.pt": b"\x80\x02" + b"\xff" * 2000,
        "empty.pt": b"",
        "text.pt": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "code.pt": pickle.dumps({"model": Hostile(proof), "cfg": Hostile(proof)}),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    torch.save({"model": Hostile(proof), "cfg": {}}, tmp_path / "zipped_code.pt")
    torch.save({"some.weight": torch.zeros(3), "model": torch.zeros(1), "cfg": torch.zeros(1)}, tmp_path / "others.pt")
    torch.save([torch.zeros(3)], tmp_path / "list.pt")
    torch.save({"cfg": {}, "model": {}}, tmp_path / "hollow.pt")
    torch.save({"x": torch.zeros(4000)}, tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:4000])
    (tmp_path / "folder.pt").mkdir()
    for name in (*contents, "zipped_code.pt", "others.pt", "list.pt", "hollow.pt", "cut.pt", "folder.pt", "absent.pt"):
        said = refusal(run_irmas.main, ["convert", architecture, str(tmp_path / name), str(tmp_path / "out")])
        assert name in said
        assert not proof.exists() and not list(tmp_path.glob("out/*.safetensors"))
