"""`predict` on real files with a tiny AST: what it prints, writes, draws, resumes and refuses."""

import csv
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import soundfile
import torch
from matplotlib.figure import Figure
from PIL import Image

from irmas_dataset.errors import UserError
from irmas_dataset.labels import INSTRUMENT_NAMES
from irmas_recipe.commands.predict import main as predict
from irmas_recipe.commands.predict import outputs
from irmas_recipe.commands.predict.arguments import AGGREGATIONS
from irmas_recipe.commands.predict.files import common_folder, find_audio
from irmas_recipe.commands.predict.resume import is_same_score
from irmas_recipe.commands.predict.rows import ERRORS_SHOWN, errors_in_words
from irmas_recipe.commands.predict.screen import Bars
from irmas_recipe.commands.predict.table import ResultPart, ResultTable
from irmas_recipe.models.pipeline import windows
from irmas_recipe.models.pipeline.attach import attach_pipeline
from irmas_recipe.report.style import DOTS_PER_INCH
from irmas_recipe.report.text import clock, shortened
from irmas_recipe.report.timeline import draw_timeline
from irmas_recipe.training.processes import Processes
from tests.irmas_dataset.form_folders import parquet_folder
from tests.rights import WITHOUT_RIGHTS, needs_limits
from tests.tiny import build

