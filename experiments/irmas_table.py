"""The table of IRMAS: every recipe with three seeds, fused, audited, trained again with the audit's corrections, compared.

python -m experiments.irmas_table [--budget small|medium|full] [--dry_run] [--data_dir D] [--output_dir OUT] [--field value ...]

Meant for one GPU. Every step is a command of this project, the download of IRMAS first. What is finished is kept, so that the
same command goes on after an interruption, and a run that fails costs itself. At the end docs/results_irmas.md is written
anew. Further fields go to every recipe; with a folder of `irmas synthesize` as --data_dir it is a rehearsal.
"""

import argparse
import shlex
import statistics
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch

from experiments.jobs import PROGRAM, ROOT, Job, open_notes, recipe_job, run_all, why
from irmas_dataset.errors import UserError, start
from irmas_dataset.files import SYNTHETIC_MARKER
from irmas_dataset.whole_file import whole_file
from irmas_recipe.report.provenance import commit
from irmas_recipe.report.results import FIGURES, Results
from irmas_recipe.report.text import aligned, markdown_table
from irmas_recipe.training.recipe_file import read_recipe, shipped_recipes

PAGE = ROOT / "docs/results_irmas.md"
SEEDS = (1, 2, 3)
SMALL = ("mobilenet/finetune", "mobilenet/zero_shot", "cnn/han2017")
MEDIUM = (*SMALL, "mobilenet/linear_probe", "ast/finetune", "ast/zero_shot", "passt/finetune", "beats/finetune",
          "beats/linear_probe", "crnn/mel", "mfcc/subnetworks", "classical/svm")  # fmt: skip
OTHERS = (
    "openmic",
    "wavegan",
    "encoder",
)  # another data set, a generator without labels, and a recipe without a checkpoint
BY_THEMSELVES = ("crnn/fusion", "quickstart")  # fused from runs, and synthetic music
ENSEMBLES = {
    "ensemble-transformers": ("ast/finetune", "passt/finetune", "beats/finetune"),
    "ensemble-scratch": ("cnn/han2017", "crnn/mel", "mfcc/subnetworks"),
    "ensemble-mobilenet": ("mobilenet/finetune",),
}
"""Name -> the recipes whose runs, of every seed, are fused by their mean."""
AUDITORS = 3  # runs whose scores the audit hears, the first that are finished
TRAINING_CLIPS = 5_702  # of IRMAS's 6,705, without validation
CLIPS_PER_SECOND = {"ast": 1663, "passt": 1682, "mobilenet": 2484, "beats": 1060}
"""In the Trainer's own loop, on one H200 (RESULTS, A GPU, after); of other networks none was measured."""
AROUND_TRAINING = 0.6  # minutes: 118 s less 80 s of training (RESULTS, Not measured), from prepared data
PARAMETERS = {
    "ast": 85.5e6,
    "passt": 85.4e6,
    "mobilenet": 4.2e6,
    "beats": 90.3e6,
    "cnn": 1.4e6,
    "crnn": 1.5e6,
    "mfcc": 0.5e6,
}
COPIES = 7  # of the weights that a run leaves: its own, and in two checkpoints with the optimizer's two moments
DATA_GB = 12.0  # of IRMAS as it is extracted


@dataclass(frozen=True)
class Table:
    """What the command line asks for."""

    data_dir: Path
    output_dir: Path
    budget: str
    fields: tuple[str, ...]

    @property
    def recipes(self) -> tuple[str, ...]:
        """The recipes of the budget, by their places."""
        return {"small": SMALL, "medium": MEDIUM}.get(self.budget) or every_recipe()

    @property
    def logs(self) -> Path:
        """Where each command's log lies."""
        return self.output_dir / "logs"


def main(argv: list[str]) -> None:
    """Train what is not finished, fuse, audit, train again, compare, and write the page; or print the plan."""
    table, is_dry, page = parse_arguments(argv)
    if is_dry:
        print(plan(table))
        return
    open_notes(table.output_dir / "table.json", {"data_dir": str(table.data_dir), "fields": list(table.fields)})
    if not (table.data_dir / SYNTHETIC_MARKER).exists():
        subprocess.run([*PROGRAM, "download", f"--data_dir={table.data_dir}"], cwd=ROOT, check=True)
    trained = training_jobs(table)
    failed = run_all(trained, 1, table.logs)
    fused = ensemble_jobs(table)
    audit = audit_jobs(table, trained)
    failed += run_all([*fused, *audit], 1, table.logs)
    again = corrected_jobs(table)
    failed += run_all(again, 1, table.logs)
    compare(table, [*trained, *fused], "table")
    compare(table, again, "table-corrected")
    with whole_file(page) as unfinished:
        unfinished.write_text(results_page(table, trained + fused, again, failed), encoding="utf-8")
    print(f"Wrote {page}; pictures and tables are in {table.output_dir}/table.")
    if failed:
        raise UserError(
            f"{len(failed)} did not finish; the page says why, and the same command tries them again: {', '.join(failed)}."
        )


