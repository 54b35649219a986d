"""`load_irmas` on real wav files: types, splits, damaged files, the cache, and many processes at once."""

import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import ClassLabel, List, Value

from irmas_dataset import Irmas, decode, describe, load_irmas
from irmas_dataset.errors import UserError
from irmas_dataset.labels import INSTRUMENT_CODES
from tests.irmas_dataset.folders import TEST_FILES, TRAINING_FILES, write_audio, write_irmas

REPOSITORY = Path(__file__).parents[2]
SAMPLE = REPOSITORY.parent / "shared" / "audio" / "irmas_sample"


@pytest.fixture
def load(tmp_path):
    """Return `load_irmas` with a cache of the test's own."""
    return lambda data_dir, **options: load_irmas(data_dir, cache_dir=str(tmp_path / "cache"), **options)


@pytest.fixture
def irmas(tmp_path):
    return write_irmas(tmp_path / "irmas")


def test_the_columns_are_typed(irmas, load):
    dataset = load(irmas)
    assert list(dataset) == ["train", "validation", "test"]
    for split in dataset.values():
        assert split.features == {
            "path": Value("string"),
            "instruments": List(ClassLabel(names=list(INSTRUMENT_CODES))),
            "recording": Value("string"),
            "song": Value("string"),
            "genre": Value("string"),
            "drums": Value("string"),
            "duration": Value("float32"),
            "md5": Value("string"),
        }


def test_every_clip_is_in_one_split_with_its_facts(irmas, load):
    dataset = load(irmas)
    rows = [*dataset["train"], *dataset["validation"]]
    assert sorted(row["path"] for row in rows) == sorted(
        str(irmas / "IRMAS-TrainingData" / name) for name in TRAINING_FILES
    )
    for row in rows:
        assert row["md5"] == hashlib.md5(Path(row["path"]).read_bytes()).hexdigest()
        assert row["duration"] == pytest.approx(0.05, abs=1e-4)
        assert [INSTRUMENT_CODES[label] for label in row["instruments"]] == [Path(row["path"]).parent.name]
    assert [row["path"] for row in dataset["test"]] == [str(irmas / f"{name}.wav") for name in TEST_FILES]
    assert [row["song"] for row in dataset["test"]][:2] == ["1/(02) dont kill the whale"] * 2
    assert set(dataset["test"]["recording"]) == {None}


def test_validation_shares_no_recording_with_training(irmas, load):
    dataset = load(irmas, validation_fraction=0.3)
    assert len(dataset["validation"]) > 0
    assert not set(dataset["train"]["recording"]) & set(dataset["validation"]["recording"])


def test_copies_of_one_file_stay_on_one_side_whatever_their_label(irmas, load):
    folder = irmas / "IRMAS-TrainingData"
    for number in range(8):  # gac and gel carry the same bytes under two labels, as in IRMAS
        for name in (f"gac/[gac][cou_fol]{number:04d}__1.wav", f"gel/[gel][cou_fol]{number + 100:04d}__1.wav"):
            write_audio(folder / name, 1000 + number)
    dataset = load(irmas, validation_fraction=0.5)
    assert not set(dataset["train"]["md5"]) & set(dataset["validation"]["md5"])
    held_out = [Path(path).name for path in dataset["validation"]["path"] if "cou_fol]0" in path]
    assert len(held_out) % 2 == 0 and held_out


def test_the_split_is_the_same_in_another_folder_and_differs_by_seed(irmas, tmp_path, load):
    def held_out(data_dir, seed):
        return {Path(path).name for path in load(data_dir, seed=seed, validation_fraction=0.4)["validation"]["path"]}

    assert held_out(irmas, 1) == held_out(write_irmas(tmp_path / "elsewhere"), 1)
    assert len({frozenset(held_out(irmas, seed)) for seed in range(5)}) > 1


def test_a_training_clip_that_is_in_the_test_set_leaves_with_its_recording(irmas, load, caplog):
    copied = irmas / "IRMAS-TrainingData/cel/008__[cel][nod][cla]0058__2.wav"
    copied.write_bytes((irmas / f"{next(iter(TEST_FILES))}.wav").read_bytes())
    dataset = load(irmas)
    assert "0058__1.wav" in caplog.text and "will not be used for training" in caplog.text
    assert not any("0058__" in path for split in ("train", "validation") for path in dataset[split]["path"])
    assert len(dataset["test"]) == len(TEST_FILES)


