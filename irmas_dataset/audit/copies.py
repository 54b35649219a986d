"""Finding clips of one data set that are copies of another's, whatever was done to them, before the two are joined."""

from concurrent.futures import ProcessPoolExecutor

import numpy as np
from datasets import Dataset, Features, List, Value
from datasets.fingerprint import Hasher

from irmas_dataset.audio import decode, resample
from irmas_dataset.audit.duplicates import compare_files
from irmas_dataset.audit.fingerprint import RATE, candidates, fingerprint
from irmas_dataset.cores import usable_cores
from irmas_dataset.files import from_text

VERSION = 1
"""Increased whenever `fingerprint` changes, so that older caches are not read."""


def copies_of(originals: Dataset, others: Dataset, num_proc: int | None = None) -> list[int]:
    """Return the rows of `others` that share audio with a clip of `originals`: the audit's near-identical pairs.

    Re-encoding, gain, another sampling rate and trimming are no hindrance, as long as 1.5 s are left. Fingerprints are kept in
    the cache of `datasets`. num_proc: number of processes (default: one per core, fewer for small data).
    """
    if len(originals) == 0 or len(others) == 0:
        return []
    paths = [*originals["path"][:], *others["path"][:]]
    hashes = [*fingerprints(originals, num_proc), *fingerprints(others, num_proc)]
    found = candidates(hashes, first_ones=len(originals))
    if not found:
        return []
    first, second = ([from_text(paths[getattr(pair, side)]) for pair in found] for side in ("first", "second"))
    with ProcessPoolExecutor(num_proc or min(usable_cores(), 1 + len(found) // 16)) as pool:
        matches = list(pool.map(compare_files, first, second, [pair.shift for pair in found], chunksize=8))
    return sorted(
        {pair.second - len(originals) for pair, match in zip(found, matches, strict=True) if match is not None}
    )


def fingerprints(rows: Dataset, num_proc: int | None = None) -> list[np.ndarray]:
    """Return the hashes of each clip's waveform; `datasets` caches them under the fingerprint of the rows."""
    if num_proc is None:
        num_proc = min(usable_cores(), max(1, len(rows) // 32))
    found = rows.select_columns(["path"]).map(
        _hashes,
        remove_columns=["path"],
        features=Features(fingerprint=List(Value("uint32"))),
        num_proc=num_proc if num_proc > 1 else None,
        new_fingerprint=Hasher.hash([rows._fingerprint, "copies", VERSION]),
        desc="Hearing clips for copies",
    )
    lists = found.data.column("fingerprint").combine_chunks()
    return np.split(lists.flatten().to_numpy(), np.cumsum(lists.value_lengths().to_numpy())[:-1])


def _hashes(row: dict) -> dict:
    return {"fingerprint": fingerprint(resample(*decode(from_text(row["path"])), RATE))}
