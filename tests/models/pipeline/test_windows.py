"""Windows: where they begin, how they are cut from blocks, and what their logits say together."""

import numpy as np
import pytest
import torch

from irmas_recipe.models.pipeline.windows import (
    AGGREGATIONS,
    TimelineRules,
    aggregate,
    confidence,
    cut_windows,
    merge_moments,
    moments,
    window_starts,
)


@pytest.mark.parametrize(
    ("num_samples", "expected"),
    [(0, [0]), (3, [0]), (4, [0]), (5, [0, 1]), (6, [0, 2]), (7, [0, 2, 3]), (10, [0, 2, 4, 6]), (11, [0, 2, 4, 6, 7])],
)
def test_windows_begin_every_hop_and_the_last_one_ends_with_the_clip(num_samples, expected):
    assert window_starts(num_samples, window=4, hop=2) == expected


def test_a_hop_of_zero_is_refused():
    with pytest.raises(ValueError, match="must be positive"):
        window_starts(10, 4, 0)


def test_aggregations_against_their_definitions():
    logits = np.array([[0.0, 4.0, -3.0], [2.0, 1.0, -5.0]])
    probabilities = 1 / (1 + np.exp(-logits))
    expected = {
        "mean": 1 / (1 + np.exp(-logits.mean(0))),
        "energy": 1 / (1 + np.exp(-(0.3 * logits[0] + 0.1 * logits[1]) / 0.4)),
        "max": probabilities.max(0),
        "mean_probability": probabilities.mean(0),
        "s1": probabilities.mean(0),
        "s2": probabilities.sum(0) / probabilities.sum(0).max(),
    }
    assert set(expected) == set(AGGREGATIONS)
    for how, values in expected.items():
        assert aggregate(logits, how, [0.3, 0.1]) == pytest.approx(values, abs=1e-6)
        assert aggregate(torch.tensor(logits), how, [0.3, 0.1]).dtype == np.float32
    assert (aggregate(logits, "energy", [0, 0]) == aggregate(logits, "mean")).all()
    with pytest.raises(ValueError, match="needs the windows' energies"):
        aggregate(logits, "energy")


def test_aggregations_stay_finite_at_extreme_logits_and_an_unknown_one_lists_the_choices():
    for how in AGGREGATIONS:
        assert np.isfinite(aggregate(np.full((2, 3), -1e4), how, [1, 0])).all()
    with pytest.raises(ValueError, match=r"'median'.*mean, energy, max, mean_probability, s1, s2"):
        aggregate(np.zeros((1, 3)), "median")


@pytest.mark.parametrize("num_samples", [0, 1, 7, 8, 9, 11, 12, 16, 17, 50])
@pytest.mark.parametrize("block", [1, 3, 8, 100])
@pytest.mark.parametrize("hop", [1, 3, 4, 8])
def test_windows_cut_from_blocks_are_those_of_window_starts(num_samples, block, hop):
    clip = np.arange(1, num_samples + 1, dtype=np.float32)
    blocks = [clip[start : start + block] for start in range(0, num_samples, block)]
    cut = list(cut_windows(blocks, window=8, hop=hop))
    if num_samples == 0:
        assert cut == []
        return
    assert [start for start, _, _ in cut] == window_starts(num_samples, 8, hop)
    padded = np.pad(clip, (0, 8))
    for start, stop, waveform in cut:
        assert stop == min(start + 8, num_samples)
        assert waveform.tolist() == padded[start : start + 8].tolist()


def test_moments_are_the_mean_of_the_windows_that_cover_them():
    windows = [{"start": 0, "stop": 4}, {"start": 2, "stop": 6}, {"start": 3, "stop": 7}]
    logits = torch.logit(torch.tensor([[0.2], [0.4], [0.9]], dtype=torch.float64))
    edges, means = moments(windows, logits)
    assert edges.tolist() == [0, 2, 3, 4, 6, 7]
    assert means[:, 0] == pytest.approx([0.2, 0.3, 0.5, 0.65, 0.9])
    for window, energy in zip(windows, (0.3, 0.1, 0.0), strict=True):
        window["energy"] = energy
    _, weighted = moments(windows, logits, "energy")
    assert weighted[:, 0] == pytest.approx([0.2, 0.25, 0.25, 0.4, 0.9], abs=1e-6)


