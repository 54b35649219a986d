"""The measurement of a streamed start runs as its command says."""

import json

from experiments.streamed_start import main


def test_a_start_is_measured_and_the_tables_are_written_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("sys.argv", ["streamed_start", str(tmp_path / "set"), "--clips", "99"])
    main()
    found = json.loads(capsys.readouterr().out)
    assert sum(found["clips"].values()) == 99 + 220 and found["clips"]["train"] > 50
    assert 0 < found["libraries_mib"] <= found["peak_mib"] and found["splits_seconds"] > 0
    table = next((tmp_path / "set/data").glob("train*"))
    before = table.stat().st_mtime_ns
    main()
    assert table.stat().st_mtime_ns == before
