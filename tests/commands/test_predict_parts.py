"""`predict --parts`: any number of files, in shards and parts, by several decoding processes, killed and resumed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as parquet
import pytest
import soundfile
import torch
from datasets import load_dataset

from irmas_dataset.errors import UserError
from irmas_recipe.commands.predict import main as predict
from irmas_recipe.commands.predict.arguments import parse_arguments
from irmas_recipe.commands.predict.lists import every_name, share_of
from irmas_recipe.models.pipeline.attach import attach_pipeline
from irmas_recipe.models.pipeline.decoding_processes import windows_by_processes
from tests.tiny import build

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> str:
    return saved("mobilenet", tmp_path_factory.mktemp("runs") / "tiny")


def saved(architecture: str, folder: Path) -> str:
    """Save a small model that hears 1 s windows as a run saves its own; return the folder."""
    model, extractor = build(architecture)
    model.config.update({"window_seconds": 1.0, "hop_seconds": 0.5, "aggregation": "mean", "thresholds": [0.5] * 11})
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    attach_pipeline(folder)
    return str(folder)


@pytest.fixture(scope="module")
def music(tmp_path_factory) -> Path:
    """Twenty files of 1 to 3 seconds, and one that is none."""
    folder = tmp_path_factory.mktemp("music")
    random = np.random.default_rng(0)
    for index in range(20):
        noise = 0.1 * random.standard_normal(int(16_000 * (1 + index % 5 / 2)))
        soundfile.write(folder / f"{index:02d}.wav", noise, 16_000)
    (folder / "07 bad.wav").write_text("no music")
    return folder


def tag(run: str, *arguments: object) -> None:
    predict.main([run, *map(str, arguments), "--device", "cpu"])


def rows_in(folder: Path) -> pd.DataFrame:
    files = sorted(folder.glob("*.parquet"))
    return pd.concat([parquet.read_table(file).to_pandas() for file in files], ignore_index=True)


def test_parts_say_what_the_table_says_whoever_decodes(run, music, tmp_path, capsys):
    with pytest.raises(SystemExit):
        tag(run, music, "--output", tmp_path / "t.parquet", "--workers", 0)
    table = pd.read_parquet(tmp_path / "t.parquet").set_index("path")
    for workers in (0, 2):
        tag(run, music, "--parts", tmp_path / f"by {workers}", "--part_files", 6, "--workers", workers)
        rows = rows_in(tmp_path / f"by {workers}").set_index("path")
        assert rows.index.tolist() == sorted(map(str, music.iterdir())), "every file has a row, in order"
        assert rows.error.notna().sum() == 1 and "07 bad.wav cannot be read" in rows.error.dropna().iloc[0]
        heard = rows[rows.error.isna()]
        scores = [name for name in rows if name.startswith("score_")]
        np.testing.assert_allclose(heard[scores], table.loc[heard.index, scores], atol=2e-6)
    assert "20 files were heard, 1 could not be read" in capsys.readouterr().err
    assert [len(parquet.read_table(file)) for file in sorted((tmp_path / "by 2").glob("*.parquet"))] == [6, 6, 6, 3]
    loaded = load_dataset(str(tmp_path / "by 2"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == 21


def test_shards_are_disjoint_and_complete_and_resumed_by_their_markers(run, music, tmp_path, capsys):
    asked = [music, "--parts", tmp_path / "parts", "--part_files", 4]
    for shard in range(3):
        tag(run, *asked, "--shard", f"{shard}/3")
    whole = rows_in(tmp_path / "parts")
    assert sorted(whole.path) == sorted(map(str, music.iterdir()))
    with pytest.raises(UserError, match="add --resume"):
        tag(run, *asked, "--shard", "0/3")
    lost = tmp_path / "parts/part-00001-of-00003-000001.done"
    lost.unlink()
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "parts").glob("*.parquet")}
    capsys.readouterr()
    for shard in range(3):
        tag(run, *asked, "--shard", f"{shard}/3", "--resume")
    changed = [file for file, written in kept.items() if file.stat().st_mtime_ns != written]
    assert changed == [lost.with_suffix(".parquet")] and lost.exists()
    pd.testing.assert_frame_equal(rows_in(tmp_path / "parts"), whole, rtol=1e-4)
    for other, sentence in [(["--shard", "0/2"], "another number of shards"), (["--threshold", 0.9], "another model"),
                            (["--part_files", 5], "another model or settings")]:  # fmt: skip
        with pytest.raises(UserError, match=sentence):
            tag(run, *asked, "--shard", "0/3", "--resume", *other)


@pytest.mark.parametrize("changed", [slice(1, None), slice(2), slice(0)], ids=["one less", "a part less", "empty"])
def test_a_changed_list_is_not_resumed(run, music, tmp_path, changed):
    names = sorted(map(str, music.glob("0[0-3].wav")))
    (tmp_path / "list.txt").write_text("\n".join(names))
    asked = ["--list", tmp_path / "list.txt", "--parts", tmp_path / "parts", "--part_files", 2]
    tag(run, *asked)
    (tmp_path / "list.txt").write_text("\n".join(names[changed]))
    with pytest.raises(UserError, match="the list has changed"):
        tag(run, *asked, "--resume")


def test_names_come_from_lists_columns_and_addresses(run, music, tmp_path):
    names = sorted(map(str, music.glob("0[0-5].wav")))
    (tmp_path / "a.txt").write_text("\n".join(names[:2]) + "\n")
    pd.DataFrame({"song": names[2:4]}).to_parquet(tmp_path / "b.parquet")
    lists = [tmp_path / "a.txt", tmp_path / "b.parquet"]
    assert list(every_name(names[4:], lists, "song")) == [*names[4:], *names[:4]]
    with pytest.raises(UserError, match=r"b.parquet has no column path; name one of song with --column"):
        list(every_name([], lists, "path"))
    with pytest.raises(UserError, match="There is no --list"):
        list(every_name([], [tmp_path / "c.txt"], "path"))
    (tmp_path / "marked.txt").write_text("\n".join(names[:2]), encoding="utf-8-sig")
    assert list(every_name([], [tmp_path / "marked.txt"], "path")) == names[:2]
    (tmp_path / "wide.txt").write_text("\n".join(names[:2]), encoding="utf-16")
    with pytest.raises(UserError, match="in UTF-16, as PowerShell writes it: save it as UTF-8"):
        list(every_name([], [tmp_path / "wide.txt"], "path"))
    address, gone = f"file://{names[0]}", f"file://{music}/gone.wav"
    tag(run, address, gone, "--parts", tmp_path / "parts", "--workers", 1)
    rows = rows_in(tmp_path / "parts")
    assert rows.path.tolist() == [address, gone] and rows.error.isna().tolist() == [True, False]
    assert rows.error[1].startswith(f"{gone} cannot be fetched")
    assert len(list(every_name([f"file://{music}/"], [], "path"))) == 21
    assert list(share_of("abcdefg", 1, 3)) == ["b", "e"]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["1.wav", None], r"list\.parquet, row 2: song is None, which names no file; name another --column\."),
        ([None, None], "row 1: song is None"),
        ([1, 2], "row 1: song is 1, which names no file"),
        (None, r"--list .*list\.parquet cannot be read as Parquet \(.*\): write it again"),
    ],
)
@pytest.mark.parametrize("output", ["--parts", "--output"])
def test_a_list_without_names_is_refused_in_a_sentence(run, tmp_path, names, sentence, output):
    file = tmp_path / "list.parquet"
    if names is None:
        file.write_text("song\n1.wav\n")
    else:
        pd.DataFrame({"song": names}).to_parquet(file)
    with pytest.raises(UserError, match=sentence):
        tag(run, "--list", file, "--column", "song", output, tmp_path / "out.csv")


def test_a_killed_run_loses_a_part_at_most_and_doubles_nothing(run, music, tmp_path):
    names = [str(file) for _ in range(12) for file in sorted(music.glob("*.wav"))]
    (tmp_path / "list.txt").write_text("\n".join(names))
    asked = ["--list", "list.txt", "--parts", "parts", "--part_files", "10", "--workers", "2", "--resume"]
    command = [sys.executable, str(REPOSITORY / "run_irmas.py"), "predict", run, *asked, "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True)
    while len(list(tmp_path.glob("parts/*.done"))) < 3:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    process.kill()  # alone: its decoding processes end by themselves
    process.wait()
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("parts/*.done")}
    assert 3 <= len(before) < 26
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and group_lives(process.pid):
        time.sleep(0.05)
    assert not group_lives(process.pid)
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    assert all(file.stat().st_mtime_ns == written for file, written in before.items())
    assert rows_in(tmp_path / "parts").path.tolist() == names
    assert not list(tmp_path.glob("parts/*.unfinished"))


def group_lives(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_input_that_kills_its_decoder_costs_only_itself():
    def windows_of(audio):
        if audio == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        yield {"value": audio, "is_last": False}
        yield {"value": audio, "is_last": True}

    names = ["a", "poison", "b", "c", "poison", "d"]
    seen = list(windows_by_processes(iter(names), windows_of, workers=2))
    by_place = [[window for place, window in seen if place == index] for index in range(len(names))]
    assert [len(windows) for windows in by_place] == [2, 1, 2, 2, 1, 2]
    assert by_place[1][0]["error"] == "poison ended the process that decoded it."
    assert [window["value"] for window in by_place[5]] == ["d", "d"]


def test_decoders_do_not_run_far_ahead_of_the_oldest_input():
    begun = []
    gate = threading.Event()

    def inputs():
        for index in range(200):
            begun.append(index)
            yield index

    def windows_of(index):
        if index == 0:
            time.sleep(1)
        yield {"is_last": True}

    for place, _ in windows_by_processes(inputs(), windows_of, workers=2):
        if place == 0:
            gate.set()
        assert gate.is_set() or len(begun) <= 18
    assert len(begun) == 200


@pytest.mark.parametrize("per", ["file", "window"])
@pytest.mark.parametrize("architecture", ["mobilenet", "beats"])  # BEATs' output layer has every token of a window
def test_embeddings_are_what_comes_into_the_output_layer(music, tmp_path, architecture, per):
    run = saved(architecture, tmp_path / "run")
    tag(run, music, "--parts", tmp_path / "parts", "--embeddings", per)
    table = parquet.read_table(tmp_path / "parts/part-00000-of-00001-000000.parquet")
    model, _ = build(architecture)
    layer = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    rows = table.to_pylist()
    heard = [row for row in rows if row["error"] is None]
    if per == "file":
        assert table.schema.field("embedding").type.list_size == layer.in_features
        vectors = np.array([row["embedding"] for row in heard])
    else:
        vectors = np.array([np.mean(row["window_embeddings"], axis=0) for row in heard])
        assert all(len(row["window_start_seconds"]) == len(row["window_embeddings"]) for row in heard)
    logits = vectors @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    scores = np.array([[row[f"score_{label}"] for label in model.config.id2label.values()] for row in heard])
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), scores, atol=1e-4)


def test_bfloat16_says_how_far_it_is_from_float32(run, music, tmp_path, capsys):
    tag(run, music, "--parts", tmp_path / "parts", "--bf16")
    told = capsys.readouterr().err
    difference = float(told.split("at most ")[1].split(".\n")[0])
    assert "scores of 7 files" in told and 0 < difference < 0.05, "the eighth cannot be read"
    settings = json.loads(next((tmp_path / "parts").glob("*.done")).read_text())["heading"]
    assert settings["bf16"] is True


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["m.wav", "--shard", "0/2"], "--shard needs --parts"),
        (["m.wav", "--parts", "p", "--shard", "2/2"], "--shard 2/2 is not a share"),
        (["m.wav", "--parts", "p", "--output", "t.csv"], "--output does not go with --parts"),
        (["m.wav", "--parts", "p", "--part_files", "0"], "--part_files 0 is too small"),
        (["m.wav", "--workers", "-1"], "--workers -1 is too small"),
        (["hf://datasets/me/songs/1.mp3"], "heard with --parts"),
        ([], "Name audio files"),
    ],
)
def test_mistakes_are_told_in_one_sentence(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        parse_arguments(arguments)
