"""Prepared waveforms as torch datasets: whole clips to train on, windows to evaluate, mixtures to tune on."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from datasets import Dataset

from irmas_dataset import WaveformColumn
from irmas_dataset.audit.levels import SILENT_PEAK_DB
from irmas_dataset.decoding import to_int16
from irmas_recipe.models.pipeline.windows import aggregate, energy_of, window_starts

UPLOADED_CLIPS = 256  # at a time, when all clips are brought to the device


def multi_hot(dataset: Dataset) -> np.ndarray:
    """Return a dataset's instruments as float32 (clips, classes): 1 present, 0 absent, -1 not known.

    Row by row it would take minutes for 10**6.
    """
    table = dataset.data.table
    labels = np.zeros((len(table), len(dataset.features["instruments"].feature.names)), dtype=np.float32)
    for column, value in (("unknown", -1), ("instruments", 1)):
        if column in dataset.features:
            lists = table.column(column).combine_chunks()
            labels[np.repeat(np.arange(len(lists)), lists.value_lengths().to_numpy()), lists.flatten().to_numpy()] = (
                value
            )
    return labels if dataset._indices is None else labels[dataset._indices.column(0).to_numpy()]


def united(labels: np.ndarray, members: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the labels (mixtures, classes) of sums of clips: 1 if one has the class, 0 if none has it, else -1."""
    found = [labels[list(of_one)] for of_one in members]
    return np.stack([np.where((rows == 1).any(axis=0), 1, rows.min(axis=0)) for rows in found]).astype(labels.dtype)


def present_counts(labels: np.ndarray) -> np.ndarray:
    """Return how many clips have each class, (classes,), of labels (clips, classes)."""
    return (labels == 1).sum(axis=0)


def classes_to_mix(clips: Sequence[np.ndarray], labels: np.ndarray) -> list[set[int]]:
    """Return each clip's classes for `validation_mixtures`; a silent clip has all of them, so that it is mixed with none.

    Otherwise a mixture would carry the label of an instrument that is not heard in it.
    """
    loudest = 2**15 * 10 ** (SILENT_PEAK_DB / 20)
    audible = [np.abs(clips[i].astype(np.int32)).max(initial=0) >= loudest for i in range(len(clips))]
    every_class = set(range(labels.shape[1]))
    return [set(np.flatnonzero(row == 1)) if heard else every_class for row, heard in zip(labels, audible, strict=True)]


