"""What every model of the project keeps: shapes, gradients, saving, compilation, and use by a stranger."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from irmas_recipe.models import ARCHITECTURES, OF_TRANSFORMERS
from irmas_recipe.training.compilation import compile_blocks
from irmas_recipe.training.features import device_features
from tests.tiny import SECONDS, TINY, build
from tests.tiny_speech import CONFIGURATIONS, UNUSED

NAMES = sorted(TINY)
SPEECH = sorted(CONFIGURATIONS)
OURS = [name for name in NAMES if name not in ("ast", *SPEECH)]
"""AST and the speech models are transformers' own classes; the rest is code of this repository."""
OWN_EXTRACTOR = [name for name in OURS if not name.startswith("encoder")]
IN_BLOCKS = [*SPEECH, "encoder", "encoder-of-clap"]
"""What a run compiles block by block, for parts of transformers' own code are no single graph."""

STRANGER = """
import json, sys
import numpy as np, torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, pipeline

root, names = sys.argv[1], sys.argv[2].split(",")
sys.path = [entry for entry in sys.path if entry != sys.argv[3]]  # an editable installation puts the clone there
for name in names:
    folder = f"{root}/{name}"
    model = AutoModelForAudioClassification.from_pretrained(folder, trust_remote_code=True)
    extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
    waveforms = list(np.load(f"{folder}/waveforms.npy"))
    with torch.no_grad():
        inputs = extractor(waveforms, sampling_rate=extractor.sampling_rate, return_tensors="pt")
        np.save(f"{folder}/stranger_logits.npy", model(**inputs).logits.numpy())
    tagger = pipeline("audio-classification", model=folder, trust_remote_code=True)
    with open(f"{folder}/stranger_scores.json", "w") as file:
        json.dump(tagger(waveforms[0], top_k=None), file)
    origin = sys.modules[type(model).__module__].__file__
    with open(f"{folder}/stranger_origin.txt", "w") as file:
        file.write(origin)
ours = [module for module in sys.modules if module.startswith(("irmas_recipe", "irmas_dataset", "irmas_metric"))]
assert not ours, ours
"""


def test_suite_holds_every_architecture():
    assert set(ARCHITECTURES) <= set(TINY)
    assert {*OF_TRANSFORMERS, "ast"} - {"audio-spectrogram-transformer"} <= set(TINY)


def tones(sampling_rate: int, clips: int = 3, seconds: float = SECONDS) -> list[np.ndarray]:
    """Return `clips` different noisy tones, float32 (samples,) each."""
    time = np.arange(int(sampling_rate * seconds)) / sampling_rate
    noise = np.random.default_rng(0).standard_normal((clips, time.size))
    return [(0.3 * np.sin(2 * np.pi * 220 * (k + 1) * time) + 0.05 * noise[k]).astype(np.float32) for k in range(clips)]


def features(extractor, waveforms: list[np.ndarray]) -> dict[str, torch.Tensor]:
    """Return the model's inputs for `waveforms`."""
    return dict(extractor(waveforms, sampling_rate=extractor.sampling_rate, return_tensors="pt"))


def multi_hot(model, clips: int) -> torch.Tensor:
    """Return labels (clips, classes) with one to three instruments a clip."""
    labels = torch.zeros(clips, model.config.num_labels)
    for clip in range(clips):
        labels[clip, clip : 2 * clip + 1] = 1
    return labels


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    """Return (name, model in evaluation mode, its extractor, its inputs for three clips)."""
    model, extractor = build(request.param)
    return request.param, model, extractor, features(extractor, tones(extractor.sampling_rate))


@pytest.fixture
def fresh(case):
    """Return the same case with a model of one's own, in training mode, free to be changed."""
    name, _, extractor, inputs = case
    return name, build(name)[0].train(), extractor, inputs


def loss_of(model, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the loss that the Trainer computes; that of the speech models themselves is for a single label."""
    return nn.functional.binary_cross_entropy_with_logits(model(**inputs).logits, multi_hot(model, 3))


def last_linear(model) -> str:
    """Return the name of the model's last linear layer."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]


@torch.no_grad()
def test_logits_have_one_column_a_label_and_are_finite(case):
    _, model, _, inputs = case
    logits = model(**inputs).logits
    assert logits.shape == (3, 11)
    assert logits.isfinite().all()
    assert not torch.allclose(logits[0], logits[1]), "two different clips have the same logits"


def test_configuration_names_the_instruments(case):
    _, model, _, _ = case
    assert model.config.id2label[0] == "cello"
    assert model.config.label2id["voice"] == 10
    assert model.config.problem_type == "multi_label_classification"
    outputs = model.get_submodule(last_linear(model)).out_features
    assert outputs == (1 if model.config.model_type == "irmas_mfcc" else model.config.num_labels)  # one a sub-network


@torch.no_grad()
def test_a_clip_alone_gives_what_it_gives_in_a_batch(case):
    _, model, extractor, inputs = case
    together = model(**inputs).logits
    waveforms = tones(extractor.sampling_rate)
    alone = torch.cat([model(**features(extractor, [waveform])).logits for waveform in waveforms])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-4)


