"""Times, names, figures and tables in words, the same on the screen, in pictures, cards and pages."""

from collections.abc import Sequence

CLOCK_STEPS = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200)


def clock(seconds: float) -> str:
    """Return 3725.4 as 1:02:05 and 5.4 as 0:05."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def in_words(seconds: float) -> str:
    """Return 11520 as 3 h 12 min, 65 as 1 min 5 s and 5.4 as 5 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def clock_step(seconds: float, most: int) -> float:
    """Return the shortest even step, in seconds, that divides an axis of this length into `most` parts or fewer."""
    return next((step for step in CLOCK_STEPS if seconds / step <= most), seconds)


def shortened(name: str, width: int) -> str:
    """Return the name in at most `width` characters, its middle left out: what tells names apart is often at the end."""
    if len(name) <= width:
        return name
    end = 2 * width // 3
    return name[: width - end - 1] + "…" + name[-end:]


def with_interval(figure: float, interval: Sequence[float], signed: bool = False) -> str:
    """Return "0.662 [.640, .684]", or "+0.064 [-.031, +.144]" for a difference."""
    sign = "+" if signed else ""
    low, high = (f"{end:{sign}.3f}".replace("0.", ".", 1) for end in interval)
    return f"{figure:{sign}.3f} [{low}, {high}]"


def aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Return one line of a text table whose columns have these widths."""
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def markdown_table(rows: list[list[str]], right_aligned_from: int | None = None) -> str:
    """Return a Markdown table; the first row is its header."""
    rules = [
        "---:" if right_aligned_from is not None and column >= right_aligned_from else "---"
        for column in range(len(rows[0]))
    ]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |" for cells in [rows[0], rules, *rows[1:]]
    )
