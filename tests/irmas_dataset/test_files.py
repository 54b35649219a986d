"""The traps of IRMAS's names and folders, each by name."""

import csv
import os
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from irmas_dataset.errors import UserError
from irmas_dataset.files import (
    find_irmas,
    from_text,
    known_faults,
    list_irmas,
    load_index,
    parse_test_name,
    parse_training_name,
    published_name,
    read_annotation,
    to_text,
    walk_files,
)
from irmas_dataset.labels import INSTRUMENT_CODES
from tests.irmas_dataset.folders import TEST_FILES, TRAINING_FILES, write_audio, write_irmas

LISTS = Path(__file__).parents[2].parent / "shared" / "irmas"
needs_lists = pytest.mark.skipif(not LISTS.is_dir(), reason=f"the lists of IRMAS's files are not in {LISTS}")


def rows_of(path: Path) -> list[dict]:
    with open(path, encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.parametrize(
    "name, instrument, recording, genre, drums",
    [
        ("cel/008__[cel][nod][cla]0058__1.wav", "cel", "cel/008__[cel][nod][cla]0058", "cla", "no"),
        ("cel/[cel][cla]0001__2.wav", "cel", "cel/[cel][cla]0001", "cla", None),
        ("cla/[cla][cla]0150__1.wav", "cla", "cla/[cla][cla]0150", "cla", None),
        ("cla/001__[cla][dru][jaz_blu]0160__3.WAV", "cla", "cla/001__[cla][dru][jaz_blu]0160", "jaz_blu", "yes"),
        ("gel/014__[gel][---][pop_roc]0978__2.wav", "gel", "gel/014__[gel][---][pop_roc]0978", "pop_roc", "unknown"),
        ("voi/[voi][cou_fol]2431__1.wav", "voi", "voi/[voi][cou_fol]2431", "cou_fol", None),
        ("voi/[cel][lat_sou]2431__1.wav", "voi", "voi/[cel][lat_sou]2431", "lat_sou", None),  # the folder is the class
        ("sax/my own take.wav", "sax", "sax/my own take", None, None),
    ],
)
def test_a_training_name_says_recording_genre_and_drums(name, instrument, recording, genre, drums):
    facts = parse_training_name(f"IRMAS-TrainingData/{name}")
    assert facts == {"instrument": instrument, "recording": recording, "genre": genre, "drums": drums}


@pytest.mark.parametrize(
    "name, song",
    [
        ("IRMAS-TestingData-Part1/Part1/(02) dont kill the whale-1.wav", "1/(02) dont kill the whale"),
        ("IRMAS-TestingData-Part1/Part1/(02) dont kill the whale-12.wav", "1/(02) dont kill the whale"),
        ("IRMAS-TestingData-Part2/IRTestingData-Part2/07-Blue - Corridor (1)-3.wav", "2/07-Blue - Corridor (1)"),
        ("IRMAS-TestingData-Part3/Part3/Étude Op. 5-2-1.wav", "3/Étude Op. 5-2"),
        (
            "IRMAS-TestingData-Part2/IRTestingData-Part2/14.  Boots Randolph - Yakety Sax-1.wav",
            "2/14.  Boots Randolph - Yakety Sax",
        ),
    ],
)
def test_a_song_is_the_name_without_the_number_of_the_excerpt(name, song):
    assert parse_test_name(name) == song


@needs_lists
def test_all_training_names_parse_as_listed():
    rows = rows_of(LISTS / "train.csv")
    assert len(rows) == 6705
    for row in rows:
        facts = parse_training_name(row["path"])
        listed = {"instrument": row["instrument"], "recording": row["recording"], "genre": row["genre"]}
        assert {key: facts[key] for key in listed} == listed
        assert facts["drums"] == (row["drums"] or ("unknown" if "[---]" in row["path"] else None))
        assert (facts["drums"] is not None) == row["path"].split("/")[-1][:3].isdigit()
    counts = Counter(parse_training_name(row["path"])["recording"] for row in rows)
    assert len(counts) == 2273
    assert Counter(recording[:3] for recording in counts) == dict(
        zip(INSTRUMENT_CODES, (135, 171, 156, 218, 256, 230, 246, 209, 196, 196, 260), strict=True)
    )


@needs_lists
def test_all_test_names_parse_as_listed():
    rows = rows_of(LISTS / "test.csv")
    assert [parse_test_name(row["path"]) for row in rows] == [row["song"] for row in rows]
    assert (len(rows), len({row["song"] for row in rows})) == (2874, 208)


@needs_lists
def test_the_whole_of_irmas_is_listed_as_published(tmp_path):
    train, test = rows_of(LISTS / "train.csv"), rows_of(LISTS / "test.csv")
    for folder in {os.path.dirname(row["path"]) for row in train + test}:
        (tmp_path / folder).mkdir(parents=True)
    for row in train + test:
        (tmp_path / row["path"]).touch()
    for row in test:
        annotation = "".join(f"{label}\t\n" for label in row["instruments"].split())
        (tmp_path / row["path"]).with_suffix(".txt").write_text(annotation)
    listing = list_irmas(tmp_path)
    assert (listing.title, listing.warnings) == ("IRMAS", [])
    found = {clip.name: clip for clip in listing.clips}
    assert {name: clip.instruments for name, clip in found.items()} == {
        row["path"]: tuple(row.get("instrument", row.get("instruments", "")).split()) for row in train + test
    }
    assert {clip.song for clip in listing.clips if clip.split == "test"} == {row["song"] for row in test}
    assert {clip.recording for clip in listing.clips if clip.split == "train"} == {row["recording"] for row in train}


@needs_lists
def test_the_index_lists_every_file_with_its_md5():
    rows = rows_of(LISTS / "train.csv") + rows_of(LISTS / "test.csv")
    assert load_index() == {row["path"]: row["md5"] or None for row in rows}
    assert sum(md5 is None for md5 in load_index().values()) == 45


def test_the_known_faults_agree_with_the_index():
    faults = known_faults()
    assert Counter(fault["fault"] for fault in faults) == {
        "identical training pair": 47,
        "identical training pair with different labels": 9,
        "identical test pair with different labels": 10,
    }
    index = load_index()
    for fault in faults:
        assert index[fault["path"]] == index[fault["other_path"]] is not None
        assert (fault["instruments"] == fault["other_instruments"]) == ("different" not in fault["fault"])
    copies = [md5 for md5, count in Counter(filter(None, index.values())).items() if count > 1]
    assert len(copies) == len(faults)  # nothing else is a copy, and none stands in both the training and the test set


def test_every_form_of_name_is_listed(tmp_path):
    listing = list_irmas(write_irmas(tmp_path))
    assert listing.classes == INSTRUMENT_CODES
    assert {clip.path for clip in listing.clips if clip.split == "train"} == {
        str(tmp_path / "IRMAS-TrainingData" / name) for name in TRAINING_FILES
    }
    test = {clip.name[:-4]: clip for clip in listing.clips if clip.split == "test"}
    assert test.keys() == TEST_FILES.keys()
    labels = [test[name].instruments for name in TEST_FILES]
    assert labels == [("gel",), ("gel", "voi"), ("cel", "voi"), ("cla",)]
    assert len({clip.song for clip in test.values()}) == 3  # one name in two parts is two songs


def test_the_label_of_a_cello_in_classical_music_is_cello_alone(tmp_path):
    write_audio(tmp_path / "IRMAS-TrainingData/cel/[cel][cla]0001__1.wav")
    assert [clip.instruments for clip in list_irmas(tmp_path).clips] == [("cel",)]


@pytest.mark.parametrize("where", ["", "IRMAS"])
def test_the_folders_are_found_at_the_data_dir_and_one_level_below(tmp_path, where):
    write_irmas(tmp_path / where)
    assert len(list_irmas(tmp_path).clips) == len(TRAINING_FILES) + len(TEST_FILES)


@pytest.mark.parametrize(
    "part, clips",
    [
        ("IRMAS-TrainingData", 13),
        ("IRMAS-TestingData-Part1", 2),
        ("IRMAS-TestingData-Part1/Part1", 2),
        ("IRMAS-TestingData-Part2/IRTestingData-Part2", 1),
    ],
)
def test_one_extracted_part_is_enough(tmp_path, part, clips):
    listing = list_irmas(write_irmas(tmp_path) / part)
    assert len(listing.clips) == clips
    assert all(clip.name.startswith(part) for clip in listing.clips)


@pytest.mark.parametrize("data_dir", ["x", "x/IRTestingData-Part2", "."])
def test_an_inner_folder_of_a_test_part_is_found_outside_its_part(tmp_path, data_dir):
    write_audio(tmp_path / "x/IRTestingData-Part2/a song-1.wav")
    (tmp_path / "x/IRTestingData-Part2/a song-1.txt").write_text("pia\t\n")
    (clip,) = list_irmas(tmp_path / data_dir).clips
    assert clip.name == "IRMAS-TestingData-Part2/IRTestingData-Part2/a song-1.wav"


def test_a_folder_that_is_called_part1_by_chance_is_no_irmas(tmp_path):
    write_audio(tmp_path / "Part1/train/tuba/a.wav")
    assert list_irmas(tmp_path / "Part1") is None


def test_a_folder_extracted_into_one_of_its_own_name_is_stepped_into(tmp_path):
    write_audio(tmp_path / "IRMAS-TrainingData/IRMAS-TrainingData/cel/[cel][cla]0001__1.wav")
    assert [clip.recording for clip in list_irmas(tmp_path).clips] == ["cel/[cel][cla]0001"]


def test_two_copies_of_a_folder_are_refused(tmp_path):
    write_audio(tmp_path / "a/IRMAS-TrainingData/cel/[cel][cla]0001__1.wav")
    write_audio(tmp_path / "b/IRMAS-TrainingData/cel/[cel][cla]0001__1.wav")
    with pytest.raises(UserError, match="IRMAS-TrainingData twice"):
        find_irmas(tmp_path)


def test_zips_are_refused_with_the_command_that_extracts_them(tmp_path):
    (tmp_path / "IRMAS-TrainingData.zip").touch()
    with pytest.raises(UserError, match=rf"run `irmas download --data_dir {tmp_path}`"):
        list_irmas(tmp_path)


def test_an_unknown_class_folder_is_named(tmp_path):
    write_audio(write_irmas(tmp_path) / "IRMAS-TrainingData/tuba/[tub][cla]0001__1.wav")
    with pytest.raises(UserError, match="IRMAS-TrainingData/tuba is not an IRMAS class"):
        list_irmas(tmp_path)


def test_what_operating_systems_leave_behind_is_passed_over(tmp_path):
    before = list_irmas(write_irmas(tmp_path)).clips
    for name in (
        "cel/._[cel][cla]0001__1.wav",
        "cel/Thumbs.db",
        "cel/desktop.ini",
        ".DS_Store",
        ".hidden/a.wav",
        "__MACOSX/b.wav",
        "cel/.trash/c.wav",
        "cel/__MACOSX/d.wav",
    ):
        path = tmp_path / "IRMAS-TrainingData" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no audio")
    (tmp_path / "IRMAS-TestingData-Part1/Part1/._(02) dont kill the whale-1.txt").write_bytes(b"\0\5\26\7")
    (tmp_path / "IRMAS-TestingData-Part1/README.txt").write_text("Please read this.\n")
    listing = list_irmas(tmp_path)
    assert listing.clips == before
    assert not any("README" in warning or "._" in warning for warning in listing.warnings)


def test_unpaired_and_empty_files_are_named(tmp_path):
    folder = write_irmas(tmp_path) / "IRMAS-TestingData-Part3/Part3"
    write_audio(folder / "no annotation-1.wav")
    write_audio(folder / "empty-1.wav")
    (folder / "empty-1.txt").write_text("\t\n")
    (folder / "no audio-1.txt").write_text("pia\t\n")
    listing = list_irmas(tmp_path)
    warnings = "\n".join(listing.warnings)
    assert f"{folder / 'no annotation-1.wav'} has no .txt of the same name and will be skipped." in warnings
    assert f"{folder / 'no audio-1.txt'} has no .wav of the same name." in warnings
    assert f"{folder / 'empty-1.wav'} has an empty annotation and will be skipped." in warnings
    assert len([clip for clip in listing.clips if clip.split == "test"]) == len(TEST_FILES)


def test_many_unpaired_files_are_counted(tmp_path):
    for number in range(5):
        write_audio(write_irmas(tmp_path) / f"IRMAS-TestingData-Part3/Part3/x-{number}.wav")
    assert any(warning.startswith("5 files have no .txt") for warning in list_irmas(tmp_path).warnings)


def test_a_label_that_is_no_class_is_named_with_its_file(tmp_path):
    path = write_irmas(tmp_path) / "IRMAS-TestingData-Part1/Part1/(02) dont kill the whale-1.txt"
    path.write_text("gel\t\nbas\t\n")
    with pytest.raises(UserError) as refused:
        list_irmas(tmp_path)
    assert str(path) in str(refused.value)
    assert "unknown class 'bas'" in str(refused.value)


def test_annotations_are_stripped_of_tabs_carriage_returns_and_byte_order_marks(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfgel\t\r\n voi \t\r\n\r\n")
    assert read_annotation(path) == ["gel", "voi"]


def test_an_incomplete_irmas_is_counted(tmp_path):
    for name in ("IRMAS-TrainingData/cel/008__[cel][nod][cla]0058__1.wav", "IRMAS-TrainingData/cel/mine.wav"):
        write_audio(tmp_path / name)
    listing = list_irmas(tmp_path)
    (warning,) = listing.warnings
    assert (
        f"IRMAS in {tmp_path} is incomplete: it has 1 of 6705 training excerpts and 0 of 2874 test excerpts" in warning
    )
    assert "test excerpts, plus 1 not in IRMAS." in warning
    assert listing.title == "incomplete IRMAS (1 of 6705 training excerpts and 0 of 2874 test excerpts)"


def test_a_synthetic_folder_says_so_and_is_not_warned_of(tmp_path):
    (write_irmas(tmp_path / "x") / "SYNTHETIC").touch()
    for data_dir in (tmp_path / "x", tmp_path, tmp_path / "x/IRMAS-TrainingData"):
        listing = list_irmas(data_dir)
        assert (listing.title, listing.warnings) == ("synthetic, IRMAS-shaped", [])


def test_a_folder_of_irmas_shape_with_no_file_of_irmas_makes_no_claim(tmp_path):
    write_audio(tmp_path / "IRMAS-TrainingData/cel/[cel][cla]9999__1.wav")
    listing = list_irmas(tmp_path)
    assert (listing.title, listing.warnings) == ("IRMAS-shaped folder", [])


NFC_NAME = "01 - Canto das três raças-10.wav"
PUBLISHED_NAME = unicodedata.normalize("NFD", NFC_NAME)


@pytest.mark.parametrize(
    "spoiled",
    [
        NFC_NAME,
        PUBLISHED_NAME,
        os.fsdecode(NFC_NAME.encode("latin-1")),
        os.fsdecode(NFC_NAME.encode("cp437")),
        NFC_NAME.encode().decode("cp437"),
        NFC_NAME.encode().decode("cp1252"),
        PUBLISHED_NAME.encode().decode("cp437"),
        PUBLISHED_NAME.encode().decode("mac_roman"),
        NFC_NAME.encode("cp1252").decode("cp437"),
    ],
)
def test_spoiled_names_are_recognised(tmp_path, spoiled):
    folder = tmp_path / "IRMAS-TestingData-Part1/Part1"
    write_audio(folder / "plain.wav").rename(folder / spoiled)
    (folder / f"{spoiled[:-4]}.txt").write_text("voi\t\n")
    (clip,) = list_irmas(tmp_path).clips
    assert clip.name == f"IRMAS-TestingData-Part1/Part1/{PUBLISHED_NAME}"
    assert clip.song == "1/" + PUBLISHED_NAME.removesuffix("-10.wav")
    assert from_text(to_text(clip.path)) == clip.path
    to_text(clip.path).encode()  # a path that Arrow can store


def test_a_name_that_is_nobodys_stays_as_it_is():
    assert published_name("IRMAS-TestingData-Part1/Part1/Étude-1.wav") == "IRMAS-TestingData-Part1/Part1/Étude-1.wav"


def test_links_to_folders_are_followed(tmp_path):
    write_irmas(tmp_path / "disk")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/IRMAS-TrainingData").symlink_to(tmp_path / "disk/IRMAS-TrainingData")
    (tmp_path / "own").mkdir()
    (tmp_path / "own/link").symlink_to(tmp_path / "disk/IRMAS-TrainingData/cel")
    assert len(list_irmas(tmp_path / "data").clips) == len(TRAINING_FILES)
    assert len(walk_files(tmp_path / "own")) == 5