def parse_arguments(argv: list[str]) -> tuple[Table, bool, Path]:
    """Return what is asked for, whether the plan is to be printed alone, and the page to write."""
    parser = argparse.ArgumentParser(prog="python -m experiments.irmas_table", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--budget", choices=["small", "medium", "full"], default="small", help="how many recipes (default: small)"
    )
    parser.add_argument("--data_dir", type=Path, default=Path("data/irmas"), help="default: data/irmas")
    parser.add_argument(
        "--output_dir", type=Path, default=Path("runs/irmas-table"), help="a run folder a run, logs/ and table/"
    )
    parser.add_argument("--page", type=Path, default=PAGE, help="default: docs/results_irmas.md")
    parser.add_argument("--dry_run", action="store_true", help="print every command, with estimated hours and disk")
    arguments, fields = parser.parse_known_args(argv)
    table = Table(arguments.data_dir.resolve(), arguments.output_dir.resolve(), arguments.budget, tuple(fields))
    if own := {"--seed", "--corrections"} & {field.split("=")[0] for field in fields}:
        raise UserError(f"{min(own)} is set for each run by the table itself: leave it out.")
    on_cpu = any(field.startswith("--use_cpu") for field in fields)
    if not (arguments.dry_run or on_cpu or torch.cuda.is_available()):
        raise UserError("There is no GPU, without which this takes days or weeks: --use_cpu=true goes on all the same.")
    return table, arguments.dry_run, arguments.page


def every_recipe() -> tuple[str, ...]:
    """Return every recipe that trains or measures one system on IRMAS, those of MEDIUM first."""
    places = ["/".join(path.with_suffix("").parts[-2:]) for path in shipped_recipes()]
    wanted = [
        place for place in places
        if not place.startswith(OTHERS) and not place.endswith(BY_THEMSELVES) and "wavegan" not in place
    ]  # fmt: skip
    return (*MEDIUM, *(place for place in wanted if place not in MEDIUM))


def seeds_of(place: str) -> tuple[int, ...]:
    """Return the seeds of a recipe's runs: one where nothing is drawn, as without training."""
    values = read_recipe(path_of(place))
    return SEEDS[:1] if values.get("num_train_epochs") == 0 or "system" in values else SEEDS


def path_of(place: str) -> Path:
    """Return the file of a recipe."""
    return next(path for path in shipped_recipes() if path.with_suffix("").parts[-2:] == tuple(place.split("/")))


def run_name(place: str, seed: int) -> str:
    """Return the name of a run's folder."""
    return f"{place.replace('/', '-')}-seed{seed}"


def run_job(table: Table, place: str, seed: int, *more: str, name: str = "") -> Job:
    """Return a run of a recipe on the table's data."""
    # a classical system knows no other thresholds
    protocol = () if place.startswith("classical/") else ("--thresholds_from=validation",)
    fields = (f"--data_dir={table.data_dir}", f"--seed={seed}", *protocol, *more, *table.fields)
    return recipe_job(name or run_name(place, seed), place, fields, table.output_dir)


def training_jobs(table: Table) -> list[Job]:
    """Return the run of each recipe and seed, the first seed of all before the second of any."""
    return [
        run_job(table, place, seed) for seed in SEEDS for place in table.recipes if seed in seeds_of(place)
    ]  # fmt: skip


def ensemble_jobs(table: Table) -> list[Job]:
    """Return the fusions of which two parts or more belong to the budget and are finished."""
    jobs = []
    for name, places in ENSEMBLES.items():
        parts = [run_job(table, place, seed) for place in places if place in table.recipes for seed in seeds_of(place)]
        runs = tuple(str(part.run_dir) for part in parts if part.finished)
        if len(runs) > 1:
            run_dir = table.output_dir / name
            fuse = (*PROGRAM, "ensemble", *runs, f"--output_dir={run_dir}", "--overwrite_output_dir")
            jobs.append(Job(name, run_dir, fuse, parts=runs))
    return jobs


def audit_jobs(table: Table, trained: list[Job]) -> list[Job]:
    """Return the audit of the data, which hears the scores of the first finished runs; none without a run."""
    scores = [str(job.run_dir / "predictions.parquet") for job in trained if job.finished][:AUDITORS]
    run_dir = table.output_dir / "audit"
    command = (*PROGRAM, "audit", f"--data_dir={table.data_dir}", f"--output_dir={run_dir}", "--predictions", *scores)
    return [Job("audit", run_dir, command, proof="report.html")] if scores else []


def corrected_jobs(table: Table) -> list[Job]:
    """Return the runs of the budget's first recipe with the audit's corrections; none where it has none."""
    corrections = table.output_dir / "audit/corrections.csv"
    if not corrections.is_file():
        return []
    place = table.recipes[0]
    return [
        run_job(table, place, seed, f"--corrections={corrections}", name=f"{run_name(place, seed)}-corrected")
        for seed in seeds_of(place)
    ]