def test_loss_is_binary_cross_entropy_over_all_labels(case):
    name, model, _, inputs = case
    if name in SPEECH:
        pytest.skip("cross-entropy, which the Trainer does not use")
    labels = multi_hot(model, 3)
    with torch.no_grad():
        outputs = model(**inputs, labels=labels)
    expected = nn.functional.binary_cross_entropy_with_logits(outputs.logits, labels)
    torch.testing.assert_close(outputs.loss, expected)


def test_output_as_a_tuple_holds_loss_and_logits(case):
    name, model, _, inputs = case
    if name in SPEECH:
        pytest.skip("their loss is for a single label")
    with torch.no_grad():
        loss, logits = model(**inputs, labels=multi_hot(model, 3), return_dict=False)[:2]
    assert loss.shape == () and logits.shape == (3, 11)


def test_every_parameter_gets_a_gradient(fresh):
    name, model, _, inputs = fresh
    torch.manual_seed(0)
    loss_of(model, inputs).backward()
    gradients = {key: parameter.grad for key, parameter in model.named_parameters() if parameter.requires_grad}
    if name in UNUSED:
        gradients = {key: gradient for key, gradient in gradients.items() if UNUSED[name] not in key}
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert [name for name, gradient in gradients.items() if not gradient.isfinite().all()] == []
    assert [name for name, gradient in gradients.items() if not gradient.any()] == []


def test_gradient_checkpointing_changes_no_gradient(fresh):
    _, model, _, inputs = fresh
    if not model.supports_gradient_checkpointing:
        pytest.skip("the model has no blocks to checkpoint")
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable()
            assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
        model.zero_grad(set_to_none=True)
        torch.manual_seed(0)
        loss_of(model, inputs).backward()
        gradients.append({key: weight.grad for key, weight in model.named_parameters() if weight.grad is not None})
    torch.testing.assert_close(gradients[1], gradients[0])


@torch.no_grad()
def test_forward_in_bfloat16_is_finite_and_close(case):
    name, model, _, inputs = case
    expected = model(**inputs).logits
    with torch.autocast("cpu", torch.bfloat16):
        autocast = build(name)[0](**inputs).logits.float()
    converted = build(name)[0].to(torch.bfloat16)
    halves = {key: value.bfloat16() if value.is_floating_point() else value for key, value in inputs.items()}
    whole = converted(**halves).logits.float()
    for logits in (autocast, whole):
        torch.testing.assert_close(logits, expected, atol=0.05 + 0.05 * expected.abs().max().item(), rtol=0)


def compile_and_step(model, inputs, backend: str) -> None:
    """Compile without a graph break; two steps at one length must build one graph only, and give the eager logits."""
    for training in (True, False):
        torch._dynamo.reset()
        counter = CompileCounterWithBackend(backend)
        compiled = torch.compile(model.train(training), fullgraph=True, dynamic=False, backend=counter)
        for _ in range(2):
            outputs = compiled(**inputs, labels=multi_hot(model, 3))
            if training:
                outputs.loss.backward()
        assert counter.frame_count == 1
    torch.testing.assert_close(outputs.logits, model(**inputs).logits, atol=1e-4, rtol=1e-3)


def test_model_is_one_graph(fresh):
    name, model, _, inputs = fresh
    if name in IN_BLOCKS:
        pytest.skip("a run compiles it block by block: the next test")
    compile_and_step(model, inputs, "eager")


@pytest.mark.parametrize("name", [*SPEECH, "encoder"])
def test_a_speech_model_compiled_block_by_block_gives_the_eager_logits(name):
    torch._dynamo.reset()
    model, extractor = build(name)
    inputs = features(extractor, tones(extractor.sampling_rate))
    with torch.no_grad():
        eager = model(**inputs).logits
    counter = CompileCounterWithBackend("eager")
    # WavLM's first block has the table of positions, so that only two are alike here, and the model is compiled whole.
    assert compile_blocks(model, backend=counter) == (1 if name == "wavlm" else 3)
    torch.testing.assert_close(model(**inputs).logits, eager, atol=1e-4, rtol=1e-3)
    loss_of(model.train(), inputs).backward()
    assert counter.frame_count >= 1 and model.get_submodule(last_linear(model)).weight.grad.any()


@pytest.mark.slow
def test_model_compiles_with_inductor(fresh):
    name, model, _, inputs = fresh
    if name in IN_BLOCKS:
        pytest.skip("a run compiles it block by block")
    compile_and_step(model, inputs, "inductor")