def test_without_a_test_folder_whole_recordings_are_held_out(tmp_path, load):
    dataset = load(write_irmas(tmp_path / "a", test=False), test_fraction_if_no_test=0.4)
    recordings = [set(split["recording"]) for split in dataset.values()]
    assert recordings[2] and sum(map(len, recordings)) == len(set.union(*recordings))
    assert set(dataset["test"]["song"]) == recordings[2]  # so that a bootstrap over songs works
    assert describe(dataset)["test_is_held_out"] is True


def test_a_test_set_alone_can_be_loaded(tmp_path, load):
    dataset = load(write_irmas(tmp_path / "a", training=False))
    assert [len(split) for split in dataset.values()] == [0, 0, len(TEST_FILES)]
    assert dataset["train"].features == dataset["test"].features


def test_describe_says_what_was_loaded(irmas, load):
    (irmas / "SYNTHETIC").touch()
    dataset = load(irmas)
    assert describe(dataset) == {
        "name": "synthetic, IRMAS-shaped",
        "clips": {"train": len(dataset["train"]), "validation": len(dataset["validation"]), "test": 4},
        "songs": 3,
        "classes": list(INSTRUMENT_CODES),
        "test_is_held_out": False,
        "damaged": [],
        "synthetic": True,
    }


def test_damaged_files_are_left_out_and_named(irmas, load, caplog):
    folder = irmas / "IRMAS-TrainingData/voi"
    (folder / "[voi][pop_roc]0001__1.wav").write_bytes(b"")
    (folder / "[voi][pop_roc]0002__1.wav").write_text("this is no sound")
    soundfile.write(folder / "[voi][pop_roc]0003__1.wav", np.zeros((0, 2)), 44100)
    soundfile.write(folder / "[voi][pop_roc]0004__1.wav", np.array([0.1, np.nan, 0.1]), 44100, subtype="FLOAT")
    damaged_test = next(iter(TEST_FILES))
    (irmas / f"{damaged_test}.wav").write_bytes(b"RIFF")
    for _ in range(2):  # the second time from the cache
        caplog.clear()
        dataset = load(irmas)
        (warning,) = [record.message for record in caplog.records if "are damaged and will" in record.message]
        assert warning.startswith("4 files are damaged and will be skipped: ")
        assert "0001__1.wav (is an empty file)" in warning
        assert "0003__1.wav (has no audio samples)" in warning
        assert f"{damaged_test}.wav (cannot be read as audio" in caplog.text
        assert len(dataset["train"]) + len(dataset["validation"]) == len(TRAINING_FILES)
        assert len(dataset["test"]) == len(TEST_FILES) - 1


def test_a_single_damaged_file_with_nan_is_named(irmas, load, caplog):
    path = irmas / "IRMAS-TrainingData/voi/[voi][pop_roc]0004__1.wav"
    soundfile.write(path, np.array([0.1, np.nan, 0.1]), 44100, subtype="FLOAT")
    load(irmas)
    assert f"{path} (contains NaN or infinite samples) is damaged and will be skipped." in caplog.text


def test_a_link_to_nowhere_is_named(irmas, load, caplog):
    link = irmas / "IRMAS-TrainingData/voi/[voi][pop_roc]0005__1.wav"
    link.symlink_to(irmas / "nowhere.wav")
    load(irmas)
    assert (
        f"{link} (cannot be read as audio (No such file or directory)) is damaged and will be skipped." in caplog.text
    )


def test_the_licence_is_claimed_for_irmas_alone(irmas, tmp_path, load):
    infos = [load(irmas)["test"].info]
    (irmas / "SYNTHETIC").touch()
    write_audio(tmp_path / "own/train/tuba/a.wav")
    infos += [load(irmas)["test"].info, load(tmp_path / "own")["train"].info]
    assert [info.license for info in infos] == ["CC BY-NC-SA 3.0", "", ""]


def test_a_folder_of_damaged_files_alone_is_refused(tmp_path, load):
    path = tmp_path / "a/IRMAS-TrainingData/voi/[voi][pop_roc]0001__1.wav"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"None of the 1 audio files can be read"):
        load(tmp_path / "a")


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda root: None, "is not a folder"),
        (lambda root: root.mkdir(), "has no IRMAS-TrainingData"),
        (lambda root: (root / "train/piano").mkdir(parents=True), "has no audio files in its class folders"),
        (lambda root: write_audio(root / "some.wav"), "has no IRMAS-TrainingData"),
    ],
)
def test_a_folder_that_is_nothing_is_refused_in_one_sentence(tmp_path, load, make, words):
    make(tmp_path / "x")
    with pytest.raises(UserError, match=words) as refused:
        load(tmp_path / "x")
    assert str(tmp_path / "x") in str(refused.value)