def test_moments_under_s2_are_relative_to_the_clips_strongest_class():
    windows = [{"start": 0, "stop": 2}, {"start": 2, "stop": 4}]
    logits = torch.logit(torch.tensor([[0.4, 0.1], [0.2, 0.1]], dtype=torch.float64))
    _, relative = moments(windows, logits, "s2")
    assert relative == pytest.approx(np.array([[1.0, 1 / 3], [2 / 3, 1 / 3]]))  # 0.4 / 0.3 is cut to 1


def test_touching_moments_above_the_threshold_become_one_segment():
    timeline = merge_moments(
        np.array([0.0, 1.0, 2.0, 4.0, 5.0]),
        np.array([[0.9, 0.1], [0.6, 0.5], [0.9, 0.1], [0.1, 0.7]]),
        ["piano", "voice"],
        [0.6, 0.5],
        TimelineRules(fill_gaps_seconds=0, min_segment_seconds=0),
    )
    assert timeline == [
        {"label": "piano", "start_seconds": 0.0, "end_seconds": 4.0, "score": pytest.approx((0.9 + 0.6 + 1.8) / 4)},
        {"label": "voice", "start_seconds": 1.0, "end_seconds": 2.0, "score": pytest.approx(0.5)},
        {"label": "voice", "start_seconds": 4.0, "end_seconds": 5.0, "score": pytest.approx(0.7)},
    ]


EDGES = np.arange(0.0, 31.0)


def active(*spans: tuple[int, int]) -> np.ndarray:
    """Return which of the seconds of EDGES lie in one of the spans."""
    seconds = np.arange(len(EDGES) - 1)
    return np.any([np.zeros(30, bool), *((seconds >= start) & (seconds < end) for start, end in spans)], axis=0)


def stretches(rules: TimelineRules, *spans: tuple[int, int]) -> list[tuple[int, int]]:
    return list(zip(*(part.tolist() for part in rules.stretches(EDGES, active(*spans))), strict=True))


def test_short_gaps_are_filled_and_then_specks_removed():
    rules = TimelineRules(fill_gaps_seconds=2, min_segment_seconds=4)
    assert stretches(rules, (3, 5), (7, 9)) == [(3, 9)], "a gap of 2 s is filled, and what is left is no speck"
    assert stretches(rules, (3, 5), (8, 10)) == [], "a gap of 3 s is not, and two specks are left"
    assert stretches(rules, (0, 4), (8, 11), (26, 30)) == [(0, 4), (26, 30)]
    assert stretches(rules) == []
    assert stretches(rules, (0, 30)) == [(0, 30)]


def test_in_short_audio_gaps_and_specks_are_a_quarter_of_it_at_most():
    edges = np.arange(0.0, 9.0) / 2  # 4 s in eight moments
    rules = TimelineRules(fill_gaps_seconds=3, min_segment_seconds=4)
    first, after = rules.stretches(edges, np.array([True, True, False, False, True, False, False, False]))
    assert (first.tolist(), after.tolist()) == ([0], [5]), "a gap of 1 s is filled"
    first, after = rules.stretches(edges, np.array([True, True, False, False, False, False, True, False]))
    assert (first.tolist(), after.tolist()) == ([0], [2]), "2 s of silence are not, and half a second is a speck"


@pytest.mark.parametrize("seed", range(20))
def test_a_sustained_score_reaches_a_threshold_where_the_instrument_is_heard_for_long_enough(seed):
    random = np.random.default_rng(seed)
    edges = np.cumsum(np.concatenate([[0], random.uniform(0.2, 2, 60)]))
    scores = random.choice(random.uniform(0, 1, 12), 60)
    rules = TimelineRules(*random.uniform(0, 5, 2), min_heard_seconds=random.uniform(0, 40))
    sustained = rules.sustained_score(edges, scores)
    enough = min(rules.min_heard_seconds, edges[-1])
    for threshold in [*np.unique(scores), *random.uniform(0, 1, 10)]:
        heard = rules.heard_seconds(edges, scores >= threshold) >= enough - 1e-6
        assert heard == (sustained >= threshold)


def test_a_confidence_is_a_half_at_the_threshold_and_grows_with_the_score():
    scores = np.linspace(0, 1, 101)
    for threshold, slopes in ((0.01, [0.3, 2.0]), (0.9, [1.0, 0.1])):
        found = confidence(scores, threshold, np.tile(slopes, (101, 1)))
        assert confidence([threshold], [threshold], [slopes]) == pytest.approx([0.5])
        assert (np.diff(found) >= 0).all() and ((found >= 0.5) == (scores >= threshold)).all()
