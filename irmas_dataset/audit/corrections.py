"""Proposing corrections: those that follow from the audio alone, and labels that someone has to listen to."""

from itertools import chain

import pandas as pd

from irmas_dataset.audit.clips import Clips
from irmas_dataset.audit.duplicates import IDENTICAL

WHOLE_COPY = 0.5  # of the shorter clip: less is an overlap, not a copy


def corrections(clips: Clips, duplicates: pd.DataFrame) -> pd.DataFrame:
    """Return the training clips to drop, in the form that `--corrections` takes, with the reason.

    Columns: path, instruments (empty), drop (yes), reason. Dropped are clips that are silent or whose channels cancel
    each other out, recordings whose audio is also in the test set, all copies with conflicting labels (the audio does not
    tell which label is right), and all but the first of copies with the same label. The test set stays as published, so
    that figures on it are comparable.
    """
    table = clips.table
    is_training = clips.is_training
    reasons: dict[int, str] = {}
    for row in table.index[table["silent"] & is_training]:
        reasons[row] = "silent"
    for row in table.index[table["cancelled"] & is_training]:
        reasons[row] = "the channels cancel each other out"
    copies = duplicates[(duplicates["overlap_share"] >= WHOLE_COPY) | (duplicates["kind"] == IDENTICAL)]
    for pair in copies.itertuples():
        ours, theirs = is_training[pair.first], is_training[pair.second]
        if ours != theirs:
            trained, other = (pair.first, pair.second) if ours else (pair.second, pair.first)
            if table["split"][other] == "test":
                same = is_training & (table["recording"] == table["recording"][trained])
                for row in table.index[same]:
                    reasons.setdefault(row, f"the test set has audio of its recording: {table['path'][other]}")
        elif ours and pair.conflicting:
            for row, other in ((pair.first, pair.second), (pair.second, pair.first)):
                reasons.setdefault(row, f"conflicting labels on the same audio: {table['path'][other]}")
        elif ours and not pair.same_recording and pair.first not in reasons:
            reasons.setdefault(pair.second, f"a copy with the same label: {table['path'][pair.first]}")
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

    Columns: path, instruments (the proposal), drop (empty), given, reason, strength.
    """
    wrong = [
        (doubt.path, doubt.suggested, "", ";".join(doubt.instruments), "the label is likely wrong", doubt.suspicion)
        for doubt in doubts[doubts["flagged"]].itertuples()
        if doubt.suggested
    ]
    order = {code: position for position, code in enumerate(clips.classes)}
    more: dict[str, tuple] = {}
    for row in missing.itertuples():
        known = more.get(row.path)
        labels = (known[1].split(";") if known else list(row.instruments)) + [row.missing]
        strength = known[5] if known else row.strength
        joined = ";".join(sorted(labels, key=order.__getitem__))
        more[row.path] = (row.path, joined, "", ";".join(row.instruments), "an instrument is likely missing", strength)
    columns = ["path", "instruments", "drop", "given", "reason", "strength"]
    return pd.DataFrame(list(chain(wrong, more.values())), columns=columns)
