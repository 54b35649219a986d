"""The audit as one HTML page that needs nothing beside it."""

from importlib import resources
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from tqdm import tqdm

from irmas_dataset.audit.audit import Audit
from irmas_dataset.audit.levels import SILENT_PEAK_DB
from irmas_dataset.audit.media import Media
from irmas_dataset.labels import DRUMS, GENRES, readable_name

MEDIA_BYTES = 16 << 20  # the page stays below 20 MB
SPLITS = ("train", "validation", "test")  # that a run uses


def write_report(found: Audit, folder: Path, examples: int = 24) -> Path:
    """Write report.html with up to `examples` clips to see and hear in each section; returns its path."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"label": readable_name, "count": "{:,}".format, "percent": "{:.1%}".format}
    page = environment.from_string((resources.files(__package__) / "report.html.jinja").read_text(encoding="utf-8"))
    path = Path(folder) / "report.html"
    path.write_text(page.render(contents(found, examples)), encoding="utf-8")
    return path


def contents(found: Audit, examples: int) -> dict:
    """Return everything that the page shows."""
    media = Media(MEDIA_BYTES)
    faults = sound_faults(found, examples)
    wrong = [doubt_card(row) for row in found.doubts[found.doubts["flagged"].astype(bool)].head(examples).itertuples()]
    missing = [missing_card(row) for row in found.missing.head(examples).itertuples()]
    pairs = [pair_card(found, pair) for pair in found.duplicates.head(examples).itertuples()]
    cards = [card for rows in (*(fault["clips"] for fault in faults), wrong, missing) for card in rows]
    cards += [side for pair in pairs for side in pair["sides"]]
    for card in tqdm(cards, desc="Drawing doubtful clips", unit="clip", disable=not cards):
        card["media"] = media.of(found.clips.file(card["row"]), card.get("start_seconds", 0.0))
    table = found.clips.table
    return {
        "name": found.clips.name,
        "folder": str(found.clips.root),
        "totals": totals(found),
        "findings": findings(found),
        "classes": class_rows(found),
        "genres": shares(table, "genre", {**GENRES, None: "not said"}),
        "drums": shares(table, "drums", {**{value: f"drums: {value}" for value in DRUMS.values()}, None: "not said"}),
        "label_counts": label_counts(table),
        "histograms": histograms(table),
        "faults": faults,
        "pairs": pairs,
        "num_pairs": len(found.duplicates),
        "across": across(found.duplicates),
        "wrong": wrong,
        "num_wrong": int(found.doubts["flagged"].sum()),
        "num_doubted": len(found.doubts),
        "scored_by": sorted(set(found.doubts["scored_by"])),
        "missing": missing,
        "num_missing": found.missing["path"].nunique(),
        "leaky": found.leaky_split,
        "num_corrections": len(found.corrections),
        "reasons": reasons(found.corrections),
        "num_suggestions": len(found.suggestions),
    }


def totals(found: Audit) -> list[tuple[str, str]]:
    """Return what the folder holds, as (number, words)."""
    table = found.clips.table
    training = table[table["split"].isin(("train", "validation"))]
    return [
        (f"{len(training):,}", "training clips"),
        (f"{training['recording'].nunique():,}", "training recordings"),
        (f"{(table['split'] == 'test').sum():,}", "test clips"),
        (f"{table['song'][table['split'] == 'test'].nunique():,}", "test songs"),
        (f"{table['duration'].sum() / 3600:.1f} h", "of audio"),
    ]


def findings(found: Audit) -> list[dict]:
    """Return the counts of faults, each with the part of the page that shows them."""
    table, pairs = found.clips.table, found.duplicates
    conflicts = int(pairs["conflicting"].sum())
    crossing = int(pairs["across"].str.contains("/").sum()) if len(pairs) else 0
    said = [
        (int((table["split"] == "damaged").sum()), "damaged files", "sound"),
        (int(table["silent"].sum()), "silent clips", "sound"),
        (int(table["clipped"].sum()), "clipped clips", "sound"),
        (int(table["mono"].sum()), "clips in mono", "sound"),
        (int(table["upsampled"].sum()), "upsampled clips", "sound"),
        (int((pairs["kind"] == "identical bytes").sum()), "byte-identical pairs", "shared"),
        (int((pairs["kind"] == "same audio").sum()), "near-identical pairs", "shared"),
        (conflicts, "pairs with conflicting labels", "shared"),
        (crossing, "pairs across splits", "shared"),
        (int(found.doubts["flagged"].sum()), "labels likely wrong", "labels"),
        (found.missing["path"].nunique(), "clips with a label likely missing", "missing"),
    ]
    return [{"number": number, "words": words, "section": section} for number, words, section in said]


def summary(found: Audit) -> str:
    """Return the findings as lines of text."""
    lines = [f"{item['number']:>7,}  {item['words']}" for item in findings(found)]
    if found.leaky_split:
        honest, leaky = (found.leaky_split[how]["accuracy"] for how in ("by recording", "by clip"))
        lines.append(
            f"{leaky - honest:>+7.1%}  accuracy that a split by clip would have shown ({leaky:.1%} for {honest:.1%})"
        )
    return "\n".join([f"{found.clips.name}: {len(found.clips.table):,} clips", *lines])


def class_rows(found: Audit) -> list[dict]:
    """Return clips of each split, recordings and songs of each class, and the widths of their bars in percent."""
    rows = found.clips.table.explode("instruments")
    most = max(1, rows.groupby("instruments").size().max()) if len(rows) else 1
    classes = []
    for code in found.clips.classes:
        own = rows[rows["instruments"] == code]
        per_split = [int((own["split"] == split).sum()) for split in SPLITS]
        training, test = own[own["split"].isin(SPLITS[:2])], own[own["split"] == "test"]
        classes.append(
            {
                "code": code,
                "clips": list(zip(SPLITS, per_split, [100 * count / most for count in per_split], strict=True)),
                "recordings": training["recording"].nunique(),
                "songs": test["song"].nunique(),
            }
        )
    return classes


def shares(table: pd.DataFrame, column: str, names: dict) -> list[dict]:
    """Return how the training clips divide over a column: name, count and percent."""
    training = table[table["split"].isin(SPLITS[:2])]
    values = training[column].astype(object).where(training[column].notna(), None)
    counted = [(name, int(sum(value == key for value in values))) for key, name in names.items()]
    whole = max(1, len(training))
    return [{"name": name, "count": count, "percent": 100 * count / whole} for name, count in counted if count]


def label_counts(table: pd.DataFrame) -> list[dict]:
    """Return how many labels test clips carry: name, count and percent."""
    lengths = table["instruments"][table["split"] == "test"].map(len)
    return [
        {"name": f"{labels} label{'s' * (labels != 1)}", "count": int(count), "percent": 100 * count / len(lengths)}
        for labels, count in lengths.value_counts().sort_index().items()
    ]


def histograms(table: pd.DataFrame) -> list[dict]:
    """Return the histograms of level, peak and bandwidth over audible clips: title, unit and bars (from, count, percent)."""
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
    """Return each fault of the sound: title, explanation, number, and its worst clips."""
    table = found.clips.table
    asked = [
        ("Silent", f"No sample is louder than {SILENT_PEAK_DB:.0f} dB of full scale.", "silent", "rms_db", True,
         lambda row: f"peak {row.peak_db:.0f} dB"),
        ("Clipped", "Several samples in a row stand at full scale.", "clipped", "clipped_samples", False,
         lambda row: f"{row.clipped_samples:,.0f} samples"),
        ("Upsampled", "The spectrum is cut off far below half the sampling rate: the music was once sampled lower, or coded hard.",
         "upsampled", "bandwidth_hz", True, lambda row: f"nothing above {row.bandwidth_hz / 1000:.1f} kHz"),
        ("Mono", "One channel, or two that are the same. No fault for a recogniser that listens in mono.", "mono", "rms_db", True,
         lambda row: f"{row.channels} channel{'s' * (row.channels != 1)}"),
    ]  # fmt: skip
    faults = []
    for title, words, column, order, ascending, note in asked:
        rows = table[table[column]].sort_values(order, ascending=ascending, kind="stable")
        shown = 0 if column == "mono" else min(examples, 6)
        clips = [clip_card(row.Index, row, note(row)) for row in rows.head(shown).itertuples()]
        faults.append({"title": title, "words": words, "number": len(rows), "clips": clips})
    damaged = table[table["split"] == "damaged"]
    files = [f"{row.path}: {row.problem}" for row in damaged.itertuples()]
    faults.append(
        {"title": "Damaged", "words": "Left out of every run.", "number": len(files), "clips": [], "files": files}
    )
    return [fault for fault in faults if fault["number"]]


def clip_card(row: int, clip, note: str = "") -> dict:
    """Return what is shown of one clip; `clip` has path, split and instruments."""
    folder, name = clip.path.rsplit("/", 1) if "/" in clip.path else ("", clip.path)
    return {
        "row": int(row),
        "folder": folder,
        "name": name,
        "split": clip.split,
        "labels": list(clip.instruments),
        "note": note,
    }


def doubt_card(row) -> dict:
    suggested = [code for code in row.suggested.split(";") if code]
    return clip_card(row.row, row) | {"suggested": suggested, "suspicion": row.suspicion}


def missing_card(row) -> dict:
    return clip_card(row.row, row) | {"missing": row.missing, "strength": row.strength}


def pair_card(found: Audit, pair) -> dict:
    """Return two clips that share audio, each from where they begin to."""
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
    """Return how many pairs lie within and across splits, and how many of them conflict."""
    return [
        {
            "splits": splits,
            "identical": int((pairs["kind"] == "identical bytes").sum()),
            "near": int((pairs["kind"] == "same audio").sum()),
            "conflicting": int(pairs["conflicting"].sum()),
        }
        for splits, pairs in duplicates.groupby("across")
    ]


def reasons(table: pd.DataFrame) -> list[tuple[str, int]]:
    """Return why clips are proposed to be dropped, and how many for each reason."""
    return list(table["reason"].astype(str).str.split(":").str[0].value_counts().items())
