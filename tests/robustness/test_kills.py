"""A small campaign of `kills.py`, and the half-written files that a kill can leave."""

import subprocess
import sys

import pytest

from irmas_dataset.export.layout import CARD, is_exported
from irmas_dataset.export.write import export
from irmas_dataset.synthetic import UNFINISHED_MARKER, synthesize
from irmas_recipe.training.run_folder import last_checkpoint
from tests.robustness.tiny_run import ROOT, environment


@pytest.mark.slow
def test_killed_commands_end_as_unbroken_ones(tmp_path):
    """Five kills, by the script whose longer campaign stands in RESULTS.md."""
    command = [sys.executable, "-m", "tests.robustness.kills", "--kills", "5", "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_a_checkpoint_whose_state_is_cut_short_is_not_gone_on_from(tmp_path):
    for step, state in ((3, '{"global_step": 3}'), (6, '{"global_st'), (9, "")):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}/trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-3"


def test_an_export_without_its_card_is_none(tmp_path):
    synthesize(tmp_path / "music", train=2, test=1)
    export(tmp_path / "music", tmp_path / "exported", metadata_only=True, cache_dir=tmp_path / "cache")
    assert is_exported(tmp_path / "exported")
    (tmp_path / "exported" / CARD).rename(tmp_path / "exported" / f"{CARD}.unfinished")
    assert not is_exported(tmp_path / "exported")
    export(tmp_path / "music", tmp_path / "exported", metadata_only=True, cache_dir=tmp_path / "cache")
    assert is_exported(tmp_path / "exported")


def test_synthetic_music_goes_on_where_its_marker_was_cut_short(tmp_path):
    (tmp_path / UNFINISHED_MARKER).write_text("")
    synthesize(tmp_path, train=2, test=1)
    assert len(list(tmp_path.rglob("*.wav"))) == 3
