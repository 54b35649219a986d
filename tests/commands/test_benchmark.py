"""`benchmark`: every figure it promises, honest races, one compiled graph a run, memory that does not grow with the data."""

import json
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from datasets import ClassLabel, Dataset, Features, List, Value, concatenate_datasets
from matplotlib.figure import Figure
from transformers import ASTConfig, ASTFeatureExtractor

from irmas_dataset.audio import decode, prepare
from irmas_dataset.errors import UserError
from irmas_recipe.commands.benchmark import main as benchmark
from irmas_recipe.commands.benchmark import measurements, ours
from irmas_recipe.commands.benchmark.accuracy import compare_accuracy, in_words
from irmas_recipe.commands.benchmark.arguments import parse_arguments
from irmas_recipe.commands.benchmark.audio import measure_loading
from irmas_recipe.commands.benchmark.bench import Bench
from irmas_recipe.commands.benchmark.clips import make_clips
from irmas_recipe.commands.benchmark.clock import REST, Clock, Stages, added_memory, matrix_rates, speed, stages_of_step
from irmas_recipe.commands.benchmark.figure import draw_shares, draw_times, measured_steps
from irmas_recipe.commands.benchmark.recipes import CPU_BATCH, accuracy_recipe, benchmark_recipe
from irmas_recipe.commands.benchmark.stock import STOCK_FRAMES, Stock
from irmas_recipe.models.encoder import EncoderConfig, EncoderForAudioClassification
from irmas_recipe.training.clips import TrainingClips, collate
from irmas_recipe.training.features import device_features
from irmas_recipe.training.model import load_model
from tests.tiny import SECONDS
from tests.tiny_speech import tiny_speech

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
TINY = {"num_mel_bins": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
        "frequency_stride": 16, "time_stride": 16}  # fmt: skip


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory) -> Path:
    """A recipe of a narrow AST on windows of 3 s."""
    path = tmp_path_factory.mktemp("recipes") / "narrow.yaml"
    path.write_text(
        f"data_dir: synthetic\narchitecture: ast\nmodel_config: {json.dumps(TINY)}\n"
        "feature_extractor_config: {num_mel_bins: 32}\nper_device_train_batch_size: 2\nmix_probability: 0.5\n"
        "weight_averaging: ema\nuse_cpu: true\n"
    )
    return path


