"""`evaluate` gives a finished run's own figures again."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

import run_irmas
from irmas_dataset.download import ARCHIVES
from irmas_dataset.errors import UserError
from irmas_dataset.labels import INSTRUMENT_NAMES
from irmas_recipe.commands.evaluate.arguments import parse_arguments
from irmas_recipe.commands.evaluate.measurement import evaluation_recipe
from irmas_recipe.commands.system import load_system
from irmas_recipe.training.training_arguments import IrmasTrainingArguments
from tests.irmas_dataset.folders import write_audio
from tests.test_run import ROOT, TINY


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of two steps."""
    folder = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
        (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
        run_irmas.main(["tiny.yaml"])
        yield folder


def test_the_figures_are_the_runs_own(finished, capsys):
    run_irmas.main(["evaluate", "runs/tiny", "--output_dir", "again"])
    first, again = (json.loads((finished / f"{name}/results.json").read_text()) for name in ("runs/tiny", "again"))
    assert first["dataset"]["synthetic"] and again["dataset"]["synthetic"]
    for regime in ("fixed", "oracle"):
        assert again["test"][regime] == first["test"][regime]
    assert again["test"]["lrap"] == first["test"]["lrap"] and again["trivial"] == first["trivial"]
    for figure in ("micro_f1", "macro_f1", "samples_f1", "exact_match", "hamming", "ci95"):
        assert again["test"]["tuned"][figure] == first["test"]["tuned"][figure]
    scores = [pd.read_parquet(finished / f"{name}/predictions.parquet") for name in ("runs/tiny", "again")]
    pd.testing.assert_frame_equal(*scores, check_exact=True)
    assert (finished / "again/figures/per_class_f1.png").is_file()
    assert "tuned thresholds" in capsys.readouterr().out


def test_what_the_training_started_from_and_its_gpu_do_not_matter(finished):
    recipe = finished / "runs/tiny/recipe.yaml"
    before = recipe.read_text()
    try:
        start = {"backbone_name_or_path": "nobody/swin", "freeze": "known_labels", "soup": ["runs/moved"]}
        start |= {"head_initialization": "text", "fp16": True, "tf32": True, "cuda_graph": True}
        recipe.write_text(yaml.safe_dump(yaml.safe_load(before) | start))
        run_irmas.main(["evaluate", "runs/tiny", "--output_dir", "again"])
    finally:
        recipe.write_text(before)
    first, again = (json.loads((finished / f"{name}/results.json").read_text()) for name in ("runs/tiny", "again"))
    assert again["test"]["lrap"] == first["test"]["lrap"]


def test_a_runs_recipe_neither_allows_its_own_code_nor_names_its_revision(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    stranger = shutil.copytree("runs/tiny", tmp_path / "stranger")
    recipe = yaml.safe_load((stranger / "recipe.yaml").read_text()) | {
        "trust_remote_code": True,
        "model_revision": "v1",
    }
    (stranger / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    config = json.loads((stranger / "config.json").read_text())
    config |= {"model_type": "unheard_of", "auto_map": {"AutoConfig": "theirs.Config"}}
    (stranger / "config.json").write_text(json.dumps(config))
    (stranger / "theirs.py").write_text(f"open({str(tmp_path / 'was run')!r}, 'w')\n")
    with pytest.raises(UserError, match="comes with its own code: read it, then add --trust_remote_code"):
        run_irmas.main(["evaluate", str(stranger)])
    assert not (tmp_path / "was run").exists()
    recipe, _ = evaluation_recipe(parse_arguments([str(stranger), "--trust_remote_code"]), str(tmp_path))
    assert recipe.model.trust_remote_code and recipe.model.model_revision == "main"


def test_what_is_no_run_is_refused(finished, tmp_path):
    with pytest.raises(UserError, match="no folder"):
        run_irmas.main(["evaluate", "runs/absent"])
    with pytest.raises(UserError, match=r"config\.json"):
        run_irmas.main(["evaluate", str(tmp_path)])


def test_a_runs_own_results_are_not_written_over(finished):
    before = (finished / "runs/tiny/results.json").read_bytes()
    with pytest.raises(UserError, match="contains a run, which"):
        run_irmas.main(["evaluate", "runs/tiny", "--output_dir", "runs/tiny"])
    assert (finished / "runs/tiny/results.json").read_bytes() == before


def test_what_it_wrote_can_be_compared(finished, capsys):
    run_irmas.main(["evaluate", "runs/tiny", "--output_dir", "measured"])
    run_irmas.main(["compare", "runs/tiny", "measured", "--output_dir", "table"])
    assert "measured - tiny" in capsys.readouterr().out


def test_the_model_of_what_it_wrote_is_found_from_anywhere(finished, tmp_path, monkeypatch):
    run_irmas.main(["evaluate", "runs/tiny", "--output_dir", "from_anywhere"])
    (tmp_path / "runs/tiny").mkdir(parents=True)  # another one's
    monkeypatch.chdir(tmp_path)
    Path("linked").symlink_to(finished / "from_anywhere")
    for folder in (os.path.relpath(finished / "from_anywhere"), "linked"):
        assert load_system(folder, device="cpu").labels == list(INSTRUMENT_NAMES.values())


@pytest.fixture(scope="module")
def of_three_classes(finished):
    """The run of a folder of one's own with three classes, and a folder with its test clips alone."""
    for number in range(36):
        split = "test" if number % 4 == 0 else "train"
        path = f"three/{split}/{['kora', 'ney', 'oud'][number % 3]}/{number}.wav"
        write_audio(finished / path, number, seconds=3.0, sampling_rate=16_000)
    shutil.copytree(finished / "three/test", finished / "alone/test")
    recipe = {name: value for name, value in TINY.items() if not name.startswith("synthetic")}
    (finished / "three.yaml").write_text(yaml.safe_dump(recipe | {"data_dir": "three"}))
    run_irmas.main(["three.yaml"])
    return finished


def test_a_folder_with_test_clips_alone_gives_the_same_scores(of_three_classes):
    run_irmas.main(["evaluate", "runs/three", "--data_dir", "alone", "--output_dir", "of_alone"])
    scores = [pd.read_parquet(of_three_classes / name / "predictions.parquet") for name in ("runs/three", "of_alone")]
    pd.testing.assert_frame_equal(*scores, check_exact=True)


def test_the_corrections_and_limits_of_a_run_are_not_for_other_data(of_three_classes):
    recipe, clip = of_three_classes / "runs/three/recipe.yaml", "test/kora/0.wav"
    before = recipe.read_text()
    (of_three_classes / "corrections.csv").write_text(f"path,instruments,drop\n{clip},,yes\n")
    try:
        recipe.write_text(before + "corrections: corrections.csv\nmax_test_clips: 5\nrecording_pattern: .*\n")
        run_irmas.main(["evaluate", "runs/three", "--data_dir", "alone", "--output_dir", "all_of_alone"])
        own, _ = evaluation_recipe(parse_arguments(["runs/three"]), "scratch")
        named, _ = evaluation_recipe(
            parse_arguments(["runs/three", "--data_dir", "alone", "--recording_pattern", "[0-9]+"]), "scratch"
        )
    finally:
        recipe.write_text(before)
    heard = pd.read_parquet("all_of_alone/predictions.parquet")
    assert clip in set(heard["clip"]) and len(heard) == heard["song"].nunique() == 9
    assert (own.data.corrections, own.data.max_test_clips, own.data.recording_pattern) == ("corrections.csv", 5, ".*")
    assert named.data.recording_pattern == "[0-9]+"


def test_a_folder_with_some_of_the_models_classes_is_measured_on_those(of_three_classes):
    shutil.copytree("alone/test/oud", "two/test/oud")
    shutil.copytree("alone/test/kora", "two/test/kora")
    run_irmas.main(["evaluate", "runs/three", "--data_dir", "two", "--output_dir", "of_two"])
    whole, part = (
        pd.read_parquet(f"{name}/predictions.parquet").set_index("clip") for name in ("runs/three", "of_two")
    )
    assert list(part.columns) == ["song", "instruments", "kora", "oud"]
    pd.testing.assert_frame_equal(part[["kora", "oud"]], whole.loc[part.index, ["kora", "oud"]], atol=1e-6)
    thresholds = [json.loads(Path(name, "results.json").read_text())["test"]["tuned"]["per_class"] for name in ("runs/three", "of_two")]  # fmt: skip
    assert thresholds[1]["oud"]["threshold"] == thresholds[0]["oud"]["threshold"]


@pytest.mark.parametrize("thresholds_from", ["validation", "test_half"])
def test_clips_that_were_trained_on_are_no_test(of_three_classes, thresholds_from):
    """Recordings that join a folder without test/ move others, trained on before, into the part that is held out."""
    data, run = f"growing {thresholds_from}", f"runs/growing {thresholds_from}"
    for number in range(36):
        write_audio(Path(data, ["kora", "oud"][number % 2], f"{number}.wav"), number, seconds=3.0, sampling_rate=16_000)
    run_irmas.main(["three.yaml", "--data_dir", data, "--output_dir", run, "--thresholds_from", thresholds_from])
    on = [
        "three.yaml",
        "--data_dir",
        data,
        "--output_dir",
        f"{run} on",
        "--model_name_or_path",
        run,
        "--max_steps",
        "1",
    ]
    for spelt in ([], ["--data_dir", f"{data}/"]):
        run_irmas.main(["evaluate", run, *spelt, "--output_dir", f"of {data}"])
    for number in range(4):
        write_audio(Path(data, "ney", f"{number}.wav"), 90 + number, seconds=3.0, sampling_rate=16_000)
    run_irmas.main(on)  # nothing of a new class was trained on
    shutil.rmtree(Path(data, "ney"))
    for number in range(36, 90):
        write_audio(Path(data, ["kora", "oud"][number % 2], f"{number}.wav"), number, seconds=3.0, sampling_rate=16_000)
    for spelt in ([], ["--data_dir", f"{data}/"]):
        with pytest.raises(UserError, match=f"{data}.* has other clips, .* may have been trained on, such as .*wav"):
            run_irmas.main(["evaluate", run, *spelt])
    with pytest.raises(UserError, match=f"than when {run} was trained: .* may have been trained on"):
        run_irmas.main([*on, "--output_dir", "runs/never"])
    with pytest.raises(UserError, match=f"than when {run} was trained: .* may have been trained on"):
        checkpoint = min(map(str, Path(run).glob("checkpoint-*")))
        run_irmas.main([*on, "--output_dir", "runs/never", "--model_name_or_path", checkpoint])
    shutil.copytree(data, f"other {data}")
    run_irmas.main(["evaluate", run, "--data_dir", f"other {data}"])


def test_music_with_songs_named_like_the_tuned_ones_is_no_half_of_the_runs_own(of_three_classes, caplog):
    run_irmas.main(["three.yaml", "--thresholds_from", "test_half", "--output_dir", "runs/half"])
    tuned = pd.read_parquet("runs/half/validation_predictions.parquet")["clip"]
    shutil.copytree("alone", "alike")
    for clip in tuned[1:]:  # one name is in both
        Path("alike", clip).unlink()
    for data, thresholds in (("alone", "the other half of the test set"), ("alike", "half of another test set")):
        caplog.clear()
        run_irmas.main(["evaluate", "runs/half", "--data_dir", data, "--output_dir", f"half of {data}"])
        results = json.loads(Path(f"half of {data}/results.json").read_text())
        assert results["protocol"]["thresholds_from"].startswith(thresholds)
        said = f"1 of {10 - len(tuned)} test clips of alike are left out" in caplog.text
        assert said == (data == "alike") and results["dataset"]["clips"]["test"] == 9 - len(tuned)


def test_music_that_joined_the_training_set_is_no_test(of_three_classes):
    for number in range(24):
        folder = ["plucked", "joined"][number // 12]
        write_audio(
            Path(folder, ["kora", "oud"][number % 2], f"{number}.wav"), number, seconds=3.0, sampling_rate=16_000
        )
    first = ["three.yaml", "--data_dir", "plucked", "--extra_train_dir", "joined", "--output_dir", "runs/with more"]
    run_irmas.main([*first, "--max_steps", "1"])
    with pytest.raises(
        UserError, match="joined/ was the --extra_train_dir of runs/with more, which was trained on all"
    ):
        run_irmas.main(["evaluate", "runs/with more", "--data_dir", "joined/"])
    between = ["three.yaml", "--data_dir", "plucked", "--max_steps", "1", "--output_dir", "runs/between"]
    run_irmas.main([*between, "--model_name_or_path", "runs/with more"])
    for start in ("runs/with more", "runs/between"):
        with pytest.raises(UserError, match="joined was the --extra_train_dir of runs/with more, which was trained on"):
            never = ["three.yaml", "--data_dir", "joined", "--output_dir", "runs/never"]
            run_irmas.main([*never, "--model_name_or_path", start])


@pytest.mark.parametrize(
    ("left", "sentence"),
    [
        ([], "`irmas download --data_dir data/irmas` fetches"),
        ([ARCHIVES[1].part_name], "irmas has no IRMAS-TrainingData"),
    ],
)
def test_nothing_is_downloaded_to_be_measured(of_three_classes, tmp_path, monkeypatch, left, sentence):
    """A run on IRMAS is evaluated from another folder, in which there is no IRMAS, or some of a download.

    A training would begin to download it, or say that this machine is offline.
    """
    shutil.copytree("runs/three", tmp_path / "three")
    recipe = tmp_path / "three/recipe.yaml"
    recipe.write_text(re.sub("data_dir: .*", "data_dir: data/irmas", recipe.read_text()))
    monkeypatch.chdir(tmp_path)
    for name in left:
        (tmp_path / "data/irmas").mkdir(parents=True)
        (tmp_path / "data/irmas" / name).touch()
    with pytest.raises(UserError, match=sentence):
        run_irmas.main(["evaluate", "three"])


def test_several_processes_print_one_table(finished):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launcher, str(ROOT / "run_irmas.py"), "evaluate", "runs/tiny"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300
    )
    assert done.returncode == 0 and done.stdout.count("tuned thresholds") == 1, done.stderr[-2000:]


def test_a_batch_that_training_divided_is_not_divided_again(finished, monkeypatch):
    recipe = finished / "runs/tiny/recipe.yaml"
    before = recipe.read_text()
    monkeypatch.setattr(IrmasTrainingArguments, "world_size", 3)
    try:
        recipe.write_text(before.replace("per_device_train_batch_size: 4", "global_train_batch_size: 4"))
        parsed, _ = evaluation_recipe(parse_arguments(["runs/tiny"]), "scratch")
    finally:
        recipe.write_text(before)
    assert parsed.training.global_train_batch_size is None


def test_the_windows_at_a_time_are_this_devices_and_not_the_runs(finished):
    recipe = finished / "runs/tiny/recipe.yaml"
    before = recipe.read_text()
    try:
        recipe.write_text(before + "per_device_eval_batch_size: 64\n")
        sizes = [
            evaluation_recipe(parse_arguments(["runs/tiny", *given]), "scratch")[0].training.eval_batch_size
            for given in ([], ["--batch_size", "5"])
        ]
    finally:
        recipe.write_text(before)
    assert sizes == [8, 5]
