"""A file is replaced when the block ends well, and stays as it was when it does not."""

import pytest

from irmas_dataset.whole_file import whole_file


def test_a_file_appears_whole_and_nothing_else_stays(tmp_path):
    path = tmp_path / "a.b.json"
    path.write_text("before")
    with whole_file(path) as unfinished:
        unfinished.write_text("half")
        assert path.read_text() == "before"
        unfinished.write_text("after")
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_writer_leaves_the_file_as_it_was_and_does_not_hinder_the_next(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("before")
    with pytest.raises(OSError, match="disk"), whole_file(path) as unfinished:
        unfinished.write_text("half")
        raise OSError("no room on the disk")
    assert path.read_text() == "before"
    with whole_file(path) as unfinished:
        unfinished.write_text("after")
    assert path.read_text() == "after"
