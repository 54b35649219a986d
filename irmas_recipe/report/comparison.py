"""What a comparison says: one row a system, with figures, intervals, cost and difference from the first run."""

from dataclasses import dataclass, field
from pathlib import Path

from irmas_dataset.labels import readable_name
from irmas_metric.bootstrap import paired_song_bootstrap
from irmas_recipe.report.published import PUBLISHED_SYSTEMS
from irmas_recipe.report.results import FIGURES
from irmas_recipe.report.runs import Run, read_runs

RUN, TRIVIAL, PUBLISHED = "run", "trivial", "published"


@dataclass(frozen=True)
class Row:
    """One system. `figures`, `intervals` and `differences` have the keys of FIGURES that are known.

    `differences`: {figure: {"difference": this run - the first, "ci95": (lo, hi)}}; empty for the first run.
    """

    name: str
    kind: str
    figures: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    differences: dict[str, dict] = field(default_factory=dict)
    parameters: int | None = None
    training_seconds: float | None = None
    inference_clips_per_second: float | None = None
    protocol: str = ""
    is_of_half: bool = False


@dataclass(frozen=True)
class Comparison:
    """All rows: runs in the order given, then what needs no listening, then published systems where they compare.

    `test_set` is the whole one where any run was measured on it, and so are the figures of what needs no listening.
    `resamples` are those behind each run's intervals, in the same order; differences have as many as the first run.
    """

    rows: list[Row]
    test_set: str
    resamples: list[int]
    songs: int  # the fewest that a run was measured on

    def of_kind(self, kind: str) -> list[Row]:
        """Return the rows of one kind: run, trivial or published."""
        return [row for row in self.rows if row.kind == kind]


def compare_runs(folders: list[Path]) -> Comparison:
    """Read run folders and compare each with the first; UserError where they cannot be compared."""
    runs = read_runs(folders, allow_halves=True)
    first = runs[0]
    resamples = [run.results.protocol["bootstrap_resamples"] for run in runs]
    wholes = [run for run in runs if not run.results.is_of_half]
    test_set = (wholes or runs)[0].results
    rows = [run_row(run, first, resamples[0]) for run in runs] + trivial_rows(test_set.trivial)
    if wholes and all(run.results.music == "irmas" for run in wholes):
        rows += published_rows()
    songs = min(run.results.dataset["songs"] for run in runs)
    return Comparison(rows, test_set.test_set, resamples, songs)


def run_row(run: Run, first: Run, resamples: int) -> Row:
    """Return a run's row; its difference from the first run comes from the same resamples of songs for both.

    Where one of the two was measured on half of the test set, the difference is that on this half.
    """
    results, train = run.results, run.results.train
    differences = {}
    if run is not first:
        ours, theirs = run.test.common_with(first.test), first.test.common_with(run.test)
        paired = paired_song_bootstrap(
            theirs.labels, ours.scores, results.thresholds, theirs.scores, first.results.thresholds, theirs.songs, resamples
        )  # fmt: skip
        differences = {name: paired[name] for name in FIGURES}
    return Row(
        name=run.name,
        kind=RUN,
        figures=results.headline,
        intervals={name: tuple(interval) for name, interval in results.intervals.items()},
        differences=differences,
        parameters=train.get("parameters") or None,
        training_seconds=train.get("seconds") if train.get("epochs", 1) else None,  # only networks count epochs
        inference_clips_per_second=train.get("inference_clips_per_second"),
        protocol=protocol_in_words(run),
        is_of_half=run.results.is_of_half,
    )


def protocol_in_words(run: Run) -> str:
    """Return a run's protocol in a few words."""
    protocol = run.results.protocol
    words = [f"{run.results.regime} thresholds"]
    if run.results.is_of_half:
        words = [f"measured on {len(run.test.clips):,} clips, half of the test set; thresholds tuned on the other half"]
    if protocol.get("separation", "none") != "none":
        words.insert(0, f"{protocol['separation']} part")
    if protocol.get("window_seconds"):
        words.insert(-1, f"{protocol['window_seconds']:g} s windows every {protocol['hop_seconds']:g} s")
    if protocol.get("aggregation"):
        words.insert(-1, protocol["aggregation"])
    return ", ".join(words)


def trivial_rows(trivial: dict) -> list[Row]:
    """Return what the labels alone give; the last is what a flawless recogniser of one instrument a clip reaches."""
    constant = ", ".join(map(readable_name, trivial["constant"]["classes"]))

    def decisions(name: str) -> dict[str, float]:
        return {figure: trivial[name][figure] for figure in ("micro_f1", "macro_f1")}

    rows = [
        Row("constant answer", TRIVIAL, decisions("constant"), protocol=f"{constant} for every clip"),
        Row("every class", TRIVIAL, decisions("all"), protocol="all classes for every clip"),
        Row("ranked by frequency", TRIVIAL, dict(trivial["prior"]), protocol="classes by their training clips"),
    ]
    if "one_label" in trivial:
        protocol = "one true label a clip and no other"
        rows.append(Row("one right label", TRIVIAL, decisions("one_label"), protocol=protocol))
    return rows


def published_rows() -> list[Row]:
    """Return the published systems, each with its own protocol."""
    rows = []
    for system in PUBLISHED_SYSTEMS:
        figures = {"micro_f1": system.micro_f1, "macro_f1": system.macro_f1, "lrap": system.lrap}
        known = {name: value for name, value in figures.items() if value is not None}
        rows.append(Row(system.name, PUBLISHED, known, protocol=system.protocol))
    return rows
