"""The ports in the real Trainer, through run_irmas.py: two steps each, and the fields that make their recipes."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

import run_irmas
from irmas_dataset.errors import UserError
from irmas_recipe.training.conversion import convert
from irmas_recipe.training.data import load_data, prepare_splits
from irmas_recipe.training.fields import ModelArguments
from irmas_recipe.training.layers import parameter_groups
from irmas_recipe.training.model import build_model, load_model
from irmas_recipe.training.recipe import parse_recipe
from irmas_recipe.training.released import find_released
from irmas_recipe.training.run_folder import begin
from irmas_recipe.training.train import build_trainer, train
from irmas_recipe.training.trainer import frozen_modules
from tests.tiny import authors_file, released

ROOT = Path(__file__).parents[1]
CLASSES = ["cel", "flu", "voi"]
SHORT = [
    "--max_steps=2", "--per_device_train_batch_size=4", "--eval_strategy=no", "--save_strategy=no",
    "--load_best_model_at_end=False", "--dataloader_num_workers=0", "--use_cpu", "--bf16=False", "--disable_tqdm=True",
    "--bootstrap_resamples=20", "--window_seconds=1", "--logging_steps=1", "--preparation_processes=1",
    "--weight_averaging=none",  # the average of two steps hardly moves
]  # fmt: skip


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Folders like converted ones, narrow and random: 527 AudioSet labels."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in ("beats", "passt", "mobilenet"):
        released(name, folder / name, std=0.1)
    return folder


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    """A folder of one's own: three classes of tones, eight clips of a second each to train on and two to test on."""
    folder, generator = tmp_path_factory.mktemp("music"), np.random.default_rng(0)
    time = np.arange(16000) / 16000
    for number, name in enumerate(CLASSES):
        for split, count in (("train", 8), ("test", 2)):
            (folder / split / name).mkdir(parents=True)
            for clip in range(count):
                tone = np.sin(2 * np.pi * 300 * (number + 1) * time) + 0.1 * generator.normal(size=time.size)
                soundfile.write(folder / split / name / f"{clip}.wav", 0.3 * tone, 16000)
    return folder


def recipe_of(name, checkpoint, music, output_dir, *fields):
    given = [f"--model_name_or_path={checkpoint}", f"--data_dir={music}", f"--output_dir={output_dir}"]
    return parse_recipe([str(ROOT / "recipes" / f"{name}.yaml"), *given, *SHORT, *fields])


def trainer_of(recipe):
    data = load_data(recipe.data)
    model, extractor = build_model(recipe, data)
    return build_trainer(recipe, prepare_splits(data, recipe.data, extractor.sampling_rate), model, extractor)


# Patchout is lowered to what a window of one second holds.
@pytest.mark.parametrize(
    ("name", "fields"),
    [("beats/finetune", []), ("passt/finetune", ["--patchout_time=3"]), ("mobilenet/finetune", [])],
)
def test_a_port_trains_through_the_command(name, fields, checkpoints, music, tmp_path):
    checkpoint = checkpoints / name.split("/")[0]
    given = [f"--model_name_or_path={checkpoint}", f"--data_dir={music}", f"--output_dir={tmp_path}"]
    run_irmas.main([str(ROOT / "recipes" / f"{name}.yaml"), *given, *SHORT, *fields])
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["dataset"]["clips"]["test"] == 6 and results["train"]["epochs"] > 0
    before, after = (load_file(folder / "model.safetensors") for folder in (checkpoint, tmp_path))
    assert before.keys() == after.keys()
    matrices = [key for key in before if before[key].ndim > 1 and not key.startswith("classifier")]
    still = [key for key in matrices if torch.equal(before[key], after[key])]
    assert not still, "these weights did not move"


