"""Corrections laid over a dataset, and the faults of IRMAS that the project ships."""

from pathlib import Path

import pytest

from irmas_dataset import known_faults, load_irmas, prepare
from irmas_dataset.errors import UserError
from irmas_dataset.files import INDEX_FOLDER
from irmas_dataset.labels import INSTRUMENT_CODES
from tests.irmas_dataset.folders import TRAINING_FILES, write_audio, write_irmas

CELLO = "IRMAS-TrainingData/cel/[cel][cla]0001__1.wav"
TEST_CLIP = "IRMAS-TestingData-Part2/IRTestingData-Part2/07-Blue - Corridor (1)-3.wav"


@pytest.fixture
def load(tmp_path):
    """Return a function that writes a corrections file and loads IRMAS's shape with it."""
    root = write_irmas(tmp_path / "irmas")

    def load_with(text: str | Path, data_dir: Path = root):
        path = text
        if isinstance(text, str):
            path = tmp_path / "corrections.csv"
            path.write_text(text, encoding="utf-8")
        return load_irmas(data_dir, corrections=path, cache_dir=str(tmp_path / "cache"))

    load_with.root = root
    return load_with


def rows_of(dataset) -> dict[str, tuple[str, ...]]:
    """Return file name -> labels over all splits."""
    return {
        Path(row["path"]).name: tuple(INSTRUMENT_CODES[label] for label in row["instruments"])
        for split in dataset.values()
        for row in split
    }


def test_clips_are_relabelled_and_dropped(load):
    before = rows_of(load("path,instruments,drop\n"))
    after = rows_of(
        load(
            f"path,instruments,drop\n{CELLO},voi;cel,no\n{TEST_CLIP},sax,\nIRMAS-TrainingData/{TRAINING_FILES[0]},,yes\n"
        )
    )
    assert before.keys() - after.keys() == {Path(TRAINING_FILES[0]).name}
    changed = {name: labels for name, labels in after.items() if labels != before[name]}
    assert changed[Path(CELLO).name] == ("cel", "voi")
    assert len(changed) == 2


@pytest.mark.parametrize(
    "word, dropped", [("yes", True), ("TRUE", True), ("1", True), ("no", False), ("", False), ("0", False)]
)
def test_the_words_for_drop(load, word, dropped):
    assert (Path(CELLO).name not in rows_of(load(f"path,drop\n{CELLO},{word}\n"))) is dropped


def test_paths_are_relative_to_the_data_folder_or_as_published(load):
    for path in (CELLO, f"irmas/{CELLO}"):
        assert Path(CELLO).name not in rows_of(load(f"path,drop\n{path},yes\n", load.root.parent))


def test_a_path_means_the_same_clip_however_it_is_written(load):
    assert Path(CELLO).name not in rows_of(load("path,drop\n" + CELLO.replace("/", "\\") + ",yes\n"))


def test_corrections_of_irmas_do_not_fit_other_music(load, tmp_path):
    for number in range(4):
        write_audio(tmp_path / f"mine/train/{'cel' if number % 2 else 'oud'}/{number}.wav", number)
    with pytest.raises(UserError, match=r"line 2: .*mine has no clip IRMAS-TrainingData"):
        load(INDEX_FOLDER / "drop_conflicting_training.csv", tmp_path / "mine")


def test_corrections_act_before_the_split(load):
    everything_but_gel = [name for name in TRAINING_FILES if not name.startswith("gel")]
    dataset = load("path,instruments\n" + "".join(f"IRMAS-TrainingData/{name},pia\n" for name in everything_but_gel))
    recordings = {
        row["recording"] for row in dataset["validation"] if row["instruments"] == [INSTRUMENT_CODES.index("pia")]
    }
    assert len(recordings) == 1  # of the seven recordings of what is one class now; as four classes they would give two


@pytest.mark.parametrize(
    "text, words",
    [
        (
            f"path,instruments\n{CELLO},cel\nIRMAS-TrainingData/cel/none.wav,cel\n",
            "line 3: .* has no clip IRMAS-TrainingData/cel/none.wav",
        ),
        (f"path,instruments\n{CELLO},cel;tuba\n", "line 2: unknown class 'tuba'"),
        (f"path,drop\n{CELLO},maybe\n", "line 2: drop is 'maybe'"),
        ("path,label\n", "needs the columns path and instruments or drop"),
        ("instruments\n", "needs the columns path and instruments or drop"),
        (f"path,instruments,drop\n{CELLO},,yes\n{CELLO},voi,\n", "line 3: another line corrects .* in another way"),
        (Path("nowhere.csv"), "--corrections nowhere.csv cannot be read"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(load, text, words):
    with pytest.raises(UserError, match=words):
        load(text)


def test_the_shipped_overlay_drops_both_sides_of_every_conflicting_pair(load):
    faults = [fault for fault in known_faults() if fault["fault"] == "identical training pair with different labels"]
    for number, fault in enumerate(faults[:8]):  # an incomplete IRMAS: the ninth pair is not there
        write_audio(load.root / fault["path"], 1000 + number)
        write_audio(load.root / fault["other_path"], 1000 + number)
    names = {Path(fault[side]).name for fault in faults[:8] for side in ("path", "other_path")}
    assert len(names) == 16
    assert names <= rows_of(load("path,drop\n")).keys()
    assert not names & rows_of(load(INDEX_FOLDER / "drop_conflicting_training.csv")).keys()


def test_what_a_correction_names_is_no_longer_unknown(load, tmp_path):
    lines = ["path,instruments,unknown"]
    for number in range(4):
        write_audio(tmp_path / f"own/train/{number}.wav", seed=number)
        lines.append(f"train/{number}.wav,kora,oud;voice")
    (tmp_path / "own/labels.csv").write_text("\n".join(lines))
    splits = load("path,instruments\ntrain/1.wav,voice\n", tmp_path / "own")
    rows = {Path(row["path"]).name: (row["instruments"], row["unknown"]) for split in splits.values() for row in split}
    assert rows == {"0.wav": ([0], [1, 2]), "1.wav": ([2], [1]), "2.wav": ([0], [1, 2]), "3.wav": ([0], [1, 2])}


def test_corrected_labels_reach_the_prepared_dataset(load):
    for label in ("sax", "tru"):
        prepared = prepare(load(f"path,instruments\n{TEST_CLIP},{label}\n")["test"], 16000)
        assert rows_of({"test": prepared})[Path(TEST_CLIP).name] == (label,)
