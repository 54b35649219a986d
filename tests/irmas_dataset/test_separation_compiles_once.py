"""librosa's first use in several real processes: one of them compiles, the others load what it compiled."""

import json
import os
import subprocess
import sys

import pytest

CODE = """
import json, sys
import numpy as np
from numba.core.registry import CPUDispatcher
from irmas_dataset.separation import Separation
sound = Separation("solo")(np.random.default_rng(1).normal(0, 0.1, 22050).astype(np.float32), 22050)
compiled = {}
for name, module in list(sys.modules.items()):
    if name.startswith("librosa."):
        for function in vars(module).values():
            if isinstance(function, CPUDispatcher) and function.stats.cache_misses:
                compiled[function.__qualname__] = sum(function.stats.cache_misses.values())
print(json.dumps({"compiled": compiled, "sum": float(np.abs(sound).sum())}))
"""
PROCESSES = 3


def start(cache, own) -> subprocess.Popen:
    """Start a process with numba's cache in `cache` and a cache of data sets in `own`."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache), "HF_DATASETS_CACHE": str(own), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", CODE], env=environment, stdout=subprocess.PIPE, text=True)


def answer(process: subprocess.Popen) -> dict:
    printed, _ = process.communicate()
    assert process.returncode == 0
    return json.loads(printed)


@pytest.mark.slow
def test_of_several_processes_that_separate_at_once_one_compiles(tmp_path):
    """They share no cache of data sets: the lock must lie where numba's cache is."""
    at_once = [start(tmp_path / "numba", tmp_path / f"data{number}") for number in range(PROCESSES)]
    answers = [answer(process) for process in at_once]
    compiled = [found["compiled"] for found in answers if found["compiled"]]
    assert len(compiled) == 1 and len(compiled[0]) >= 1
    later = answer(start(tmp_path / "numba", tmp_path / "later"))
    assert not later["compiled"] and {found["sum"] for found in answers} == {later["sum"]}
