"""Songs of minutes: the songs that are built, their figures, and one tiny experiment from files to table."""

import json

import numpy as np
import pytest
import soundfile

from experiments.songs import PRESENT_SECONDS, RATE, SECTION_SECONDS, build_songs, listen, main, summary
from irmas_dataset.errors import UserError
from irmas_dataset.labels import readable_name
from irmas_recipe.training.recogniser import load_recogniser
from tests.experiments.music import write_sources
from tests.tiny import released


@pytest.fixture
def music(tmp_path):
    """Two classes of tones, two sources of seven recordings each."""
    return write_sources(tmp_path / "music", 0.5)


def test_a_song_is_what_its_truth_says(music, tmp_path):
    recordings = sorted((music / "train").glob("*/*.wav"))
    for path, truth in build_songs(recordings, tmp_path / "songs", 3, seed=0):
        samples, rate = soundfile.read(path)
        assert rate == RATE and truth[-1][2] == pytest.approx(len(samples) / RATE)
        starts = sorted({start for _, start, _ in truth})
        for first, last in {(first, last) for _, first, last in truth}:
            assert SECTION_SECONDS[0] - 0.01 <= last - first <= SECTION_SECONDS[1] + 0.01
            middle = samples[round(first * RATE) + RATE : round(last * RATE) - RATE]
            spectrum, frequencies = np.abs(np.fft.rfft(middle)), np.fft.rfftfreq(len(middle), 1 / RATE)
            loud = {
                label for label, tone in (("flu", 440), ("voi", 1500))
                if spectrum[np.abs(frequencies - tone) < 5].max() > 0.2 * spectrum.max()
            }  # fmt: skip
            assert loud == {label for label, start, _ in truth if start == first}
        assert starts[0] == 0.0 and 4 <= len(starts) <= 7


def song(part: str, system: str, scores: dict[str, float], timeline: list[int]) -> dict:
    """A song in which the flute plays, as `listen` returns it."""
    return {
        "part": part, "system": system, "present": ["flute"], "scores": scores,
        "clip": [0, 1, 1], "timeline": timeline, "seconds": [10, 20, 30],
    }  # fmt: skip


def test_figures_of_known_answers():
    songs = [
        song(part, system, {"flute": high, "voice": low}, [1, 2, 1])
        for part in ("unseen", "seen") for system in ("zero-shot", "fine-tuned")
        for high, low in ((0.9, 0.3), (0.4, 0.2), (0.35, 0.1))
    ]  # fmt: skip
    figures = summary(songs, resamples=50)["seen, fine-tuned"]
    assert figures["songs"] == 3
    expected = {"clip": 0.0, "timeline": 2 / 3, "gain": 2 / 3, "seconds": 0.4, "oracle": 1.0}
    assert {name: figures[name]["micro_f1"] for name in expected} == pytest.approx(expected)
    assert figures["timeline"]["ci95"] == pytest.approx([2 / 3, 2 / 3])


def test_what_is_said_and_true_of_a_song(music, tmp_path):
    songs = build_songs(sorted((music / "train").glob("*/*.wav")), tmp_path / "songs", 1, seed=0)
    released("mobilenet", tmp_path / "narrow")
    recognise = load_recogniser(str(tmp_path / "narrow"), window_seconds=1.0, thresholds=0.5)
    (row,) = listen(recognise, songs)
    heard = {entry["label"] for entry in recognise(str(songs[0][0]))}
    played = {readable_name(code) for code, _, _ in songs[0][1]}
    assert row["present"] == sorted(played)
    assert row["timeline"] == [len(heard & played), len(heard), len(played)]
    assert heard == {label for label, score in row["scores"].items() if score >= 0.5}
    assert row["seconds"][2] == sum(round(last) - round(first) for _, first, last in songs[0][1])


def test_folds_of_another_folder_are_not_gone_on_with(music, tmp_path):
    """Finished runs would be judged on sources that they have heard."""
    given = ["checkpoint", str(music), "--output_dir", str(tmp_path / "out"), "--resamples=50"]
    (tmp_path / "out").mkdir()
    notes = {"folder": str(music), "source_pattern": "([^/]+?)__", "folds": 4, "seen_fraction": 0.15}
    (tmp_path / "out/folds.json").write_text(json.dumps(notes))
    with pytest.raises(UserError, match="out holds runs with folds 4: give that again"):
        main([*given, "--folds", "2"])
    assert not (tmp_path / "out/fold-1").exists()


@pytest.mark.slow
def test_the_experiment_runs_from_files_to_a_table(music, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    released("mobilenet", tmp_path / "narrow")
    main([
        str(tmp_path / "narrow"), str(music), "--output_dir", str(tmp_path / "out"), "--folds", "2", "--songs", "2",
        "--resamples", "50", "--window_seconds=0.5", "--use_cpu", "--eval_strategy=no", "--save_strategy=no",
        "--load_best_model_at_end=False", "--bf16=False", "--disable_tqdm=True", "--preparation_processes=1",
        "--per_device_train_batch_size=4",
    ])  # fmt: skip
    report = json.loads((tmp_path / "out/songs.json").read_text())
    assert len(report["songs"]) == 16, "two folds, two systems, two parts, two songs"
    for row in report["songs"]:
        assert row["timeline"][2] == row["clip"][2] == len(row["present"]) and PRESENT_SECONDS == 8
        assert set(row["scores"]) == {readable_name("flu"), readable_name("voi")}
    assert "| tags, oracle |" in capsys.readouterr().out
