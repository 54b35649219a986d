"""Finding clips that share audio: byte for byte, or after re-encoding, trimming and a change of level."""

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from irmas_dataset.audio import decode, resample
from irmas_dataset.audit.clips import SPLITS, Clips
from irmas_dataset.audit.fingerprint import RATE, Candidate, Match, candidates, compare
from irmas_dataset.cores import usable_cores

IDENTICAL, SAME_AUDIO = "identical bytes", "same audio"
"""The kinds of pairs."""

COLUMNS = (
    "first", "second", "kind", "offset_seconds", "overlap_seconds", "overlap_share", "correlation",
    "same_recording", "across", "conflicting",
)  # fmt: skip


def find_duplicates(clips: Clips, num_proc: int | None = None) -> pd.DataFrame:
    """Return the pairs of clips that share audio, those with conflicting labels first.

    Columns: first, second (rows of `clips.table`), kind (IDENTICAL or SAME_AUDIO), offset_seconds (where the second
    starts in the first), overlap_seconds, overlap_share (of the shorter clip), correlation, same_recording, across
    (their splits) and conflicting. Of several files with the same bytes, each is paired only with the first. Clips that
    are silent, or whose channels cancel each other out, are not compared. num_proc: number of processes (default: one
    per core, fewer for few candidates).
    """
    table = clips.table
    audible = np.flatnonzero(~table["silent"] & ~table["cancelled"] & (table["split"] != "damaged"))
    of_bytes = defaultdict(list)
    for row in audible:
        of_bytes[table["md5"][row]].append(row)
    pairs = [
        _describe(table, same[0], other, IDENTICAL, Match(0.0, float(table["duration"][other]), 1.0))
        for same in of_bytes.values()
        for other in same[1:]
    ]
    originals = [same[0] for same in of_bytes.values()]
    found = candidates([clips.fingerprints[row] for row in originals])
    found = [Candidate(originals[pair.first], originals[pair.second], pair.shift) for pair in found]
    workers = num_proc or min(usable_cores(), 1 + len(found) // 16)
    with ProcessPoolExecutor(workers) as pool:
        matches = pool.map(compare_files, *_files(clips, found), chunksize=8)
        progress = tqdm(matches, total=len(found), desc="Comparing similar clips", unit="pair", disable=not found)
        for pair, match in zip(found, progress, strict=True):
            if match is not None:
                pairs.append(_describe(table, pair.first, pair.second, SAME_AUDIO, match))
    pairs = pd.DataFrame(pairs, columns=COLUMNS)
    order = ["conflicting", "overlap_share", "correlation"]
    return pairs.sort_values(order, ascending=False, kind="stable", ignore_index=True)


def _files(clips: Clips, found: list[Candidate]) -> tuple[list[str], list[str], list[int]]:
    first, second = ([clips.file(getattr(pair, side)) for pair in found] for side in ("first", "second"))
    return first, second, [pair.shift for pair in found]


def compare_files(first: str, second: str, shift: int) -> Match | None:
    """Return how two files share audio around a shift in hops; None if they do not."""
    return compare(_waveform(first), _waveform(second), shift)


@lru_cache(maxsize=32)  # a clip similar to several others is compared several times in a row
def _waveform(path: str) -> np.ndarray:
    return resample(*decode(path), RATE)


def _describe(table: pd.DataFrame, first: int, second: int, kind: str, match: Match) -> tuple:
    """Return one row of COLUMNS."""
    ours, theirs = table.iloc[first], table.iloc[second]
    share = match.overlap_seconds / max(min(ours["duration"], theirs["duration"]), 1e-9)
    same_recording = ours["recording"] is not None and ours["recording"] == theirs["recording"]
    return (
        int(first), int(second), kind, match.offset_seconds, match.overlap_seconds, min(1.0, share), match.correlation,
        same_recording, " / ".join(sorted({ours["split"], theirs["split"]}, key=SPLITS.index)), conflict(ours, theirs),
    )  # fmt: skip


def conflict(ours: pd.Series, theirs: pd.Series) -> bool:
    """Tell whether two clips of the same audio cannot both have correct labels.

    Labels conflict if they differ; an excerpt of a longer clip may have a part of its labels.
    """
    a, b = set(ours["instruments"]), set(theirs["instruments"])
    if abs(ours["duration"] - theirs["duration"]) > 1:
        return not (a <= b if ours["duration"] < theirs["duration"] else b <= a)
    is_test = [clip["split"] == "test" for clip in (ours, theirs)]
    if is_test[0] != is_test[1]:  # a training clip has the label of one of the instruments that play
        return not (a <= b if is_test[1] else b <= a)
    return a != b


def tied_groups(clips: Clips, duplicates: pd.DataFrame) -> np.ndarray:
    """Return a group number for each clip, (clips,): clips of one recording, or with shared audio, have the same."""
    recordings = clips.table["recording"].where(clips.table["recording"].notna(), clips.table["song"])
    first_of = {name: row for row, name in reversed(list(enumerate(recordings)))}
    ties = [(row, first_of[name]) for row, name in enumerate(recordings)]
    return connected(len(clips.table), [*ties, *duplicates[["first", "second"]].itertuples(index=False)])


def connected(count: int, ties: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return a group number for each of `count` rows, (count,): those that ties lead to from each other have the same."""
    first, second = np.array(ties, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    return connected_components(graph, directed=False)[1]
