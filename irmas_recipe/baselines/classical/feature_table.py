"""Features of many windows: computed once by several processes, then read from a cache."""

import os
from pathlib import Path

import librosa
import numpy as np
from datasets import Dataset, config
from datasets.fingerprint import Hasher
from joblib import Parallel, delayed
from tqdm import tqdm

from irmas_recipe.baselines.classical.features import VERSION, feature_rows
from irmas_recipe.training.clips import Mixtures, WindowedClips
from irmas_recipe.training.separated import SeparatedMixtures
from irmas_recipe.training.songs import Songs

WINDOWS_A_TASK = 16


def feature_table(
    windows: WindowedClips, feature_set: str, prepared: Dataset, processes: int, description: str
) -> np.ndarray:
    """Return the features (windows, columns) float32 of every window, in order.

    `prepared` is where the windows' clips come from: its fingerprint, with the windows and the feature set, names the
    file in `datasets`' cache that holds the features from the second call on.
    """
    path = cache_path(windows, feature_set, prepared)
    if path.is_file():
        return np.load(path)
    starts = range(0, len(windows), WINDOWS_A_TASK)
    tasks = (delayed(rows_between)(windows, start, feature_set) for start in starts)
    with Parallel(n_jobs=processes, return_as="generator") as workers:
        blocks = list(tqdm(workers(tasks), total=len(starts), desc=f"Features of {description}", disable=None))
    table = np.concatenate(blocks)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    with unfinished.open("wb") as file:
        np.save(file, table)
    unfinished.replace(path)
    return table


def rows_between(windows: WindowedClips, start: int, feature_set: str) -> np.ndarray:
    """Return the features of the windows of one task."""
    stop = min(start + WINDOWS_A_TASK, len(windows))
    return feature_rows(feature_set, [windows[index]["waveforms"] for index in range(start, stop)])


def cache_path(windows: WindowedClips, feature_set: str, prepared: Dataset) -> Path:
    """Return where the features of these windows are, or will be."""
    clips = windows.clips.sections if isinstance(windows.clips, Songs) else windows.clips
    members = clips.members if isinstance(clips, Mixtures) else None
    heard = clips.waveforms.dataset if isinstance(clips, SeparatedMixtures) else prepared
    depends_on = [
        heard._fingerprint, type(windows.clips).__name__, members, windows.window_samples, windows.windows,
        feature_set, VERSION, librosa.__version__,
    ]  # fmt: skip
    if prepared.cache_files:
        folder = Path(prepared.cache_files[0]["filename"]).parent
    else:
        folder = Path(config.HF_DATASETS_CACHE)
        folder.mkdir(parents=True, exist_ok=True)
    return folder / f"features-{Hasher.hash(depends_on)}.npy"
