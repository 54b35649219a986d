"""Proposing corrections: those that follow from the audio alone, and labels that someone has to listen to."""

from itertools import chain

import pandas as pd

from irmas_dataset.audit.clips import Clips
from irmas_dataset.audit.duplicates import IDENTICAL, connected

WHOLE_COPY = 0.5  # of the shorter clip: less is an overlap, not a copy


def corrections(clips: Clips, duplicates: pd.DataFrame) -> pd.DataFrame:
    """Return the training clips to drop, in the form that `--corrections` takes, with the reason.

    Columns: path, instruments (empty), drop (yes), reason. Dropped are clips that are silent or whose channels cancel
    each other out. Clips that are whole copies, directly or by way of others, are a group: the recordings of one that the
    test set has a part in are dropped, and all clips of one with conflicting labels (the audio does not tell which label
    is right); of any other, the clips of one recording stay. The test set stays as published, so that figures on it are
    comparable.
    """
    table, is_training = clips.table, clips.is_training
    reasons: dict[int, str] = {}
    for row in table.index[table["silent"] & is_training]:
        reasons[row] = "silent"
    for row in table.index[table["cancelled"] & is_training]:
        reasons[row] = "the channels cancel each other out"
    copies = duplicates[(duplicates["overlap_share"] >= WHOLE_COPY) | (duplicates["kind"] == IDENTICAL)]
    group_of = connected(len(table), [*copies[["first", "second"]].itertuples(index=False)])
    conflicting = {group_of[pair.first] for pair in copies[copies["conflicting"].astype(bool)].itertuples()}
    test_clips = {group_of[row]: table["path"][row] for row in table.index[table["split"] == "test"][::-1]}
    trained = [rows for _, rows in table[is_training].groupby(group_of[is_training])]
    for rows in trained:  # first, as whole recordings are dropped, which may have clips in other groups
        if other := test_clips.get(group_of[rows.index[0]]):
            for row in table.index[is_training & table["recording"].isin(rows["recording"])]:
                reasons.setdefault(row, f"the test set has audio of its recording: {other}")
    for rows in trained:
        is_conflicting = group_of[rows.index[0]] in conflicting and rows["instruments"].nunique() > 1
        stay = next((recording for row, recording in rows["recording"].items() if row not in reasons), None)
        first = next((path for row, path in rows["path"].items() if row not in reasons), None)
        for row, clip in rows.iterrows():
            if is_conflicting:
                other = rows["path"][rows["instruments"] != clip["instruments"]].iloc[0]
                reasons.setdefault(row, f"conflicting labels on the same audio: {other}")
            elif clip["recording"] != stay:
                reasons.setdefault(row, f"a copy with the same label: {first}")
    rows = sorted(reasons)
    return pd.DataFrame(
        {
            "path": table["path"][rows].tolist(),
            "instruments": "",
            "drop": "yes",
            "reason": [reasons[row] for row in rows],
        }
    )


def label_suggestions(clips: Clips, doubts: pd.DataFrame, missing: pd.DataFrame) -> pd.DataFrame:
    """Return labels to listen to, in the same form; after deleting the wrong lines, it can be given as `--corrections`.

    Columns: path, instruments (the proposal, a tuple), drop (empty), given (a tuple), reason, strength.
    """
    wrong = [
        (doubt.path, doubt.suggested, "", doubt.instruments, "the label is likely wrong", doubt.suspicion)
        for doubt in doubts[doubts["flagged"]].itertuples()
        if doubt.suggested
    ]
    order = {code: position for position, code in enumerate(clips.classes)}
    more: dict[str, tuple] = {}
    for row in missing.itertuples():
        known = more.get(row.path)
        labels = (*(known[1] if known else row.instruments), row.missing)
        strength = known[5] if known else row.strength
        labels = tuple(sorted(labels, key=order.__getitem__))
        more[row.path] = (row.path, labels, "", row.instruments, "an instrument is likely missing", strength)
    columns = ["path", "instruments", "drop", "given", "reason", "strength"]
    return pd.DataFrame(list(chain(wrong, more.values())), columns=columns)
