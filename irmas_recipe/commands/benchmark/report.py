"""The benchmark's figures as a table for people and as a picture of where the time goes."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Patch

STAGES = {
    "decode": "decode wav, mono",
    "resample": "resample",
    "prepare_first": "wav to model input, first use",
    "prepare_cached": "wav to model input, cached",
    "cached_loading": "  of it: read and stack",
    "features": "  of it: features",
    "augmentation": "augmentation",
    "forward": "forward pass, evaluation",
    "training_step": "training step",
    "training_step_patchout": "training step, half the tokens",
    "evaluate": "evaluate 20 s, same windows",
    "evaluate_in_fewest_inputs": "evaluate 20 s, fewest inputs",
    "predict": "predict 20 s files, with decoding",
}
COLOURS = {
    "waiting for data": "#999999",
    "decoding and features": "#D55E00",
    "augmentation": "#CC79A7",
    "features": "#E69F00",
    "forward": "#A6D3F0",
    "backward": "#4A9BD1",
    "optimizer": "#009E73",
}
"""After Okabe and Ito's palette (2008): told apart by colour-blind readers."""
INK, QUIET = "#222222", "#6B6B6B"


def table(figures: dict) -> str:
    """Return all figures as lines of text."""
    machine, rates = figures["machine"], figures["machine"]["flops_per_second"]
    lines = [
        "",
        f"{machine['device']}; {machine['cores']} cores; torch {machine['versions']['torch']}; commit {machine['commit']}",
        f"load average {machine['load_average_before']} before, {machine['load_average_after']} after",
        "large products: " + ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in rates.items()),
        f"{figures['parameters']:,} parameters, batch {figures['batch']}, {figures['precision']}"
        + (", compiled" if figures["compiled"] else "")
        + "; stock: fp32, not compiled",
        "",
        f"{'':<36}{'ours':>11}{'':>12}{'stock':>11}{'':>12}{'ratio':>8}",
        f"{'':<36}{'clips/s':>11}{'ms/clip':>12}{'clips/s':>11}{'ms/clip':>12}",
    ]
    lines += [line for stage, words in STAGES.items() if (line := _row(figures, stage, words))]
    lines += ["", *_remarks(figures), "", *figures["notes"]]
    return "\n".join(lines)


def _row(figures: dict, stage: str, words: str) -> str | None:
    if stage not in figures["ours"] and stage not in figures["stock"]:
        return f"{words:<36}{'not measured':>23}" if stage == "training_step_patchout" else None
    line = f"{words:<36}"
    for side in ("ours", "stock"):
        entry = figures[side].get(stage)
        line += f"{entry['clips_per_second']:>11,.2f}{entry['ms_per_clip']:>12,.2f}" if entry else " " * 23
    ratio = figures["ratios"].get(stage)
    return (line + (f"{ratio:>7.1f}x" if ratio else "")).rstrip()


