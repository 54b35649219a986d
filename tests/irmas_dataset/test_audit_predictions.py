"""Scores find their clips by as much of a path as leads to one clip alone."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from irmas_dataset.audit.predictions import read_predictions
from irmas_dataset.errors import UserError

PATHS = [
    "train/kora/00.wav",
    "test/kora/00.wav",
    "train/oud/disc 1/take1.wav",
    "train/kora/disc 1/take1.wav",
    "only.wav",
]


def clips() -> SimpleNamespace:
    return SimpleNamespace(root=Path("/music"), classes=["kora", "oud"], table=pd.DataFrame({"path": PATHS}))


def table(tmp_path: Path, paths: list[str]) -> Path:
    file = tmp_path / "scores.csv"
    scores = np.arange(len(paths)) / 10
    pd.DataFrame({"path": paths, "kora": scores, "oud": 1 - scores}).to_csv(file, index=False)
    return file


@pytest.mark.parametrize("folder", ["", "/music/", "/elsewhere/copy/", "C:\\music\\"])
def test_wherever_the_folder_was(tmp_path, folder):
    scores = read_predictions([table(tmp_path, [folder + path for path in PATHS])], clips())
    assert scores[:, 0].tolist() == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_an_end_that_several_clips_share_is_nobodys(tmp_path):
    scores = read_predictions([table(tmp_path, ["/x/kora/00.wav", "/x/only.wav"])], clips())
    assert np.isnan(scores[:4]).all() and scores[4, 0] == pytest.approx(0.1)
    with pytest.raises(UserError, match="has no clip"):
        read_predictions([table(tmp_path, ["/x/kora/00.wav"])], clips())


def test_a_mixture_of_validation_clips_is_none_of_them(tmp_path):
    alone, mixture = PATHS[3], " + ".join([PATHS[0], PATHS[2]])
    scores = read_predictions([table(tmp_path, [alone, mixture, f"{mixture} + {PATHS[4]}"])], clips())
    assert np.isnan(scores[[0, 1, 2, 4]]).all() and scores[3, 0] == 0
