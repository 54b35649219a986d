"""One look for every picture: colours, axes, titles, and how a picture is written."""

import textwrap
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

# Okabe and Ito's palette (2008): told apart by colour-blind readers.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
LIGHT_BLUE = "#B3D4E8"
INK, QUIET, FAINT, PALE = "#222222", "#6B6B6B", "#DDDDDD", "#EEEEEE"
DOTS_PER_INCH = 150

LABEL_COLOURS = (
    "#4269d0",
    "#d9860b",
    "#e0423f",
    "#2f9e9e",
    "#3ca951",
    "#c2568f",
    "#8a5fd0",
    "#5d7fa8",
    "#946444",
    "#7a7f35",
    "#565b63",
)
"""One per label, by its place among the model's labels, so that pictures of several files can be compared."""


def tidy(axes: Axes, grid: str | None = None) -> None:
    """Remove frame and ticks, and draw pale lines along `grid`: "x", "y", "both" or None."""
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=11, labelcolor=QUIET)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, color=FAINT, linewidth=0.8)


def title(figure: Figure, words: str, subtitle: str) -> None:
    """Write a title and a quieter line below it at the top left, and keep the axes below them."""
    lines = textwrap.wrap(subtitle, int(figure.get_figwidth() * 11))
    inch = 1 / figure.get_figheight()
    figure.text(0.012, 1 - 0.14 * inch, words, va="top", fontsize=15.5, color=INK, weight="bold")
    figure.text(0.012, 1 - 0.47 * inch, "\n".join(lines), va="top", fontsize=11.5, color=QUIET)
    figure.get_layout_engine().set(rect=(0.006, 0.006, 0.988, 0.994 - (0.55 + 0.2 * len(lines)) * inch))


def save(figure: Figure, path: Path) -> Path:
    """Write a picture as a PNG, in a folder that is made where it is missing; return its path.

    A dollar sign is one: no text is a formula, and names of classes, runs and files may have any.
    """
    FigureCanvasAgg(figure)
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DOTS_PER_INCH, facecolor="white", pil_kwargs={"optimize": True})
    return path