def test_a_recipe_needs_nothing_but_its_name_and_the_card_says_where_it_started(music, tmp_path, monkeypatch):
    """With the checkpoint in the cache; tests/training/test_released.py is about how it gets there."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    released = find_released("mn10")
    convert("mobilenet", authors_file("mobilenet", tmp_path / "mn10.pt"), released.folder, released.file_name)
    run_irmas.main(["mobilenet/finetune", f"--data_dir={music}", f"--output_dir={tmp_path / 'run'}", *SHORT])
    card = (tmp_path / "run/README.md").read_text()
    assert f"Started from [`{released.file_name}`]({released.addresses[0]}) (`released/mn10`" in card
    assert "license: mit" in card and "{schmid2023efficientat," in card and str(tmp_path) not in card.split("## ")[0]


@pytest.mark.parametrize("name", ["beats/linear_probe", "mobilenet/linear_probe"])
def test_a_linear_probe_moves_the_output_layer_only(name, checkpoints, music, tmp_path):
    trainer = trainer_of(recipe_of(name, checkpoints / name.split("/")[0], music, tmp_path))
    before = {key: tensor.clone() for key, tensor in trainer.model.state_dict().items()}
    trainer.train()
    moved = {key for key, tensor in trainer.model.state_dict().items() if not torch.equal(tensor, before[key])}
    assert moved == {"classifier.weight", "classifier.bias"}, "batch statistics count too"


def test_frozen_batch_norm_is_all_that_stays(checkpoints, music, tmp_path):
    recipe = recipe_of("mobilenet/finetune", checkpoints / "mobilenet", music, tmp_path, "--freeze=batch_norm")
    trainer = trainer_of(recipe)
    norms = [name for name, module in trainer.model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)]
    before = {key: tensor.clone() for key, tensor in trainer.model.state_dict().items()}
    trainer.train()
    still = {key for key, tensor in trainer.model.state_dict().items() if torch.equal(tensor, before[key])}
    of_norms = {key for key in before if key.rsplit(".", 1)[0] in norms}
    assert len(norms) > 30 and of_norms <= still
    assert "mobilenet.stem.0.weight" not in still and "classifier.weight" not in still
    with pytest.raises(UserError, match="no batch normalisation"):
        load_model(ModelArguments(str(checkpoints / "beats"), freeze="batch_norm"), CLASSES, 1.0)


def test_the_dropout_before_the_output_layer_stays_on_in_a_linear_probe(checkpoints):
    model, _ = load_model(ModelArguments(str(checkpoints / "mobilenet"), freeze="backbone"), CLASSES, 1.0)
    model.train()
    for module in frozen_modules(model):
        module.eval()
    assert model.head_dropout.training and model.classifier.training and not model.mobilenet.stem[1].training


@pytest.mark.parametrize("architecture", ["beats", "passt", "mobilenet"])
def test_lower_layers_learn_more_slowly(architecture, checkpoints):
    model, _ = load_model(ModelArguments(str(checkpoints / architecture)), CLASSES, 1.0)
    groups = parameter_groups(model, set(), learning_rate=1.0, weight_decay=0.0, layer_decay=0.5)
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {name_of[id(parameter)]: group["lr"] for group in groups for parameter in group["params"]}
    assert rates.keys() == dict(model.named_parameters()).keys()
    layers = len(getattr(model, architecture).layers)
    for name, rate in rates.items():
        layer = [int(part) for part in name.split(".layers.")[-1].split(".")[:1] if ".layers." in name]
        after = name.startswith(("classifier", "projection", "head_", "passt.norm", "mobilenet.last"))
        depth = layer[0] + 1 if layer else layers + 1 if after else 0
        assert rate == 0.5 ** (layers + 1 - depth), name


@pytest.mark.parametrize(
    ("architecture", "field", "key"),
    [
        ("beats", "layerdrop", "layerdrop"),
        ("beats", "head_dropout", "classifier_dropout"),
        ("passt", "drop_path_rate", "drop_path_rate"),
        ("passt", "head_dropout", "head_dropout"),
        ("mobilenet", "head_dropout", "head_dropout"),
    ],
)
def test_regularisation_reaches_the_network(architecture, field, key, checkpoints):
    """With half of everything dropped the passes in training differ; evaluation does not change at all."""
    checkpoint = str(checkpoints / architecture)

    def outputs(value: float):
        model, extractor = load_model(ModelArguments(checkpoint, **{field: value}), CLASSES, 1.0)
        assert getattr(model.config, key) == value
        features = extractor.extract(0.1 * torch.randn(4, extractor.sampling_rate, generator=torch.manual_seed(1)))
        model.train()
        for module in model.modules():  # batch statistics are no regularisation
            module.training &= not isinstance(module, torch.nn.BatchNorm2d)
        with torch.no_grad():
            in_training = [model(features).logits for _ in range(8)]
            return torch.stack(in_training), model.eval()(features).logits

    torch.manual_seed(0)
    (with_field, evaluated), (without, unchanged) = outputs(0.5), outputs(0.0)
    assert torch.equal(evaluated, unchanged)
    assert with_field.std(dim=0).max() > 1e-3 > without.std(dim=0).max()  # PaSST shifts its time encoding besides


def test_what_a_model_does_not_have_is_refused(checkpoints):
    for architecture, field in (("mobilenet", "layerdrop"), ("beats", "drop_path_rate")):
        with pytest.raises(UserError, match=f"no {field}"):
            load_model(ModelArguments(str(checkpoints / architecture), **{field: 0.1}), CLASSES, 1.0)
    with pytest.raises(UserError, match="no patches to drop"):
        load_model(ModelArguments(str(checkpoints / "mobilenet"), patchout_time=1), CLASSES, 1.0)


@pytest.mark.parametrize("fields", [{"patchout_time": 9}, {"patchout_frequency": 12}, {"patchout_tokens": 12 * 9}])
def test_patchout_of_everything_is_refused_before_training(fields, checkpoints):
    """One second at stride 10 is 9 columns and 12 rows."""
    with pytest.raises(UserError, match="leave nothing"):
        load_model(ModelArguments(str(checkpoints / "passt"), **fields), CLASSES, 1.0)
    almost = {name: value - 1 for name, value in fields.items()}
    load_model(ModelArguments(str(checkpoints / "passt"), **almost), CLASSES, 1.0)


def test_a_window_beyond_the_position_encodings_is_refused(checkpoints):
    with pytest.raises(UserError, match="window_seconds"):
        load_model(ModelArguments(str(checkpoints / "beats")), CLASSES, 0.02)


def test_patchout_shortens_the_sequence_in_training_only(checkpoints):
    model, extractor = load_model(ModelArguments(str(checkpoints / "passt"), patchout_time=4), CLASSES, 1.0)
    features = extractor.extract(torch.zeros(1, 32000))
    assert model.passt.train()(features).last_hidden_state.shape[1] == 2 + 12 * 5
    assert model.passt.eval()(features).last_hidden_state.shape[1] == 2 + 12 * 9


def test_initial_weight_goes_back_towards_the_zero_shot_model(checkpoints, music, tmp_path):
    def trained(weight):
        recipe = recipe_of(
            "mobilenet/finetune",
            checkpoints / "mobilenet",
            music,
            tmp_path,
            f"--initial_weight={weight}",
            "--overwrite_output_dir",
        )
        begin(recipe).claim(recipe)
        trainer = trainer_of(recipe)
        initial = {key: tensor.clone() for key, tensor in trainer.model.state_dict().items()}
        train(recipe, trainer, checkpoint=None)
        return initial, trainer.model.state_dict()

    initial, tuned = trained(0)
    _, between = trained(0.75)
    assert not torch.allclose(initial["classifier.weight"], tuned["classifier.weight"])
    for key, tensor in between.items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor, 0.75 * initial[key] + 0.25 * tuned[key], atol=1e-5), key


def test_a_soup_is_the_mean_of_runs_trained_or_finished(checkpoints, music, tmp_path):
    def run(name, *fields, start=checkpoints / "mobilenet"):
        given = [f"--model_name_or_path={start}", f"--data_dir={music}", f"--output_dir={tmp_path / name}"]
        run_irmas.main(["mobilenet/finetune", *given, "--initial_weight=0", *SHORT, *fields])
        return load_file(tmp_path / name / "model.safetensors")

    one, other = run("one", "--save_strategy=steps", "--save_steps=2"), run("other", "--seed=1")
    soup = run("soup", "--seed=1", f"--soup={tmp_path / 'one'}")
    options = ["--head_initialization=labels", "--max_steps=-1", "--num_train_epochs=0"]
    finished = run("finished", "--soup", str(tmp_path / "other"), *options, start=tmp_path / "one")
    mixed = run("mixed", "--soup", str(tmp_path / "other"), "--initial_weight=0.5", *options, start=tmp_path / "one")
    assert not torch.allclose(one["classifier.weight"], other["classifier.weight"])
    assert "its weights were averaged with those of `one`." in (tmp_path / "soup/README.md").read_text()
    card = (tmp_path / "finished/README.md").read_text()
    assert "Not trained: its weights are the mean of those of `one` and `other`." in card
    for key, tensor in soup.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, (one[key] + other[key]) / 2)
            torch.testing.assert_close(finished[key], tensor)
            torch.testing.assert_close(mixed[key], (one[key] + tensor) / 2)
    assert (tmp_path / "one/checkpoint-2/model.safetensors").is_file()
    for wrong in (checkpoints / "mobilenet", tmp_path / "nowhere", tmp_path / "one/checkpoint-2"):
        with pytest.raises(UserError, match=f"--soup {wrong} is not a finished run of a network"):
            run("wrong", f"--soup={wrong}")
    for what, field in {
        "window": "--window_seconds=0.5",
        "separation": "--separation=harmonic",
        "feature extractor": '--feature_extractor_config={"max_frequency": 9000}',
    }.items():
        with pytest.raises(
            UserError, match=f"--soup {tmp_path / 'one'} differs from this run in its {what}: name a run"
        ):
            run("wrong", f"--soup={tmp_path / 'one'}", field)


def test_contradictions_are_refused_in_one_sentence(checkpoints, music, tmp_path):
    for fields, word in (
        (["--freeze=backbone", "--layerdrop=0.1"], "layerdrop"),
        (["--head_initialization=random", "--initial_weight=0.5"], "head is random here"),
        (["--head_dropout=1"], "head_dropout"),
    ):
        with pytest.raises(UserError, match=word) as error:
            recipe_of("beats/finetune", checkpoints / "beats", music, tmp_path, *fields)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["beats/finetune", "passt/finetune", "passt/finetune_stride16", "mobilenet/zero_shot"])
def test_an_offline_machine_is_told_where_the_checkpoint_is_and_where_it_goes(name, tmp_path, monkeypatch):
    """Before any data are looked for: there are none here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    released = find_released(parse_recipe([name, "--use_cpu"]).model.model_name_or_path)
    with pytest.raises(UserError) as error:
        run_irmas.main([name, "--use_cpu"])
    told = str(error.value)
    assert released.addresses[0] in told and str(tmp_path / "cache/irmas/downloads" / released.file_name) in told
    assert "HF_HUB_OFFLINE" in told and "\n" not in told