@pytest.fixture(scope="module")
def figures(recipe_file, tmp_path_factory) -> dict:
    """What `benchmark --against stock` wrote, with the text that it printed under `printed`."""
    folder = tmp_path_factory.mktemp("benchmark")
    command = [sys.executable, "run_irmas.py", "benchmark", str(recipe_file), "--against", "stock", "--clips", "33"]
    command += ["--repeats", "1", "--long_clips", "1", "--output", str(folder / "out" / "figures.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / "out" / "figures.png").stat().st_size > 10_000
    return json.loads((folder / "out" / "figures.json").read_text()) | {"printed": done.stdout}


def test_the_ratios_are_those_of_the_speeds_beside_them(figures):
    for name in ("training_step", "prepare_first", "prepare_cached", "evaluate"):
        sides = [figures[side][name]["clips_per_second"] for side in ("ours", "stock")]
        assert figures["ratios"][name] == pytest.approx(sides[0] / sides[1])
    halved = figures["ours"]["training_step_patchout"]["clips_per_second"]
    stock = figures["stock"]["training_step"]["clips_per_second"]
    assert figures["ratios"]["training_step_patchout"] == pytest.approx(halved / stock)
    assert figures["ratios"]["prepare_cached"] > 1


def test_every_figure_is_there_and_printed(figures):
    wanted = {"decode", "resample", "prepare_first", "prepare_cached", "cached_loading", "features", "augmentation",
              "forward", "training_step", "training_step_patchout", "evaluate", "predict"}  # fmt: skip
    assert set(figures["ours"]) == wanted
    for entry in figures["ours"].values():
        assert entry["clips_per_second"] == pytest.approx(1000 / entry["ms_per_clip"]) and entry["clips_per_second"] > 0
        assert f"{entry['clips_per_second']:,.2f}" in figures["printed"]
    machine = figures["machine"]
    assert machine["threads"] == 1 and machine["versions"]["torch"] == torch.__version__.split("+")[0]
    assert len(machine["load_average_before"]) == len(machine["load_average_after"]) == 3
    assert machine["flops_per_second"]["fp32"] > 1e8 and machine["type"] == "cpu" and machine["commit"]
    assert 0 < figures["ours"]["training_step"]["fraction_of_matrix_rate"] < 1.5
    assert 0 <= figures["loop"]["training_step"]["waiting_for_data_share"] < 1
    assert figures["peak_memory_bytes"] > 10**8 and len(figures["costliest_operations"]["ours"]) == 3
    assert figures["opening"]["100 x IRMAS"]["clips"] == 670_500
    assert "Stock decodes with" in figures["printed"] and "synthesised" in figures["printed"]


def test_the_stages_of_a_step_make_up_the_step(figures):
    for side, stages in (("ours", 6), ("stock", 4)):
        step = figures[side]["training_step"]
        assert len(step["stages_ms_per_clip"]) == stages
        assert 0.5 * step["ms_per_clip"] < sum(step["stages_ms_per_clip"].values()) <= 1.01 * step["ms_per_clip"]


def test_bars_are_as_long_as_the_rates_beside_them_say(figures):
    steps = measured_steps(figures)
    assert list(steps) == ["ours", "ours, half the tokens", "stock"]
    above, below = Figure().subplots(2, 1)
    draw_times(above, steps)
    draw_shares(below, steps)
    for axes in (above, below):
        ends = [max(bar.get_x() + bar.get_width() for bar in axes.patches if round(bar.get_y() + bar.get_height() / 2) == row)
                for row in range(3)]  # fmt: skip
        if axes is above:
            assert ends == pytest.approx([1000 / step["clips_per_second"] for step in steps.values()])
            assert [text.get_text() for text in axes.texts] == [
                f"  {step['clips_per_second']:.2f} clips/s" for step in steps.values()
            ]
        else:
            assert ends == pytest.approx([100, 100, 100])


def test_stages_and_the_rest_add_up_to_the_step():
    step = speed([1.0, 1.0, 4.0], 2) | {"stages_ms_per_clip": {"forward": 250.0, "backward": 500.0}}
    stages = stages_of_step(step)  # on average a step takes 1,000 ms per clip, and 500 ms in the median
    assert stages == pytest.approx({"forward": 125.0, "backward": 250.0, REST: 125.0})


def test_operations_are_counted_for_the_length_that_each_side_takes(figures):
    ours_, stock = figures["flops"]["ours"], figures["flops"]["stock"]
    assert 2.5 < ours_["training_step"] / ours_["forward"] <= 3.01
    assert 3 < stock["forward"] / ours_["forward"] < 9  # 1,024 frames against 298; ours skips half of the second layer


@pytest.mark.parametrize("is_bare", [False, True])
@pytest.mark.parametrize("name", ["hubert", "sew-d", "wav2vec2-bert", "wavlm"])
def test_operations_of_a_speech_model_that_masks_and_skips_are_counted(name, is_bare):
    model, extractor = tiny_speech(name, mask_time_prob=0.5, mask_time_length=2, layerdrop=0.1)
    if is_bare:
        model = EncoderForAudioClassification(EncoderConfig(encoder=model.config, mixed_layers=4, embedding_size=16))
    features = device_features(extractor)(torch.randn(1, round(SECONDS * extractor.sampling_rate)))
    flops = ours.flops_per_clip(model.train(), features)
    assert flops["training_step"] > 2 * flops["forward"] > 0


def test_counted_operations_are_those_of_the_definition():
    model = torch.nn.Linear(8, 4)
    model.config = type("Config", (), {"num_labels": 4})()
    model.set_attn_implementation = lambda name: None
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        model(torch.zeros(5, 8))
    assert counter.get_total_flops() == 2 * 5 * 8 * 4
    recipe, _ = tiny_recipe(["--model_config", json.dumps(TINY | {"num_hidden_layers": 1})])
    network, extractor = load_model(recipe.model, ["cel", "voi"], 3.0)
    features = device_features(extractor)(torch.zeros(1, 48000))
    tokens, patches, hidden, inner = 2 * 18 + 2, 2 * 18, 16, 32
    products = patches * 256 * hidden + 2 * tokens * hidden * hidden  # patches; keys and values of all tokens
    products += (
        2 * (2 * hidden * hidden + 2 * hidden * inner) + 2 * 2 * tokens * hidden + hidden * 2
    )  # two tokens; head
    assert ours.flops_per_clip(network, features)["forward"] == 2 * products


def tiny_recipe(options: list[str]):
    """Return the quickstart's recipe, narrow, as the benchmark would take it."""
    arguments, fields = parse_arguments(
        ["recipes/quickstart.yaml", "--use_cpu", "--feature_extractor_config", '{"num_mel_bins": 32}', *options]
    )
    return benchmark_recipe(arguments, fields, "scratch")


def test_stock_pads_every_clip_to_10_seconds_and_decodes_what_ours_decodes(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 132_299, 2))
    noise = scipy.signal.lfilter(
        [0.05], [1, -0.95], noise, axis=1
    )  # without the highest frequencies, where filters differ
    paths = [str(tmp_path / f"{number}.wav") for number in range(2)]
    for path, stereo in zip(paths, noise, strict=True):
        soundfile.write(path, stereo, 44_100)
    config = ASTConfig(**TINY, max_length=298, num_labels=11, problem_type="multi_label_classification")
    stock = Stock(config, ASTFeatureExtractor(num_mel_bins=32, max_length=298), CPU)
    inputs = stock.inputs(paths, np.eye(2, 11, dtype=np.float32))
    assert inputs["input_values"].shape == (2, STOCK_FRAMES, 32) and inputs["labels"].shape == (2, 11)
    assert config.max_length == 298, "ours must not be changed"
    ours_decoded = prepare(Dataset.from_dict({"path": paths}), 16000)["waveform"]
    for path, waveform in zip(paths, ours_decoded, strict=True):
        assert np.abs(stock.decode(path) - np.array(waveform) / 2**15).max() < 2e-3
    before = stock.model.classifier.dense.weight.detach().clone()
    stock.train(paths, np.eye(2, 11, dtype=np.float32))
    assert not torch.equal(stock.model.classifier.dense.weight, before)
    assert set(stock.stages.take()) == {"decoding and features", "forward", "backward", "optimizer"}


def test_every_round_of_first_use_decodes_all_clips_anew(tmp_path, monkeypatch):
    training = SimpleNamespace(device=CPU, per_device_train_batch_size=2)
    recipe = SimpleNamespace(training=training, data=SimpleNamespace(window_seconds=0.5))
    trainer = SimpleNamespace(processing_class=SimpleNamespace(sampling_rate=16_000))
    clips, _ = make_clips("synthetic", tmp_path, 3)
    decoded = []
    monkeypatch.setattr("irmas_dataset.audio.decode", lambda path: decoded.append(path) or decode(path))
    bench = Bench(recipe, clips, None, trainer, features=torch.clone, stock=None, repeats=4)
    speeds = measure_loading(bench)
    assert sorted(decoded) == sorted(bench.paths * 5)  # once to warm up
    assert {entry["ours"]["clips"] for entry in speeds.values()} == {3}


def test_a_race_takes_turns_and_waits_for_each():
    order = []
    contestants = {
        "slow": lambda: (order.append("slow"), time.sleep(0.02)),
        "quick": lambda: order.append("quick"),
    }
    seconds = Clock(CPU).race(contestants, 3, before=lambda: (order.append("before"), time.sleep(0.5)))
    assert order == ["before", "slow", "quick"] * 3
    assert 0.02 <= min(seconds["slow"]) < 0.5 and max(seconds["quick"]) < 0.02
    assert speed([1.0, 5.0, 2.0], 4) == {
        "clips_per_second": 2.0, "ms_per_clip": 500.0, "clips": 4, "seconds": [1.0, 5.0, 2.0],
    }  # fmt: skip


def test_watched_functions_are_added_up_by_name():
    stages = Stages(CPU)
    nap, other = stages.watch("nap", time.sleep), stages.watch("other", lambda value: value)
    nap(0.01), nap(0.01)
    assert other(3) == 3
    taken = stages.take()
    assert taken["nap"] >= 0.02 > taken["other"] and stages.take() == {}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell a peak that can be set back")
def test_the_memory_that_a_task_adds_is_what_it_touches():
    added = added_memory(CPU, lambda: np.ones(8_000_000))
    assert added is None or 60e6 < added < 90e6


def test_the_rate_of_large_products_is_plausible():
    rates = matrix_rates(CPU, repeats=1)
    assert set(rates) == {"fp32", "bf16"} and all(1e8 < rate < 1e14 for rate in rates.values())


def test_a_checkpoint_that_is_not_here_becomes_random_weights_of_its_shape(tmp_path):
    arguments, fields = parse_arguments(["recipes/ast/finetune.yaml", "--use_cpu", "--surely_none", "1"])
    with pytest.raises(UserError, match="surely_none"):
        benchmark_recipe(arguments, fields, str(tmp_path))
    arguments, fields = parse_arguments(
        ["recipes/ast/finetune.yaml", "--use_cpu", "--model_name_or_path", "nobody/has-this"]
    )
    recipe, notes = benchmark_recipe(arguments, fields, str(tmp_path))
    assert recipe.model.model_name_or_path is None and recipe.model.architecture == "ast"
    assert "nobody/has-this" in notes[0] and "not on this machine" in notes[0]
    assert recipe.training.per_device_train_batch_size == CPU_BATCH
    with pytest.raises(UserError, match="--processes"):
        parse_arguments(["recipes/quickstart.yaml", "--processes", "1"])
    with pytest.raises(UserError, match="--clips"):
        parse_arguments(["recipes/quickstart.yaml", "--clips", "3"])


def test_a_hundred_times_the_clips_need_no_more_memory(tmp_path):
    """Repetition stands for size: the rows are many, the memory-mapped table behind them is the same."""
    features = Features({"instruments": List(ClassLabel(names=["cel", "voi"])), "waveform": List(Value("int16"))})
    rows = {"instruments": [[i % 2] for i in range(24)], "waveform": [[i] * 48000 for i in range(24)]}
    Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "prepared")
    prepared = Dataset.load_from_disk(tmp_path / "prepared")
    sizes = {
        "one": prepared,
        "by indices": prepared.select(np.resize(np.arange(24), 2400)),
        "by tables": concatenate_datasets([prepared] * 100),
    }
    for name, dataset in sizes.items():
        tracemalloc.start()
        start = time.perf_counter()
        clips = TrainingClips(dataset, 48000)
        batch = collate([clips[len(clips) - 1 - i] for i in range(8)])
        seconds, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(clips) == len(dataset) and batch["waveforms"][:, 0].tolist() == list(range(23, 15, -1)), name
        assert peak < 4e6 and seconds < 1, (name, peak, seconds)  # 2,400 clips of 48,000 samples are 230 MB


