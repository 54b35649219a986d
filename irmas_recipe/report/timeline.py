"""A picture of which instruments are heard when, above the waveform of the file."""

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

from irmas_recipe.models.pipeline.audio_blocks import read_blocks
from irmas_recipe.report.style import INK, LABEL_COLOURS, PALE, QUIET, save
from irmas_recipe.report.text import clock, clock_step, shortened

ROWS = 12
COLUMNS = 1_600  # of the waveform: about the pixels of its width
LEGENDS = {
    "clip": "area: confidence · line: threshold · bar: heard · right: confidence of the whole",
    "timeline": "area: confidence · line: threshold · bar: heard · right: share of the time",
}
NOTHING_HEARD = "no score reaches its threshold; the three that come nearest"


def draw_timeline(file: str | Path, result: dict) -> Figure:
    """Return the picture of one file's result, as the pipeline gives it with `all_labels` and `return_activity`.

    Raises ValueError where the audio cannot be read.
    """
    labels = shown_labels(result)
    figure = Figure(figsize=(12, 1.75 + 0.36 * len(labels)), dpi=110, layout="constrained")
    rows, waveform = figure.subplots(2, 1, sharex=True, height_ratios=[0.36 * len(labels), 0.8])
    name = shortened(Path(file).name.encode("utf-8", "replace").decode("utf-8"), 76)
    rows.set_title(name, loc="left", color=INK, fontsize=12, fontweight="bold")
    rows.set_title(
        LEGENDS[result["rule"]] if result["timeline"] else NOTHING_HEARD, loc="right", color=QUIET, fontsize=9
    )
    draw_rows(rows, labels, result)
    draw_waveform(waveform, file, result["duration_seconds"])
    return figure


def save_picture(figure: Figure, picture: Path) -> None:
    """Write the figure as a PNG, in a folder that is made where it is missing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # of a name in a script that the font lacks
        save(figure, picture)


def shown_labels(result: dict) -> list[str]:
    """Return the labels heard at some moment, those heard longest first, or the three that came nearest to a threshold."""
    confidences = result["activity"]["confidences"]
    heard_seconds = dict.fromkeys(confidences, 0.0)
    for segment in result["timeline"]:
        heard_seconds[segment["label"]] += segment["end_seconds"] - segment["start_seconds"]
    order = sorted(confidences, key=lambda label: (-heard_seconds[label], -max(confidences[label])))
    return [label for label in order if heard_seconds[label]][:ROWS] or order[:3]


def draw_rows(axes: Axes, labels: list[str], result: dict) -> None:
    """Draw a row per label: its confidence over time as a pale area, and a bar where it is heard."""
    edges, confidences = result["activity"]["edges_seconds"], result["activity"]["confidences"]
    answer = {entry["label"]: entry for entry in result["instruments"]}
    places, name_colours = list(confidences), []
    for row, label in enumerate(labels):
        colour = LABEL_COLOURS[places.index(label) % len(LABEL_COLOURS)]
        bottom = len(labels) - 1 - row
        axes.axhspan(bottom + 0.08, bottom + 0.92, color=PALE, lw=0, zorder=0)
        axes.stairs(
            bottom + 0.08 + 0.84 * np.array(confidences[label]),
            edges,
            baseline=bottom + 0.08,
            fill=True,
            color=colour,
            alpha=0.28,
        )
        axes.axhline(bottom + 0.5, color="white", lw=0.8)
        for segment in result["timeline"]:
            if segment["label"] == label:
                start, seconds = segment["start_seconds"], segment["end_seconds"] - segment["start_seconds"]
                axes.broken_barh([(start, seconds)], (bottom + 0.08, 0.2), color=colour, lw=0)
        entry = answer[label]
        heard = entry["score"] >= result["thresholds"][label]
        figure = f"{entry['share']:.0%}" if result["rule"] == "timeline" else f"{entry['confidence']:.2f}"
        axes.text(
            1.008, bottom + 0.5, figure, transform=axes.get_yaxis_transform(), va="center",
            color=INK if heard else QUIET, fontsize=10,
        )  # fmt: skip
        name_colours.append(INK if heard else QUIET)
    axes.set_yticks([len(labels) - 1 - row + 0.5 for row in range(len(labels))], labels, fontsize=11)
    for name, colour in zip(axes.get_yticklabels(), name_colours, strict=True):
        name.set_color(colour)
    axes.set_ylim(0, len(labels))
    axes.tick_params(length=0, labelbottom=False)
    axes.spines[:].set_visible(False)


def draw_waveform(axes: Axes, file: str | Path, duration_seconds: float) -> None:
    """Draw the loudest and the lowest sample of each stretch of the file, and the time axis."""
    lowest, highest = envelope(file, duration_seconds)
    edges = np.linspace(0, duration_seconds, len(lowest) + 1)
    axes.stairs(highest, edges, baseline=lowest, fill=True, color=QUIET)
    limit = max(1e-3, float(np.abs([lowest, highest]).max()))
    axes.set_ylim(-limit, limit)
    axes.set_xlim(0, duration_seconds)
    axes.set_yticks([])
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(QUIET)
    axes.tick_params(colors=QUIET, labelcolor=INK)
    step = clock_step(duration_seconds, 12)
    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda seconds, _: clock(seconds) if step >= 1 else f"{seconds:.1f} s")
    )


def envelope(file: str | Path, duration_seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and highest sample (columns,) of equal stretches of a file, read block by block."""
    rate, blocks = read_blocks(file)
    stretch = max(1, round(duration_seconds * rate / COLUMNS))
    columns = [(part.min(axis=1), part.max(axis=1)) for part in stretches(blocks, stretch)]
    return np.concatenate([low for low, _ in columns]), np.concatenate([high for _, high in columns])


def stretches(blocks: Iterable[np.ndarray], length: int) -> Iterable[np.ndarray]:
    """Yield the samples as (stretches, length); the last, incomplete stretch repeats its last sample."""
    rest = np.zeros(0, np.float32)
    for block in blocks:
        samples = np.concatenate([rest, block])
        whole = len(samples) // length * length
        if whole:
            yield samples[:whole].reshape(-1, length)
        rest = samples[whole:]
    if len(rest):
        yield np.pad(rest, (0, length - len(rest)), mode="edge")[None]
