"""Properties of the splits, on lists alone."""

import csv
import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from irmas_dataset.files import known_faults
from irmas_dataset.labels import INSTRUMENT_CODES
from irmas_dataset.splits import halve, hold_out, merge_groups

LISTS = Path(__file__).parents[2].parent / "shared" / "irmas"


def made_up_clips(count: int = 2000, seed: int = 0) -> list[tuple[str, str, list[str]]]:
    """Return (recording, md5, labels) of clips of which every twentieth is a copy of another one."""
    rng = random.Random(seed)
    clips = []
    for number in range(count):
        label = rng.choice(INSTRUMENT_CODES)
        md5 = rng.choice(clips)[1] if number % 20 == 19 else f"md5 {number}"
        clips.append((f"{label}/{rng.randrange(60)}", md5, [label]))
    return clips


def split(clips, fraction=0.15, seed=0) -> list[bool]:
    recordings, md5s, labels = zip(*clips, strict=True)
    return hold_out(merge_groups(recordings, md5s), labels, fraction, seed)


@pytest.mark.parametrize("seed", range(5))
def test_no_recording_and_no_copy_is_on_both_sides(seed):
    clips = made_up_clips(seed=seed)
    held_out = split(clips, seed=seed)
    for key in (0, 1):
        sides = defaultdict(set)
        for clip, side in zip(clips, held_out, strict=True):
            sides[clip[key]].add(side)
        assert all(len(found) == 1 for found in sides.values())


def test_the_order_of_the_clips_does_not_matter():
    clips = made_up_clips()
    expected = sorted(zip(clips, split(clips), strict=True))
    random.Random(1).shuffle(clips)
    assert sorted(zip(clips, split(clips), strict=True)) == expected


def test_the_seed_decides():
    clips = made_up_clips()
    assert split(clips, seed=3) == split(clips, seed=3) != split(clips, seed=4)


@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.15, 0.5])
def test_every_class_gives_its_fraction_of_recordings(fraction):
    clips = [
        (f"{code}/{number}", f"{code} {number} {k}", [code])
        for code in "abc"
        for number in range(100)
        for k in range(3)
    ]
    held_out = {clip[0] for clip, side in zip(clips, split(clips, fraction), strict=True) if side}
    assert Counter(recording[0] for recording in held_out) == (
        {code: round(100 * fraction) for code in "abc"} if fraction else {}
    )


def test_a_small_class_stays_on_the_training_side_and_two_recordings_are_shared():
    clips = [("a/1", "1", ["a"]), ("b/1", "2", ["b"]), ("b/2", "3", ["b"])]
    assert split(clips)[0] is False
    assert sum(split(clips)[1:]) == 1
    assert sum(split(clips, 0.99)[1:]) == 1


def test_adding_a_class_leaves_the_others_where_they_are():
    clips = made_up_clips(500)
    more = [(f"tuba/{number}", f"tuba {number}", ["tuba"]) for number in range(40)]
    assert split(clips + more)[:500] == split(clips)


def test_clips_of_several_labels_count_for_their_rarest():
    clips = [(str(number), f"md5 {number}", ["common"] + ["rare"] * (number < 10)) for number in range(100)]
    assert sum(split(clips, 0.2)[:10]) == 2


def test_copies_merge_recordings_also_through_a_third_one():
    groups = merge_groups(["c", "b", "a", "b", "d"], ["1", "1", "2", "2", "3"])
    assert groups[0] == groups[1] == groups[2] == groups[3] != groups[4]


def test_clips_without_recording_are_tied_by_their_bytes_alone():
    groups = merge_groups([None, None, None, "a"], ["1", "1", "2", "2"])
    assert groups[0] == groups[1]
    assert groups[2] == groups[3] != groups[0]


def test_missing_md5s_merge_nothing():
    assert len(set(merge_groups(["a", "b", "c", None, None], [None, "", None, None, None]))) == 5


@pytest.mark.skipif(not LISTS.is_dir(), reason=f"the list of IRMAS's files is not in {LISTS}")
def test_the_published_training_set_splits_as_the_protocol_says():
    with open(LISTS / "train.csv", encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    clips = [(row["recording"], row["md5"] or row["path"], [row["instrument"]]) for row in rows]
    side = dict(zip([row["path"] for row in rows], split(clips), strict=True))
    faults = [fault for fault in known_faults() if "training" in fault["fault"]]
    assert len(faults) == 56
    assert all(side[fault["path"]] == side[fault["other_path"]] for fault in faults)
    recordings = {row["recording"]: side[row["path"]] for row in rows}
    assert sum(recordings.values()) / len(recordings) == pytest.approx(0.15, abs=0.005)
    for code in INSTRUMENT_CODES:
        of_class = [held_out for name, held_out in recordings.items() if name.startswith(f"{code}/")]
        assert sum(of_class) / len(of_class) == pytest.approx(0.15, abs=0.015)


def test_halves_are_whole_groups_of_every_class():
    groups = [f"song {number // 3}" for number in range(120)]
    labels = [["pia"] if number // 3 % 4 else ["pia", "vio"] for number in range(120)]
    first = halve(groups, labels, seed=0)
    assert all(len({side for side, name in zip(first, groups, strict=True) if name == group}) == 1 for group in groups)
    assert sum(first) == 60
    assert sum(side for side, of_clip in zip(first, labels, strict=True) if "vio" in of_clip) == 15
    assert first != halve(groups, labels, seed=1) and first == halve(groups, labels, seed=0)
    assert sorted(halve(["a", "b"], [["pia"], ["vio"]], seed=0)) == [False, True]
