"""The picture of a comparison: one panel a figure, one line a system."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from irmas_recipe.report.comparison import PUBLISHED, RUN, TRIVIAL, Comparison, Row
from irmas_recipe.report.comparison_table import excludes_zero
from irmas_recipe.report.results import FIGURES
from irmas_recipe.report.style import BLUE, INK, QUIET, save, tidy
from irmas_recipe.report.text import shortened

NAME_LENGTH = 50


def draw_comparison(comparison: Comparison, path: Path) -> Path:
    """Write a PNG: points with 95 % intervals; a filled point differs from the first run beyond the choice of songs."""
    systems = comparison.of_kind(RUN) + [row for row in comparison.of_kind(PUBLISHED) if row.figures]
    figure = Figure(figsize=(13.5, 2.3 + 0.42 * len(systems)), layout="constrained")
    figure.get_layout_engine().set(wspace=0.05)
    panels = figure.subplots(1, len(FIGURES), sharey=True)
    for axes, (name, title) in zip(panels, FIGURES.items(), strict=True):
        draw_panel(axes, name, systems, baseline(comparison, name))
        axes.set_title(title, fontsize=13.5, color=INK, loc="left")
    panels[0].set_yticks(range(len(systems)), [shortened(row.name, NAME_LENGTH) for row in systems])
    panels[0].set_ylim(len(systems) - 0.4, -0.6)  # the first run is on top
    for label, row in zip(panels[0].get_yticklabels(), systems, strict=True):
        label.set_color(INK if row.kind == RUN else QUIET)
    panels[0].tick_params(axis="y", labelsize=12)
    add_legend(figure, comparison)
    figure.suptitle(comparison.test_set, x=0.008, ha="left", fontsize=14.5, color=INK, weight="bold")
    return save(figure, path)


def draw_panel(axes: Axes, name: str, systems: list[Row], unheard: float | None) -> None:
    """Draw one figure of all systems, and a dashed line where a system that hears nothing stands."""
    if unheard is not None:
        axes.axvline(unheard, color=QUIET, linewidth=1.4, linestyle=(0, (3, 3)))
    for position, row in enumerate(systems):
        if name not in row.figures:
            continue
        if row.kind == PUBLISHED:
            axes.plot(row.figures[name], position, "D", color=QUIET, markersize=6)
            continue
        is_first = not row.differences
        color = INK if is_first else BLUE
        sure = is_first or excludes_zero(row.differences[name])
        axes.plot(row.intervals[name], [position, position], color=color, linewidth=2.2, solid_capstyle="butt")
        axes.plot(
            row.figures[name], position, "o", color=color, markersize=7.5, markeredgewidth=2,
            markerfacecolor=color if sure else "white",
        )  # fmt: skip
    tidy(axes, grid="x")
    axes.margins(x=0.1)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))


def baseline(comparison: Comparison, name: str) -> float | None:
    """Return the best that is possible without listening: one right label a clip is no such thing."""
    unheard = [row for row in comparison.of_kind(TRIVIAL) if row.name != "one right label"]
    return max((row.figures[name] for row in unheard if name in row.figures), default=None)


def add_legend(figure: Figure, comparison: Comparison) -> None:
    """Explain the marks that are drawn, below the panels."""
    axes = figure.axes[0]
    runs = comparison.of_kind(RUN)
    line = {"linewidth": 2.2, "markersize": 7.5, "markeredgewidth": 2}
    axes.plot([], [], "o-", color=INK, label=f"{shortened(runs[0].name, NAME_LENGTH)}, 95 % interval", **line)
    if len(runs) > 1:
        axes.plot([], [], "o-", color=BLUE, label="differs from it beyond the choice of songs", **line)
        axes.plot([], [], "o-", color=BLUE, markerfacecolor="white", label="does not", **line)
    if comparison.of_kind(PUBLISHED):
        axes.plot([], [], "D", color=QUIET, markersize=6, label="published, under its own protocol")
    axes.plot([], [], color=QUIET, linewidth=1.4, linestyle=(0, (3, 3)), label="without listening")
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=11, labelcolor=INK)
