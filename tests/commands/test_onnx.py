"""`onnx`: the graph gives torch's logits and works without torch; 8 bits stay close; what is missing is one sentence."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from transformers import Wav2Vec2FeatureExtractor

import run_irmas
from irmas_dataset.errors import UserError
from irmas_recipe.commands.onnx import main as onnx_command
from irmas_recipe.commands.onnx.arguments import parse_arguments
from irmas_recipe.commands.onnx.export import (
    WaveformClassifier,
    export_onnx,
    onnx_logits,
    open_session,
    require_onnx,
)
from irmas_recipe.commands.onnx.measurement import measure
from irmas_recipe.models.pipeline.attach import attach_pipeline
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline
from irmas_recipe.training.head import output_layer
from irmas_recipe.training.recogniser import load_recogniser
from tests.irmas_dataset.test_extra import write_tones
from tests.test_run import TINY as TINY_RECIPE
from tests.tiny import SECONDS, TINY, build, saved_run

try:
    require_onnx()
    missing = ""
except UserError as error:
    missing = str(error)
needs_onnx = pytest.mark.skipif(bool(missing), reason=missing)

ON_A_MACHINE_WITHOUT_TORCH = """
import json, sys
import numpy as np, onnxruntime, soundfile
folder, song = sys.argv[1:]
facts = json.load(open(f"{folder}/model.json"))
samples, rate = soundfile.read(song, dtype="float32")
assert rate == facts["sampling_rate"]
window, hop = facts["window_samples"], facts["hop_samples"]
starts = [*range(0, len(samples) - window, hop), len(samples) - window]
windows = np.stack([samples[start : start + window] for start in starts])
logits = onnxruntime.InferenceSession(f"{folder}/{facts['graphs'][0]}").run(None, {"waveforms": windows})[0]
scores = 1 / (1 + np.exp(-logits.mean(axis=0)))
print(json.dumps(dict(zip(facts["labels"], scores.tolist()))))
assert not {"torch", "transformers"} & set(sys.modules)
"""


def decided(name: str):
    """Return a tiny model whose logits on noise vary by about 1, and its extractor."""
    model, extractor = build(name)
    heads = [part.output for part in model.subnetworks] if name == "mfcc" else [output_layer(model)[1]]
    noise = 0.1 * torch.randn(8, round(SECONDS * extractor.sampling_rate), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = WaveformClassifier(model, extractor)(noise)
        for head in heads:
            head.weight *= 1 / logits.std(dim=0).mean().clamp_min(1e-4)
    return model, extractor


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A saved tiny AST that looks at 1 s every 0.5 s."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    model, extractor = decided("ast")
    thresholds = [0.3 + 0.04 * index for index in range(11)]
    model.config.update({"window_seconds": 1.0, "hop_seconds": 0.5, "aggregation": "mean", "thresholds": thresholds})
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    attach_pipeline(folder)
    return folder


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("onnx") / "tiny"
    run_irmas.main(["onnx", str(run), str(folder), "--int8"])
    return folder


@needs_onnx
def test_a_machine_without_torch_gets_the_pipelines_scores(run, exported, tmp_path):
    rng = np.random.default_rng(0)
    song = (0.2 * rng.standard_normal(56_000)).astype(np.float32)
    soundfile.write(tmp_path / "song.wav", song, 16_000, subtype="FLOAT")
    command = [sys.executable, "-c", ON_A_MACHINE_WITHOUT_TORCH, str(exported), str(tmp_path / "song.wav")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    from transformers import pipeline

    recognise = pipeline("instrument-recognition", model=str(run), trust_remote_code=True)
    assert isinstance(recognise, InstrumentRecognitionPipeline) or type(recognise).__name__ == "InstrumentRecognitionPipeline"  # fmt: skip
    expected = {entry["label"]: entry["score"] for entry in recognise(str(tmp_path / "song.wav"), all_labels=True)}
    assert json.loads(done.stdout) == pytest.approx(expected, abs=1e-4)
    assert np.std(list(expected.values())) > 0.01


@needs_onnx
def test_the_description_holds_what_the_model_was_measured_with(exported):
    facts = json.loads((exported / "model.json").read_text())
    assert facts["graphs"] == ["model.onnx", "model-int8.onnx"]
    assert (facts["sampling_rate"], facts["window_samples"], facts["hop_samples"]) == (16_000, 16_000, 8_000)
    assert facts["labels"][0] == "cello" and facts["aggregation"] == "mean"
    assert facts["thresholds"] == pytest.approx([0.3 + 0.04 * index for index in range(11)])


@needs_onnx
def test_8_bits_are_for_the_models_linear_layers_only_and_stay_close(run, exported):
    import onnx

    from irmas_recipe.commands.onnx.quantisation import is_of_features

    graph = onnx.load(exported / "model-int8.onnx").graph
    rounded = [node for node in graph.node if node.op_type == "MatMulInteger"]
    assert len(rounded) == 13  # six per transformer block, of two, and the output layer
    features = [node for node in graph.node if node.op_type == "MatMul" and is_of_features(node)]
    assert len(features) >= 3  # cosines, sines, mel filters
    waveforms = (0.1 * np.random.default_rng(1).standard_normal((5, 16_000))).astype(np.float32)
    exact, close = (onnx_logits(open_session(exported / name), waveforms) for name in ("model.onnx", "model-int8.onnx"))
    assert 0 < np.abs(exact - close).max() < 0.03 * np.abs(exact).max()  # 8 bits round by up to 1 in 254, 13 times over


@needs_onnx
@pytest.mark.parametrize(
    "name",
    [
        name if name == "hubert" else pytest.param(name, marks=pytest.mark.slow)
        for name in TINY
        if name not in ("ast", "wav2vec2-bert")  # it normalises each band: of a pure tone, most are rounding errors
    ],
)
def test_every_architecture_gives_torchs_logits_for_any_batch(name, tmp_path):
    model, extractor = decided(name)
    samples = round(SECONDS * extractor.sampling_rate)
    classifier = WaveformClassifier(model, extractor)
    assert export_onnx(classifier, samples, tmp_path / "model.onnx") < 1e-4
    session = open_session(tmp_path / "model.onnx")
    waveforms = 0.1 * torch.randn(9, samples, generator=torch.Generator().manual_seed(2))
    for batch_size in (1, 3, 9):
        with torch.no_grad():
            expected = classifier(waveforms[:batch_size]).numpy()
        np.testing.assert_allclose(onnx_logits(session, waveforms[:batch_size].numpy()), expected, atol=1e-4, rtol=1e-4)


@needs_onnx
def test_a_graph_that_fails_on_silence_is_refused(tmp_path):
    class Normalised(torch.nn.Module):
        def __init__(self, features):
            super().__init__()
            self.features = features

        def forward(self, waveforms):
            return self.features(waveforms / waveforms.abs().amax(dim=1, keepdim=True))

    classifier = WaveformClassifier(*build("ast"))
    classifier.features = Normalised(classifier.features)
    with pytest.raises(UserError, match="differ from torch's by nan"):
        export_onnx(classifier, 16_000, tmp_path / "model.onnx")


@needs_onnx
@pytest.mark.slow
def test_measure_says_what_the_test_set_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(yaml.safe_dump(TINY_RECIPE | {"bf16": False}))  # as the graph computes
    run_irmas.main(["tiny.yaml"])
    capsys.readouterr()
    run_irmas.main(["onnx", "runs/tiny", "out", "--int8", "--measure", "--batch_size", "5"])
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row[0].strip() for row in rows[2:]] == ["torch", "onnx", "onnx int8"]
    test = json.loads(Path("runs/tiny/results.json").read_text())["test"]
    for row in rows[2:4]:
        assert float(row[2]) == pytest.approx(test["tuned"]["micro_f1"], abs=6e-4)
        assert float(row[3]) == pytest.approx(test["lrap"], abs=6e-4)
    assert float(rows[3][4]) < 1e-4 and all(float(row[5]) > 0 for row in rows[2:])


def test_measure_takes_the_flags_of_the_test_set(tmp_path):
    """Torch alone, which is the first row of the table and needs no optional package."""
    music = write_tones(tmp_path / "music", "train", {"harp": [200, 210, 220], "horn": [300, 310, 320]})
    write_tones(music, "test", {"harp": [250], "horn": [350, 355]})
    tests_alone = write_tones(tmp_path / "tests", "test", {"harp": [250], "horn": [350, 355]})
    folder = saved_run(tmp_path / "run", ["harp", "horn"], [0.4, 0.6])
    (folder / "recipe.yaml").write_text(
        yaml.safe_dump({"data_dir": str(music), "window_seconds": 1.0, "use_cpu": True})
    )
    recognise = load_recogniser(str(folder), device="cpu")
    classifier = WaveformClassifier(recognise.model, recognise.feature_extractor)
    for flags in ([], ["--data_dir", str(music), "--recording_pattern", "[0-9]+"], ["--data_dir", str(tests_alone)]):
        args = parse_arguments([str(folder), "out", "--measure", *flags])
        table = measure(args, classifier, {}, recognise.window_and_hop())
        assert "| torch |" in table and "3 test clips, 3 windows, 8 at a time" in table


def test_without_the_optional_packages_the_way_out_is_one_sentence(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"needs onnx.*pip install onnx onnxruntime onnxscript"):
        onnx_command.main([str(run), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_refused(run, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match="is a file"):
        onnx_command.main([str(run), str(tmp_path / "out")])


def test_a_feature_extractor_of_another_kind_is_refused():
    class OwnExtractor(Wav2Vec2FeatureExtractor):
        pass

    with pytest.raises(UserError, match="OwnExtractor computes features by code of its own, which no graph can hold"):
        WaveformClassifier(build("hubert")[0], OwnExtractor())