@pytest.mark.parametrize(
    "option, flag",
    [("validation_fraction", "--validation_fraction"), ("test_fraction_if_no_test", "test_fraction_if_no_test")],
)
@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_an_impossible_fraction_is_refused(irmas, load, option, flag, fraction):
    with pytest.raises(UserError, match=flag):
        load(irmas, **{option: fraction})


def test_the_sentence_about_an_unknown_label_is_not_wrapped(irmas, load):
    path = irmas / "IRMAS-TestingData-Part1/Part1/(02) dont kill the whale-1.txt"
    path.write_text("bass\t\n")
    with pytest.raises(UserError, match="unknown class 'bass'"):
        load(irmas)


def test_the_cache_is_used_until_a_file_changes(irmas, load, caplog):
    caplog.set_level(logging.INFO, logger="datasets")
    path = irmas / "IRMAS-TrainingData/voi/[voi][pop_roc]2432__1.wav"

    def load_again() -> tuple[bool, dict[str, str]]:
        logging.getLogger("datasets").addHandler(caplog.handler)
        caplog.clear()
        dataset = load(irmas)
        rows = [row for split in dataset.values() for row in split]
        return "Generating dataset" in caplog.text, {row["path"]: row["md5"] for row in rows}

    built, first = load_again()
    assert built
    assert load_again() == (False, first)
    write_audio(path, seed=4711)
    built, second = load_again()
    assert built and second[str(path)] != first[str(path)]
    annotation = irmas / f"{next(iter(TEST_FILES))}.txt"
    annotation.write_text("pia\t\n")
    assert load_again()[0]
    path.unlink()
    built, third = load_again()
    assert built and str(path) not in third
    assert load_again() == (False, third)


def test_a_path_that_is_no_unicode_is_stored_and_read_back(irmas, load):
    folder = irmas / "IRMAS-TestingData-Part1/Part1"
    for extension in ("wav", "txt"):
        source = folder / f"(02) dont kill the whale-1.{extension}"
        source.rename(folder / os.fsdecode(f"01 - Canto das três raças-10.{extension}".encode("latin-1")))
    dataset = load(irmas)
    (row,) = [row for row in dataset["test"] if "Canto" in row["path"]]
    assert "\\xe7" in row["path"]
    assert decode(row["path"])[1] == 44100


def test_the_builder_works_without_load_irmas(irmas, tmp_path):
    builder = Irmas(data_dir=str(irmas), cache_dir=str(tmp_path / "cache"))
    builder.download_and_prepare()
    assert len(builder.as_dataset(split="train")) == len(TRAINING_FILES)


LOAD_AND_PREPARE = """
import sys
from irmas_dataset import load_irmas, prepare
dataset = load_irmas(sys.argv[1], cache_dir=sys.argv[2], validation_fraction=0.3)
prepared = {name: prepare(split, 16000, num_proc=2) for name, split in dataset.items()}
assert "torch" not in sys.modules and "torchcodec" not in sys.modules
print(sorted((row["path"], name, sum(row["waveform"])) for name, split in prepared.items() for row in split))
"""


@pytest.mark.parametrize("count", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_processes_that_start_at_once_share_a_cold_cache(irmas, tmp_path, count):
    command = [sys.executable, "-c", LOAD_AND_PREPARE, str(irmas), str(tmp_path / "cache")]
    processes = [
        subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    results = [(process.communicate(timeout=120), process.returncode) for process in processes]
    assert [code for _, code in results] == [0] * count, results[0][0][1]
    assert len({output for (output, _), _ in results}) == 1
    assert results[0][0][0].count("IRMAS-T") == len(TRAINING_FILES) + len(TEST_FILES)
    written = sum(errors.count("Decoding audio at 16000 Hz (num_proc=2):   0%") for (_, errors), _ in results)
    assert written == 3  # each split was decoded by one process alone


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"real IRMAS files are not in {SAMPLE}")
def test_the_real_files_load(load, caplog):
    dataset = load(SAMPLE)
    assert "is incomplete: it has 52 of 6705 training excerpts and 2 of 2874 test excerpts. Figures" in caplog.text
    rows = [*dataset["train"], *dataset["validation"]]
    assert len(rows) == 52 and {round(row["duration"] * 44100) for row in rows} == {132299}
    names = dataset["test"].features["instruments"].feature.int2str
    assert [(row["song"], names(row["instruments"])) for row in dataset["test"]] == [
        ("1/02 - And The Body Will Die", ["gel", "voi"]),
        ("2/14.  Boots Randolph - Yakety Sax", ["gac", "sax"]),
    ]
    assert not set(dataset["train"]["recording"]) & set(dataset["validation"]["recording"])