LABELS = list(INSTRUMENT_NAMES.values())
SCORES = [f"score_{label}" for label in LABELS]
COLUMNS = ["path", "duration_seconds", "rule", "instruments", "seconds", *SCORES]
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> str:
    """A saved tiny AST that looks at 1 s every 0.5 s and is sure of itself."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    model, extractor = build("ast")
    with torch.no_grad():
        model.classifier.dense.weight.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
    model.config.update({"window_seconds": 1.0, "hop_seconds": 0.5, "aggregation": "mean", "thresholds": [0.5] * 11})
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    attach_pipeline(folder)
    return str(folder)


@pytest.fixture
def music(tmp_path) -> Path:
    """A folder of four readable files in two subfolders, with things that are no music between them."""
    folder = tmp_path / "music"
    random = np.random.default_rng(0)
    for index, name in enumerate(["a/one.wav", "a/Zwei – música.flac", "b/one.wav", 'b/three, "four".ogg']):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rate = 22_050
        time_seconds = np.arange(int((1.3 + 0.7 * index) * rate)) / rate
        tone = 0.3 * np.sin(2 * np.pi * 200 * (index + 1) * time_seconds) + 0.05 * random.standard_normal(
            len(time_seconds)
        )
        soundfile.write(path, np.stack([tone, tone / 2], axis=1), rate)
    (folder / "notes.txt").write_text("not music")
    (folder / "a" / "._one.wav").write_text("what macOS leaves")
    return folder


def predict_csv(run: str, output: Path, *arguments: object) -> pd.DataFrame:
    predict.main([run, *map(str, arguments), "--output", str(output), "--device", "cpu"])
    return pd.read_csv(output)


def test_a_folder_is_shown_as_one_aligned_line_a_file(run, music, capsys):
    predict.main([run, str(music)])
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0] == f"In {music}:"
    assert lines[1].split() == ["file", "length", "instruments"]
    lines = lines[: lines.index("")]
    assert [line.split("  ")[0] for line in lines[2:]] == [
        "a/Zwei – música.flac", "a/one.wav", "b/one.wav", 'b/three, "four".ogg',
    ]  # fmt: skip
    place = lines[1].index("instruments")
    assert all(line[place - 2 : place] == "  " and line[place] != " " for line in lines[2:])
    assert "Traceback" not in shown.err


def test_a_single_file_is_shown_with_bars_and_when_each_is_heard(run, music, capsys):
    predict.main([run, str(music / "b" / "one.wav"), "--threshold", "0.5"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{music / 'b' / 'one.wav'}  (0:03)"
    heard = [line for line in lines if line.startswith("* ") and "█" in line]
    assert heard and all("0:0" in line for line in heard)
    shown = [line for line in lines if line[2:].startswith(tuple(LABELS))]
    scores = [float(line[2 + len("electric guitar") :].split()[0]) for line in shown]
    assert len(scores) == 11 and scores == sorted(scores, reverse=True)
    assert all(line.startswith("*") == (score >= 0.5) for line, score in zip(shown, scores, strict=True))


@pytest.mark.parametrize(("top_k", "words"), [(3, "3, whatever their thresholds"), (1, "whatever its threshold")])
def test_the_first_instruments_of_a_file_are_not_said_to_reach_a_threshold(run, music, top_k, words, capsys):
    predict.main([run, str(music / "b/one.wav"), "--top_k", str(top_k), "--threshold", "0.999"])
    *bars, rule = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("* ") for line in bars) == top_k
    assert rule.startswith("* the first") and rule.endswith(words)


def test_the_first_by_score_is_among_the_bars_however_low_its_confidence(capsys):
    entries = [
        {"label": f"label {n}", "score": 0.9 - n / 100, "confidence": 0.6, "share": 0, "seconds": 0} for n in range(20)
    ]
    entries[0]["confidence"] = 0.1  # its threshold is the highest
    result = {"rule": "clip", "instruments": entries, "timeline": []}
    Bars(top_k=1).add({"path": "a.wav", "duration_seconds": 3.0}, result, entries[:1])
    _, *bars, _ = capsys.readouterr().out.splitlines()
    assert len(bars) == 13 and [line for line in bars if line.startswith("*")] == [bars[-1]]
    assert bars[-1].startswith("* label 0")


def test_files_named_from_here_and_from_the_root_share_a_table(run, music, monkeypatch, capsys):
    monkeypatch.chdir(music)
    predict.main([run, "a/one.wav", str(music / "b" / "one.wav")])
    names = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert names[:2] == ["file", "a/one.wav"] and names[2].endswith("b/one.wav")


def test_csv_json_and_parquet_say_the_same(run, music, tmp_path, capsys):
    table = predict_csv(run, tmp_path / "out" / "t.csv", music)
    predict.main([run, str(music), "--output", str(tmp_path / "t.json")])
    predict.main([run, str(music), "--output", str(tmp_path / "t.parquet")])
    document = json.loads((tmp_path / "t.json").read_text())
    parquet = pd.read_parquet(tmp_path / "t.parquet")
    assert list(table.columns) == list(parquet.columns) == COLUMNS
    assert list(document) == ["model", "settings", "thresholds", "files"] and document["model"] == run
    assert document["thresholds"]["clip"] == dict.fromkeys(LABELS, 0.5)
    assert document["settings"]["window_seconds"] == 1.0 and document["settings"]["longest_clip_seconds"] == 30.0
    files = document["files"]
    assert table.path.tolist() == parquet.path.tolist() == [file["path"] for file in files]
    assert table[SCORES].to_numpy() == pytest.approx(parquet[SCORES].to_numpy())
    nested = np.array([[file["scores"][label] for label in LABELS] for file in files])
    assert parquet[SCORES].to_numpy() == pytest.approx(nested)
    named = [[entry["label"] for entry in file["instruments"]] for file in files]
    assert table.instruments.fillna("").tolist() == [";".join(labels) for labels in named]
    assert [list(labels) for labels in parquet.instruments] == named
    assert [list(seconds) for seconds in parquet.seconds] == [[e["seconds"] for e in f["instruments"]] for f in files]
    assert [file["duration_seconds"] for file in files] == [2.0, 1.3, 2.7, 3.4]
    assert set(table.rule) == {"clip"}
    for file in files:
        scores = file["scores"]
        assert {entry["label"] for entry in file["instruments"]} == {label for label in LABELS if scores[label] >= 0.5}
        assert all(entry["confidence"] >= 0.5 for entry in file["instruments"])
        assert [e["label"] for e in file["instruments"]] == sorted(
            (e["label"] for e in file["instruments"]), key=lambda label: -scores[label]
        )
        for part in file["timeline"]:
            assert 0 <= part["start_seconds"] < part["end_seconds"] <= file["duration_seconds"]
    assert capsys.readouterr().out == ""
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["t.json", "t.parquet"]


@pytest.fixture(scope="module")
def song(tmp_path_factory) -> Path:
    """Forty seconds, longer than a clip."""
    path = tmp_path_factory.mktemp("songs") / "song.wav"
    noise = np.random.default_rng(1).normal(0, 0.1, 40 * 16_000)
    soundfile.write(path, noise * np.sin(np.arange(len(noise)) / 30_000), 16_000)
    return path


def test_a_song_is_answered_by_its_timeline_with_times_and_shares(run, song, tmp_path, capsys):
    predict.main([run, str(song), "--output", str(tmp_path / "t.json"), "--timeline", str(tmp_path / "pictures")])
    (file,) = json.loads((tmp_path / "t.json").read_text())["files"]
    assert file["rule"] == "timeline" and file["instruments"]
    for entry in file["instruments"]:
        own = [part for part in file["timeline"] if part["label"] == entry["label"]]
        assert entry["seconds"] == pytest.approx(sum(p["end_seconds"] - p["start_seconds"] for p in own), abs=0.01)
        assert entry["share"] == pytest.approx(entry["seconds"] / 40, abs=1e-3) and entry["seconds"] >= 8
    assert (tmp_path / "pictures" / "song.wav.png").is_file()
    capsys.readouterr()
    predict.main([run, str(song)])
    shown = capsys.readouterr().out.splitlines()
    first = file["instruments"][0]
    assert shown[1].startswith(f"* {first['label']}") and f"{round(100 * first['share'])}%" in shown[1]
    assert shown[-1] == "* heard for long enough, by the timeline"


def test_many_files_are_summed_up(run, music, song, capsys):
    predict.main([run, str(music), str(song), "--threshold", "0"])
    shown = capsys.readouterr().out.splitlines()
    assert sum(" in 5 of 5 files, 49 s" in line for line in shown) == 11
    assert any(line.count("0:40 (100%)") == 11 for line in shown)


def test_only_some_instruments_are_spoken_of(run, music, tmp_path):
    table = predict_csv(run, tmp_path / "t.csv", music, "--only", "voice", "--only", "cello")
    assert list(table.columns)[5:] == ["score_cello", "score_voice"]
    assert set(";".join(table.instruments.fillna("")).split(";")) <= {"", "cello", "voice"}
    with pytest.raises(UserError, match="did you mean cello"):
        predict.main([run, str(music), "--only", "celo"])


def test_the_first_k_are_named_whatever_their_thresholds(run, music, tmp_path):
    table = predict_csv(run, tmp_path / "t.csv", music, "--top_k", "2", "--threshold", "1")
    assert [len(labels.split(";")) for labels in table.instruments] == [2, 2, 2, 2]


def test_lines_are_sorted_by_what_is_asked_for(run, music, capsys):
    predict.main([run, str(music), "--sort", "duration"])
    lines = capsys.readouterr().out.splitlines()[2:6]
    assert [line.split("  ")[0] for line in lines] == [
        'b/three, "four".ogg', "b/one.wav", "a/Zwei – música.flac", "a/one.wav",
    ]  # fmt: skip
    with pytest.raises(UserError, match="--sort banjo"):
        predict.main([run, str(music), "--sort", "banjo"])


def test_names_come_from_the_standard_input(run, music):
    names = f"{music / 'a' / 'one.wav'}\n\n{music / 'b'}\n"
    done = subprocess.run(
        [sys.executable, "run_irmas.py", "predict", run, "-", "--format", "csv", "--device", "cpu"],
        cwd=REPOSITORY, input=names, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [Path(row["path"]).name for row in csv.DictReader(done.stdout.splitlines())] == [
        "one.wav", "one.wav", 'three, "four".ogg',
    ]  # fmt: skip


def test_audacity_reads_each_files_timeline(run, music, tmp_path):
    predict.main([run, str(music), "--audacity", str(tmp_path / "labels"), "--timeline_table", str(tmp_path / "w.csv")])
    when = pd.read_csv(tmp_path / "w.csv")
    tracks = sorted((tmp_path / "labels").rglob("*.txt"))
    assert [str(track.relative_to(tmp_path / "labels")) for track in tracks] == [
        "a/Zwei – música.flac.txt", "a/one.wav.txt", "b/one.wav.txt", 'b/three, "four".ogg.txt',
    ]  # fmt: skip
    lines = [line.split("\t") for track in tracks for line in track.read_text().splitlines()]
    assert len(lines) == len(when) > 0
    assert all(float(start) < float(end) and label in LABELS for start, end, label in lines)


def test_the_window_table_has_a_row_a_window(run, music, tmp_path):
    predict.main([run, str(music), "--window_table", str(tmp_path / "w.csv"), "--output", str(tmp_path / "t.csv")])
    rows, files = pd.read_csv(tmp_path / "w.csv"), pd.read_csv(tmp_path / "t.csv")
    assert list(rows.columns) == ["path", "start_seconds", "end_seconds", *SCORES]
    for path, of_file in rows.groupby("path"):
        file = files[files.path == path].iloc[0]
        logits = torch.logit(torch.tensor(of_file[SCORES].to_numpy()).clamp(1e-6, 1 - 1e-6))
        assert windows.aggregate(logits, "mean") == pytest.approx(file[SCORES].to_numpy(float), abs=1e-3)
        assert of_file.end_seconds.max() == pytest.approx(file.duration_seconds, abs=1e-3)


def test_csv_and_json_can_go_to_the_screen(run, music, capsys):
    predict.main([run, str(music), "--format", "csv"])
    from_csv = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    predict.main([run, str(music), "--format", "json"])
    from_json = json.loads(capsys.readouterr().out)["files"]
    assert [row["path"] for row in from_csv] == [row["path"] for row in from_json]
    assert [float(row["score_cello"]) for row in from_csv] == [row["scores"]["cello"] for row in from_json]


def test_unreadable_files_are_told_at_the_end_and_the_others_are_kept(run, music, tmp_path, capsys):
    (music / "a" / "broken.wav").write_text("no samples here")
    (music / "b" / "empty.wav").touch()
    with pytest.raises(SystemExit) as stopped:
        predict_csv(run, tmp_path / "t.csv", music)
    assert stopped.value.code == 1
    assert len(pd.read_csv(tmp_path / "t.csv")) == 4
    complaint = capsys.readouterr().err
    assert "2 of 6 files could not be read" in complaint
    assert "broken.wav cannot be read as audio (" in complaint
    assert "empty.wav is an empty file" in complaint


def test_errors_that_differ_in_the_file_alone_share_a_line():
    errors = [(f"a/{number}.wav", f"a/{number}.wav is an empty file.") for number in range(40)]
    errors.append(("b/x.wav", "x.wav is damaged: no header"))
    lines = errors_in_words(errors, 50).splitlines()
    assert lines[0] == "41 of 50 files could not be read:"
    assert lines[1:] == ["  a/0.wav is an empty file. (39 more like it)", "  x.wav is damaged: no header"]


def test_at_most_ten_lines_are_said_about_unreadable_files():
    errors = [(f"{number}.wav", f"{number}.wav is damaged in way {chr(65 + number)}") for number in range(12)]
    lines = errors_in_words(errors, 12).splitlines()
    assert len(lines) == 1 + ERRORS_SHOWN and lines[-1] == "  and 3 more"
    assert len(errors_in_words(errors[:ERRORS_SHOWN], 12).splitlines()) == 1 + ERRORS_SHOWN


def test_a_file_without_instruments_names_the_nearest(run, music, capsys):
    predict.main([run, str(music), "--threshold", "1"])
    lines = capsys.readouterr().out.splitlines()[2:]
    assert len(lines) == 4
    for line in lines:
        assert re.search(r"– \(nearest: [a-z ]+ 0\.[0-4]\d\)$", line), line


def test_the_last_line_says_how_many_files_went_where(run, music, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (music / "b" / "empty.wav").touch()
    with pytest.raises(SystemExit):
        predict.main([run, str(music), "--output", "t.csv", "--timeline_table", "when.csv", "--timeline", "pictures"])
    said = capsys.readouterr()
    assert "Wrote 4 files' results to t.csv, when.csv, pictures." in said.err and said.out == ""
    predict.main([run, str(music / "a"), "--output", "t.csv", "--resume"])
    assert capsys.readouterr().err.splitlines()[-1] == "Wrote 2 files' results to t.csv."


def test_the_aggregations_that_can_be_asked_for_are_the_pipelines():
    assert AGGREGATIONS == windows.AGGREGATIONS


def rows_of(table: Path) -> list[dict]:
    """Return the rows of a table of results as its journal has them."""
    if table.suffix == ".csv":
        return list(csv.DictReader(table.read_text().splitlines()))
    if table.suffix == ".json":
        return json.loads(table.read_text())["files"]
    return json.loads(pd.read_parquet(table).to_json(orient="records"))


def read_files(document: Path) -> pd.DataFrame:
    return pd.DataFrame(json.loads(document.read_text())["files"])


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
def test_a_stopped_run_goes_on_where_it_stopped(run, music, tmp_path, suffix, capsys):
    whole, output = tmp_path / f"whole.{suffix}", tmp_path / f"t.{suffix}"
    timeline = tmp_path / "timeline.csv"
    more = ["--timeline_table", str(tmp_path / "whole timeline.csv"), "--html", str(tmp_path / "whole page")]
    predict.main([run, str(music), "--output", str(whole), *more])
    more = ["--timeline_table", str(timeline), "--html", str(tmp_path / "page")]
    predict.main([run, str(music / "a"), "--output", str(output), *more])
    if suffix == "csv":  # the run was killed in the middle of a row, and its timeline was one file ahead
        output.write_text(output.read_text() + '"half a')
        timeline.write_text(timeline.read_text() + f"{music}/b/one.wav,cello,0.0,1.0,0.9\nhalf")
    else:
        journal = output.with_name(output.name + ".journal")
        rows = rows_of(output)
        journal.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"path": "half a')
        output.unlink()
    with pytest.raises(UserError, match="add --resume"):
        predict.main([run, str(music), "--output", str(output)])
    predict.main([run, str(music), "--output", str(output), *more, "--resume"])
    assert "2 of 4 files are in" in capsys.readouterr().err
    read = {"csv": pd.read_csv, "json": read_files, "parquet": pd.read_parquet}[suffix]
    pd.testing.assert_frame_equal(read(output), read(whole))
    pd.testing.assert_frame_equal(pd.read_csv(timeline), pd.read_csv(tmp_path / "whole timeline.csv"))
    page, whole_page = (tmp_path / folder / "index.html" for folder in ("page", "whole page"))
    assert page.read_text() == whole_page.read_text() and page.read_text().count("<article") == 4
    assert not list(tmp_path.glob("*.journal")) and not list(tmp_path.glob("*.unfinished"))


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
def test_a_name_with_a_carriage_return_is_resumed_as_it_is(run, music, tmp_path, suffix):
    (music / "a/one.wav").rename(music / "a/o\rne.wav")
    output = tmp_path / f"t.{suffix}"
    for resume in ([], ["--resume"]):
        predict.main([run, str(music), "--output", str(output), *resume])
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file)) if suffix == "csv" else rows_of(output)
    assert sorted(row["path"] for row in rows) == sorted(map(str, find_audio([music])))


def test_the_common_folder_of_many_files_is_found_once(run, music, tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(outputs, "common_folder", lambda files: found.append(files) or common_folder(files))
    arguments = ["--audacity", str(tmp_path / "tracks"), "--timeline", str(tmp_path / "pictures")]
    predict.main([run, str(music), "--output", str(tmp_path / "t.csv"), *arguments])
    assert len(found) == 1 and len(list((tmp_path / "tracks").rglob("*.txt"))) == 4


def test_a_finished_run_resumed_does_nothing(run, music, tmp_path, capsys):
    before = predict_csv(run, tmp_path / "t.csv", music)
    pd.testing.assert_frame_equal(predict_csv(run, tmp_path / "t.csv", music, "--resume"), before)
    assert "4 of 4 files" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
def test_a_summary_counts_what_an_earlier_run_heard(run, music, tmp_path, suffix, capsys):
    def summary(*given) -> list[str]:
        predict.main([run, *map(str, given), "--threshold", "0.3"])
        return [line for line in capsys.readouterr().err.splitlines() if " of 4 files, " in line]

    whole = summary(music, "--output", tmp_path / f"whole.{suffix}")
    assert not summary(music / "a", "--output", tmp_path / f"t.{suffix}")
    assert whole and whole == summary(music, "--output", tmp_path / f"t.{suffix}", "--resume")


@pytest.mark.parametrize(
    ("scores", "is_same"),
    [
        ((0.5, 0.509), True), ((0.5, 0.512), False), ((0.011, 0.0115), True), ((0.011, 0.02), False),
        ((0.0, 1e-5), True), ((1.0, 0.99), False),
    ],
)  # fmt: skip
def test_scores_of_tiny_thresholds_are_told_apart(scores, is_same):
    assert is_same_score(*scores) is is_same


@pytest.mark.parametrize("changed", [["--threshold", "0.9"], ["--window_seconds", "0.5"], ["--aggregation", "max"]])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_of_other_settings_is_not_gone_on_with(run, music, tmp_path, changed, suffix):
    output = tmp_path / f"t.{suffix}"
    predict.main([run, str(music / "a"), "--output", str(output)])
    before = output.read_bytes()
    with pytest.raises(UserError, match="rows of another model, or of other thresholds or windows"):
        predict.main([run, str(music), "--output", str(output), "--resume", *changed])
    assert output.read_bytes() == before


QUIET = ["--threshold", "1"]
"""No score reaches it, so that no answer depends on the score."""


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (["--top_k", "2"], ["--top_k", "3"]),
        (["--top_k", "2"], ["--top_k", "2", "--window_seconds", "0.5"]),
        ([*QUIET, "--aggregation", "mean"], [*QUIET, "--aggregation", "max"]),
        ([*QUIET, "--only", "cello"], [*QUIET, "--only", "voice"]),
        (QUIET, [*QUIET, "--aggregation", "mean"]),
    ],
)
def test_settings_that_the_shortest_file_does_not_tell_apart_are_noticed(run, music, tmp_path, first, then):
    """A click of one window, whose answer is the same, and other files, whose answers are not."""
    soundfile.write(music / "a/click.wav", np.zeros(4000), 16_000)
    soundfile.write(music / "a/song.wav", 0.1 * np.random.default_rng(1).standard_normal(31 * 8000), 8000)
    output = tmp_path / "t.json"
    predict.main([run, str(music), "--output", str(output), *first])
    before = output.read_bytes()
    with pytest.raises(UserError, match="rows of another model, or of other thresholds or windows"):
        predict.main([run, str(music), "--output", str(output), "--resume", *then])
    assert output.read_bytes() == before
    predict.main([run, str(music), "--output", str(output), "--resume", *first])
    assert json.loads(output.read_text())["files"] == json.loads(before)["files"]


def test_a_threshold_that_changes_no_answer_about_the_shortest_file_is_noticed(run, music, tmp_path):
    soundfile.write(music / "a/click.wav", np.zeros(4000), 16_000)
    scores = predict_csv(run, tmp_path / "all.csv", music).set_index("path")[SCORES].to_numpy()
    click, others = scores[0], scores[1:].max(axis=0)
    label = int((others - click).argmax())
    between = float((others[label] + click[label]) / 2)
    asked = [run, str(music), "--only", LABELS[label], "--output", str(tmp_path / "t.csv")]
    predict.main([*asked, "--threshold", "1"])
    with pytest.raises(UserError, match=f"{LABELS[label]}: a score of .* and now a threshold of {between:.3f}"):
        predict.main([*asked, "--threshold", str(between), "--resume"])


@pytest.mark.parametrize("content", ['{"a": 1}', '"x"', "[1, 2]"])
def test_what_is_no_table_is_not_gone_on_with(run, music, tmp_path, content):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(UserError, match=r"t\.json is not a table"):
        predict.main([run, str(music), "--output", str(tmp_path / "t.json"), "--resume"])


def test_a_damaged_line_of_a_journal_is_heard_again(run, music, tmp_path):
    output = tmp_path / "t.json"
    predict.main([run, str(music), "--output", str(output)])
    rows = json.loads(output.read_text())["files"]
    output.with_name("t.json.journal").write_text(
        json.dumps(rows[0]) + '\n{"path": \n[]\n' + json.dumps(rows[2]) + "\n"
    )
    output.unlink()
    predict.main([run, str(music), "--output", str(output), "--resume"])
    again = json.loads(output.read_text())["files"]
    assert sorted(row["path"] for row in again) == [row["path"] for row in rows]


def test_a_timeline_table_alone_cannot_be_gone_on_with(run, music, tmp_path):
    predict.main([run, str(music / "a"), "--timeline_table", str(tmp_path / "w.csv")])
    with pytest.raises(UserError, match="delete it, or add --output and --resume"):
        predict.main([run, str(music / "a"), "--timeline_table", str(tmp_path / "w.csv")])


def test_a_page_has_every_file_and_tells_what_could_not_be_read(run, music, tmp_path, capsys):
    (music / "b" / "empty.wav").touch()
    with pytest.raises(SystemExit):
        predict.main([run, str(music), "--html", str(tmp_path / "page"), "--threshold", "0.5"])
    shown = capsys.readouterr()
    assert "Wrote 4 files' results to" in shown.err and "page/index.html" in shown.err
    html = (tmp_path / "page/index.html").read_text(encoding="utf-8")
    assert html.count("<article") == html.count('preload="none"') == 4 and 'src="../music/a/one.wav"' in html
    assert "b/empty.wav is an empty file" in html
    heard = [line.split()[-2] for line in shown.out.splitlines() if "a/one.wav" in line and "nearest" not in line]
    assert all(label in html for label in heard)


def test_a_page_replaces_no_other_and_lacks_no_file_of_a_resumed_table(run, music, tmp_path):
    page, table = tmp_path / "page", tmp_path / "t.csv"
    asked = [run, str(music / "a"), "--output", str(table), "--html", str(page)]
    page.mkdir()
    (page / "index.html").write_text("mine")
    for resume in ([], ["--resume"]):
        with pytest.raises(UserError, match=r"index.html exists; delete it, or name another folder with --html\.$"):
            predict.main([*asked, *resume])
    assert (page / "index.html").read_text() == "mine" and not table.exists()
    predict.main([run, str(music / "a"), "--output", str(table)])
    with pytest.raises(UserError, match=r"t.csv has 2 files that the page in .*new would lack; resume with the folder"):
        predict.main([run, str(music), "--output", str(table), "--html", str(tmp_path / "new"), "--resume"])


def test_no_table_is_begun_where_another_must_not_be_replaced(run, music, tmp_path):
    (tmp_path / "when.csv").write_text("mine")
    with pytest.raises(UserError, match=r"when\.csv exists"):
        predict.main(
            [run, str(music), "--output", str(tmp_path / "t.csv"), "--timeline_table", str(tmp_path / "when.csv")]
        )
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["when.csv"]


def test_pictures_of_files_outside_the_folder_stay_in_the_folder(run, music, tmp_path, monkeypatch):
    monkeypatch.chdir(music / "a")
    predict.main([run, "one.wav", "../b/one.wav", "--timeline", str(tmp_path / "pictures")])
    inside = {path.relative_to(tmp_path / "pictures").as_posix() for path in tmp_path.rglob("*.png")}
    assert inside == {"a/one.wav.png", "b/one.wav.png"}


def test_a_table_of_another_model_is_not_gone_on_with(run, music, tmp_path):
    (tmp_path / "t.csv").write_text("path,oboe\nx.wav,0.5\n")
    with pytest.raises(UserError, match=r"t\.csv has the columns of another"):
        predict_csv(run, tmp_path / "t.csv", music, "--resume")
    (tmp_path / "t.json").write_text("not json")
    with pytest.raises(UserError, match=r"t\.json is not a table"):
        predict.main([run, str(music), "--output", str(tmp_path / "t.json"), "--resume"])


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_processes_leave_a_table_to_go_on_with(run, music, tmp_path, processes):
    for index in range(300):
        (music / f"copy {index}.wav").write_bytes((music / "a" / "one.wav").read_bytes())
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    output = tmp_path / "t.parquet"
    arguments = ["run_irmas.py", "predict", run, str(music), "--output", str(output), "--batch_size", "1"]
    command = [sys.executable, *(launcher if processes > 1 else []), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = psutil.Popen(command, cwd=REPOSITORY, env=environment)
    growing = [output.with_name(output.name + ".journal"), output.with_name(output.name + ".part-1")][:processes]
    while not all(path.exists() and path.read_bytes().count(b"\n") > 3 for path in growing):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    for each in [process, *process.children(recursive=True)]:
        each.kill()
    process.wait()
    assert not output.exists()
    subprocess.run([*command, "--resume"], cwd=REPOSITORY, env=environment, check=True)
    table = pd.read_parquet(output)
    assert len(table) == len(set(table.path)) == 304


def test_pictures_of_the_longest_names_are_drawn_and_told_apart(run, tmp_path, capsys):
    """A file system takes 255 bytes, and `.png` is added to the name."""
    names = ["a", "n" * 250 + "1", "n" * 250 + "2", "音" * 83, r"$\frac$"]
    for number, name in enumerate(names):
        (tmp_path / "music").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "music" / f"{name}.wav", 0.1 * np.sin(np.arange(16_000) * (number + 1) / 20), 16_000)
    predict.main([run, str(tmp_path / "music"), "--timeline", str(tmp_path / "pictures"), "--format", "csv"])
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(names)
    pictures = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert len(pictures) == 5 and pictures[:2] == [r"$\frac$.wav.png", "a.wav.png"]
    assert all(name.endswith(".png") and len(name.encode()) <= 255 for name in pictures)


def test_a_file_that_vanishes_before_its_picture_is_drawn_costs_only_itself(run, music, tmp_path, capsys, monkeypatch):
    def draw_late(file: Path, *arguments: object) -> Figure:
        if file.name == "one.wav" and file.parent.name == "a":
            file.unlink()
        return draw_timeline(file, *arguments)

    monkeypatch.setattr(outputs, "draw_timeline", draw_late)
    with pytest.raises(SystemExit) as stopped:
        predict_csv(run, tmp_path / "t.csv", music, "--timeline", tmp_path / "pictures")
    assert stopped.value.code == 1
    assert len(pd.read_csv(tmp_path / "t.csv")) == 3
    assert f"There is no file {music / 'a/one.wav'}" in capsys.readouterr().err


def test_files_whose_channels_cancel_are_told_by_name_at_the_end(run, music, tmp_path, capsys):
    tone = np.sin(np.arange(30_000) / 20)
    soundfile.write(music / "opposite.wav", np.stack([tone, -tone], axis=1), 16_000)
    assert len(predict_csv(run, tmp_path / "t.csv", music)) == 5
    said = capsys.readouterr().err
    assert "1 of 5 files could not be heard as they were recorded:" in said
    assert f"{music / 'opposite.wav'}: the channels cancel each other out" in said


@pytest.fixture(scope="module")
def two_processes():
    """Run `predict` in two real processes that torchrun starts over gloo, which accelerate finds itself among."""

    def start(*arguments: object, check: bool = True) -> subprocess.CompletedProcess:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        command = [*launcher, str(REPOSITORY / "run_irmas.py"), "predict", *map(str, arguments)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0 or not check, done.stderr[-3000:]
        return done

    return start


def test_thresholds_that_were_tuned_for_another_aggregation_are_named(run, music, caplog):
    predict.main([run, str(music / "a"), "--aggregation", "max"])
    assert "thresholds were tuned for --aggregation mean; with max, give your own --threshold" in caplog.text
    caplog.clear()
    predict.main([run, str(music / "a"), "--aggregation", "max", "--threshold", "0.3"])
    predict.main([run, str(music / "a"), "--aggregation", "mean"])
    assert "thresholds" not in caplog.text


def test_two_processes_share_a_folder_and_write_one_table(run, music, tmp_path, two_processes):
    tables = ["--output", tmp_path / "t.parquet", "--timeline_table", tmp_path / "when.csv"]
    two_processes(run, music, *tables, "--timeline", tmp_path / "pictures", "--html", tmp_path / "page")
    predict.main([run, str(music), "--output", str(tmp_path / "one.csv"), "--timeline_table", str(tmp_path / "1.csv")])
    together, alone = pd.read_parquet(tmp_path / "t.parquet"), pd.read_csv(tmp_path / "one.csv")
    assert together.path.tolist() == alone.path.tolist()
    assert together[SCORES].to_numpy() == pytest.approx(alone[SCORES].to_numpy(), abs=1e-5)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "when.csv"), pd.read_csv(tmp_path / "1.csv"), atol=1e-5)
    assert len(list((tmp_path / "pictures").rglob("*.png"))) == 4
    shown = re.findall(r"<h2>(.*wav|.*flac|.*ogg)</h2>", (tmp_path / "page/index.html").read_text())
    assert shown == ["a/Zwei – música.flac", "a/one.wav", "b/one.wav", "b/three, &#34;four&#34;.ogg"]
    assert {path.name for path in (tmp_path / "page").iterdir()} == {"index.html", "page.json"}
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"t.parquet", "when.csv", "one.csv", "1.csv"}


def test_several_processes_on_the_cpu_pass_by_the_groups_destructor_which_can_abort(tmp_path):
    script = tmp_path / "process.py"
    script.write_text(
        "import atexit, os\n"
        "from irmas_recipe.training.processes import Processes\n"
        "atexit.register(print, 'an ordinary exit')\n"
        "processes = Processes()\n"
        "os.write(1, f'{processes.count} {processes.device}\\n'.encode())\n"
        "processes.leave()\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.splitlines() == ["2 cpu", "2 cpu"], done.stdout + done.stderr


def test_two_processes_show_what_one_shows(run, music, two_processes, capfd):
    (music / "b" / "empty.wav").touch()
    together = two_processes(run, music, check=False)
    assert together.returncode == 1
    with pytest.raises(SystemExit):
        predict.main([run, str(music)])
    alone = capfd.readouterr()
    assert together.stdout == alone.out
    assert together.stderr.count("1 of 5 files could not be read:") == 1
    assert together.stderr.count("empty.wav is an empty file") == 1


def test_a_mistake_ends_all_processes_and_is_said_once(run, music, tmp_path, two_processes):
    (tmp_path / "t.csv").write_text("mine")
    done = two_processes(run, music, "--output", tmp_path / "t.csv", check=False)
    assert done.returncode != 0 and done.stderr.count("t.csv exists; add --resume") == 1
    assert "[rank" not in done.stderr, "no process died of another's end"
    assert (tmp_path / "t.csv").read_text() == "mine"


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
def test_what_stopped_processes_left_is_gone_on_with(run, music, tmp_path, suffix):
    whole, output = tmp_path / f"whole.{suffix}", tmp_path / f"t.{suffix}"
    predict.main([run, str(music), "--output", str(whole)])
    rows = rows_of(whole)
    first = ResultTable(output, list(rows[0]), format=suffix)
    first.append(rows[:1])
    for process, row in enumerate(rows[1:3], start=1):
        ResultPart(output, process).append([row | {"duration_seconds": 10.0 + process}])
    with (tmp_path / f"t.{suffix}.part-2").open("a") as part:
        part.write('{"path": "half a')
    with pytest.raises(UserError, match="add --resume"):
        predict.main([run, str(music), "--output", str(output)])
    predict.main([run, str(music), "--output", str(output), "--resume"])
    table = {"csv": pd.read_csv, "json": read_files, "parquet": pd.read_parquet}[suffix](output)
    assert table.path.tolist() == [row["path"] for row in rows]
    assert table.duration_seconds.tolist() == [2.0, 11.0, 12.0, 3.4], "what the parts held is kept"
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {whole.name, output.name}


def test_shares_are_disjoint_complete_in_order_and_of_about_equal_size():
    items, sizes = list("abcdefg"), [9, 1, 1, 0, 5, 3, 1]
    shares = []
    for index in range(3):
        processes = Processes()
        processes.count, processes.index = 3, index
        shares.append(processes.share(items, sizes))
    assert sorted(item for share in shares for item in share) == items
    assert all(share == sorted(share) for share in shares)
    assert max(sum(sizes[items.index(item)] for item in share) for share in shares) == 9


@pytest.mark.parametrize(
    ("device", "gpus", "message"),
    [("cuda:1", 2, "one device for 2 processes"), (None, 1, r"2 processes and 1 GPU\(s\)")],
)
def test_processes_that_cannot_have_a_gpu_each_are_told_so(monkeypatch, device, gpus, message):
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(UserError, match=message):
        Processes(device)


def test_the_timeline_table_agrees_with_the_scores(run, music, tmp_path):
    for suffix in ("csv", "json", "parquet"):
        predict.main([run, str(music), "--format", "json", "--timeline_table", str(tmp_path / f"t.{suffix}")])
    table = pd.read_csv(tmp_path / "t.csv")
    assert list(table.columns) == ["path", "label", "start_seconds", "end_seconds", "score", "confidence"]
    assert (table.score >= 0.5).all() and (table.start_seconds < table.end_seconds).all()
    pd.testing.assert_frame_equal(table, pd.read_json(tmp_path / "t.json"), check_dtype=False)
    pd.testing.assert_frame_equal(table, pd.read_parquet(tmp_path / "t.parquet"), check_dtype=False)


def test_a_picture_is_drawn_for_each_file_under_a_name_of_its_own(run, music, tmp_path):
    predict.main([run, str(music), "--timeline", str(tmp_path / "pictures"), "--format", "json"])
    pictures = sorted(str(path.relative_to(tmp_path / "pictures")) for path in (tmp_path / "pictures").rglob("*.png"))
    assert pictures == ["a/Zwei – música.flac.png", "a/one.wav.png", "b/one.wav.png", 'b/three, "four".ogg.png']
    picture = np.asarray(Image.open(tmp_path / "pictures" / "a" / "one.wav.png").convert("RGB"))
    assert picture.shape[1] == 12 * DOTS_PER_INCH
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50  # not an empty page


def test_options_of_a_call_override_the_model(run, music, tmp_path):
    own = predict_csv(run, tmp_path / "own.csv", music)
    shorter = predict_csv(run, tmp_path / "shorter.csv", music, "--window_seconds", "0.5", "--aggregation", "max")
    assert not np.allclose(own[SCORES], shorter[SCORES])
    strict = predict_csv(run, tmp_path / "strict.csv", music, "--threshold", "1")
    assert strict.instruments.isna().all()
    np.testing.assert_allclose(own[SCORES], strict[SCORES])


def test_files_are_found_once_and_hidden_ones_not_at_all(music):
    found = find_audio([music / "a" / "one.wav", music, music / "b"])
    assert [str(path.relative_to(music)) for path in found] == [
        "a/one.wav", "a/Zwei – música.flac", "b/one.wav", 'b/three, "four".ogg',
    ]  # fmt: skip


def test_a_name_that_is_no_valid_utf8_goes_through_everything(run, tmp_path, capsys):
    folder = tmp_path / "music"
    folder.mkdir()
    soundfile.write(os.path.join(os.fsencode(folder), b"caf\xe9.wav"), np.zeros(8_000), 8_000)
    soundfile.write(folder / "other.wav", np.zeros(8_000), 8_000)
    predict.main([run, str(folder), "--timeline", str(tmp_path / "pictures")])
    assert r"caf\xe9.wav" in capsys.readouterr().out
    for suffix in ("csv", "json", "parquet"):
        output = tmp_path / f"t.{suffix}"
        for resume in ([], ["--resume"]):
            predict.main([run, str(folder), "--output", str(output), *resume])
    assert pd.read_csv(tmp_path / "t.csv").path[0].endswith(r"caf\xe9.wav")
    assert len(pd.read_parquet(tmp_path / "t.parquet")) == 2
    assert len(list((tmp_path / "pictures").iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "nowhere.wav"], "There is no file or folder nowhere.wav"),
        (["{run}", "{empty}"], "has no audio files"),
        (["{empty}", "{file}"], "empty has no audio files"),
        (["{runs}", "{file}"], "did you mean .*tiny"),
        (["{runs}/tiney", "{file}"], "There is no folder .*tiney"),
        (["./nowhere", "{file}"], "There is no folder ./nowhere"),
        (["{notes}", "{file}"], "is a file: give the folder of a finished run"),
        (["{run}", "{file}", "--device", "tpu9"], "--device tpu9 cannot be used"),
        (["{run}", "{file}", "--output", "x.txt"], "end it with .csv, .json or .parquet"),
        (["{run}", "{file}", "--output", "x.csv", "--format", "table"], "--format table is for the screen"),
        (["{run}", "{file}", "--output", "x.json", "--format", "csv"], "x.json ends with .json, and --format says csv"),
        (["{run}", "{file}", "--format", "parquet"], "add --output FILE.parquet"),
        (["{run}", "{file}", "--resume"], "--resume needs"),
        (["{run}", "{file}", "--timeline_table", "x.txt"], "--timeline_table x.txt does not say"),
        (["{run}", "{file}", "--output", "x.csv", "--timeline_table", "x.csv"], "the same file"),
        (["{run}", "{file}", "--html", "{file}"], "--html .* is a file; name a folder"),
        (["{run}", "{file}", "--batch_size", "0"], "--batch_size 0 is too small"),
        (["{run}", "{file}", "--window_seconds", "9"], "longer than the 1.00 s"),
        (["{run}", "{file}", "--hop_seconds", "2"], "at most window_seconds"),
    ],
)
def test_mistakes_are_told_in_one_sentence(run, music, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    names = {
        "run": run,
        "runs": str(Path(run).parent),
        "empty": str(tmp_path / "empty"),
        "file": str(music / "a/one.wav"),
        "notes": str(music / "notes.txt"),
    }
    with pytest.raises(UserError, match=message) as caught:
        predict.main([argument.format(**names) for argument in arguments])
    assert "\n" not in str(caught.value) and str(caught.value).endswith((".", "?"))
    assert not list(tmp_path.glob("x.*"))


@needs_limits
@pytest.mark.parametrize("flag", ["--output", "--timeline_table", "--html", "--audacity", "--timeline", "--parts"])
def test_a_folder_that_may_not_be_written_is_named_before_any_work(music, tmp_path, flag):
    (tmp_path / "locked").mkdir(mode=0o555)
    output = tmp_path / "locked/below" / ("t.csv" if flag in ("--output", "--timeline_table") else "")
    command = [*WITHOUT_RIGHTS, sys.executable, "run_irmas.py", "predict", "runs/none", str(music), flag, str(output)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip() == f"{flag}: you may not write to {tmp_path / 'locked'}; name a folder of your own."


def test_a_model_without_a_trained_head_is_refused(run, music, tmp_path):
    from transformers import ASTFeatureExtractor, ASTModel

    ASTModel.from_pretrained(run).save_pretrained(tmp_path / "headless")
    ASTFeatureExtractor.from_pretrained(run).save_pretrained(tmp_path / "headless")
    with pytest.raises(UserError, match=r"not a trained classifier.*classifier\."):
        predict.main([str(tmp_path / "headless"), str(music)])


def test_foreign_code_runs_only_when_asked_for(run, music, tmp_path):
    folder = tmp_path / "foreign"
    folder.mkdir()
    config = {"model_type": "of_a_stranger", "auto_map": {"AutoConfig": "code.StrangeConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(
        "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n"
        "from transformers import PretrainedConfig\n"
        "class StrangeConfig(PretrainedConfig):\n    model_type = 'of_a_stranger'\n"
    )
    with pytest.raises(UserError, match="add --trust_remote_code"):
        predict.main([str(folder), str(music)])


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (5.9, "0:05"), (75, "1:15"), (3_725.4, "1:02:05")])
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_long_names_lose_their_middle():
    assert shortened("short.wav", 12) == "short.wav"
    assert shortened("a very long name of a song.wav", 12) == "a v…song.wav"


@pytest.mark.slow
def test_a_reader_that_has_enough_ends_the_run_quietly(run, music):
    script = "import sys; from irmas_recipe.commands.predict.main import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", script, run, str(music), "--batch_size", "1"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    complaint = process.stderr.read()
    assert process.wait() == 141
    assert "Traceback" not in complaint and "BrokenPipe" not in complaint


def test_rows_of_a_table_are_on_disk_at_once(tmp_path):
    table = ResultTable(tmp_path / "t.csv", ["path", "instruments"], format="csv")
    table.append([{"path": 'a,"b"\n.wav', "instruments": ["cello", "voice"]}])
    with (tmp_path / "t.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["path", "instruments"], ['a,"b"\n.wav', "cello;voice"]]
    table.close()


def test_a_data_set_in_tables_is_sent_to_evaluate(run, tmp_path):
    parquet_folder(tmp_path / "set", "ids")
    with pytest.raises(UserError, match=r"audio in tables: `irmas evaluate MODEL --data_dir .*set` measures"):
        predict.main([run, str(tmp_path / "set")])
