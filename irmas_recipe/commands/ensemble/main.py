"""`irmas ensemble RUN... --output_dir D`: several finished runs as one system, fused from their scores."""

import logging
import shlex
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from irmas_dataset.errors import UserError
from irmas_recipe.commands.ensemble.arguments import FITTED, EnsembleRecipe
from irmas_recipe.commands.ensemble.fusion import Fusion, fit, on_common_edges
from irmas_recipe.commands.ensemble.members import find_members, members_of
from irmas_recipe.report.results import Results
from irmas_recipe.report.runs import TEST_FILE, VALIDATION_FILE, Run, ScoredClips, read_runs, read_scored_clips
from irmas_recipe.report.text import markdown_table
from irmas_recipe.report.write import finish, results_in_words
from irmas_recipe.training.evaluation import write_scores
from irmas_recipe.training.run_folder import RunFolder, choose
from irmas_recipe.training.songs import MOMENTS_FILE, Moments, read_moments, tune_timeline, write_moments
from irmas_recipe.training.thresholds import tune_thresholds

METHODS_IN_WORDS = {
    "mean": "the mean of the runs' scores",
    "weights": "a weighted mean of the runs' scores; the weights, one per run, have the smallest cross-entropy on the "
    "validation mixtures",
    "voting": "the number of runs that name the class by their own thresholds, ties ranked by the mean score",
    "stacking": "the answer of a logistic regression per class on the log-odds that the runs give to it or "
    "to all classes, fitted on the validation mixtures",
}

HOW_KEPT = "There are no weights here: the ensemble asks its members, whose folders must stay where they are beside it."


def main(recipe: EnsembleRecipe) -> None:
    """Fuse runs into a new run folder: results.json, predictions, figures and a card."""
    method = recipe.method
    folder = choose(recipe, Path(recipe.output_dir), recipe.overwrite_output_dir)
    if folder.is_finished:
        find_members(folder.path, Results.read(folder.path))  # that none has changed
        print(results_in_words(folder))
        return
    runs = read_runs([Path(run) for run in recipe.runs])
    validation = read_validation(runs, method)
    fusion, fused = fit(
        method,
        None if validation is None else np.stack([of_run.scores for of_run in validation]),
        None if validation is None else validation[0].labels,
        np.stack([run.results.thresholds for run in runs]),
    )
    folder.claim(recipe)
    songs = None if validation is None else read_songs(runs)
    write_run(folder, runs, validation, fusion, fused, songs)
    print(results_in_words(folder))


def read_validation(runs: list[Run], method: str) -> list[ScoredClips] | None:
    """Return every run's scores of the validation mixtures in one order; None, with a warning, where a run has none.

    Raises:
        UserError: the method needs them, or the runs were validated on different mixtures.
    """
    without = [run.folder for run in runs if not (run.folder / VALIDATION_FILE).is_file()]
    if without and method in FITTED:
        raise UserError(
            f"{without[0] / VALIDATION_FILE} is missing, and --method {method} is fitted on validation scores: train that "
            "run again, or use --method mean."
        )
    if without:
        logging.warning(
            "%s is missing: no thresholds can be tuned, so fixed ones stand for the ensemble.",
            without[0] / VALIDATION_FILE,
        )
        return None
    first, *others = [read_scored_clips(run.folder / VALIDATION_FILE, run.results.classes) for run in runs]
    aligned = [first] + [other.in_order_of(first) for other in others]
    if None in aligned:
        raise UserError(
            f"{runs[aligned.index(None)].folder} and {runs[0].folder} were validated on different mixtures: give both "
            "runs the same --data_dir, --split_seed, --validation_fraction and --window_seconds."
        )
    return aligned


def read_songs(runs: list[Run]) -> list[list[Moments]] | None:
    """Return every run's moments of each validation song that all have heard; None, with a warning, where there are none.

    A run that separates its songs has heard the first of them only. Runs that were validated on the same mixtures have
    heard the same songs, unless their lengths differ.
    """
    without = [run.folder for run in runs if not (run.folder / MOMENTS_FILE).is_file()]
    if without:
        reason = f"{without[0] / MOMENTS_FILE} is missing"
    else:
        of_runs = [read_moments(run.folder / MOMENTS_FILE, run.results.classes) for run in runs]
        together = list(zip(*of_runs, strict=False))
        if all(len({round(float(song.edges[-1]), 1) for song in heard}) == 1 for heard in together):
            return together
        reason = f"the songs of {MOMENTS_FILE} are not as long in all runs"
    logging.warning(
        "%s: the ensemble's timeline is judged by the thresholds of clips, unless its runs are trained again, all with "
        "thresholds from validation.",
        reason,
    )
    return None