def compare(table: Table, jobs: list[Job], name: str) -> None:
    """Write the comparison of the finished runs: text, Markdown, CSV and a picture."""
    runs = [str(job.run_dir) for job in jobs if job.finished]
    if runs:
        command = [*PROGRAM, "compare", *runs, f"--output_dir={table.output_dir / name}"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def reasons(table: Table, failed: list[str]) -> str:
    """Return a line for each run that failed: its name, and the last line of its log."""
    return "\n".join(f"- {name}: {why(table.logs, name)}" for name in failed)


def results_page(table: Table, runs: list[Job], again: list[Job], failed: list[str]) -> str:
    """Return docs/results_irmas.md."""
    done = [job for job in runs if job.finished]
    parts = [HEAD]
    if not done:
        parts.append("Not measured yet: nobody who has IRMAS, a network and a GPU has run the command.")
    else:
        command = shlex.join(["experiments/irmas_table.sh", "--budget", table.budget, *table.fields])
        first = Results.read(done[0].run_dir)
        train = next((found for job in done if (found := Results.read(job.run_dir).train).get("device")), {})
        facts = [
            f"- Commit: `{commit()}`",
            f"- Machine: {train.get('device', 'not recorded')}",
            f"- Command: `{command}`",
        ]
        facts.append(f"- Data: {first.dataset['name']}, {first.dataset['clips']['test']:,} test clips")
        parts += ["\n".join(facts), "## Seeds", seeds_table(done), "## Every run, beside the published systems"]
        parts.append((table.output_dir / "table/comparison.md").read_text(encoding="utf-8").strip())
        if any(job.finished for job in again):
            parts += ["## With the audit's corrections", CORRECTED]
            parts.append((table.output_dir / "table-corrected/comparison.md").read_text(encoding="utf-8").strip())
    if failed:
        parts += ["## What did not finish", reasons(table, failed)]
    return "\n\n".join(parts) + "\n"


HEAD = """# Results on IRMAS

Written by `experiments/irmas_table.sh`, which fetches IRMAS and released checkpoints, trains every recipe of its budget with
three seeds on one GPU, fuses, audits and compares them. Its dry run says what it would do and how long that takes."""
CORRECTED = """The audit's corrections are applied to training and test clips alike, unheard: these figures are for a comparison among
themselves, not with those above."""


def seeds_table(done: list[Job]) -> str:
    """Return the mean of each recipe's figures over its seeds, with the lowest and the highest."""
    of_recipe = defaultdict(list)
    for job in done:
        of_recipe[job.name.rpartition("-seed")[0] or job.name].append(Results.read(job.run_dir).headline)
    rows = [["system", "runs", *FIGURES.values()]]
    for name, figures in of_recipe.items():
        rows.append([name, str(len(figures)), *(over_seeds([of_run[key] for of_run in figures]) for key in FIGURES)])
    return markdown_table(rows, right_aligned_from=1)


def over_seeds(values: list[float]) -> str:
    """Return the mean of a figure, and its range where there are several."""
    mean = f"{statistics.fmean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f} to {max(values):.3f})"


def plan(table: Table) -> str:
    """Return every command with its estimated minutes and disk, and their sums."""
    jobs, rows = training_jobs(table), [["run", "minutes", "GB"]]
    minutes, gigabytes = (
        [of_job(job.command[2]) for job in jobs] for of_job in (estimated_minutes, estimated_gigabytes)
    )
    for job, time, size in zip(jobs, minutes, gigabytes, strict=True):
        rows.append([job.name, *("not known" if value is None else f"{value:.1f}" for value in (time, size))])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    known = [sum(value or 0 for value in values) for values in (minutes, gigabytes)]
    commands = [("download", f"--data_dir={table.data_dir}"), *(job.command[len(PROGRAM) :] for job in jobs)]
    return "\n".join([
        *(shlex.join(["irmas", *command]) for command in commands),
        "then irmas ensemble, audit, the first recipe again with --corrections, and compare: from what is finished by then",
        "", *(aligned(row, widths) for row in rows), "",
        f"In all about {known[0] / 60:.1f} h and {known[1] + DATA_GB:.0f} GB, {DATA_GB:.0f} GB of them data, without what is not known "
        f"({minutes.count(None)} runs whose rate was not measured).",
        f"Estimates: epochs of {TRAINING_CLIPS:,} clips at the rates of one H200 in RESULTS.md, and {AROUND_TRAINING:.1f} min around each training.",
    ])  # fmt: skip


def estimated_minutes(place: str) -> float | None:
    """Return how long a run takes on the GPU that was measured; None where its rate was not."""
    values, kind = read_recipe(path_of(place)), place.split("/")[0]
    rate, epochs = CLIPS_PER_SECOND.get(kind), values.get("num_train_epochs")
    if "system" in values or (rate is None and epochs):
        return None
    return AROUND_TRAINING + (epochs * TRAINING_CLIPS / rate / 60 if epochs else 0)


def estimated_gigabytes(place: str) -> float | None:
    """Return what a run leaves on the disk; None where the size of its network is not known here."""
    parameters = PARAMETERS.get(place.split("/")[0])
    return 4 * COPIES * parameters / 1e9 if parameters else None


if __name__ == "__main__":
    start(main)
