"""What was heard in one file, for a page: a player, the instruments, and when each is heard. A click plays from there.

The view is HTML with the style view.css and the script view.js. The page of `predict --html` shows one view per file and
the demo shows one at a time, also in a Space: so nothing here needs the rest of this project.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import jinja2

from irmas_recipe.report.style import LABEL_COLOURS
from irmas_recipe.report.text import clock, clock_step

HERE = Path(__file__).parent
MOST_TICKS = 6  # of the time axis: as many as fit on a phone
RULES = {"clip": "answer by the score of the whole file", "timeline": "answer by the timeline"}
"""The pipeline's `rule`: what it means in words."""


def view_of(result: dict, heard: Sequence[str]) -> dict:
    """Return what the view of a result shows, as values that JSON can store.

    Args:
        result: of the pipeline, with `all_labels` and `return_activity`.
        heard: the labels that are the answer, most important first.
    """
    labels = list(result["activity"]["scores"])
    scored = {entry["label"]: entry for entry in result["instruments"]}
    segments = {label: [] for label in labels}
    for segment in result["timeline"]:
        segments[segment["label"]].append(segment)
    instruments = [
        instrument(scored[label], segments[label])
        | {"label": label, "place": labels.index(label), "is_heard": label in heard}
        for label in dict.fromkeys([*heard, *(label for label in labels if segments[label])])
    ]
    instruments.sort(key=longest_last_of_unheard)
    return {
        "duration_seconds": result["duration_seconds"],
        "rule": RULES.get(result.get("rule"), ""),
        "instruments": instruments,
        "nothing": "" if heard else nothing_in_words(result),
        "warning": result.get("warning", ""),
    }


def longest_last_of_unheard(row: dict) -> float:
    """Return the key that keeps the order of what was heard and puts the rest behind it, longest first."""
    return -math.inf if row["is_heard"] else -row["seconds"]


def instrument(entry: dict, segments: list[dict]) -> dict:
    """Return the numbers of one label, from its `entry` of the result and its segments; `score` is the confidence."""
    spans = [(part["start_seconds"], part["end_seconds"], part["confidence"]) for part in segments]
    return {
        "score": entry["confidence"],
        "seconds": entry["seconds"],
        "share": entry["share"],
        "segments": [[round(value, 3) for value in span] for span in spans],
    }


def nothing_in_words(result: dict) -> str:
    """Return what to say where no instrument is the answer, with the one that came nearest to its threshold."""
    if result["timeline"]:
        return "No instrument was heard in the file as a whole; these are heard for moments."
    highest = {label: max(of_label) for label, of_label in result["activity"]["confidences"].items()}
    nearest = max(highest, key=highest.get)
    if highest[nearest] >= 0.5:  # for a moment that is too short to count
        return "No instrument was heard: none reaches its threshold for long enough."
    return (
        "No instrument was heard: none reaches its threshold, which is a confidence of 0.5. "
        f"The nearest is {nearest}: {highest[nearest]:.2f} at most."
    )


def ticks(duration_seconds: float) -> list[tuple[float, str]]:
    """Return the ticks of the time axis: the place of each in percent, and its words."""
    step = clock_step(duration_seconds, MOST_TICKS)
    times = [step * index for index in range(int(duration_seconds / step) + 1)]
    return [(100 * time / duration_seconds, clock(time) if step >= 1 else f"{time:.1f}") for time in times]


def colour(place: int) -> str:
    """Return the colour of a label, by its place among the model's labels."""
    return LABEL_COLOURS[place % len(LABEL_COLOURS)]


def until(seconds: float) -> str:
    """Return a time at which something ends, in whole seconds."""
    return clock(math.ceil(seconds))


FILTERS = {"clock": clock, "until": until, "colour": colour, "ticks": ticks}
"""What the view's template needs."""


def style_and_script() -> tuple[str, str]:
    """Return what a page with views needs once: CSS and JavaScript."""
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("view.css", "view.js"))
    return style, script


def as_html(view: dict, name: str, address: str) -> str:
    """Return the view as HTML; `address` is where the player finds the file."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True)
    environment.filters |= FILTERS
    return environment.get_template("view.html.jinja").module.show(view, name, address)