def fused_songs(songs: list[list[Moments]], fusion: Fusion) -> list[Moments]:
    """Return the moments of songs as the ensemble's pipeline hears them."""
    fused = []
    for heard in songs:
        timelines = [(of_run.edges, of_run.scores) for of_run in heard]
        edges, (*scores, labels) = on_common_edges([*timelines, (heard[0].edges, heard[0].labels)])
        fused.append(Moments(edges, labels, fusion(np.stack(scores))))
    return fused


def write_run(
    folder: RunFolder, runs: list[Run], validation: list[ScoredClips] | None, fusion: Fusion, fused: np.ndarray | None,
    songs: list[list[Moments]] | None,
) -> None:  # fmt: skip
    """Measure the fused scores and write the run folder; `fused` are those of the validation mixtures.

    Where the runs have heard the same validation `songs`, thresholds of the timeline are tuned on their fused moments.
    """
    first, test = runs[0].results, runs[0].test
    scores = fusion(np.stack([run.test.scores for run in runs]))
    thresholds = None if validation is None else tune_thresholds(validation[0].labels, fused)
    recipe = {"ensemble": [str(run.folder) for run in runs], "method": fusion.method}
    if fusion.weights is not None:
        recipe["weights"] = {run.name: round(float(w), 6) for run, w in zip(runs, fusion.weights, strict=True)}
    moments = {}
    if songs is not None:
        together = fused_songs(songs, fusion)
        moments["moments"] = {name: values.tolist() for name, values in tune_timeline(together).items()}
        write_moments(folder.work / MOMENTS_FILE, together, first.classes)
    protocol = {name: first.protocol[name] for name in ("thresholds_from", "bootstrap_resamples")}
    results = Results.measure(
        recipe=recipe, seed=0, dataset=first.dataset, train=cost(runs), protocol=protocol, labels=test.labels,
        scores=scores, songs=test.songs, thresholds=thresholds,
        more={"fusion": asdict(fusion), "members": members_of(runs, folder.path)} | moments,
    )  # fmt: skip
    # Its ranking by frequency is the training set's, which only the runs have seen.
    results = replace(results, trivial=first.trivial)
    write_scores(folder.work / TEST_FILE, test.clips, test.songs, test.labels, scores, first.classes)
    if validation is not None:
        of_first = validation[0]
        write_scores(
            folder.work / VALIDATION_FILE, of_first.clips, of_first.songs, of_first.labels, fused, first.classes
        )  # fmt: skip
    finish(folder, results, how_made=how_made(runs, results, folder.path), how_kept=HOW_KEPT, library="irmas-recipe")


def cost(runs: list[Run]) -> dict:
    """Return the `train` part of results.json: what all runs together cost; a figure that one lacks is left out."""
    trains = [run.results.train for run in runs]
    together = {
        "seconds": lambda seconds: round(sum(seconds), 3),
        "peak_memory_bytes": max,
        "parameters": sum,
        "inference_clips_per_second": lambda speeds: round(1 / sum(1 / speed for speed in speeds), 3),
    }
    total = {
        "clips_per_second": 0.0,
        "device": " + ".join(dict.fromkeys(train["device"] for train in trains if train.get("device"))),
    }
    for name, combine in together.items():
        of_each = [train.get(name) for train in trains]
        if all(of_each):
            total[name] = combine(of_each)
    return total


def how_made(runs: list[Run], results: Results, output_dir: Path) -> str:
    """Return the card's section on the members and the command that fuses them."""
    weights = results.recipe.get("weights")
    rows = [["run", "micro-F1", "macro-F1", "LRAP", "parameters"] + (["weight"] if weights else [])]
    for run in runs:
        figures = [f"{run.results.headline[name]:.3f}" for name in ("micro_f1", "macro_f1", "lrap")]
        parameters = run.results.train.get("parameters")
        row = [run.name, *figures, f"{parameters:,}" if parameters else ""]
        rows.append(row + ([f"{weights[run.name]:.3f}"] if weights else []))
    method = results.recipe["method"]
    members = (str(run.folder) for run in runs)
    command = shlex.join(["irmas", "ensemble", *members, "--output_dir", str(output_dir), "--method", method])
    return (
        f"It is an ensemble of {len(runs)} runs: a clip's score for a class is {METHODS_IN_WORDS[method]}.\n\n"
        f"{markdown_table(rows, right_aligned_from=1)}\n\n```bash\n{command}\n```"
    )
