"""Holding out whole recordings: the validation set of IRMAS, and the test set of a folder without one.

Pure functions on lists with one entry per clip; they never touch files.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence


def merge_groups(recordings: Sequence[str | None], md5s: Sequence[str | None]) -> list[str]:
    """Return the group of each clip: clips of one recording, or with identical bytes, share a group.

    A group has the name of its first recording in alphabetical order, so names do not depend on the order of the clips.
    A clip without a recording is grouped by its bytes alone.
    """
    parents: dict[str, str] = {}

    def root(node: str) -> str:
        while parents.setdefault(node, node) != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    nodes = []
    for position, (recording, md5) in enumerate(zip(recordings, md5s, strict=True)):
        bytes_node = f"2 md5 {md5}" if md5 else f"3 clip {position:09d}"
        node = f"1 recording {recording}" if recording is not None else bytes_node
        low, high = sorted((root(node), root(bytes_node)))
        parents[high] = low
        nodes.append(node)
    return [root(node) for node in nodes]


def hold_out(groups: Sequence[str], labels: Sequence[Sequence], fraction: float, seed: int) -> list[bool]:
    """Tell for each clip whether it is held out: about `fraction` of the groups of every class, whole groups only.

    groups: the group of each clip. labels: the labels of each clip. A group of several classes counts as its rarest one.
    The choice depends only on the names of the groups and the seed: not on the order of the clips, nor, within a class,
    on the groups of other classes. A class with one group has none held out; a class with two or more always has at
    least one on each side (unless `fraction` is 0).
    """
    held_out = set()
    for members in _groups_by_class(groups, labels).values():
        count = round(fraction * len(members))
        if fraction > 0 and len(members) > 1:
            count = min(max(count, 1), len(members) - 1)
        held_out.update(sorted(members, key=lambda group: _shuffle_key(group, seed))[:count])
    return [group in held_out for group in groups]


def halve(groups: Sequence[str], labels: Sequence[Sequence], seed: int) -> list[bool]:
    """Tell for each clip whether it is in the first half: every other group of each class, whole groups only.

    As in `hold_out`, a group of several classes counts as its rarest one. Neither half is empty if there are two groups.
    """
    first, is_first = set(), False
    for _, members in sorted(_groups_by_class(groups, labels).items(), key=lambda item: str(item[0])):
        for group in sorted(members, key=lambda group: _shuffle_key(group, seed)):
            if is_first:
                first.add(group)
            is_first = not is_first
    return [group in first for group in groups]


def _groups_by_class(groups: Sequence[str], labels: Sequence[Sequence]) -> dict[object, list[str]]:
    """Return the groups of each class; a group of several classes belongs to its rarest one."""
    group_labels: dict[str, set] = defaultdict(set)
    for group, clip_labels in zip(groups, labels, strict=True):
        group_labels[group].update(clip_labels)
    sizes = Counter(label for found in group_labels.values() for label in found)
    strata: dict[object, list[str]] = defaultdict(list)
    for group, found in group_labels.items():
        strata[min(found, key=lambda label: (sizes[label], label), default=None)].append(group)
    return strata


def _shuffle_key(group: str, seed: int) -> str:
    return hashlib.md5(f"{seed} {group}".encode(errors="surrogateescape"), usedforsecurity=False).hexdigest()
