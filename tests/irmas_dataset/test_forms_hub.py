"""A data set of the Hub by its id, from a server with the Hub's interface: loaded, streamed, and named in what is written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from irmas_dataset import load_irmas
from tests.irmas_dataset.form_folders import audio_folder, own_folder, parquet_folder
from tests.irmas_dataset.hub_server import serve_hub

PROGRAM = """
import json
from irmas_dataset import describe, load_irmas
from irmas_dataset.export.stream import load_streamed
from irmas_dataset.export.tables import read_audio
from irmas_recipe.training.data import describe_data
from irmas_recipe.training.fields import DataArguments

splits, streamed = load_irmas("someone/music", validation_fraction=0.3), load_streamed("someone/music", validation_fraction=0.3)
place = streamed["train"][0]
content = read_audio(place["shard"], place["row_group"], [place["row"]], place["audio_column"])[0]
print(json.dumps({
    "md5": {name: sorted(split["md5"]) for name, split in splits.items()},
    "streamed": {name: sorted(split["recording"]) for name, split in streamed.items()},
    "loaded": {name: sorted(split["recording"]) for name, split in splits.items()},
    "shard": place["shard"], "bytes": len(content),
    "dataset": describe_data(DataArguments(data_dir="someone/music"), splits, [0, 1]),
}))
"""


@pytest.mark.parametrize("form", ["Parquet", "metadata.csv"])
def test_an_id_of_the_hub_gives_the_splits_of_the_same_music_in_a_folder(tmp_path, monkeypatch, form):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = parquet_folder(tmp_path / "set", "ids") if form == "Parquet" else audio_folder(tmp_path / "set", "csv")
    with serve_hub(folder, "someone/music") as server:
        environment = os.environ | {
            "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }  # fmt: skip
        environment.pop("HF_DATASETS_OFFLINE", None)
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout)
    expected = load_irmas(own_folder(tmp_path / "own"), validation_fraction=0.3)
    assert found["md5"] == {name: sorted(split["md5"]) for name, split in expected.items()}
    assert found["streamed"] == found["loaded"]
    assert found["shard"].startswith("hf://datasets/someone/music@") and found["bytes"] > 44
    assert (found["dataset"]["name"], found["dataset"]["hub_id"]) == ("someone/music", "someone/music")
