"""A folder of one's own: classes, recordings, held-out test set, labels.csv."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from irmas_dataset import describe, load_irmas
from irmas_dataset.errors import UserError
from irmas_dataset.own_folder import list_own_folder
from irmas_recipe.commands.predict.files import audio_in
from tests.irmas_dataset.folders import write_audio


@pytest.fixture
def load(tmp_path):
    return lambda data_dir, **options: load_irmas(data_dir, cache_dir=str(tmp_path / "cache"), **options)


@pytest.fixture
def music(tmp_path):
    """A folder with two classes of ten files each, in nested folders and several formats."""
    root = tmp_path / "my music"
    for number in range(10):
        write_audio(root / f"train/tuba/take {number}.wav", number)
        folder = root / f"train/bass drum/session {number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        extension = ("flac", "ogg", "mp3", "WAV")[number % 4]
        noise = np.random.default_rng(100 + number).uniform(-0.5, 0.5, 4410)
        soundfile.write(folder / f"{number}.{extension}", noise, 44100, format=extension.upper())
    return root


def labels_of(split) -> list[tuple[str, ...]]:
    feature = split.features["instruments"].feature
    return [tuple(feature.int2str(labels)) for labels in split["instruments"]]


def test_the_classes_are_the_folders_sorted(music, load):
    dataset = load(music)
    assert dataset["train"].features["instruments"].feature.names == ["bass drum", "tuba"]
    for split in dataset.values():
        for path, labels in zip(split["path"], labels_of(split), strict=True):
            assert labels == (Path(path).relative_to(music).parts[1],)
    assert sum(map(len, dataset.values())) == 20


def test_without_test_a_part_of_the_recordings_is_held_out_and_described(music, load):
    dataset = load(music, test_fraction_if_no_test=0.2, validation_fraction=0.25)
    assert [len(split) for split in dataset.values()] == [12, 4, 4]
    assert describe(dataset) == {
        "name": "own folder my music",
        "clips": {"train": 12, "validation": 4, "test": 4},
        "songs": 4,
        "classes": ["bass drum", "tuba"],
        "test_is_held_out": True,
        "damaged": [],
        "synthetic": False,
    }
    paths = [path for split in dataset.values() for path in split["path"]]
    assert len(set(paths)) == 20


@pytest.mark.parametrize("pattern", [r"session \d", r"train/[^/]+/(session \d|take [0-4])"])
def test_a_pattern_makes_recordings(music, load, pattern):
    dataset = load(music, recording_pattern=pattern, test_fraction_if_no_test=0.3)
    assert {"session 0", "session 1"} <= {name for split in dataset.values() for name in split["recording"]}
    recordings = [set(split["recording"]) for split in dataset.values()]
    assert sum(map(len, recordings)) == len(set.union(*recordings))
    assert dataset["test"]["song"] == dataset["test"]["recording"]


def test_another_pattern_is_another_dataset(music, load):
    counts = [
        len(set(load(music, recording_pattern=pattern)["train"]["recording"]))
        for pattern in (None, r"session \d", r"[^/]+$")
    ]
    assert counts[0] == counts[2] > counts[1]


def test_a_broken_pattern_is_refused(music, load):
    with pytest.raises(UserError, match="--recording_pattern"):
        load(music, recording_pattern="(")


def test_segments_of_a_recording_are_one_recording_in_whatever_class_they_lie(tmp_path):
    for name in ("cel/song__0000.50s", "pia/song__0123.00s", "pia/disc 1/song__0123.00s__0001.00s", "pia/song__5s"):
        write_audio(tmp_path / f"train/{name}.wav")
    recordings = {clip.name: clip.recording for clip in list_own_folder(tmp_path).clips}
    assert recordings.pop("train/pia/song__5s.wav") == "train/pia/song__5s.wav", "not named as a segment"
    assert set(recordings.values()) == {"song"}
    by_pattern = {clip.recording for clip in list_own_folder(tmp_path, "disc [0-9]").clips}
    assert "disc 1" in by_pattern and "song" not in by_pattern


def test_a_class_folder_may_name_what_a_file_system_refuses(tmp_path):
    write_audio(tmp_path / "train/AC%2FDC/1.wav")
    write_audio(tmp_path / "train/100 %/1.wav")
    assert list_own_folder(tmp_path).classes == ("100 %", "AC/DC")


def test_excerpts_named_as_in_irmas_keep_their_recording(tmp_path):
    for number in (1, 2):
        write_audio(tmp_path / f"train/cel/[cel][cla]0001__{number}.wav")
    assert {clip.recording for clip in list_own_folder(tmp_path).clips} == {"cel/[cel][cla]0001"}


def test_test_clips_come_from_class_folders_and_from_annotated_files(music, load):
    write_audio(music / "test/tuba/deep/a.wav", 500)
    write_audio(music / "test/b.wav", 501)
    (music / "test/b.txt").write_text("tuba\nbass drum\n")
    dataset = load(music)
    assert sorted(labels_of(dataset["test"])) == [("bass drum", "tuba"), ("tuba",)]
    assert len(dataset["train"]) + len(dataset["validation"]) == 20
    assert describe(dataset)["test_is_held_out"] is False
    assert describe(dataset)["songs"] == 2


def test_a_copy_of_a_test_clip_leaves_training(music, load, caplog):
    (music / "test/tuba").mkdir(parents=True)
    shutil.copy(music / "train/tuba/take 0.wav", music / "test/tuba/other.wav")
    dataset = load(music)
    assert not any("take 0" in path for name in ("train", "validation") for path in dataset[name]["path"])
    assert (
        "take 0.wav belongs to a recording that is also in the test set and will not be used for training."
        in caplog.text
    )


def test_a_test_class_without_training_clips_is_named(music, load):
    write_audio(music / "test/trombone/a.wav")
    with pytest.raises(UserError, match="unknown class 'trombone'; the classes are bass drum, tuba"):
        load(music)


def test_a_file_outside_the_class_folders_is_named(music, load):
    write_audio(music / "train/lost.wav")
    with pytest.raises(UserError, match=r"lost\.wav is not in a class folder"):
        load(music)


def test_a_test_folder_alone_can_be_loaded(tmp_path, load):
    write_audio(tmp_path / "x/test/tuba/a.wav")
    assert [len(split) for split in load(tmp_path / "x").values()] == [0, 0, 1]


def write_table(root: Path, text: str) -> Path:
    for number in range(4):
        write_audio(root / f"clips/{number}.wav", number)
    write_audio(root / "test/4.wav", 4)
    (root / "labels.csv").write_text(text, encoding="utf-8")
    return root


def test_a_table_gives_several_labels_recordings_and_a_test_set(tmp_path, load):
    root = write_table(
        tmp_path / "x",
        '\ufeffpath,instruments,recording\nclips/0.wav,oboe;harp,one\nclips/1.wav,"harp, oboe",one\n'
        "clips/2.wav,harp,two\n./clips/3.wav,oboe,\ntest/4.wav,harp,five\n",
    )
    dataset = load(root, validation_fraction=0)
    assert labels_of(dataset["train"]) == [("harp", "oboe"), ("harp", "oboe"), ("harp",), ("oboe",)]
    assert dataset["train"]["recording"] == ["one", "one", "two", "clips/3.wav"]
    assert (labels_of(dataset["test"]), dataset["test"]["song"]) == ([("harp",)], ["five"])


def test_a_recording_of_the_test_set_leaves_training(tmp_path, load, caplog):
    root = write_table(
        tmp_path / "x",
        "path,instruments,recording\nclips/0.wav,oboe,five\nclips/1.wav,harp,one\nclips/2.wav,oboe,two\ntest/4.wav,harp,five\n",
    )
    dataset = load(root, validation_fraction=0)
    assert [Path(path).name for path in dataset["train"]["path"]] == ["1.wav", "2.wav"]
    assert "clips/0.wav belongs to a recording that is also in the test set" in caplog.text
    assert "clips/3.wav is not in labels.csv and will be skipped." in caplog.text


@pytest.mark.parametrize(
    "text, words",
    [
        ("file,label\n", "labels.csv needs the columns path and instruments"),
        ("path,instruments\nclips/0.wav,oboe\nclips/9.wav,oboe\n", "labels.csv line 3: there is no file .*clips/9.wav"),
        ("path,instruments\nclips/0.wav,\n", "labels.csv line 2: clips/0.wav has no label"),
        ("path,instruments\nclips/0.wav\n", "labels.csv line 2: clips/0.wav has no label"),
        ("path,instruments\nclips/0.wav,a\nclips/0.wav,b\n", "lists .*clips/0.wav twice"),
        ("path,instruments\nclips/0.wav,a\ntest/4.wav,b\n", "labels.csv line 3: unknown class 'b'"),
        ("path,instruments\n", "has no audio files"),
    ],
)
def test_a_broken_table_is_refused_with_its_line(tmp_path, load, text, words):
    with pytest.raises(UserError, match=words):
        load(write_table(tmp_path / "x", text))


def test_a_table_in_another_encoding_is_refused(tmp_path, load):
    root = write_table(tmp_path / "x", "")
    (root / "labels.csv").write_bytes("path,instruments\nclips/0.wav,flûte\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"labels\.csv is not encoded in UTF-8"):
        load(root)


def labelled(root: Path, lines: list[str], columns: str = "path,instruments") -> Path:
    (root / "labels.csv").write_text("\n".join([columns, *lines]), encoding="utf-8")
    return root


def clips_of(root: Path, names: list[str]) -> Path:
    for seed, name in enumerate(names):
        write_audio(root / name, seed)
    return root


def read(root: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {clip.name: (clip.split, clip.instruments) for clip in list_own_folder(root).clips}


@pytest.mark.parametrize("form", ["{name}", "{root}/{name}", "clips/../{name}", "./{name}"])
def test_a_path_of_the_table_means_the_same_file_however_it_is_written(tmp_path, form):
    root = clips_of(tmp_path, ["clips/a.wav", "test/b.wav"])
    lines = [f"{form.format(name=name, root=root)},kora" for name in ("clips/a.wav", "test/b.wav")]
    assert read(labelled(root, lines)) == {"clips/a.wav": ("train", ("kora",)), "test/b.wav": ("test", ("kora",))}


def test_commas_mean_the_same_in_unknown_as_in_instruments(tmp_path):
    root = clips_of(tmp_path, ["a.wav", "b.wav", "c.wav"])
    columns = "path,instruments,unknown"
    listing = list_own_folder(labelled(root, ['a.wav,kora,"oud, harp"', "b.wav,oud,", "c.wav,harp,"], columns))
    assert listing.classes == ("harp", "kora", "oud") and listing.clips[0].unknown == ("harp", "oud")
    with pytest.raises(UserError, match="line 2, column unknown: is `oud, harp` one label or several"):
        list_own_folder(labelled(root, ['a.wav,kora,"oud, harp"', "b.wav,oud,", "c.wav,kora,"], columns))


def test_a_class_that_a_clip_has_is_not_unknown_in_it(tmp_path):
    root = clips_of(tmp_path, ["a.wav", "b.wav"])
    listing = list_own_folder(labelled(root, ["a.wav,kora,kora;oud", "b.wav,oud,"], "path,instruments,unknown"))
    assert [clip.unknown for clip in listing.clips] == [("oud",), ()]


def test_a_path_that_leads_out_of_the_folder_is_refused_with_its_line(tmp_path):
    write_audio(tmp_path / "elsewhere.wav", 0)
    root = clips_of(tmp_path / "music", ["a.wav"])
    with pytest.raises(UserError, match=r"labels.csv line 3: \.\./elsewhere\.wav is not inside"):
        list_own_folder(labelled(root, ["a.wav,kora", "../elsewhere.wav,kora"]))


def test_labels_without_quotes_are_never_swallowed(tmp_path):
    root = clips_of(tmp_path, ["a.wav", "b.wav"])
    with pytest.raises(UserError, match="line 2 has 3 fields for the 2 columns"):
        list_own_folder(labelled(root, ["a.wav,kora,oud", "b.wav,oud"]))
    with pytest.raises(UserError, match="line 2: the recording is named as the class oud"):
        list_own_folder(labelled(root, ["a.wav,kora,oud", "b.wav,oud,r2"], "path,instruments,recording"))


def test_a_column_that_is_not_read_is_named(tmp_path):
    write_audio(tmp_path / "a.wav")
    (tmp_path / "labels.csv").write_text("path,instruments,Recordings,\na.wav,kora,session 1,\n")
    (warning,) = list_own_folder(tmp_path).warnings
    assert warning.endswith("only path, instruments, recording, unknown, split are read, not recordings.")


def test_a_file_that_the_table_lists_is_not_said_to_be_skipped(tmp_path):
    for name in ("a.m4a", "b.m4a"):
        write_audio(tmp_path / name)
    (tmp_path / "labels.csv").write_text("path,instruments\na.m4a,kora\n")
    (warning,) = list_own_folder(tmp_path).warnings
    assert warning.startswith(f"{tmp_path / 'b.m4a'} is in a format")


def test_one_spelling_of_a_class_and_of_a_recording(tmp_path):
    root = clips_of(tmp_path, ["a.wav", "b.wav", "c.wav"])
    lines = ["a.wav,Gera\u0308usch ,Take 1", "b.wav,Geräusch,take  1", "c.wav,kora,other"]
    listing = list_own_folder(labelled(root, lines, "path,instruments,recording"))
    assert listing.classes == ("Geräusch", "kora")
    assert [clip.recording for clip in listing.clips] == ["Take 1", "Take 1", "other"]
    shutil.rmtree(root / "train", ignore_errors=True)
    (root / "labels.csv").unlink()
    clips_of(root, ["train/Kora/a.wav", "train/kora/b.wav", "train/kora/c.wav", "test/KORA/d.wav", "train/oud/e.wav"])
    listing = list_own_folder(root)
    assert listing.classes == ("kora", "oud") and {clip.instruments for clip in listing.clips} == {("kora",), ("oud",)}
    assert sum("is read as `kora`" in warning for warning in listing.warnings) == 2


def test_links_to_folders_are_followed_once_and_never_to_a_parent(tmp_path):
    root = clips_of(tmp_path / "music", ["train/kora/a.wav", "train/oud/b.wav"])
    clips_of(tmp_path / "disk", ["c.wav"])
    (root / "train/kora/disk").symlink_to(tmp_path / "disk")
    (root / "train/kora/loop").symlink_to(root / "train")
    (root / "train/oud/self").symlink_to(root / "train/oud")
    assert {name: labels for name, (_, labels) in read(root).items()} == {
        "train/kora/a.wav": ("kora",), "train/kora/disk/c.wav": ("kora",), "train/oud/b.wav": ("oud",),
    }  # fmt: skip
    assert len(audio_in(root)) == 3, "predict follows the links that a training follows"


def test_folders_are_read_as_meant_or_named(tmp_path):
    root = clips_of(tmp_path, ["Train/kora/a.aiff", "Train/oud/b.caf", "TEST/oud/c.wav", "validation/oud/d.wav"])
    write_audio(root / "Train/oud/e.wav", 5)
    (root / "Train/oud/e.wav").rename(root / "Train/oud/e.m4a")
    listing = list_own_folder(root)
    assert {clip.name: clip.split for clip in listing.clips} == {
        "Train/kora/a.aiff": "train", "Train/oud/b.caf": "train", "TEST/oud/c.wav": "test",
    }  # fmt: skip
    assert any("validation has audio but is not read" in warning for warning in listing.warnings)
    assert any("e.m4a is in a format that is not read from folders" in warning for warning in listing.warnings)


def test_class_folders_alone_are_training_clips(tmp_path):
    listing = list_own_folder(clips_of(tmp_path, ["kora/a.wav", "oud/disc 1/b.wav"]))
    assert {clip.name: (clip.split, *clip.instruments) for clip in listing.clips} == {
        "kora/a.wav": ("train", "kora"), "oud/disc 1/b.wav": ("train", "oud"),
    }  # fmt: skip


def test_class_folders_beside_test_are_named(tmp_path):
    with pytest.raises(UserError, match=r"has audio in kora/, oud/ but no train/: move the class folders"):
        list_own_folder(clips_of(tmp_path, ["kora/a.wav", "oud/b.wav", "test/kora/c.wav"]))
