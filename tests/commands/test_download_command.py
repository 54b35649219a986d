"""`run_irmas.py download`."""

import pytest

from irmas_dataset import download as module
from irmas_dataset.errors import UserError
from irmas_dataset.files import load_index
from irmas_recipe.commands.download import main


def test_help_fits_a_screen_and_names_the_program(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    assert "irmas download" in text and "--verify" in text and len(text.splitlines()) < 25


def test_verify_ends_with_1_where_anything_is_missing(tmp_path, capsys):
    (tmp_path / "my data" / "IRMAS-TrainingData" / "cel").mkdir(parents=True)
    with pytest.raises(SystemExit) as ending:
        main(["--data_dir", str(tmp_path / "my data"), "--verify"])
    assert ending.value.code == 1
    said = capsys.readouterr().out
    assert f"0 complete, {len(load_index())} missing" in said
    assert f"`irmas download --data_dir '{tmp_path / 'my data'}'`" in said, "it can be pasted"


def test_verify_of_a_whole_folder_ends_well(tmp_path, capsys, monkeypatch):
    name = "IRMAS-TrainingData/cel/[cel][cla]0001__1.wav"
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr("irmas_dataset.verify.load_index", lambda: {name: None})
    main(["--data_dir", str(tmp_path), "--verify"])
    assert "1 complete" in capsys.readouterr().out


def test_openmic_is_verified_as_it_is_fetched_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr("irmas_dataset.openmic_download.check_free_space", lambda *given: None)  # of this machine
    with pytest.raises(UserError, match=r"--verify compares IRMAS alone"):
        main(["--data_dir", str(tmp_path), "--dataset", "openmic", "--verify"])
    with pytest.raises(UserError, match=r"openmic-2018-v1\.0\.0\.tgz.*cannot be reached"):
        main(
            ["--data_dir", str(tmp_path / "openmic"), "--dataset", "openmic", "--base_url", "http://127.0.0.1:9/files"]
        )


def test_unreachable_mirror_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT_SECONDS", 0.001)
    with pytest.raises(UserError, match="cannot be reached"):
        main(["--data_dir", str(tmp_path / "irmas"), "--base_url", "http://127.0.0.1:9/files"])
