"""`predict --parts` of files on other machines, through fsspec: a web server, and a server with the Hub's interface."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.commands.test_predict_parts import REPOSITORY, music, rows_in, run, tag  # noqa: F401 (fixtures)
from tests.irmas_dataset.hub_server import serve_hub
from tests.irmas_dataset.range_server import serve_folder

NAMES = [f"{index:02d}.wav" for index in range(6)]


@pytest.fixture(scope="module")
def scores(run, music, tmp_path_factory):  # noqa: F811
    """The scores of the files on this machine, by their names."""
    folder = tmp_path_factory.mktemp("here")
    tag(run, *(music / name for name in NAMES), "--parts", folder)
    return by_name(folder)


def by_name(folder: Path) -> dict[str, np.ndarray]:
    rows = rows_in(folder)
    rows = rows[rows.error.isna()]
    columns = [name for name in rows if name.startswith("score_")]
    return {Path(path).name: row for path, row in zip(rows.path, rows[columns].to_numpy(), strict=True)}


@pytest.mark.parametrize("workers", [0, 2])
def test_files_on_a_web_server_are_heard_as_those_on_this_machine(run, music, scores, tmp_path, workers):  # noqa: F811
    with serve_folder(music) as server:
        addresses = [f"{server.url}/{name}" for name in [*NAMES, "gone.wav", "07%20bad.wav"]]
        (tmp_path / "list.txt").write_text("\n".join(addresses))
        tag(run, "--list", tmp_path / "list.txt", "--parts", tmp_path / "parts", "--workers", workers)
    rows = rows_in(tmp_path / "parts")
    assert rows.path.tolist() == addresses
    assert rows.error[6].startswith(f"{addresses[6]} cannot be fetched (FileNotFoundError")
    assert "07%20bad.wav cannot be read" in rows.error[7]
    heard = by_name(tmp_path / "parts")
    assert heard.keys() == scores.keys()
    for name, row in heard.items():
        np.testing.assert_allclose(row, scores[name], atol=2e-6)


def test_a_folder_on_a_web_server_is_listed(run, music, tmp_path):  # noqa: F811
    with serve_folder(music) as server:
        tag(run, f"{server.url}/", "--parts", tmp_path / "parts")
        expected = sorted(f"{server.url}/{path.name.replace(' ', '%20')}" for path in music.iterdir())
    assert rows_in(tmp_path / "parts").path.tolist() == expected


def test_a_server_that_goes_away_costs_the_files_that_it_had(run, music, tmp_path):  # noqa: F811
    with serve_folder(music) as server:
        address = f"{server.url}/00.wav"
    tag(run, address, music / "00.wav", "--parts", tmp_path / "parts")
    rows = rows_in(tmp_path / "parts")
    assert rows.error.isna().tolist() == [False, True] and f"{address} cannot be fetched" in rows.error[0]


def test_files_of_a_data_set_of_the_hub_are_heard_as_those_on_this_machine(run, music, scores, tmp_path):  # noqa: F811
    """By the real file system of huggingface_hub, against a server that has the part of the Hub's interface it asks."""
    command = [sys.executable, str(REPOSITORY / "run_irmas.py"), "predict", run, "hf://datasets/me/songs/",
               "--parts", str(tmp_path / "parts"), "--workers", "2", "--device", "cpu"]  # fmt: skip
    with serve_hub(music, "me/songs") as server:
        settings = {
            "HF_ENDPOINT": server.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "0",
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            command, cwd=tmp_path, env=os.environ | settings, capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = rows_in(tmp_path / "parts")
    assert rows.path.tolist() == sorted(f"hf://datasets/me/songs/{path.name}" for path in music.iterdir())
    assert rows.error.notna().sum() == 1
    heard = by_name(tmp_path / "parts")
    for name in NAMES:
        np.testing.assert_allclose(heard[name], scores[name], atol=2e-6)
