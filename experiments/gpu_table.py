"""The figures of experiments/gpu.sh as one JSON file and one table: `python -m experiments.gpu_table OUTPUT_FOLDER`."""

import json
import sys
from pathlib import Path

BENCHMARKS = ("ast", "ast_*", "passt", "passt_*", "beats", "mobilenet", "mobilenet_*")
STEPS = {
    "training_step": "as the recipe has it",
    "training_step_eager": "eager",
    "training_step_patchout": "half of the tokens",
}


def main(folder: Path) -> None:
    """Write gpu.json and table.md into the folder, and print the table."""
    figures = collect(folder)
    (folder / "gpu.json").write_text(json.dumps(figures, indent=1) + "\n")
    table = "\n".join(in_words(figures)) + "\n"
    (folder / "table.md").write_text(table)
    print(f"\n{table}")


def collect(folder: Path) -> dict:
    """Return what every part of the script wrote: seconds and exit status, benchmarks, the job's results."""
    parts = {path.stem: path.read_text().split() for path in sorted(folder.glob("*.part"))}
    figures: dict = {
        "parts": {name: {"seconds": int(words[0]), "status": int(words[1])} for name, words in parts.items()}
    }
    log = folder / "tests.log"
    figures["tests"] = (log.read_text().strip().splitlines() or ["no output"])[-1] if log.is_file() else "not run"
    paths = [path for pattern in BENCHMARKS for path in sorted(folder.glob(f"{pattern}.json"))]
    figures["benchmarks"] = {path.stem: json.loads(path.read_text()) for path in paths}
    results = folder / "run" / "results.json"
    ended = "job" in parts and results.is_file()
    figures["job"] = json.loads(results.read_text())["train"] if ended else None
    return figures


def in_words(figures: dict) -> list[str]:
    """Return the table's lines: each benchmark's loops, what a job took, and which part failed."""
    lines = []
    for benchmark in list(figures["benchmarks"].values())[:1]:
        machine = benchmark["machine"]
        rate = machine["flops_per_second"].get("bf16", 0) / 1e12
        lines += [f"{machine['device']}, {rate:,.0f} TFLOP/s in a large bf16 product, commit {machine['commit']}", ""]
    lines += [
        "| recipe | batch | the Trainer's own loop | clips/s | of the matrix rate | waiting for data | first step |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, benchmark in figures["benchmarks"].items():
        for step, loop in benchmark["loop"].items():
            use = f"{loop['fraction_of_matrix_rate']:.0%}" if "fraction_of_matrix_rate" in loop else ""
            lines.append(
                f"| {name.split('_')[0]} | {benchmark['batch']} | {STEPS[step]} | {loop['clips_per_second']:,.0f} | {use} | "
                f"{loop['waiting_for_data_share']:.1%} | {loop['first_step_seconds']:.1f} s |"
            )
    lines += [
        "",
        "| recipe | predict, times real time | with --bf16 | evaluation, clips of 20 s/s |",
        "|---|---|---|---|",
    ]
    for name, benchmark in figures["benchmarks"].items():
        ours = benchmark["ours"]
        if "predict" in ours:
            lines.append(
                f"| {name} | {ours['predict']['times_real_time']:,.0f} | {ours['predict_bf16']['times_real_time']:,.0f} | "
                f"{ours['evaluate']['clips_per_second']:,.1f} |"
            )
    if figures["job"]:
        job = figures["job"]
        lines += [
            "",
            f"The whole job: {figures['parts']['job']['seconds']} s, of them {job['seconds']:.1f} s of training "
            f"({job['clips_per_second']:,.0f} clips/s) and {job['validation_seconds']:.1f} s of validation.",
        ]
    lines += ["", f"GPU tests: {figures['tests']}"]
    failed = [name for name, part in figures["parts"].items() if part["status"]]
    return lines + ([f"Failed: {', '.join(failed)}; see their logs."] if failed else [])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
