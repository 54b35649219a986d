"""Corrections to a dataset: a CSV that drops or relabels clips, so that labels can be fixed without changing IRMAS."""

from pathlib import Path

from datasets import Dataset

from irmas_dataset.errors import UserError
from irmas_dataset.files import Listing, check_labels, load_index, published_name, to_text
from irmas_dataset.label_text import read_rows, spellings, split_labels

_YES, _NO = ("yes", "true", "1"), ("no", "false", "0", "")


def read_corrections(path: str | Path, listing: Listing) -> dict[str, list[str]]:
    """Read a CSV with the columns `path` and `instruments` (separated by ;) and/or `drop` (yes or no).

    `path` is relative to the data folder, or IRMAS's published path. Returns the absolute path of each corrected clip
    -> its labels, or [] for a dropped clip. Clips that an incomplete IRMAS lacks are ignored.
    Raises UserError that names the line of an unknown path or label, or of a second answer about a clip.
    """
    corrections = {}
    clips = {clip.name: clip for clip in listing.clips}
    clips |= {to_text(Path(clip.path).relative_to(listing.root).as_posix()): clip for clip in listing.clips}
    for where, row in _rows(path):
        name = row["path"].strip()
        clip = next((clips[form] for form in (*spellings(name), published_name(name)) if form in clips), None)
        if clip is not None:
            labels = _labels_of(row, listing.classes, where)
            if labels is not None and corrections.setdefault(to_text(clip.path), labels) != labels:
                raise UserError(f"{where}: another line corrects {name} in another way: keep one of them.")
        elif not (listing.is_irmas and published_name(name) in load_index()):
            raise UserError(f"{where}: {listing.root} has no clip {name}.")
    return corrections


def _rows(path: str | Path) -> list[tuple[str, dict[str, str]]]:
    """Return the file's rows, each with its file and line for error messages."""
    try:
        return read_rows(path, "path", "instruments|drop")
    except OSError as error:
        raise UserError(f"--corrections {path} cannot be read: {error}.") from None


def _labels_of(row: dict[str, str], classes: tuple[str, ...], where: str) -> list[str] | None:
    """Return a row's labels: [] for a clip to drop, None for a clip that stays unchanged."""
    drop = row.get("drop", "").strip().lower()
    if drop in _YES:
        return []
    if drop not in _NO:
        raise UserError(f"{where}: drop is {row['drop']!r}; write yes or no.")
    field = row.get("instruments", "")
    labels = [field] if field in classes else split_labels(field)
    return list(check_labels(labels, classes, where)) or None


def apply_corrections(splits: dict[str, Dataset], corrections: dict[str, list[str]]) -> dict[str, Dataset]:
    """Return the splits with the corrected labels and without the dropped clips."""
    corrected = {}
    for name, dataset in splits.items():
        ours = {path: corrections[path] for path in dataset["path"][:] if path in corrections}
        kept = [i for i, path in enumerate(dataset["path"][:]) if ours.get(path) != []]
        if len(kept) < len(dataset):
            dataset = dataset.select(kept)
        relabelled = {path: labels for path, labels in ours.items() if labels}
        if relabelled:
            to_id = dataset.features["instruments"].feature.str2int
            dataset = dataset.map(
                _relabel,
                fn_kwargs={"labels": {path: to_id(labels) for path, labels in relabelled.items()}},
                desc="Correcting",
            )
        corrected[name] = dataset
    return corrected


def _relabel(row: dict, labels: dict[str, list[int]]) -> dict:
    """Return a row's labels: what a correction says is present is no longer unknown."""
    present = labels.get(row["path"], row["instruments"])
    unknown = {"unknown": [label for label in row["unknown"] if label not in present]} if "unknown" in row else {}
    return {"instruments": present} | unknown
