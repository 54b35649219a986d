"""The main job as a user starts it: real subprocesses, two training steps, and a stranger who loads the result."""

import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pandas as pd
import pytest
import yaml
from safetensors.torch import load_file
from transformers import ASTForAudioClassification

import run_irmas
from irmas_dataset.errors import UserError
from irmas_dataset.labels import INSTRUMENT_NAMES

ROOT = Path(__file__).parents[1]

TINY = {
    "data_dir": "synthetic", "synthetic_train": 44, "synthetic_test": 12, "architecture": "ast", "window_seconds": 3.0,
    "model_config": {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
        "frequency_stride": 16, "time_stride": 16,
    },
    "max_steps": 2, "per_device_train_batch_size": 4, "mix_probability": 0.5, "time_masks": 1, "max_time_mask_frames": 20,
    "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "bootstrap_resamples": 50, "logging_steps": 1,
    "use_cpu": True,
}  # fmt: skip


def start(command: list[str], folder: Path, **environment) -> subprocess.CompletedProcess:
    """Run a command in `folder`, with its caches there too; return what it said."""
    settings = {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "HF_DATASETS_CACHE": str(folder / "cache"),
        **environment,
    }
    return subprocess.run(command, cwd=folder, env=os.environ | settings, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with a recipe."""
    path = tmp_path_factory.mktemp("run")
    (path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return path


@pytest.fixture(scope="module")
def finished(folder):
    """The folder after `python run_irmas.py tiny.yaml`, and what that printed."""
    done = start([sys.executable, str(ROOT / "run_irmas.py"), "tiny.yaml"], folder)
    assert done.returncode == 0, done.stderr
    return folder / "runs/tiny", done.stdout


def test_the_run_folder_holds_what_the_design_promises(finished):
    run, _ = finished
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "config.json", "model.safetensors", "preprocessor_config.json", "recipe.yaml", "predictions.parquet",
        "validation_predictions.parquet", "validation_moments.parquet", "results.json", "figures", "README.md", "trainer_state.json", "instrument_recognition.py",
        "audio_blocks.py", "separation.py", "windows.py",
    }  # fmt: skip
    assert "training_args.bin" not in names, "no pickle in what goes to the Hub"
    mask = os.umask(0)
    os.umask(mask)
    closed = [path for path in run.rglob("*.safetensors") if path.stat().st_mode & 0o777 != 0o666 & ~mask]
    assert not closed, "others may read the weights"
    assert len(list((run / "figures").glob("*.png"))) >= 4


def test_the_results_say_what_they_depend_on_and_the_card_repeats_them(finished):
    run, _ = finished
    results = json.loads((run / "results.json").read_text())
    assert results["recipe"]["synthetic_train"] == 44 and results["seed"] == 42
    assert results["versions"]["transformers"] and results["train"]["parameters"] > 1000
    assert results["dataset"]["clips"]["test"] == 12 and results["dataset"]["synthetic"]
    for regime in ("fixed", "tuned", "oracle"):
        assert 0 <= results["test"][regime]["micro_f1"] <= 1 and len(results["test"][regime]["per_class"]) == 11
    assert f"{results['test']['tuned']['micro_f1']:.3f}".lstrip("0") in (run / "README.md").read_text()


def test_predictions_name_each_test_clip(finished):
    run, _ = finished
    frame = pd.read_parquet(run / "predictions.parquet")
    results = json.loads((run / "results.json").read_text())
    assert list(frame.columns) == ["clip", "song", "instruments", *results["dataset"]["classes"]]
    assert len(frame) == 12 and frame["clip"].str.startswith("IRMAS-TestingData-Part").all()
    assert frame[results["dataset"]["classes"]].apply(lambda scores: scores.between(0, 1)).all(axis=None)


def test_the_configuration_remembers_the_protocol(finished):
    run, _ = finished
    config = json.loads((run / "config.json").read_text())
    assert (config["window_seconds"], config["hop_seconds"], config["aggregation"]) == (3.0, 1.5, "mean")
    thresholds = json.loads((run / "results.json").read_text())["test"]["tuned"]["per_class"].values()
    assert config["thresholds"] == pytest.approx([entry["threshold"] for entry in thresholds], abs=1e-5)
    assert config["id2label"]["0"] == "cello" and config["problem_type"] == "multi_label_classification"


def test_the_last_lines_can_be_pasted(finished, folder):
    """The printed command works as it stands, and names an instrument."""
    _, printed = finished
    assert "micro-F1" in printed and "constant answer" in printed and "runs/tiny" in printed
    line = next(line for line in printed.splitlines() if " predict " in line)
    done = subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True, timeout=120,
                          env=os.environ | {"HF_HUB_OFFLINE": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert any(name in done.stdout for name in INSTRUMENT_NAMES.values()), done.stdout


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "wrong",
    [["--data_dir", "irmsa"], ["--model_name_or_path", "nowhere"], ["--window_seconds", "30"], ["--seed", "-1"]],
    ids=" ".join,
)
def test_a_start_that_fails_leaves_a_finished_run_as_it_is_and_no_new_folder(finished, folder, monkeypatch, wrong):
    monkeypatch.chdir(folder)
    before = content(folder)
    for more in (["--overwrite_output_dir", "true"], ["--output_dir", "runs/new"]):
        with pytest.raises(UserError):
            run_irmas.main(["tiny.yaml", *wrong, *more])
    assert content(folder) == before and not (folder / "runs/new").exists()


def test_the_same_finished_recipe_prints_its_results_and_does_nothing(finished, folder, monkeypatch, capsys):
    _, printed = finished
    monkeypatch.chdir(folder)
    before = content(folder)
    for spelt in ([], ["--output_dir", "./runs/tiny/"]):  # with the / that a shell completes it with
        run_irmas.main(["tiny.yaml", *spelt])
        again = capsys.readouterr().out
        table = again[: again.index("The run folder is")]
        assert "micro-F1" in table and table in printed and "finished before" in again
    assert content(folder) == before


def test_a_replacement_that_is_stopped_costs_nothing_and_is_resumed(finished, folder):
    run = folder / "runs/kept"
    shutil.copytree(finished[0], run)
    command = [sys.executable, str(ROOT / "run_irmas.py"), "tiny.yaml", "--output_dir", "runs/kept", "--max_steps", "4"]
    refused = start(command, folder)
    assert refused.returncode == 2 and "add --overwrite_output_dir true" in refused.stderr
    before = content(run)
    command += ["--overwrite_output_dir", "true"]
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "HF_DATASETS_CACHE": str(folder / "cache"),
    }
    stopped = subprocess.Popen(
        command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    while not list(run.glob(".replacement/checkpoint-*/trainer_state.json")):
        assert stopped.poll() is None, stopped.stderr.read()
        time.sleep(0.01)
    stopped.send_signal(signal.SIGINT)
    assert stopped.wait(timeout=60) != 0
    stopped.stderr.close()
    assert before.items() <= content(run).items()
    again = start(command, folder)
    assert again.returncode == 0 and "Resuming from" in again.stderr, again.stderr
    assert json.loads((run / "trainer_state.json").read_text())["global_step"] == 4
    assert not (run / ".replacement").exists() and "runs/kept" in (run / "README.md").read_text()
    (run / "README.md").unlink()  # stopped between its move and its card
    figures = json.loads((run / "results.json").read_text())["test"]
    again = start(command, folder)
    assert again.returncode == 0, again.stderr
    assert (run / "README.md").is_file() and json.loads((run / "results.json").read_text())["test"] == figures


def test_an_interrupted_run_resumes(finished, folder):
    run, _ = finished
    before = json.loads((run / "results.json").read_text())
    (run / "README.md").unlink()  # the card is the last that a run writes
    behind = run / "checkpoint-2/origin.json"
    made_from = json.loads(behind.read_text())
    assert 0 < made_from["seconds"] <= before["train"]["seconds"] and made_from["validation_seconds"] > 0
    behind.write_text(json.dumps(made_from | {"seconds": 7200.0, "validation_seconds": 60.0}))
    again = start([sys.executable, str(ROOT / "run_irmas.py"), "tiny.yaml"], folder)
    assert again.returncode == 0 and "Resuming from" in again.stderr
    after = json.loads((run / "results.json").read_text())
    assert after["test"] == before["test"] and after["train"]["resumed"]
    assert 7200 < after["train"]["seconds"] < 7500 and after["train"]["validation_seconds"] == 60
    assert "That is 2 device-hours" in (run / "README.md").read_text(), "before and after the interruption"
    assert {path.name for path in run.glob("checkpoint-*")} == {"checkpoint-1", "checkpoint-2"}, (
        "no step was taken twice"
    )


def test_another_recipe_does_not_touch_an_unfinished_run(finished, folder):
    run, _ = finished
    card, checkpoints = (run / "README.md").read_text(), sorted(run.glob("checkpoint-*/*"))
    (run / "README.md").unlink()
    refused = start([sys.executable, str(ROOT / "run_irmas.py"), "tiny.yaml", "--seed", "7"], folder)
    (run / "README.md").write_text(card)
    assert refused.returncode == 2 and "--output_dir" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert checkpoints and sorted(run.glob("checkpoint-*/*")) == checkpoints


def test_two_processes_score_with_one_set_of_batch_statistics(folder, monkeypatch):
    """What was scored in two processes is scored the same by the saved model in one."""
    small = {
        "architecture": "cnn",
        "model_config": {"filters": [4, 4, 8, 8], "hidden_size": 16},
        "load_best_model_at_end": False,
    }
    (folder / "norms.yaml").write_text(yaml.safe_dump(TINY | small))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(ROOT / "run_irmas.py")]
    done = start([sys.executable, *command, "norms.yaml", "--max_steps", "4", "--learning_rate", "0.01"], folder)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(folder)
    run_irmas.main(["evaluate", "runs/norms", "--output_dir", "norms_again"])
    two, one = (
        pd.read_parquet(f"{name}/predictions.parquet").set_index("clip") for name in ("runs/norms", "norms_again")
    )
    labels = list(two.columns[2:])
    assert (two[labels] - one.loc[two.index, labels]).abs().to_numpy().max() < 1e-4


def test_two_processes_make_one_run(folder, finished):
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(ROOT / "run_irmas.py")]
    done = start([sys.executable, *command, "tiny.yaml", "--output_dir", "runs/two"], folder)
    assert done.returncode == 0, done.stderr
    results = json.loads((folder / "runs/two/results.json").read_text())
    assert results["train"]["processes"] == 2
    assert len(pd.read_parquet(folder / "runs/two/predictions.parquet")) == 12
    assert done.stdout.count("The run folder is") == 1


def test_a_recipe_means_the_same_in_one_process_and_in_two(folder, monkeypatch):
    """The same clips in each step, the same rates and the same average, so the same weights."""
    quiet = {
        name: value for name, value in TINY.items() if not name.startswith(("mix", "time_m", "max_time", "per_device"))
    }
    same = {
        "global_train_batch_size": 8,
        "weight_averaging": "ema",
        "averaging_decay": 0.9,
        "max_steps": 4,
        "bf16": False,
    }
    (folder / "same.yaml").write_text(yaml.safe_dump(quiet | same))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(ROOT / "run_irmas.py")]
    done = start([sys.executable, *command, "same.yaml", "--output_dir", "runs/in_two"], folder)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(folder)
    run_irmas.main(["same.yaml", "--output_dir", "runs/in_one"])
    one, two = (load_file(f"runs/{name}/model.safetensors") for name in ("in_one", "in_two"))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-5
    states = [json.loads(Path(f"runs/{name}/trainer_state.json").read_text()) for name in ("in_one", "in_two")]
    rates = [[entry["learning_rate"] for entry in state["log_history"] if "loss" in entry] for state in states]
    assert rates[0] == rates[1] and states[0]["epoch"] == states[1]["epoch"]


def test_a_run_of_two_processes_is_not_resumed_by_one(folder, finished, monkeypatch):
    run = folder / "runs/two"
    card = (run / "README.md").read_text()
    (run / "README.md").unlink()
    before = content(run)
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match="processes 2 then, 1 now; clips per step 8 then, 4 now"):
        run_irmas.main(["tiny.yaml", "--output_dir", "runs/two"])
    assert content(run) == before
    (run / "README.md").write_text(card)


def test_a_checkpoint_of_another_optimizer_is_not_resumed(folder, finished, monkeypatch):
    """Its saved state would win over the recipe, or fail."""
    monkeypatch.chdir(folder)
    resume = ["tiny.yaml", "--output_dir", "runs/other", "--resume_from_checkpoint", str(finished[0] / "checkpoint-1")]
    for field, value in {"learning_rate": "0.5", "one_cycle": "true"}.items():
        with pytest.raises(
            UserError, match=rf"--{field} \S+ then, .* now.*--model_name_or_path .*checkpoint-1 starts from"
        ):
            run_irmas.main([*resume, f"--{field}", value])
    with pytest.raises(UserError, match="with other layers frozen"):
        run_irmas.main([*resume, "--model_name_or_path", str(finished[0]), "--freeze", "backbone"])


def test_machines_that_share_no_folder_are_told_at_the_start(folder, finished, tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
    launcher += ["--master_addr", "127.0.0.1", "--master_port", port]
    command = [str(ROOT / "run_irmas.py"), "tiny.yaml", "--output_dir", "runs/apart"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    nodes = [
        subprocess.Popen([*launcher, "--node_rank", str(rank), *command], cwd=where, env=environment,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank, where in enumerate((folder, tmp_path))
    ]  # fmt: skip
    said = [node.communicate(timeout=120)[1] for node in nodes]
    assert all(node.returncode for node in nodes)
    assert sum("--output_dir runs/apart is not the same folder on every machine" in words for words in said) == 1
    assert not (folder / "runs/apart").exists() and not (tmp_path / "data").exists()
    assert not list((folder / "runs").glob(".irmas-*")), "nothing is left of the check"


def test_accelerate_launch_runs_it(folder, finished):
    configuration = str(ROOT / "recipes/accelerate/cpu.yaml")
    command = [
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        configuration,
        str(ROOT / "run_irmas.py"),
        "tiny.yaml",
    ]
    done = start([sys.executable, *command, "--output_dir", "runs/accelerate"], folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "runs/accelerate/README.md").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent.yaml"], ["absent.yaml"]),
        (["tiny.yaml", "--data_dir", "nowhere", "--max_stps", "1"], ["max_stps", "max_steps"]),
        (["tiny.yaml", "--architecture", "wavenet", "--output_dir", "runs/new"], ["wavenet"]),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(folder, arguments, words):
    done = start([sys.executable, str(ROOT / "run_irmas.py"), *arguments], folder)
    assert done.returncode == 2
    assert all(word in done.stderr for word in words) and "Traceback" not in done.stderr


def test_at_most_three_files_of_ours_lie_between_the_program_and_a_models_forward(finished, folder, monkeypatch):
    forward, ways = ASTForAudioClassification.forward, []

    @functools.wraps(forward)  # the Trainer reads its arguments
    def watched(model, *args, **kwargs):
        files = [Path(frame.filename) for frame in traceback.extract_stack()]
        files = [
            str(file.relative_to(ROOT)) for file in files if file.is_relative_to(ROOT) and ".venv" not in file.parts
        ]
        ways.append(list(dict.fromkeys(file for file in files if not file.startswith("tests"))))
        return forward(model, *args, **kwargs)

    monkeypatch.chdir(folder)
    monkeypatch.setattr(ASTForAudioClassification, "forward", watched)
    run_irmas.main(["tiny.yaml", "--output_dir", "runs/watched"])
    training = ["run_irmas.py", "irmas_recipe/training/train.py", "irmas_recipe/training/trainer.py"]
    assert training in ways and max(map(len, ways)) <= 3
    ways.clear()
    run_irmas.main(["predict", "runs/tiny", str(next(Path("data").rglob("*.wav")))])
    pipeline = "irmas_recipe/models/pipeline/instrument_recognition.py"
    assert ways and all(way == ["run_irmas.py", "irmas_recipe/commands/predict/main.py", pipeline] for way in ways)