@pytest.mark.slow
def test_two_processes_train_on_one_prepared_table(recipe_file, tmp_path):
    output = tmp_path / "figures.json"
    benchmark.main([str(recipe_file), "--clips", "33", "--repeats", "1", "--processes", "2", "--output", str(output)])
    processes = json.loads(output.read_text())["processes"]
    assert set(processes) == {"1", "2"} and len(processes["2"]["memory_bytes_each"]) == 2
    assert all(entry["clips_per_second"] > 0 for entry in processes.values())
    assert max(processes["2"]["memory_bytes_each"]) < 1.2 * processes["1"]["memory_bytes_each"][0]


def test_ours_and_stock_are_trained_for_as_many_epochs_and_compared(tmp_path):
    argv = ["recipes/quickstart.yaml", "--against", "stock", "--epochs", "1", "--data_dir", "synthetic", "--use_cpu", "true",
            "--synthetic_train", "66", "--synthetic_test", "12", "--model_config", json.dumps(TINY), "--bf16", "false",
            "--feature_extractor_config", '{"num_mel_bins": 32}', "--bootstrap_resamples", "20"]  # fmt: skip
    arguments, fields = parse_arguments(argv)
    accuracy = compare_accuracy(accuracy_recipe(arguments, fields, str(tmp_path)), arguments.epochs)
    difference = accuracy["ours"]["lrap"] - accuracy["stock"]["lrap"]
    assert accuracy["difference"]["lrap"]["difference"] == pytest.approx(difference)
    assert "after 1 epochs, ours: LRAP" in in_words(accuracy)


