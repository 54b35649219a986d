"""A comparison as an aligned text, as Markdown and as CSV."""

import csv
import io

from irmas_recipe.report.comparison import PUBLISHED, RUN, TRIVIAL, Comparison, Row
from irmas_recipe.report.results import FIGURES
from irmas_recipe.report.text import markdown_table, with_interval

COSTS = ("parameters", "training s", "clips/s")
STAR = "*"
FEWEST_SONGS = 10  # whose resamples say how much the choice of songs matters


def as_text(comparison: Comparison) -> str:
    """Return aligned columns: the runs, their differences from the first, what needs no listening, published systems."""
    runs, others = comparison.of_kind(RUN), comparison.of_kind(TRIVIAL) + comparison.of_kind(PUBLISHED)
    header = ["", *FIGURES.values(), *COSTS]
    measured = [[row.name, *figure_cells(row), *cost_cells(row)] for row in runs]
    compared = [[f"{row.name} - {runs[0].name}", *difference_cells(row), "", "", ""] for row in runs[1:]]
    unheard = [[row.name, *figure_cells(row), "", "", ""] for row in others]
    table = [header, *measured, *compared, *unheard]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    # The last three columns are numbers alone and stand right.
    lines = [
        "  ".join([cell.ljust(w) for cell, w in zip(row[:-3], widths, strict=False)]
                  + [cell.rjust(w) for cell, w in zip(row[-3:], widths[-3:], strict=True)]).rstrip()
        for row in table
    ]  # fmt: skip
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    ends = [1, 1 + len(measured), 1 + len(measured) + len(compared), len(lines)]
    parts = [lines[start:stop] for start, stop in zip([0, *ends[:-1]], ends, strict=True)]
    body = [line for part in parts if part for line in (rule, *part)]
    protocols = [f"{row.name}: {row.protocol}." for row in comparison.rows if row.protocol]
    return "\n".join([comparison.test_set, *body, rule, *notes(comparison), *protocols])


def as_markdown(comparison: Comparison) -> str:
    """Return the same rows as Markdown tables, each system with its protocol."""
    runs = comparison.of_kind(RUN)
    rows = [["system", *FIGURES.values(), *COSTS, "protocol"]]
    for row in comparison.rows:
        name = f"**{row.name}**" if row.kind == RUN else row.name
        rows.append([name, *figure_cells(row), *cost_cells(row), row.protocol])
    parts = [comparison.test_set, markdown_table(rows)]
    if len(runs) > 1:
        rows = [[f"minus {runs[0].name}", *FIGURES.values()]]
        rows += [[row.name, *difference_cells(row)] for row in runs[1:]]
        parts.append(markdown_table(rows))
    return "\n\n".join([*parts, *notes(comparison)])


def as_csv(comparison: Comparison) -> str:
    """Return one line a system with every number in a column of its own; what is unknown is empty."""
    records = [csv_record(row) for row in comparison.rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue().rstrip("\n")


def csv_record(row: Row) -> dict:
    """Return a row's columns; a run's `difference_*` are to the first run."""
    record = {"system": row.name, "kind": row.kind}
    for name in FIGURES:
        low, high = row.intervals.get(name, ("", ""))
        record |= {name: row.figures.get(name, ""), f"{name}_low": low, f"{name}_high": high}
    for name in FIGURES:
        entry = row.differences.get(name)
        low, high = entry["ci95"] if entry else ("", "")
        record[f"difference_{name}"] = entry["difference"] if entry else ""
        record |= {f"difference_{name}_low": low, f"difference_{name}_high": high}
        record[f"difference_{name}_excludes_0"] = excludes_zero(entry) if entry else ""
    costs = ("parameters", "training_seconds", "inference_clips_per_second")
    record |= {name: "" if getattr(row, name) is None else getattr(row, name) for name in costs}
    return record | {"protocol": row.protocol}


def notes(comparison: Comparison) -> list[str]:
    """Return what a reader of the table must know."""
    numbers, runs = comparison.resamples, comparison.of_kind(RUN)
    how_many = f"{numbers[0]:,} resamples of whole songs"
    if len(set(numbers)) > 1:
        of_each = ", ".join(f"{row.name} {number:,}" for row, number in zip(runs, numbers, strict=True))
        how_many = f"resamples of whole songs ({of_each}; differences {numbers[0]:,})"
    lines = [f"[95 % interval], {how_many}, thresholds held fixed."]
    if len(runs) > 1:
        lines.append(
            f"Differences: both runs on the same resamples. {STAR} the interval leaves out 0: "
            "the choice of songs alone does not explain the difference."
        )
    if comparison.songs < FEWEST_SONGS:
        lines.append(f"Few songs ({comparison.songs}): their intervals are too narrow, and {STAR} says little.")
    halves = [row.name for row in runs if row.is_of_half]
    if halves:
        lines.append(
            f"{', '.join(halves)}: figures of half of the test set, with thresholds tuned on the test clips of the other half. "
            "They do not compare with figures of the whole; differences are taken on the clips that both runs share."
        )
    if comparison.of_kind(PUBLISHED):
        lines.append(
            "Published systems differ in thresholds, windows and test clips: read the protocols before the ranks."
        )
    return lines


def excludes_zero(entry: dict) -> bool:
    """Return whether a difference's interval lies wholly on one side of 0."""
    low, high = entry["ci95"]
    return low > 0 or high < 0


def figure_cells(row: Row) -> list[str]:
    """Return "0.662 [.640, .684]" of each figure, without the interval where there is none."""
    cells = []
    for name in FIGURES:
        figure, interval = row.figures.get(name), row.intervals.get(name)
        cells.append("" if figure is None else with_interval(figure, interval) if interval else f"{figure:.3f}")
    return cells


def difference_cells(row: Row) -> list[str]:
    """Return "+0.021 [+.003, +.040]*" of each figure."""
    cells = []
    for name in FIGURES:
        entry = row.differences[name]
        star = STAR if excludes_zero(entry) else ""
        cells.append(with_interval(entry["difference"], entry["ci95"], signed=True) + star)
    return cells


def cost_cells(row: Row) -> list[str]:
    """Return parameters, seconds of training, and clips a second in inference."""
    return [
        "" if row.parameters is None else f"{row.parameters:,}",
        "" if row.training_seconds is None else f"{row.training_seconds:,.0f}",
        "" if row.inference_clips_per_second is None else f"{row.inference_clips_per_second:,.1f}",
    ]
