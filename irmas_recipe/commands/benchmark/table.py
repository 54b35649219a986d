"""The benchmark's figures as a table for people."""

from irmas_recipe.commands.benchmark.clock import stages_of_step

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
    "training_step_eager": "training step, eager",
    "evaluate": "evaluate 20 s, same windows",
    "evaluate_in_fewest_inputs": "evaluate 20 s, fewest inputs",
    "predict": "predict 20 s files, with decoding",
    "predict_bf16": "predict --bf16, with decoding",
}


def table(figures: dict) -> str:
    """Return all figures as lines of text."""
    rows = [row for stage, words in STAGES.items() if (row := stage_row(figures, stage, words))]
    return "\n".join([*heading(figures), *rows, "", *remarks(figures), "", *figures["notes"]])


def heading(figures: dict) -> list[str]:
    """Return what was measured on which machine, and the titles of the columns."""
    machine, rates = figures["machine"], figures["machine"]["flops_per_second"]
    return [
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


def stage_row(figures: dict, stage: str, words: str) -> str | None:
    """Return a stage's speeds, ours and stock's, or None where neither was measured."""
    if stage not in figures["ours"] and stage not in figures["stock"]:
        return f"{words:<36}{'not measured':>23}" if stage == "training_step_patchout" else None
    line = f"{words:<36}"
    for side in ("ours", "stock"):
        entry = figures[side].get(stage)
        line += f"{entry['clips_per_second']:>11,.2f}{entry['ms_per_clip']:>12,.2f}" if entry else " " * 23
    ratio = figures["ratios"].get(stage)
    return (line + (f"{ratio:>7.1f}x" if ratio else "")).rstrip()


def remarks(figures: dict) -> list[str]:
    """Return everything besides speeds, one subject per line."""
    costs = [
        f"costliest, {side}: " + ", ".join(f"{cost['operation']} {cost['share']:.0%}" for cost in costs)
        for side, costs in figures["costliest_operations"].items()
    ]
    opening = [
        f"opening {name} ({entry['clips']:,} clips): {1000 * entry['seconds_to_first_clip']:,.0f} ms"
        for name, entry in figures["opening"].items()
    ]
    processes = [
        f"{count} process(es), {entry['threads_each']} thread(s) each: {entry['clips_per_second']:.2f} clips/s, "
        f"{max(entry['memory_bytes_each']) / 2**20:,.0f} MiB each"
        for count, entry in figures.get("processes", {}).items()
    ]
    tagging = [
        f"{name.replace('_', ' --')}: {figures['ours'][name]['times_real_time']:,.1f} times real time, with decoding"
        for name in ("predict", "predict_bf16")
        if name in figures["ours"]
    ]
    return [*step_remarks(figures), *costs, memory_remark(figures), *tagging, *opening, *processes]


def step_remarks(figures: dict) -> list[str]:
    """Return what is known about the training step: operations, the Trainer's own loop, compiling, stages."""
    step, loops = figures["ours"]["training_step"], figures["loop"]
    loop = loops["training_step"]
    use = [
        f", {entry['training_step']['fraction_of_matrix_rate']:.0%} of the machine's matrix rate ({side})"
        for side, entry in (("ours", figures["ours"]), ("stock", figures["stock"]))
        if "fraction_of_matrix_rate" in entry.get("training_step", {})
    ]
    compiling = (
        f"; compiling took {loop['first_step_seconds'] - loop['later_step_seconds']:.1f} s of the first step"
        if figures["compiled"]
        else " (not compiled)"
    )
    stages = sorted(stages_of_step(step).items(), key=lambda item: -item[1])
    shares = [f"{name} {milliseconds / step['ms_per_clip']:.1%}" for name, milliseconds in stages]
    return [
        f"training step: {figures['flops']['ours']['training_step'] / 1e9:,.3g} GFLOP per clip" + "".join(use),
        *(f"Trainer's own loop, {STAGES[name]}: {loop_in_words(each)}" for name, each in loops.items()),
        *compiled_against_eager(loops),
        f"compiled graphs of training: {figures['compiled_graphs']['training_step']}{compiling}",
        "where a step goes: " + ", ".join(shares),
    ]


def loop_in_words(loop: dict) -> str:
    """Return the figures of a Trainer's own loop."""
    use = f" ({loop['fraction_of_matrix_rate']:.0%} of the matrix rate)" if "fraction_of_matrix_rate" in loop else ""
    return (
        f"{loop['clips_per_second']:,.2f} clips/s{use}, {loop['waiting_for_data_share']:.1%} of it waiting for data; first step "
        f"{loop['first_step_seconds']:.1f} s, later {1000 * loop['later_step_seconds']:,.1f} ms"
    )


def compiled_against_eager(loops: dict[str, dict]) -> list[str]:
    """Return by how much compiling pays, where both were measured."""
    if "training_step_eager" not in loops:
        return []
    ratio = loops["training_step"]["clips_per_second"] / loops["training_step_eager"]["clips_per_second"]
    return [f"the loop as the recipe has it against the eager one: {ratio:.2f}x"]


def memory_remark(figures: dict) -> str:
    """Return the memory that a step adds, and the peak of the benchmark."""
    known = [
        f"{name.replace('_', ' ')} {value / 2**20:,.0f} MiB"
        for name, value in figures["step_memory_bytes"].items()
        if value is not None
    ]
    peak = f"{figures['peak_memory_bytes'] / 2**20:,.0f} MiB"
    return f"memory that a step adds: {', '.join(known) or 'not measured'}; peak of the whole benchmark {peak}"
