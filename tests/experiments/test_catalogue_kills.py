"""The kills of a catalogue's executor run as their command says, and their checks see what is lost, doubled or other."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

pytest.importorskip("datatrove", reason="the extra `catalogue` is not installed")
from experiments import catalogue_kills

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_kills_lose_and_double_nothing():
    command = [sys.executable, "-m", "experiments.catalogue_kills", "--kills", "2", "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout)
    assert counts["kills"] == 2 and counts["rows"] == catalogue_kills.FILES * (1 + counts["catalogues"])


def test_the_check_sees_what_is_lost_doubled_and_other(tmp_path):
    (tmp_path / "tags").mkdir()
    rows = [
        {"path": path, "error": None, "score_violin": score} for path, score in (("a", 0.1), ("b", 0.2), ("b", 0.3))
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "tags/part.parquet")
    expected = {name: {"path": name, "error": None, "score_violin": 0.1 * place} for place, name in enumerate("abc", 1)}
    found = catalogue_kills.check(tmp_path, ["a", "b", "c"], expected)
    assert found == Counter(rows=3, lost=1, doubled=1, other_scores=1)


def test_a_part_with_fewer_rows_than_its_marker_counts_is_not_whole(tmp_path):
    parquet.write_table(pa.table({"path": ["a"]}), tmp_path / "part.parquet")
    (tmp_path / "part.done").write_text('{"files": 2}')
    assert not catalogue_kills.is_whole(tmp_path / "part.done")
    (tmp_path / "part.done").write_text('{"files": 1}')
    assert catalogue_kills.is_whole(tmp_path / "part.done")
