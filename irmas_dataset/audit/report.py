"""The results of an audit as one self-contained HTML page."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from irmas_dataset.audit.audit import Audit
from irmas_dataset.audit.clips import TRAINING_SPLITS, USED_SPLITS
from irmas_dataset.audit.duplicates import IDENTICAL, SAME_AUDIO
from irmas_dataset.audit.levels import SILENT_PEAK_DB
from irmas_dataset.audit.media import Media
from irmas_dataset.files import to_text
from irmas_dataset.html_page import address_of, templates
from irmas_dataset.labels import DRUMS, GENRES, readable_name

REPORT = "report.html"
MEDIA_BYTES = 16 << 20  # the page stays below 20 MB


class SoundFault(NamedTuple):
    """A fault of the sound: the column of `Clips.table` that marks it, and how its clips are shown."""

    title: str
    words: str
    column: str
    order: str  # the column that ranks the clips, worst first
    ascending: bool
    most_shown: int  # with a picture; 0 where there is nothing to hear
    note: Callable[[Any], str]  # a row of the table -> the remark about its clip


SOUND_FAULTS = (
    SoundFault(
        "Silent", f"No sample is louder than {SILENT_PEAK_DB:.0f} dB of full scale.", "silent", "rms_db", True, 6,
        lambda row: f"peak {row.peak_db:.0f} dB",
    ),
    SoundFault(
        "Cancelled", "The channels are each other's opposites: their mean, which a recogniser hears, is next to silence.",
        "cancelled", "rms_db", False, 6,
        lambda row: f"{row.channels} channels",
    ),
    SoundFault(
        "Clipped", "Several samples in a row are at full scale.", "clipped", "clipped_samples", False, 6,
        lambda row: f"{row.clipped_samples:,.0f} samples",
    ),
    SoundFault(
        "Upsampled",
        "The spectrum ends far below half the sampling rate: the music was once sampled at a lower rate, or compressed hard.",
        "upsampled", "bandwidth_hz", True, 6,
        lambda row: f"nothing above {row.bandwidth_hz / 1000:.1f} kHz",
    ),
    SoundFault(
        "Mono", "One channel, or two equal ones. Not a fault for a recogniser that listens in mono.", "mono", "rms_db", True, 0,
        lambda row: f"{row.channels} channel{'s' * (row.channels != 1)}",
    ),
)  # fmt: skip


def write_report(found: Audit, folder: Path, examples: int = 24, home: Path | None = None) -> Path:
    """Write report.html with up to `examples` clips to see and hear in each section, and the others to hear; return its path.

    home: the folder where the report will lie, if that is not `folder`: the clips are linked from there.
    """
    environment = templates(Path(__file__).parent)
    environment.filters |= {"label": readable_name, "count": "{:,}".format}
    page = environment.get_template(f"{REPORT}.jinja")
    path = Path(folder) / REPORT
    path.write_text(page.render(contents(found, examples, home or folder)), encoding="utf-8")
    return path


def contents(found: Audit, examples: int, home: Path) -> dict:
    """Return the values that the template shows; the clips beyond the `examples` play from their files."""
    faults = sound_faults(found, examples)
    wrong = [doubt_card(row) for row in found.doubts[found.doubts["flagged"].astype(bool)].itertuples()]
    missing = [missing_card(row) for row in found.missing.itertuples()]
    pairs = [pair_card(found, pair) for pair in found.duplicates.itertuples()]
    shown = [card for fault in faults for card in fault["clips"]] + wrong[:examples] + missing[:examples]
    shown += [side for pair in pairs[:examples] for side in pair["sides"]]
    others = [card for fault in faults for card in fault["more"]] + wrong[examples:] + missing[examples:]
    others += [side for pair in pairs[examples:] for side in pair["sides"]]
    for card in [*shown, *others]:
        card["address"] = address_of(found.clips.file(card["row"]), home)
    media = Media(MEDIA_BYTES)
    for card in tqdm(shown, desc="Drawing clips for the report", unit="clip", disable=not shown):
        card["media"] = media.of(found.clips.file(card["row"]), card["start_seconds"])
    table = found.clips.table
    return {
        "name": found.clips.name,
        "folder": to_text(found.clips.root),
        "totals": totals(found),
        "findings": findings(found),
        "classes": class_rows(found),
        "genres": shares(table, "genre", {**GENRES, None: "unknown"}),
        "drums": shares(
            table, "drums", {**{value: f"drums: {value}" for value in DRUMS.values()}, None: "no drum tag"}
        ),
        "label_counts": label_counts(table),
        "histograms": histograms(table),
        "faults": faults,
        "pairs": pairs[:examples],
        "more_pairs": pairs[examples:],
        "across": across(found.duplicates),
        "wrong": wrong[:examples],
        "more_wrong": wrong[examples:],
        "num_wrong": len(wrong),
        "num_doubted": len(found.doubts),
        "scored_by": sorted(set(found.doubts["scored_by"])),
        "missing": missing[:examples],
        "more_missing": missing[examples:],
        "leaky": found.leaky_split,
        "num_corrections": len(found.corrections),
        "reasons": reasons(found.corrections),
        "num_suggestions": len(found.suggestions),
    }


def totals(found: Audit) -> list[tuple[str, str]]:
    """Return the size of the dataset as pairs of a number and its meaning."""
    table = found.clips.table
    training = table[found.clips.is_training]
    return [
        (f"{len(training):,}", "training clips"),
        (f"{training['recording'].nunique():,}", "training recordings"),
        (f"{(table['split'] == 'test').sum():,}", "test clips"),
        (f"{table['song'][table['split'] == 'test'].nunique():,}", "test songs"),
        (f"{table['duration'].sum() / 3600:.1f} h", "of audio"),
    ]


def findings(found: Audit) -> list[dict]:
    """Return the number of each kind of fault, with the section of the page that shows it."""
    table, pairs = found.clips.table, found.duplicates
    conflicts = int(pairs["conflicting"].sum())
    crossing = int(pairs["across"].str.contains("/").sum()) if len(pairs) else 0
    counted = [
        (int((table["split"] == "damaged").sum()), "damaged files", "sound"),
        (int(table["silent"].sum()), "silent clips", "sound"),
        (int(table["cancelled"].sum()), "clips whose channels cancel each other out", "sound"),
        (int(table["clipped"].sum()), "clipped clips", "sound"),
        (int(table["mono"].sum()), "clips in mono", "sound"),
        (int(table["upsampled"].sum()), "upsampled clips", "sound"),
        (int((pairs["kind"] == IDENTICAL).sum()), "byte-identical pairs", "shared"),
        (int((pairs["kind"] == SAME_AUDIO).sum()), "near-identical pairs", "shared"),
        (conflicts, "pairs with conflicting labels", "shared"),
        (crossing, "pairs across splits", "shared"),
        (int(found.doubts["flagged"].sum()), "labels likely wrong", "labels"),
        (found.missing["path"].nunique(), "clips with a label likely missing", "missing"),
    ]
    return [{"number": number, "words": words, "section": section} for number, words, section in counted]


def summary(found: Audit) -> str:
    """Return the findings as lines of text."""
    lines = [f"{item['number']:>7,}  {item['words']}" for item in findings(found)]
    if found.leaky_split:
        honest, leaky = (found.leaky_split[how]["accuracy"] for how in ("by recording", "by clip"))
        lines.append(
            f"{leaky - honest:>+7.1%}  accuracy from a leaky split by clip ({leaky:.1%} instead of {honest:.1%})"
        )
    return "\n".join([f"{found.clips.name}: {len(found.clips.table):,} clips", *lines])


def class_rows(found: Audit) -> list[dict]:
    """Return for each class its recordings, its songs, and its clips in each split with the width of a bar in percent."""
    rows = found.clips.table.explode("instruments")
    most = max(1, rows.groupby("instruments").size().max()) if len(rows) else 1
    classes = []
    for code in found.clips.classes:
        own = rows[rows["instruments"] == code]
        per_split = [int((own["split"] == split).sum()) for split in USED_SPLITS]
        training, test = own[own["split"].isin(TRAINING_SPLITS)], own[own["split"] == "test"]
        classes.append(
            {
                "code": code,
                "clips": list(zip(USED_SPLITS, per_split, [100 * count / most for count in per_split], strict=True)),
                "recordings": training["recording"].nunique(),
                "songs": test["song"].nunique(),
            }
        )
    return classes


def shares(table: pd.DataFrame, column: str, names: dict) -> list[dict]:
    """Return how the values of a column are distributed over the training clips: name, count and percent."""
    training = table[table["split"].isin(TRAINING_SPLITS)]
    values = training[column].astype(object).where(training[column].notna(), None)
    counted = [(name, int(sum(value == key for value in values))) for key, name in names.items()]
    whole = max(1, len(training))
    return [{"name": name, "count": count, "percent": 100 * count / whole} for name, count in counted if count]


def label_counts(table: pd.DataFrame) -> list[dict]:
    """Return how many labels the test clips have: name, count and percent."""
    lengths = table["instruments"][table["split"] == "test"].map(len)
    return [
        {"name": f"{labels} label{'s' * (labels != 1)}", "count": int(count), "percent": 100 * count / len(lengths)}
        for labels, count in lengths.value_counts().sort_index().items()
    ]


def histograms(table: pd.DataFrame) -> list[dict]:
    """Return histograms of level, peak and bandwidth over audible clips: title, unit, range, median and bars."""
    heard = table[~table["silent"] & (table["split"] != "damaged")]
    asked = [
        ("Level (RMS)", "dB of full scale", heard["rms_db"], np.arange(-60, 1, 3)),
        ("Peak", "dB of full scale", heard["peak_db"], np.arange(-60, 1, 3)),
        ("Bandwidth", "kHz", heard["bandwidth_hz"] / 1000, np.arange(0, 25, 1)),
    ]
    drawn = []
    for title, unit, values, edges in asked:
        counted, _ = np.histogram(np.clip(values, edges[0], edges[-1] - 1e-6), edges)
        most = max(1, int(counted.max()))
        bars = [(f"{low:g} to {high:g} {unit}", int(count), 100 * count / most)
                for low, high, count in zip(edges, edges[1:], counted, strict=False)]  # fmt: skip
        median = f"{np.median(values):.1f}" if len(values) else "-"
        drawn.append(
            {
                "title": title,
                "unit": unit,
                "low": f"{edges[0]:g}",
                "high": f"{edges[-1]:g}",
                "bars": bars,
                "median": median,
            }
        )
    return drawn


def sound_faults(found: Audit, examples: int) -> list[dict]:
    """Return each fault of the sound that occurs: title, explanation, number, and its worst clips."""
    table = found.clips.table
    faults = []
    for fault in SOUND_FAULTS:
        rows = table[table[fault.column]].sort_values(fault.order, ascending=fault.ascending, kind="stable")
        clips = [clip_card(row.Index, row, fault.note(row)) for row in rows.itertuples() if fault.most_shown]
        shown = min(examples, fault.most_shown)
        faults.append(
            {"title": fault.title, "words": fault.words, "number": len(rows)}
            | {"clips": clips[:shown], "more": clips[shown:]}
        )
    damaged = table[table["split"] == "damaged"]
    files = [f"{row.path}: {row.problem}" for row in damaged.itertuples()]
    faults.append(
        {
            "title": "Damaged",
            "words": "Skipped by every run.",
            "number": len(files),
            "clips": [],
            "more": [],
            "files": files,
        }
    )
    return [fault for fault in faults if fault["number"]]


def clip_card(row: int, clip: Any, note: str = "") -> dict:
    """Return what is shown about one clip; `clip`, a row of a table, has path, split and instruments."""
    folder, name = clip.path.rsplit("/", 1) if "/" in clip.path else ("", clip.path)
    return {
        "row": int(row),
        "folder": folder,
        "name": name,
        "split": clip.split,
        "labels": list(clip.instruments),
        "is_doubted": False,
        "proposed": [],
        "note": note,
        "start_seconds": 0.0,
    }


def doubt_card(row: Any) -> dict:
    """Return a clip whose label is probably wrong, with the suggested labels."""
    return clip_card(row.row, row, f"{row.suspicion:.1%}") | {"is_doubted": True, "proposed": list(row.suggested)}


def missing_card(row: Any) -> dict:
    """Return a clip with the label that is probably missing."""
    note = f"{row.strength:.1f} standard deviations above similar clips"
    return clip_card(row.row, row, note) | {"proposed": [row.missing]}


def pair_card(found: Audit, pair: Any) -> dict:
    """Return two clips that share audio, each starting where the shared audio starts."""
    starts = (max(0.0, pair.offset_seconds), max(0.0, -pair.offset_seconds))
    sides = []
    for row, start in zip((pair.first, pair.second), starts, strict=True):
        sides.append(clip_card(row, found.clips.table.loc[row]) | {"start_seconds": start})
    return {
        "sides": sides,
        "kind": pair.kind,
        "conflicting": pair.conflicting,
        "same_recording": pair.same_recording,
        "across": pair.across if "/" in pair.across else "",
        "overlap": pair.overlap_seconds,
        "offset": pair.offset_seconds,
        "correlation": pair.correlation,
    }


def across(duplicates: pd.DataFrame) -> list[dict]:
    """Return the number of pairs within and across splits, and of those with conflicting labels."""
    return [
        {
            "splits": splits,
            "identical": int((pairs["kind"] == IDENTICAL).sum()),
            "near": int((pairs["kind"] == SAME_AUDIO).sum()),
            "conflicting": int(pairs["conflicting"].sum()),
        }
        for splits, pairs in duplicates.groupby("across")
    ]


def reasons(table: pd.DataFrame) -> list[tuple[str, int]]:
    """Return the reasons for dropping clips, with the number of clips for each."""
    return list(table["reason"].astype(str).str.split(":").str[0].value_counts().items())