class TrainingClips(torch.utils.data.Dataset):
    """Clips of one fixed length, zero-padded or cut, and how many samples each had before that.

    A batch is {"waveforms": int16 (batch, samples), "lengths": (batch,), "labels": (batch, classes), "rows": (batch,)}.
    A label is 1, 0 or -1, as `multi_hot` gives it.
    """

    def __init__(
        self,
        prepared: Dataset,
        clip_samples: int,
        balanced: bool = False,
        transform: Callable | None = None,
        seed: int = 0,
    ) -> None:
        """`transform` is an optional CPU augmentation, made anew for every draw of a clip; see `CpuTransform`."""
        self.waveforms = WaveformColumn(prepared)
        self.labels = torch.from_numpy(multi_hot(prepared))
        self.clip_samples, self.balanced, self.transform, self.seed = clip_samples, balanced, transform, seed
        self.on_device: dict[str, torch.Tensor] | None = None

    def __len__(self) -> int:
        return len(self.waveforms)

    def __getitem__(self, row: int) -> dict:
        """Return a clip as it is, without the transform."""
        return filled(self.waveforms[row], self.clip_samples) | {"labels": self.labels[row], "rows": row}

    def __getitems__(self, draws: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
        """Return the batch of a list of (row, draw), as the sampler gives them."""
        if self.on_device is None:
            return collate([self.drawn(row, draw) for row, draw in draws])
        rows, device = torch.tensor([row for row, _ in draws]), self.on_device["labels"].device
        # From memory that is not pinned, the copy would wait for everything that the GPU has yet to do.
        rows = (rows.pin_memory() if device.type == "cuda" else rows).to(device, non_blocking=True)
        return {name: tensor[rows] for name, tensor in self.on_device.items()} | {"rows": rows}

    def drawn(self, row: int, draw: int) -> dict:
        """Return a clip with its transform for this draw."""
        item = self[row]
        if self.transform is not None:
            own = item["waveforms"][: item["lengths"]]
            item |= filled(transformed(own, self.transform, [self.seed, draw]), self.clip_samples)
        return item

    def move_to(self, device: torch.device, most_bytes: float) -> bool:
        """Bring all clips to the device as one int16 tensor, unless they need more than `most_bytes`; return whether.

        A transform runs on the CPU, so with one they stay.
        """
        if self.transform is not None or 2 * len(self) * self.clip_samples > most_bytes:
            return False
        waveforms = torch.empty(len(self), self.clip_samples, dtype=torch.int16, device=device)
        lengths = torch.empty(len(self), dtype=torch.int64, device=device)
        for first in range(0, len(self), UPLOADED_CLIPS):
            part = collate([self[row] for row in range(first, min(first + UPLOADED_CLIPS, len(self)))])
            waveforms[first : first + UPLOADED_CLIPS] = part["waveforms"]
            lengths[first : first + UPLOADED_CLIPS] = part["lengths"]
        self.on_device = {"waveforms": waveforms, "lengths": lengths, "labels": self.labels.to(device)}
        return True

    def paths(self, rows: list[int]) -> list[str]:
        """Return the files of these rows."""
        return self.waveforms.dataset.select_columns("path")[rows]["path"]


class WindowedClips(torch.utils.data.Dataset):
    """The windows of clips of any length, in order; `scores` brings a model's logits back together clip by clip."""

    def __init__(
        self,
        clips: Sequence[np.ndarray],
        labels: np.ndarray,
        window_samples: int,
        hop_samples: int,
        batch_size: int = 1,
    ) -> None:
        """Cut clips of int16 (samples,) with labels (clips, classes).

        The number of windows is rounded up to whole batches by repeating the last, so that a compiled model sees one
        shape; `scores` leaves the repetitions out.
        """
        self.clips, self.labels, self.window_samples = clips, labels, window_samples
        starts = [window_starts(len(clips[i]), window_samples, hop_samples) for i in range(len(clips))]
        self.windows_per_clip = [len(of_clip) for of_clip in starts]
        self.windows = [(clip, start) for clip, of_clip in enumerate(starts) for start in of_clip]
        self.windows += self.windows[-1:] * (-len(self.windows) % batch_size)
        self.latest = (-1, np.zeros(0, np.int16))

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict:
        clip, start = self.windows[index]
        if self.latest[0] != clip:  # a mixture is summed once, not for each of its windows
            self.latest = (clip, self.clips[clip])
        window = self.latest[1][start : start + self.window_samples]
        return {"waveforms": fit_length(window, self.window_samples), "labels": torch.from_numpy(self.labels[clip])}

    def scores(self, logits: np.ndarray, how: str) -> np.ndarray:
        """Return scores (clips, classes) from the logits (windows, classes) of all windows in order."""
        parts = np.cumsum(self.windows_per_clip)[:-1]
        count = sum(self.windows_per_clip)
        energies = self.energies(count) if how == "energy" else np.ones(count)
        clips = zip(np.split(logits[:count], parts), np.split(energies, parts), strict=True)
        return np.stack([aggregate(of_clip, how, of_windows) for of_clip, of_windows in clips])

    def energies(self, count: int) -> np.ndarray:
        """Return the energy of the first windows, (count,)."""
        windows = (self[index]["waveforms"] for index in range(count))
        return np.array([energy_of(window.astype(np.float32) / 2**15) for window in windows])


class Mixtures(Sequence):
    """Sums of clips, each brought to the same level, as int16 (samples,); a shorter clip is padded with silence."""

    def __init__(self, clips: Sequence[np.ndarray], members: list[tuple[int, ...]]) -> None:
        """`members` names the clips of each mixture; see `thresholds.validation_mixtures`."""
        self.clips, self.members = clips, members

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int) -> np.ndarray:
        waveforms = [self.clips[i].astype(np.float32) / 2**15 for i in self.members[index]]
        if len(waveforms) == 1:
            return self.clips[self.members[index][0]]
        levels = [max(float(np.sqrt(np.mean(waveform**2))), 1e-4) for waveform in waveforms]
        mixture = np.zeros(max(map(len, waveforms)), dtype=np.float32)
        for waveform, level in zip(waveforms, levels, strict=True):
            mixture[: len(waveform)] += waveform * (levels[0] / level)
        return to_int16(mixture / max(1.0, float(np.abs(mixture).max())))


def transformed(waveform: np.ndarray, transform: Callable, seed: list[int]) -> np.ndarray:
    """Return what a CPU augmentation makes of an int16 waveform (samples,); it hears no zeros that would fill this up."""
    return to_int16(transform(waveform.astype(np.float32) / 2**15, seed))


def filled(waveform: np.ndarray, samples: int) -> dict:
    """Return a waveform of `samples`, cut or filled up with zeros, and how many of them are its own."""
    return {"waveforms": fit_length(waveform, samples), "lengths": min(len(waveform), samples)}


def fit_length(waveform: np.ndarray, samples: int) -> np.ndarray:
    """Cut a waveform at the end, or pad it with zeros, to exactly `samples`."""
    if len(waveform) >= samples:
        return waveform[:samples]
    return np.pad(waveform, (0, samples - len(waveform)))


def collate(items: list[dict] | dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Stack items: int16 waveforms (batch, samples), labels (batch, classes), and where known lengths and rows (batch,).

    Training clips come as a batch already, which is returned as it is.
    """
    if isinstance(items, dict):
        return items
    numbers = {name: torch.tensor([item[name] for item in items]) for name in ("lengths", "rows") if name in items[0]}
    return numbers | {
        "waveforms": torch.from_numpy(np.stack([item["waveforms"] for item in items])),
        "labels": torch.stack([item["labels"] for item in items]),
    }
