"""Verification: every file against the index, by name and, where the name is spoiled, by contents."""

import hashlib
import shutil
from pathlib import Path

import pytest

from irmas_dataset.errors import UserError
from irmas_dataset.files import SYNTHETIC_MARKER, load_index
from irmas_dataset.verify import VerifySummary, compare, verify

SAMPLE = Path(__file__).parents[2].parent / "shared" / "audio" / "irmas_sample"
needs_sample = pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"no excerpts of IRMAS in {SAMPLE}")
TRAINING = "IRMAS-TrainingData/cel"
PART_1 = "IRMAS-TestingData-Part1/Part1"


def md5(contents: bytes) -> str:
    return hashlib.md5(contents).hexdigest()


@pytest.fixture
def small_index(monkeypatch):
    """An index of five clips, whose contents are their letters."""
    index = {
        f"{TRAINING}/[cel][cla]0001__1.wav": md5(b"a"),
        f"{TRAINING}/[cel][cla]0001__2.wav": md5(b"b"),
        f"{TRAINING}/[cel][cla]0001__3.wav": None,
        f"{PART_1}/song-1.wav": md5(b"c"),
        f"{PART_1}/song-2.wav": md5(b"c"),
    }
    monkeypatch.setattr("irmas_dataset.verify.load_index", lambda: index)
    return index


@pytest.fixture
def folder(tmp_path):
    """All five clips and their annotations."""
    for name, contents in {
        f"{TRAINING}/[cel][cla]0001__1.wav": b"a",
        f"{TRAINING}/[cel][cla]0001__2.wav": b"b",
        f"{TRAINING}/[cel][cla]0001__3.wav": b"anything",
        f"{PART_1}/song-1.wav": b"c",
        f"{PART_1}/song-1.txt": b"cel\t\n",
        f"{PART_1}/song-2.wav": b"c",
        f"{PART_1}/song-2.txt": b"cel\t\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(contents)
    return tmp_path


def counts(summary: VerifySummary) -> tuple[int, int, int, int]:
    return tuple(len(paths) for paths in (summary.complete, summary.missing, summary.damaged, summary.unknown))


def test_whole_folder_is_complete(folder, small_index):
    summary = verify(folder)
    assert summary.ok and sorted(summary.complete) == sorted(small_index)
    assert summary.unchecked == [f"{TRAINING}/[cel][cla]0001__3.wav"]
    assert str(summary) == "5 complete (1 of them without a published checksum), 0 missing, 0 damaged, 0 unknown"


def test_missing_damaged_and_unknown_files_are_named(folder, small_index):
    (folder / TRAINING / "[cel][cla]0001__1.wav").unlink()
    (folder / TRAINING / "[cel][cla]0001__2.wav").write_bytes(b"half")
    (folder / PART_1 / "song-2.txt").unlink()
    (folder / PART_1 / "another-1.wav").write_bytes(b"x")
    summary = verify(folder)
    assert not summary.ok
    assert summary.missing == [f"{PART_1}/song-2.txt", f"{TRAINING}/[cel][cla]0001__1.wav"]
    assert summary.damaged == [str(folder / TRAINING / "[cel][cla]0001__2.wav")]
    assert summary.unknown == [str(folder / PART_1 / "another-1.wav")]
    assert f"missing: {PART_1}/song-2.txt" in str(summary)


def test_unknown_names_are_recognised_by_their_contents(folder, small_index):
    (folder / PART_1 / "song-1.wav").rename(folder / PART_1 / "s\ufffdng-1.wav")
    (folder / PART_1 / "song-1.txt").rename(folder / PART_1 / "s\ufffdng-1.txt")
    (folder / PART_1 / "copy-1.wav").write_bytes(b"c")
    (folder / PART_1 / "copy-1.txt").write_bytes(b"cel\t\n")
    summary = verify(folder)
    assert summary.ok and counts(summary) == (5, 0, 0, 1), "one name was missing, so one of the two stands for it"


def test_files_without_checksum_never_stand_for_unknown_ones():
    summary = compare(
        {"/x/a.wav": "IRMAS-TrainingData/cel/a.wav"}, {"/x/a.wav": md5(b"x")}, {"IRMAS-TrainingData/cel/b.wav": None}
    )
    assert counts(summary) == (0, 1, 0, 1)


def test_long_lists_are_cut(small_index):
    summary = VerifySummary(missing=[f"clip {number}" for number in range(25)])
    assert "missing: clip 9\n" in str(summary) and "clip 10" not in str(summary)
    assert "missing: and 15 more" in str(summary)


def test_folders_that_cannot_be_verified_are_one_sentence(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="does not contain IRMAS: run"):
        verify(tmp_path / "empty")
    (folder / SYNTHETIC_MARKER).write_text("{}")
    with pytest.raises(UserError, match="synthetic"):
        verify(folder)


@needs_sample
def test_published_excerpts_match_the_published_index(tmp_path):
    copy = tmp_path / "irmas"
    shutil.copytree(SAMPLE / "IRMAS-TrainingData", copy / "IRMAS-TrainingData", copy_function=shutil.copyfile)
    wavs = sorted(copy.rglob("*.wav"))
    summary = verify(copy)
    assert (len(summary.complete), summary.damaged, summary.unknown) == (len(wavs), [], [])
    assert len(summary.complete) + len(summary.missing) == len(load_index())

    wavs[0].rename(wavs[0].with_name("renamed.wav"))
    wavs[1].write_bytes(wavs[1].read_bytes()[:-2])
    again = verify(copy)
    assert len(again.complete) == len(wavs) - 1
    assert [Path(path).name for path in again.damaged] == [wavs[1].name]