@torch.no_grad()
def test_saving_and_loading_changes_nothing(case, tmp_path):
    _, model, extractor, inputs = case
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    loaded, report = AutoModelForAudioClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert {key: list(value) for key, value in report.items() if value} == {}
    assert type(loaded) is type(model)
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    again = features(AutoFeatureExtractor.from_pretrained(tmp_path), tones(extractor.sampling_rate))
    assert again.keys() == inputs.keys()
    assert all(torch.equal(again[key], inputs[key]) for key in inputs)


def test_head_is_replaced_for_other_labels(case, tmp_path):
    name, model, _, inputs = case
    if name == "mfcc":
        pytest.skip("an instrument is a sub-network there: models.mfcc.with_labels adds one")
    model.save_pretrained(tmp_path)
    loaded, report = AutoModelForAudioClassification.from_pretrained(
        tmp_path, num_labels=3, ignore_mismatched_sizes=True, output_loading_info=True
    )
    head = last_linear(model)
    assert {name for name, *_ in report["mismatched_keys"]} == {f"{head}.weight", f"{head}.bias"}
    assert loaded(**inputs).logits.shape == (3, 3)
    assert loaded(**inputs).logits.isfinite().all()


@pytest.mark.parametrize("name", OURS)
def test_trainer_divides_the_loss_itself(name):
    assert build(name)[0].accepts_loss_kwargs is False


@pytest.mark.parametrize("name", OWN_EXTRACTOR)
def test_extractor_refuses_another_sampling_rate(name):
    _, extractor = build(name)
    with pytest.raises(ValueError, match="Hz"):
        extractor(tones(extractor.sampling_rate)[0], sampling_rate=extractor.sampling_rate + 1)


@pytest.mark.parametrize("name", OWN_EXTRACTOR)
def test_batched_features_are_those_of_the_call(name):
    """Training computes features with `extract` on the device; the saved extractor must give the same."""
    _, extractor = build(name)
    waveforms = tones(extractor.sampling_rate)
    batched = extractor.extract(torch.from_numpy(np.stack(waveforms)))
    torch.testing.assert_close(batched, features(extractor, waveforms)["input_values"], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_features_of_the_device_give_the_logits_of_the_saved_extractor(case):
    _, model, extractor, inputs = case
    waveforms = torch.from_numpy(np.stack(tones(extractor.sampling_rate)))
    logits = model(**{model.main_input_name: device_features(extractor)(waveforms)}).logits
    torch.testing.assert_close(logits, model(**inputs).logits, atol=1e-4, rtol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("name", OWN_EXTRACTOR)
def test_features_on_a_gpu_are_those_of_the_cpu(name):
    """Reduced-precision matrix products, which recipes switch on, must not reach the features."""
    _, extractor = build(name)
    waveforms = torch.from_numpy(np.stack(tones(extractor.sampling_rate)))
    expected = extractor.extract(waveforms)
    torch.set_float32_matmul_precision("high")
    try:
        found = extractor.extract(waveforms.cuda())
    finally:
        torch.set_float32_matmul_precision("highest")
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), expected, atol=1e-3, rtol=0)


@pytest.fixture(scope="session")
def strangers(tmp_path_factory) -> Path:
    """Save every tiny model and load them all in one clean process that knows nothing of this repository."""
    root = tmp_path_factory.mktemp("strangers")
    for name in NAMES:
        model, extractor = build(name)
        model.save_pretrained(root / name)
        extractor.save_pretrained(root / name)
        np.save(root / name / "waveforms.npy", np.stack(tones(extractor.sampling_rate)))
    (root / "stranger.py").write_text(STRANGER)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(root / "cache"), "OMP_NUM_THREADS": "1"}
    repository = str(Path(__file__).parents[2])
    command = [sys.executable, "-I", "stranger.py", str(root), ",".join(NAMES), repository]
    finished = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return root


@pytest.mark.parametrize("name", NAMES)
def test_a_stranger_gets_the_same_logits(name, strangers):
    model, extractor = build(name)
    with torch.no_grad():
        logits = model(**features(extractor, tones(extractor.sampling_rate))).logits.numpy()
    np.testing.assert_allclose(np.load(strangers / name / "stranger_logits.npy"), logits, atol=1e-5)
    scores = json.loads((strangers / name / "stranger_scores.json").read_text())
    by_label = {score["label"]: score["score"] for score in scores}
    expected = 1 / (1 + np.exp(-logits[0]))
    np.testing.assert_allclose([by_label[model.config.id2label[k]] for k in range(11)], expected, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_stranger_needs_no_copy_of_the_repository(name, strangers):
    origin = Path((strangers / name / "stranger_origin.txt").read_text())
    assert Path(__file__).parents[2] not in origin.parents or ".venv" in origin.parts
    carries_code = bool(list((strangers / name).glob("modeling_*.py")))
    assert carries_code is (name in OURS)
    assert not list((strangers / name).glob("convert_*.py"))
