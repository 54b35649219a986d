"""The benchmark's picture of where a training step's time goes."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from irmas_recipe.commands.benchmark.clock import GRAPH, REST, stages_of_step
from irmas_recipe.report.style import FAINT, GREEN, INK, ORANGE, PINK, QUIET, save

COLOURS = {
    "waiting for data": "#999999",
    "decoding and features": ORANGE,
    "augmentation": PINK,
    "features": "#E69F00",
    "forward": "#A6D3F0",
    "backward": "#4A9BD1",
    GRAPH: "#4A9BD1",
    "optimizer": GREEN,
    REST: FAINT,
}
"""Stage -> colour, in the order of a step."""
SMALLEST_NAMED = 4  # per cent: a narrower part has no room for its number


def draw(figures: dict, path: Path) -> None:
    """Draw how long a training step takes per clip, ours and stock's, and below what share each stage has of it."""
    steps = measured_steps(figures)
    figure = Figure(figsize=(10, 2.6 + 0.9 * len(steps)), layout="constrained")
    above, below = figure.subplots(2, 1)
    draw_times(above, steps)
    draw_shares(below, steps)
    for axes, label in ((above, "milliseconds of a training step per clip"), (below, "per cent of the step")):
        axes.set_yticks(range(len(steps)), list(steps))
        axes.invert_yaxis()
        axes.set_xlabel(label, color=QUIET)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(colors=QUIET, left=False, labelcolor=INK)
    present = [stage for stage in COLOURS if any(stage in stages_of_step(step) for step in steps.values())]
    patches = [Patch(color=COLOURS[stage]) for stage in present]
    figure.legend(
        patches,
        present,
        loc="outside upper center",
        ncols=len(present),
        frameon=False,
        fontsize=9,
        handlelength=1,
        columnspacing=1.2,
    )
    above.set_title(
        f"{figures['machine']['device']}, batch {figures['batch']}, ours in {figures['precision']}",
        loc="left", fontsize=10, color=QUIET,
    )  # fmt: skip
    save(figure, path)


def measured_steps(figures: dict) -> dict[str, dict]:
    """Return the speeds of the steps that were measured, by the name of their bar."""
    steps = {
        "ours": figures["ours"]["training_step"],
        "ours, half the tokens": figures["ours"].get("training_step_patchout"),
        "ours, eager": figures["ours"].get("training_step_eager"),
        "stock": figures["stock"].get("training_step"),
    }
    return {name: step for name, step in steps.items() if step}


def draw_times(axes: Axes, steps: dict[str, dict]) -> None:
    """Draw each step's milliseconds per clip as a bar of its stages, with its rate at the end."""
    for position, step in enumerate(steps.values()):
        draw_bar(axes, position, stages_of_step(step))
        rate = f"  {step['clips_per_second']:.2f} clips/s"
        axes.text(step["ms_per_clip"], position, rate, va="center", color=INK)
    axes.set_xlim(0, 1.17 * max(step["ms_per_clip"] for step in steps.values()))


def draw_shares(axes: Axes, steps: dict[str, dict]) -> None:
    """Draw each step as a bar of 100 per cent, with the share of each stage in it."""
    for position, step in enumerate(steps.values()):
        shares = {stage: 100 * part / step["ms_per_clip"] for stage, part in stages_of_step(step).items()}
        for left, share in draw_bar(axes, position, shares):
            if share >= SMALLEST_NAMED:
                middle = left + share / 2
                axes.text(middle, position, f"{share:.0f} %", ha="center", va="center", color=INK, fontsize=9)
    axes.set_xlim(0, 100)


def draw_bar(axes: Axes, position: int, parts: dict[str, float]) -> list[tuple[float, float]]:
    """Draw a bar of parts, stage -> length, one behind another; return where each begins and its length."""
    left, drawn = 0.0, []
    for stage in COLOURS:
        if stage in parts:
            axes.barh(position, parts[stage], left=left, height=0.62, color=COLOURS[stage])
            drawn.append((left, parts[stage]))
            left += parts[stage]
    return drawn
