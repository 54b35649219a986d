"""Text that people's tools write: read as it is meant, or refused with file and line."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irmas_dataset.errors import UserError
from irmas_dataset.label_text import (
    folder_name,
    join_labels,
    label_of_folder,
    labels_of_fields,
    normalised,
    one_spelling,
    read_rows,
    read_text,
    split_labels,
)

LABELS = st.text(min_size=1, max_size=30).map(normalised).filter(bool)


@given(st.lists(LABELS, min_size=1, max_size=4))
def test_any_labels_come_back_from_one_field(labels):
    assert split_labels(join_labels(labels)) == labels


@given(LABELS)
def test_any_label_comes_back_from_the_name_of_its_folder(label):
    name = folder_name(label)
    assert label_of_folder(name) == label and not set(name) & set('/\\:*?"<>|\0') and not name.startswith(".")


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("AC/DC", "AC%2FDC"), ("Violin, fiddle", "Violin, fiddle"), (".", "%2E"), ("..", "%2E%2E"), ("100 %", "100 %"),
        ("AC%2FDC", "AC%252FDC"), ("%%2F/", "%%252F%2F"), ("etc.", "etc%2E"), ("__MACOSX", "%5F_MACOSX"), ("Bäß", "Bäß"),
    ],
)  # fmt: skip
def test_a_folder_is_named_as_its_label_with_escapes_where_a_file_system_needs_them(label, name):
    assert folder_name(label) == name and label_of_folder(name) == label


def test_a_label_that_is_longer_than_any_folders_name_is_refused():
    with pytest.raises(UserError, match="too long for the name of a folder"):
        folder_name("ö" * 128)


@pytest.mark.parametrize(
    ("field", "labels"),
    [
        ("kora;oud", ["kora", "oud"]),
        (" kora ; oud ;", ["kora", "oud"]),
        ('"Violin, fiddle";Piano', ["Violin, fiddle", "Piano"]),
        ('12" remix;oud', ['12" remix', "oud"]),
        ('"never closed', ['"never closed']),
        ("ney\u00a0\u200bflute\t", ["ney flute"]),
        (unicodedata.normalize("NFD", "Geräusch"), ["Geräusch"]),
        ("", []),
    ],
)
def test_a_field_is_read_as_it_is_meant(field, labels):
    assert split_labels(field) == labels


def test_a_comma_separates_labels_that_are_known_apart_and_is_refused_otherwise():
    assert labels_of_fields({"1": "kora,oud", "2": "kora", "3": "oud"})["1"] == ["kora", "oud"]
    assert labels_of_fields({"1": '"Violin, fiddle"', "2": "oud"})["1"] == ["Violin, fiddle"]
    with pytest.raises(UserError, match="line 2: is `Violin, fiddle` one label or several"):
        labels_of_fields({"line 2": "Violin, fiddle", "line 3": "oud"})


def test_of_spellings_that_differ_in_capitals_alone_the_most_frequent_is_used():
    assert one_spelling(["Kora", "kora", "kora", "oud"]) == {"Kora": "kora", "kora": "kora", "oud": "oud"}
    assert one_spelling(["Oud", "oud"]) == {"Oud": "Oud", "oud": "Oud"}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_table_of_any_spreadsheet_is_read(tmp_path, separator, encoding, line_end):
    lines = [["Path", "Instruments "], ["é.wav", "kora"], ["", ""], ["b c.wav", "oud", ""]]
    (tmp_path / "t.csv").write_bytes(line_end.join(separator.join(line) for line in lines).encode(encoding))
    rows = read_rows(tmp_path / "t.csv", "path", "instruments")
    assert [row for _, row in rows] == [
        {"path": "é.wav", "instruments": "kora"},
        {"path": "b c.wav", "instruments": "oud"},
    ]
    assert rows[1][0].endswith("t.csv line 4")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("path,instruments\na.wav,kora,oud\n", "line 2 has 3 fields for the 2 columns"),
        ("path,instruments,path\n", "has the column path twice"),
        ("file,instruments\n", "needs the columns path and instruments"),
        (
            'path,instruments\na.wav,oud\nb.wav,"kora\n' + 20_000 * "c.wav,oud\n",
            r"t\.csv line 3 cannot be read \(field",
        ),
    ],
)
def test_a_table_that_is_none_is_refused_with_its_line(tmp_path, content, said):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(UserError, match=said):
        read_rows(tmp_path / "t.csv", "path", "instruments")


@pytest.mark.parametrize("content", ["Gitarre für zwei".encode("latin-1"), b"kora\0\0", b"\xff\xfe\x00"])
def test_text_in_another_encoding_is_refused_and_never_becomes_a_class(tmp_path, content):
    (tmp_path / "clip.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"clip\.txt is not"):
        read_text(tmp_path / "clip.txt")