def test_accuracy_is_compared_from_scratch_and_with_stock_only(tmp_path):
    with pytest.raises(UserError, match="--against stock"):
        parse_arguments(["recipes/quickstart.yaml", "--epochs", "2"])
    arguments, fields = parse_arguments(["recipes/ast/finetune.yaml", "--against", "stock", "--epochs", "2"])
    with pytest.raises(UserError, match="from scratch"):
        accuracy_recipe(arguments, fields, str(tmp_path))


def test_stock_is_compared_with_ast_only_and_that_is_checked_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "cnn").mkdir()
    (tmp_path / "cnn" / "config.json").write_text('{"model_type": "irmas_cnn"}')
    monkeypatch.setattr(measurements, "take_all", lambda *arguments: pytest.fail("work was done"))
    for recipe in (["recipes/mfcc/subnetworks.yaml"], ["recipes/ast/finetune.yaml", "--model_name_or_path", str(tmp_path / "cnn")],
                   ["recipes/passt/finetune.yaml"]):  # fmt: skip
        with pytest.raises(UserError, match=r"--against stock compares AST.*name a recipe of ast/"):
            benchmark.main([*recipe, "--against", "stock", "--use_cpu"])


def test_other_systems_are_refused_and_streams_are_not_read(tmp_path):
    with pytest.raises(UserError, match=r"svm is of another system \(classical\), and benchmark measures networks"):
        benchmark.main(["classical/svm"])
    arguments, fields = parse_arguments(
        ["recipes/quickstart.yaml", "--use_cpu", "--streaming", "true", "--data_dir", str(tmp_path)]
    )
    recipe, _ = benchmark_recipe(arguments, fields, str(tmp_path))
    assert not recipe.data.streaming, "the clips are made or copied"


def test_a_picture_of_an_unknown_kind_is_refused_before_any_work():
    with pytest.raises(UserError, match=r"x\.txt does not end with \.png"):
        parse_arguments(["recipes/quickstart.yaml", "--figure", "x.txt"])
    with pytest.raises(UserError, match=r"--output x\.png would hold JSON"):
        parse_arguments(["recipes/quickstart.yaml", "--output", "x.png"])


def test_a_data_folder_that_is_not_there_is_refused_at_once():
    with pytest.raises(UserError, match="--data_dir nowhere does not exist"):
        parse_arguments(["recipes/quickstart.yaml", "--data_dir", "nowhere"])
