"""`run_irmas.py synthesize`."""

import pytest

from irmas_dataset.errors import UserError
from irmas_recipe.commands.synthesize import main


def test_synthesize_writes_the_asked_counts(tmp_path, capsys):
    main([str(tmp_path / "data"), "--train", "2", "--test", "1", "--seed", "5"])
    assert len(list((tmp_path / "data" / "IRMAS-TrainingData").rglob("*.wav"))) == 2
    assert len(list((tmp_path / "data").glob("IRMAS-TestingData-Part1/Part1/*.wav"))) == 1
    assert "2 training excerpts and 1 test clips" in capsys.readouterr().out


def test_synthesize_writes_an_openmic_too(tmp_path, capsys):
    main([str(tmp_path / "data"), "--layout", "openmic", "--train", "4", "--test", "2"])
    assert len(list((tmp_path / "data/openmic-2018/audio").rglob("*.ogg"))) == 6
    assert "4 training clips and 2 test clips" in capsys.readouterr().out
    with pytest.raises(UserError, match="is there already"):
        main([str(tmp_path / "data"), "--layout", "openmic", "--train", "4", "--test", "2"])
    with pytest.raises(UserError, match="give counts of 1 to"):
        main([str(tmp_path / "other"), "--layout", "openmic", "--train", "0"])


def test_help_fits_a_screen_and_names_the_program(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    assert "irmas synthesize" in text and len(text.splitlines()) < 25


def test_used_folder_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="other files"):
        main([str(tmp_path), "--train", "1", "--test", "1"])
