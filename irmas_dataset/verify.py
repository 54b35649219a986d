"""Comparing every file of IRMAS on disk with the project's index of the published files."""

import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tqdm import tqdm

from irmas_dataset.download import digest_of, published_file
from irmas_dataset.errors import UserError
from irmas_dataset.files import SYNTHETIC_MARKER, find_irmas, load_index, to_text, walk_files

NAMES_SHOWN = 10


@dataclass
class VerifySummary:
    """The result: `complete` and `missing` are published paths, `damaged` and `unknown` are paths on disk."""

    complete: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)  # those of `complete` without a published checksum
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all of IRMAS is there; unknown files do not matter."""
        return not self.missing and not self.damaged

    def __str__(self) -> str:
        complete = f"{len(self.complete)} complete"
        if self.unchecked:
            complete += f" ({len(self.unchecked)} of them without a published checksum)"
        lines = [f"{complete}, {len(self.missing)} missing, {len(self.damaged)} damaged, {len(self.unknown)} unknown"]
        for title in ("missing", "damaged", "unknown"):
            names = getattr(self, title)
            lines += [f"  {title}: {name}" for name in names[:NAMES_SHOWN]]
            if len(names) > NAMES_SHOWN:
                lines.append(f"  {title}: and {len(names) - NAMES_SHOWN} more")
        return "\n".join(lines)


def verify(data_dir: str | Path) -> VerifySummary:
    """Hash every clip of the IRMAS in `data_dir` and look it up in the index.

    A file whose name an unzip tool garbled beyond recognition is recognised by its contents. For a test clip without its
    annotation, the annotation is missing.
    Raises UserError for a folder without IRMAS, or with a synthetic one.
    """
    data_dir = Path(data_dir)
    folders = find_irmas(data_dir)
    if not folders:
        raise UserError(f"{data_dir} does not contain IRMAS: run `irmas download --data_dir {data_dir}`.")
    if any((folder / SYNTHETIC_MARKER).exists() for folder in (data_dir, *(path.parent for path in folders.values()))):
        raise UserError(f"{data_dir} is a synthetic IRMAS: it has no published files to compare with.")
    paths = {}
    for outer, folder in folders.items():
        for path in walk_files(folder):
            if path.lower().endswith(".wav"):
                paths[path] = published_file(path, outer)
    with ThreadPoolExecutor() as pool:
        digests = list(
            tqdm(
                pool.map(partial(digest_of, algorithm="md5"), paths),
                total=len(paths),
                desc="Verifying IRMAS",
                unit="file",
            )
        )
    return compare(paths, dict(zip(paths, digests, strict=True)), load_index())


def compare(names: dict[str, str], digests: dict[str, str], index: dict[str, str | None]) -> VerifySummary:
    """Sort files into complete, damaged, missing and unknown.

    names: path on disk -> published path, or the path within IRMAS if the index has no such name.
    digests: path on disk -> MD5. index: published path -> MD5, None if none was published.
    """
    summary = VerifySummary()
    absent_of_digest = defaultdict(list)
    for name in sorted(index.keys() - set(names.values())):
        absent_of_digest[index[name]].append(name)
    for path, name in names.items():
        if name not in index:
            absent = absent_of_digest.get(digests[path])
            if not absent:
                summary.unknown.append(to_text(path))
                continue
            name = absent.pop(0)
        elif index[name] is None:
            summary.unchecked.append(name)
        elif index[name] != digests[path]:
            summary.damaged.append(to_text(path))
            continue
        summary.complete.append(name)
        annotation = os.path.splitext(path)[0] + ".txt"
        if name.startswith("IRMAS-TestingData") and not os.path.exists(annotation):
            summary.missing.append(os.path.splitext(name)[0] + ".txt")
    summary.missing += [name for absent in absent_of_digest.values() for name in absent]
    summary.missing.sort()
    return summary