def _remarks(figures: dict) -> list[str]:
    step, loop = figures["ours"]["training_step"], figures["loop"]
    remarks = [
        f"training step: {figures['flops']['ours']['training_step'] / 1e9:,.3g} GFLOP a clip"
        + "".join(
            f", {entry['training_step']['fraction_of_matrix_rate']:.0%} of the machine's matrix rate ({side})"
            for side, entry in (("ours", figures["ours"]), ("stock", figures["stock"]))
            if "fraction_of_matrix_rate" in entry.get("training_step", {})
        ),
        f"Trainer's own loop: {loop['clips_per_second']:.2f} clips/s, {loop['waiting_for_data_share']:.1%} of it waiting for data"
        + f"; first step {loop['first_step_seconds']:.1f} s, later {loop['later_step_seconds']:.1f} s",
        f"compiled graphs of training: {figures['compiled_graphs']['training_step']}"
        + (
            f"; compiling took {loop['first_step_seconds'] - loop['later_step_seconds']:.1f} s of the first step"
            if figures["compiled"]
            else " (not compiled)"
        ),
        "where a step goes: "
        + ", ".join(f"{name} {share:.1%}" for name, share in _shares(step["stages_ms_per_clip"]).items()),
    ]
    for side, costs in figures["costliest_operations"].items():
        remarks.append(f"costliest, {side}: " + ", ".join(f"{cost['operation']} {cost['share']:.0%}" for cost in costs))
    known = {name: value for name, value in figures["step_memory_bytes"].items() if value is not None}
    remarks.append(
        "memory that a step adds: "
        + (
            ", ".join(f"{name.replace('_', ' ')} {value / 2**20:,.0f} MiB" for name, value in known.items())
            or "not measured"
        )
        + f"; peak of the whole benchmark {figures['peak_memory_bytes'] / 2**20:,.0f} MiB"
    )
    remarks.append(f"predict: {figures['ours']['predict']['times_real_time']:,.1f} times real time, with decoding")
    for name, entry in figures["opening"].items():
        remarks.append(f"opening {name} ({entry['clips']:,} clips): {1000 * entry['seconds_to_first_clip']:,.0f} ms")
    for count, entry in figures.get("processes", {}).items():
        memory = max(entry["memory_bytes_each"]) / 2**20
        remarks.append(
            f"{count} process(es), {entry['threads_each']} thread(s) each: {entry['clips_per_second']:.2f} clips/s, "
            f"{memory:,.0f} MiB each"
        )
    return remarks


def _shares(stages: dict[str, float]) -> dict[str, float]:
    total = sum(stages.values())
    return {name: value / total for name, value in sorted(stages.items(), key=lambda item: -item[1])}


def draw(figures: dict, path: Path) -> None:
    """Draw the milliseconds of a training step a clip, and below what they are made of, ours and stock's."""
    bars = {"ours": figures["ours"]["training_step"]}
    if "training_step_patchout" in figures["ours"]:
        bars["ours, half the tokens"] = figures["ours"]["training_step_patchout"]
    if "training_step" in figures["stock"]:
        bars["stock"] = figures["stock"]["training_step"]
    figure = Figure(figsize=(10, 2.6 + 0.9 * len(bars)), dpi=130, layout="constrained")
    above, below = figure.subplots(2, 1)
    names = list(bars)[::-1]
    for position, name in enumerate(names):
        stages = bars[name]["stages_ms_per_clip"]
        _stack(above, position, stages)
        _stack(
            below,
            position,
            {stage: 100 * share for stage, share in _in_order(_shares(stages)).items()},
            words="{:.0f} %",
        )
        above.text(
            sum(stages.values()), position, f"  {bars[name]['clips_per_second']:.2f} clips/s", va="center", color=INK
        )
    above.set_xlim(0, 1.17 * max(sum(bars[name]["stages_ms_per_clip"].values()) for name in names))
    below.set_xlim(0, 100)
    for axes, label in ((above, "milliseconds of a training step, a clip"), (below, "per cent of the step")):
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel(label, color=QUIET)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(colors=QUIET, left=False, labelcolor=INK)
    present = [stage for stage in COLOURS if any(stage in bars[name]["stages_ms_per_clip"] for name in names)]
    patches = [Patch(color=COLOURS[stage]) for stage in present]
    figure.legend(patches, present, loc="outside upper center", ncols=len(present), frameon=False, fontsize=9)
    above.set_title(
        f"{figures['machine']['device']}, batch {figures['batch']}, ours in {figures['precision']}",
        loc="left", fontsize=10, color=QUIET,
    )  # fmt: skip
    figure.savefig(path)


def _in_order(stages: dict[str, float]) -> dict[str, float]:
    return {stage: stages[stage] for stage in COLOURS if stage in stages}


def _stack(axes, position: int, stages: dict[str, float], words: str | None = None) -> None:
    left = 0.0
    for stage, value in _in_order(stages).items():
        axes.barh(position, value, left=left, height=0.62, color=COLOURS[stage])
        if words and value >= 4:
            axes.text(left + value / 2, position, words.format(value), ha="center", va="center", color=INK, fontsize=9)
        left += value
