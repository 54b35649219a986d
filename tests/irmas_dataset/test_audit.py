"""The whole audit on a small synthetic IRMAS with planted faults, and on folders that are odd."""

import csv
import re
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
import soundfile

from irmas_dataset import load_irmas
from irmas_dataset.audit import label_errors
from irmas_dataset.audit.audit import audit
from irmas_dataset.audit.report import summary, write_report
from irmas_dataset.audit.tables import write_tables
from irmas_dataset.errors import UserError
from irmas_dataset.html_page import address_of
from tests.browser import Browser, needs_browser
from tests.irmas_dataset.folders import write_audio, write_irmas
from tests.irmas_dataset.plant_faults import plant, rows, score

MIB = 1 << 20


@pytest.fixture(scope="module")
def few_trees():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_errors, "TREES", 40)
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Return where clips are measured once for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Return a folder with planted faults, and what they are."""
    root = tmp_path_factory.mktemp("audit")
    write_music(root / "clean")
    truth = plant(root / "clean", root / "planted", flipped_share=0.1, duplicates=6, silent=3)
    return root / "planted", truth


def write_music(root: Path) -> None:
    """Write 3 classes of 8 recordings of 2 excerpts each, and 4 test clips, of random notes whose overtones differ."""
    rng = np.random.default_rng(0)
    overtones = {
        "cel": 1 / np.arange(1, 13),
        "flu": 0.2 ** np.arange(12),
        "tru": np.arange(1, 13) * 0.7 ** np.arange(12),
    }
    for position, (code, strengths) in enumerate(overtones.items()):
        for number in range(8):
            for excerpt in (1, 2):
                name = f"IRMAS-TrainingData/{code}/[{code}][cla]{100 * position + number:04d}__{excerpt}.wav"
                write_notes(root / name, [strengths], rng)
    for number, labels in enumerate((["cel"], ["flu", "tru"], ["tru"], ["cel", "flu"])):
        path = root / f"IRMAS-TestingData-Part1/Part1/Song {number // 2}-{number % 2}.wav"
        write_notes(path, [overtones[label] for label in labels], rng)
        path.with_suffix(".txt").write_text("\n".join(labels))


def write_notes(path: Path, voices: list[np.ndarray], rng: np.random.Generator, rate: int = 16_000) -> None:
    """Write 3 s of ten random notes a voice over faint noise, in stereo."""
    music = 0.001 * rng.standard_normal((3 * rate, 2))
    for strengths in voices:
        for start in rng.uniform(0, 2.5, 10):
            time = np.arange(rate // 2) / rate
            pitch = 220 * 2 ** (rng.integers(0, 14) / 12)
            note = sum(strength * np.sin(2 * np.pi * pitch * k * time) for k, strength in enumerate(strengths, 1))
            first = int(start * rate)
            music[first : first + len(time)] += 0.05 * (note * np.exp(-4 * time))[:, None] * rng.uniform(0.5, 1, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, music / max(1, np.abs(music).max()), rate, subtype="PCM_16")


@pytest.fixture(scope="module")
def report(planted, cache, tmp_path_factory):
    """Return the folder of a report without doubts about labels, and what it was made of."""
    folder = tmp_path_factory.mktemp("report")
    found = audit(planted[0], label_errors=False, cache_dir=cache, num_proc=1)
    write_tables(found, folder)
    write_report(found, folder, examples=4)
    return folder, found


@pytest.fixture(scope="module")
def doubted(planted, cache, few_trees, tmp_path_factory):
    """Return the folder of a report with doubts about labels, and what it was made of."""
    pytest.importorskip("cleanlab", reason="cleanlab is not installed")
    folder = tmp_path_factory.mktemp("doubted")
    found = audit(planted[0], cache_dir=cache, num_proc=1)
    write_tables(found, folder)
    write_report(found, folder, examples=4)
    return folder, found


def test_every_planted_fault_is_found_without_a_false_alarm(planted, doubted):
    result = score(planted[0], doubted[0])
    assert result["duplicates_found"] == result["silent_found"] == 1
    assert result["duplicates_false"] == result["silent_false"] == []
    assert result["conflicts_right"]
    assert result["flipped_average_precision"] > 2 * result["flipped_base_rate"]


def test_the_score_counts_what_is_missed(planted, report, tmp_path):
    for name in ("clips", "duplicates"):
        lines = (report[0] / f"{name}.csv").read_text().splitlines()
        (tmp_path / f"{name}.csv").write_text("\n".join(line for line in lines if "Copied" not in line))
    with open(tmp_path / "label_errors.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "suspicion", "flagged"])
        writer.writerows([[path, 0, "no"] for path in planted[1]["flipped"]] + [["sound.wav", 1, "yes"]])
    result = score(planted[0], tmp_path)
    assert result["duplicates_found"] == pytest.approx(5 / 6)
    assert result["flagged_precision"] == 0
    assert result["flipped_average_precision"] < 1


def test_copies_across_train_and_test_are_named_so(planted, report):
    pairs = {row["path"]: row for row in rows(report[0] / "duplicates.csv")}
    copied = [copy for copy in planted[1]["duplicates"] if "Copied" in copy["copy"]]
    assert copied
    for copy in copied:
        row = pairs.get(copy["path"]) or pairs[copy["copy"]]
        assert row["across"].endswith("/ test")
        assert row["conflicting"] == "no"


def test_the_corrections_apply_and_leave_the_test_set_alone(planted, report, cache):
    folder, found = report
    before = load_irmas(planted[0], cache_dir=cache)
    after = load_irmas(planted[0], corrections=folder / "corrections.csv", cache_dir=cache)
    dropped = {str(planted[0] / path) for path in found.corrections["path"]}
    kept = {path for split in ("train", "validation") for path in after[split]["path"]}
    assert kept == {path for split in ("train", "validation") for path in before[split]["path"]} - dropped
    assert after["test"]["path"][:] == before["test"]["path"][:]
    for path in planted[1]["silent"]:
        assert str(planted[0] / path) in dropped
    for copy in planted[1]["duplicates"]:
        is_kept = [str(planted[0] / copy[side]) in kept for side in ("path", "copy")]
        conflicting = Path(copy["path"]).parent.name != Path(copy["copy"]).parent.name
        assert (
            is_kept == ([False, False] if conflicting or "Copied" in copy["copy"] else [True, False])
            or sum(is_kept) == 1
        )


def test_suggested_labels_are_applied_by_nobody_but_can_be(planted, doubted, cache):
    folder, found = doubted
    assert not set(found.suggestions["path"]) & set(found.corrections.loc[found.corrections["drop"] != "yes", "path"])
    assert len(found.suggestions)
    load_irmas(planted[0], corrections=folder / "label_suggestions.csv", cache_dir=cache)


def test_the_report_needs_nothing_beside_it(doubted):
    page = (doubted[0] / "report.html").read_text(encoding="utf-8")
    assert len(page) < 20 * MIB
    assert "data:audio/mpeg;base64," in page
    assert "data:image/png;base64," in page
    for outside in ('src="http', 'href="http', "<link", "@import", "url("):
        assert outside not in page
    assert "What a leaky split would have shown" in page
    assert "{{" not in page and "{%" not in page


def test_the_summary_counts(planted, report):
    said = summary(report[1])
    assert f"{len(planted[1]['silent']):>7}  silent clips" in said
    assert f"{len(planted[1]['duplicates']):>7}  near-identical pairs" in said


def test_the_players_stop_at_their_budget(planted, report, tmp_path, monkeypatch):
    monkeypatch.setattr("irmas_dataset.audit.report.MEDIA_BYTES", 60_000)
    page = write_report(report[1], tmp_path, examples=20).read_text(encoding="utf-8")
    assert 1 <= page.count('src="data:audio') < 6
    assert len(page) < 300_000


def test_every_suspicious_clip_and_both_sides_of_every_pair_can_be_played(doubted, tmp_path):
    found = doubted[1]
    page = write_report(found, tmp_path, examples=1).read_text(encoding="utf-8")
    suspicious = found.doubts[found.doubts["flagged"]]["row"].tolist() + found.missing["row"].tolist()
    pairs = found.duplicates[["first", "second"]].to_numpy().ravel().tolist()
    silent = found.clips.table.index[found.clips.table["silent"]].tolist()
    assert min(map(len, (suspicious, pairs, silent))) > 2
    players = Counter(re.findall(r'<a href="([^#"]+)"', page))
    assert players == Counter(address_of(found.clips.file(row), tmp_path) for row in suspicious + pairs + silent)
    assert page.count("<audio") == len(suspicious + pairs + silent)


def test_the_report_links_clips_from_where_it_will_lie(planted, report):
    folder = planted[0].parent / "report"
    (folder / ".unfinished").mkdir(parents=True)
    page = write_report(report[1], folder / ".unfinished", examples=0, home=folder).read_text(encoding="utf-8")
    links = {unquote(link) for link in re.findall(r'<audio [^>]*src="([^"#]+)', page)}
    assert links and all(link.startswith("../planted/") and (folder / link).is_file() for link in links)


@needs_browser
def test_a_pair_is_compared_by_ear_at_the_same_moment(report, tmp_path):
    page = write_report(report[1], tmp_path, examples=4)
    browser = Browser(tmp_path / "profile")
    try:
        for width in (400, 1200):
            browser.open(page.as_uri(), width=width)
            assert not browser.scrolls_sideways()
        browser.run("document.querySelector('#shared details').open = true")
        for pair in (".pair", "#shared details .pair"):  # of excerpts in the page, and of whole files beside it
            playing = f"[...document.querySelector('{pair}').querySelectorAll('audio')].map(player => !player.paused)"
            now = f"[...document.querySelector('{pair}').querySelectorAll('audio')].map(player => player.currentTime)"
            browser.click(f"{pair} .switch")
            browser.wait_for(f"{playing}[0] && {now}[0] > 0.5")
            browser.click(f"{pair} .switch")
            browser.wait_for(f"{playing}[1] && !{playing}[0] && {now}[1] > 0.5")
            assert not browser.errors and not browser.run("document.querySelector('.silent-player')")
    finally:
        browser.close()


def test_counts(planted, report):
    counted = pd.read_csv(report[0] / "counts.csv")
    everything = counted[counted["by"] == "all"]
    assert everything["clips"].sum() == len(report[1].clips.table)
    for by in ("genre", "drums", "labels"):
        assert counted[counted["by"] == by]["clips"].sum() == everything["clips"].sum()
    training = counted[(counted["by"] == "instrument") & counted["split"].isin(["train", "validation"])]
    copies = sum(copy["copy"].startswith("IRMAS-TrainingData") for copy in planted[1]["duplicates"])
    left_out = everything.loc[everything["split"] == "left out", "clips"].sum()
    assert training["clips"].sum() == 48 + copies - left_out


def test_predictions_take_the_place_of_the_classical_scores(planted, cache, few_trees, tmp_path):
    pytest.importorskip("cleanlab", reason="cleanlab is not installed")
    data = load_irmas(planted[0], cache_dir=cache)
    codes = data["test"].features["instruments"].feature.names
    silent = [str(planted[0] / path) for path in planted[1]["silent"]]
    clips = [clip for clip in data["train"] if clip["path"] not in silent][:4] + list(data["test"])
    paths, scores = [clip["path"] for clip in clips], np.full((len(clips), len(codes)), 0.1)
    for row, clip in enumerate(clips):
        scores[row, clip["instruments"]] = 0.9
    table = pd.DataFrame(scores, columns=codes).assign(
        path=[f"elsewhere/{Path(p).parent.name}/{Path(p).name}" for p in paths]
    )
    table.to_parquet(tmp_path / "predictions.parquet")
    found = audit(planted[0], predictions=[tmp_path / "predictions.parquet"], cache_dir=cache, num_proc=1)
    predicted = found.doubts[found.doubts["scored_by"] == "predictions"]
    assert sorted(predicted["split"].value_counts().items()) == [("test", len(data["test"])), ("train", 4)]
    assert not predicted["flagged"].any()
    assert (found.doubts["scored_by"] == "classical features").sum() > 20


def test_class_names_with_semicolons_are_suggested_whole(tmp_path, few_trees):
    pytest.importorskip("cleanlab", reason="cleanlab is not installed")
    own, classes = tmp_path / "own", ["drum; snare", "ney; low", "oud"]
    rows = []
    for number, name in enumerate(np.repeat(classes, 12)):
        clip = f"train/{name}/{number}.wav"
        write_audio(own / clip, seed=number, seconds=0.4)
        scores = {code: 0.9 if code == name else 0.05 + 0.001 * (number % 7) for code in classes}
        if number == 0:
            scores |= {name: 0.02, "oud": 0.95}  # a wrong label
        elif number == 13:
            scores |= {classes[0]: 0.6, classes[2]: 0.6}  # two missing ones
        rows.append({"path": clip} | scores)
    pd.DataFrame(rows).to_csv(tmp_path / "scores.csv", index=False)
    found = audit(own, predictions=[tmp_path / "scores.csv"], cache_dir=tmp_path / "cache", num_proc=1)
    write_tables(found, tmp_path / "report")
    write_report(found, tmp_path / "report")
    options = {"corrections": tmp_path / "report/label_suggestions.csv", "cache_dir": tmp_path / "cache"}
    before, after = load_irmas(own, cache_dir=tmp_path / "cache"), load_irmas(own, **options)
    labels = [
        {row["path"]: [classes[label] for label in row["instruments"]] for split in splits.values() for row in split}
        for splits in (before, after)
    ]
    changed = {Path(path).name: labels[1][path] for path in labels[0] if labels[1][path] != labels[0][path]}
    assert changed == {"0.wav": ["oud"], "13.wav": classes}
    given = pd.read_csv(tmp_path / "report/label_suggestions.csv").set_index("path")["given"]
    assert given["train/drum; snare/0.wav"] == '"drum; snare"'


@pytest.mark.parametrize(
    "columns, words",
    [({"path": ["a/b.wav"]}, "lacks the column cel"), ({"file": ["a"]}, "lacks the column clip or path")],
)
def test_a_table_that_is_none_is_refused(planted, cache, columns, words, tmp_path):
    pd.DataFrame(columns).to_parquet(tmp_path / "p.parquet")
    with pytest.raises(UserError, match=words):
        audit(planted[0], predictions=[tmp_path / "p.parquet"], label_errors=False, cache_dir=cache, num_proc=1)


def test_byte_identical_files_damaged_ones_and_mono(tmp_path):
    root = write_irmas(tmp_path / "irmas")
    training = root / "IRMAS-TrainingData"
    copy = training / "voi" / "[voi][cou_fol]2500__1.wav"
    copy.write_bytes((training / "cel/[cel][cla]0001__1.wav").read_bytes())
    (training / "cel/[cel][cla]0002__1.wav").write_bytes(b"no audio")
    write_audio(training / "cel/[cel][cla]0003__1.wav", seed=50, channels=1)
    found = audit(root, label_errors=False, cache_dir=tmp_path / "cache", num_proc=1)
    pair = found.duplicates.iloc[0]
    assert len(found.duplicates) == 1
    assert (pair["kind"], pair["conflicting"], pair["overlap_share"]) == ("identical bytes", True, 1)
    assert sorted(path.rsplit("/", 1)[-1] for path in found.corrections["path"]) == ["[cel][cla]0001__1.wav", copy.name]
    table = found.clips.table.set_index("path")
    assert table.loc["IRMAS-TrainingData/cel/[cel][cla]0002__1.wav", "split"] == "damaged"
    assert table.index[table["mono"]].tolist() == ["IRMAS-TrainingData/cel/[cel][cla]0003__1.wav"]
    write_tables(found, tmp_path / "report")
    assert "Damaged: 1" in write_report(found, tmp_path / "report").read_text(encoding="utf-8")


def test_copies_by_way_of_others_are_decided_together(tmp_path):
    """Of files with the same bytes only the first is compared by ear."""
    own = tmp_path / "own"
    for number, (code, names) in enumerate({
        "oud": ["test/oud/heard", "train/oud/bytes of test", "train/oud/first", "train/oud/same bytes", "train/oud/1"],
        "kora": ["test/kora/other", "train/kora/one", "train/kora/same bytes", "train/kora/1"],
    }.items()):  # fmt: skip
        for seed, name in enumerate(names):
            write_audio(own / f"{name}.wav", seed=10 * number + seed, seconds=3, sampling_rate=16_000)
        first = own / f"train/{code}/{'first' if code == 'oud' else 'one'}.wav"
        (own / f"train/{code}/same bytes.wav").write_bytes(first.read_bytes())
    (own / "train/oud/bytes of test.wav").write_bytes((own / "test/oud/heard.wav").read_bytes())
    for original, quieter in {
        "train/oud/first": "train/kora/other label",
        "train/kora/one": "train/kora/quieter",
        "test/oud/heard": "train/oud/quieter",
    }.items():
        waveform, rate = soundfile.read(own / f"{original}.wav")
        soundfile.write(own / f"{quieter}.wav", 0.7 * waveform, rate)
    found = audit(own, label_errors=False, cache_dir=tmp_path / "cache", num_proc=1)
    assert found.corrections.set_index("path")["reason"].to_dict() == {
        "train/kora/other label.wav": "conflicting labels on the same audio: train/oud/first.wav",
        "train/oud/first.wav": "conflicting labels on the same audio: train/kora/other label.wav",
        "train/oud/same bytes.wav": "conflicting labels on the same audio: train/kora/other label.wav",
        "train/kora/quieter.wav": "a copy with the same label: train/kora/one.wav",
        "train/kora/same bytes.wav": "a copy with the same label: train/kora/one.wav",
        "train/oud/quieter.wav": "the test set has audio of its recording: test/oud/heard.wav",
    }


def test_channels_that_cancel_each_other_out_are_named_counted_and_dropped(tmp_path, caplog):
    """Stereo whose mean is next to silence, as one plug wired backwards makes it."""
    for number in range(4):
        for name in ("kora", "oud"):
            write_audio(tmp_path / "own/train" / name / f"{number}.wav", seed=number + 10 * len(name), seconds=0.4)
            write_audio(tmp_path / "own/test" / name / f"{number}.wav", seed=100 + number + 10 * len(name), seconds=0.4)
    noise = np.random.default_rng(5).uniform(-0.5, 0.5, 16_000)
    soundfile.write(tmp_path / "own/train/oud/opposite.wav", np.stack([noise, -noise], axis=1), 16_000)
    found = audit(tmp_path / "own", label_errors=False, cache_dir=tmp_path / "cache", num_proc=1)
    assert "own/train/oud/opposite.wav has channels that cancel each other out" in caplog.text
    table = found.clips.table
    assert table.loc[table["cancelled"], "path"].tolist() == ["train/oud/opposite.wav"] and not table["silent"].any()
    reasons = found.corrections.set_index("path")["reason"].to_dict()
    assert reasons == {"train/oud/opposite.wav": "the channels cancel each other out"}
    assert f"{1:>7}  clips whose channels cancel each other out" in summary(found)
    write_tables(found, tmp_path / "report")
    page = write_report(found, tmp_path / "report").read_text(encoding="utf-8")
    assert "Cancelled: 1" in page and "opposite.wav" in page


def test_a_folder_of_ones_own(tmp_path, few_trees):
    pytest.importorskip("cleanlab", reason="cleanlab is not installed")
    for number in range(6):
        for name in ("kora", "oud & <b>"):
            write_audio(tmp_path / "own" / "train" / name / f"{number}.wav", seed=number + 10 * len(name), seconds=0.4)
    soundfile.write(tmp_path / "own/train/kora/clipped.wav", np.ones(4000), 16_000, subtype="PCM_16")
    found = audit(tmp_path / "own", cache_dir=tmp_path / "cache", num_proc=1)
    assert found.clips.table.loc[found.clips.table["clipped"], "path"].tolist() == ["train/kora/clipped.wav"]
    assert set(found.leaky_split) == {"by recording", "by clip"}
    write_tables(found, tmp_path / "report")
    page = write_report(found, tmp_path / "report").read_text(encoding="utf-8")
    assert "oud &amp; &lt;b&gt;" in page
    assert "<b>oud" not in page and "oud & <b>" not in page
