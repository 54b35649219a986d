"""Prepared clips become batches, windows and mixtures without losing or inventing a sample."""

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value, concatenate_datasets

from irmas_recipe.training.clips import Mixtures, TrainingClips, WindowedClips, classes_to_mix, collate, multi_hot
from irmas_recipe.training.thresholds import validation_mixtures


@pytest.fixture
def prepared():
    features = Features(
        {"instruments": List(ClassLabel(names=["cel", "cla", "voi"])), "waveform": List(Value("int16"))}
    )
    lengths = [100, 80, 130]
    rows = {
        "instruments": [[0], [1], [0, 2]],
        "waveform": [list(range(10 * i, 10 * i + n)) for i, n in enumerate(lengths)],
    }
    return Dataset.from_dict(rows, features=features)


def test_labels_are_multi_hot(prepared):
    assert multi_hot(prepared).tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 1]]
    assert multi_hot(prepared.select([2, 0, 2])).tolist() == [[1, 0, 1], [1, 0, 0], [1, 0, 1]]
    assert multi_hot(concatenate_datasets([prepared.select([1]), prepared])).tolist()[:2] == [[0, 1, 0], [1, 0, 0]]
    assert multi_hot(prepared.select([])).shape == (0, 3)


def test_training_clips_have_one_length(prepared):
    clips = TrainingClips(prepared, clip_samples=100)
    batch = collate([clips[i] for i in range(3)])
    assert batch["waveforms"].shape == (3, 100) and batch["waveforms"].dtype == torch.int16
    assert batch["waveforms"][0].tolist() == list(range(100))
    assert batch["waveforms"][1].tolist() == [*range(10, 90), *[0] * 20], "shorter: padded with silence"
    assert batch["waveforms"][2].tolist() == list(range(20, 120)), "longer: cut"
    assert batch["lengths"].tolist() == [100, 80, 100]
    assert torch.equal(batch["labels"], torch.from_numpy(multi_hot(prepared)))


def test_a_cpu_augmentation_sees_floats_and_gives_int16(prepared):
    clips = TrainingClips(prepared, 100, transform=lambda samples, seed: samples * seed[1], seed=7)
    batch = clips.__getitems__([(0, 2), (0, 3)])
    assert batch["waveforms"].dtype == torch.int16
    assert batch["waveforms"].tolist() == [[2 * i for i in range(100)], [3 * i for i in range(100)]], (
        "each draw its own"
    )


def test_a_cpu_augmentation_hears_a_short_clip_without_the_zeros_that_fill_it_up(prepared):
    backwards = TrainingClips(prepared, 100, transform=lambda samples, seed: samples[::-1])
    batch = backwards.__getitems__([(1, 0)])
    assert batch["waveforms"][0].tolist() == [*range(89, 9, -1), *[0] * 20]
    shorter = TrainingClips(prepared, 100, transform=lambda samples, seed: samples[:50])
    batch = shorter.__getitems__([(0, 0), (1, 0)])
    assert batch["lengths"].tolist() == [50, 50] and not batch["waveforms"][:, 50:].any()


def test_clips_on_the_device_give_the_batches_that_the_loader_gives(prepared):
    clips, moved = TrainingClips(prepared, 100), TrainingClips(prepared, 100)
    assert not moved.move_to(torch.device("cpu"), most_bytes=len(moved) * 200 - 1), "they do not fit"
    assert moved.on_device is None and moved.move_to(torch.device("cpu"), most_bytes=len(moved) * 200)
    draws = [(row, 10 + row) for row in (*range(len(clips)), 0)]
    one, other = clips.__getitems__(draws), moved.__getitems__(draws)
    assert one.keys() == other.keys() == {"waveforms", "lengths", "labels", "rows"}
    for name in one:
        assert one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]), name


def test_clips_with_a_cpu_augmentation_stay_on_the_cpu(prepared):
    clips = TrainingClips(prepared, 100, transform=lambda samples, seed: samples)
    assert not clips.move_to(torch.device("cpu"), most_bytes=1e9) and clips.on_device is None


def test_windows_cover_each_clip_to_its_end(prepared):
    clips = [np.arange(n, dtype=np.int16) for n in (100, 30, 65)]
    windows = WindowedClips(clips, np.eye(3, dtype=np.float32), window_samples=40, hop_samples=20)
    assert windows.windows == [(0, 0), (0, 20), (0, 40), (0, 60), (1, 0), (2, 0), (2, 20), (2, 25)]
    assert windows[3]["waveforms"].tolist() == list(range(60, 100))
    assert windows[4]["waveforms"].tolist() == [*range(30), *[0] * 10]
    assert windows[7]["labels"].tolist() == [0, 0, 1]


def test_scores_come_back_clip_by_clip_without_the_padding_of_the_last_batch():
    clips = [np.zeros(n, dtype=np.int16) for n in (100, 30, 65)]
    windows = WindowedClips(clips, np.eye(3, dtype=np.float32), 40, 20, batch_size=5)
    assert len(windows) == 10 and windows.windows[8:] == [(2, 25)] * 2
    logits = np.array([[0.0], [1], [2], [3], [-1], [4], [5], [6], [99], [99]])
    expected = 1 / (1 + np.exp(-np.array([[1.5], [-1], [5]])))
    assert np.allclose(windows.scores(logits, "mean"), expected)
    assert np.allclose(windows.scores(logits, "max"), 1 / (1 + np.exp(-np.array([[3.0], [-1], [6]]))))


def test_a_mixture_sums_clips_at_one_level():
    loud, soft = np.full(50, 8000, dtype=np.int16), np.full(30, -80, dtype=np.int16)
    mixtures = Mixtures([loud, soft], [(0,), (0, 1), (1, 0)])
    assert mixtures[0] is loud
    assert mixtures[1].tolist() == [0] * 30 + [8000] * 20, "the partner is brought to the first clip's level"
    assert len(mixtures[2]) == 50 and mixtures[2][40] == pytest.approx(80, abs=1)


def test_a_loud_mixture_is_scaled_rather_than_clipped():
    tone = (30000 * np.sin(np.arange(1000) * 0.1)).astype(np.int16)
    mixture = Mixtures([tone, tone], [(0, 1)])[0]
    assert np.abs(mixture).max() > 32700 and np.corrcoef(mixture, tone)[0, 1] > 0.9999


def test_a_silent_clip_is_mixed_with_none():
    quiet, loud = np.full(50, 20, dtype=np.int16), np.full(50, 8000, dtype=np.int16)
    labels = np.eye(3, dtype=np.float32)[[0, 1, 2] * 4]
    mixtures = validation_mixtures(classes_to_mix([quiet, loud, loud] * 4, labels), [None] * 12, 0, (0, 1))
    assert all(len(mixture) == 1 or all(clip % 3 for clip in mixture) for mixture in mixtures)
    assert sum(len(mixture) == 2 for mixture in mixtures) >= 6
