"""The pictures of a finished run."""

import json
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import precision_recall_curve

from irmas_dataset.labels import readable_name
from irmas_recipe.report.results import FIGURES, REGIMES, Results
from irmas_recipe.report.runs import TEST_FILE, read_scored_clips
from irmas_recipe.report.style import (
    BLUE,
    GREEN,
    INK,
    LIGHT_BLUE,
    ORANGE,
    PALE,
    PINK,
    QUIET,
    save,
    tidy,
    title,
)  # fmt: skip
from irmas_recipe.report.text import shortened

MOST_CLASSES_DRAWN = 40  # of several hundred, pictures would take gigabytes
FEWEST_MISSED = 5  # clips behind a percentage of the confusions


def draw_figures(run_dir: Path) -> list[Path]:
    """Draw figures/*.png of a run folder from its results.json, predictions.parquet and trainer_state.json.

    Returns the pictures' paths. The training curves are left out where nothing was trained.
    Raises UserError where results.json or predictions.parquet is missing.
    """
    run_dir = Path(run_dir)
    results = Results.read(run_dir)
    clips = read_scored_clips(run_dir / TEST_FILE, results.classes)
    figures = {
        "per_class_f1": draw_per_class_f1(results),
        "precision_recall": draw_precision_recall(results, clips.labels, clips.scores),
        "confusions": draw_confusions(results, clips.labels, clips.scores),
    }
    if "calibration" in results.test:
        figures["reliability"] = draw_reliability(results)
    history = read_log_history(run_dir)
    if any("loss" in entry for entry in history):
        figures["training_curves"] = draw_training_curves(history)
    return [save(figure, run_dir / "figures" / f"{name}.png") for name, figure in figures.items()]


def classes_to_draw(results: Results) -> tuple[list[int], str]:
    """Return the classes that pictures show, in class order, and words for a title where these are not all."""
    codes, counted = results.classes, [results.per_class[code]["support"] for code in results.classes]
    if len(codes) <= MOST_CLASSES_DRAWN:
        return list(range(len(codes))), ""
    most = sorted(np.argsort(counted, kind="stable")[::-1][:MOST_CLASSES_DRAWN].tolist())
    return most, f" ({MOST_CLASSES_DRAWN} of {len(codes)} classes, those with the most test clips)"


def read_log_history(run_dir: Path) -> list[dict]:
    """Return what the Trainer logged, or nothing where nothing was trained."""
    path = Path(run_dir) / "trainer_state.json"
    return json.loads(path.read_text(encoding="utf-8"))["log_history"] if path.is_file() else []


def draw_per_class_f1(results: Results) -> Figure:
    """Draw one bar a class, best first: F1 with its interval, precision, recall, and how much music is behind it."""
    regime, test = results.regime, results.decisions
    drawn, of_how_many = classes_to_draw(results)
    shown = {results.classes[position] for position in drawn}
    rows = sorted((row for row in test["per_class"].items() if row[0] in shown), key=lambda row: row[1]["f1"])
    figure = Figure(figsize=(9, 1.9 + 0.46 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for position, (_, entry) in enumerate(rows):
        axes.text(1.02, position, _support(entry), va="center", fontsize=11, color=QUIET)
        if entry["support"] == 0:
            continue
        axes.barh(position, entry["f1"], height=0.66, color=LIGHT_BLUE)
        axes.plot(entry["f1_ci95"], [position, position], color=BLUE, linewidth=2.4, solid_capstyle="butt")
        axes.plot(entry["f1"], position, "|", color=BLUE, markersize=18, markeredgewidth=2.4)
        marks = {"markersize": 6.5, "markeredgecolor": "white", "clip_on": False}
        axes.plot(entry["precision"], position + 0.19, "D", color=ORANGE, **marks)
        axes.plot(entry["recall"], position - 0.19, "o", color=INK, **marks)
    axes.set_yticks(range(len(rows)), [readable_name(code) for code, _ in rows])
    axes.set(xlim=(0, 1), ylim=(-0.6, len(rows) - 0.4))
    tidy(axes, grid="x")
    axes.tick_params(axis="y", labelsize=12.5, labelcolor=INK)
    axes.plot(
        [], [], "|-", color=BLUE, linewidth=2.4, markersize=13, markeredgewidth=2.4, label="F1 with 95 % interval"
    )
    axes.plot([], [], "D", color=ORANGE, markersize=6, label="precision")
    axes.plot([], [], "o", color=INK, markersize=6.5, label="recall")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=11.5)
    title(
        figure,
        "How well each instrument is recognised",
        f"{REGIMES[regime]}: micro-F1 {test['micro_f1']:.3f}, macro-F1 {test['macro_f1']:.3f}{of_how_many}",
    )
    return figure


def draw_precision_recall(results: Results, labels: np.ndarray, scores: np.ndarray) -> Figure:
    """Draw one small precision-recall curve a class, in class order, with the point that the threshold chooses."""
    regime = results.regime
    drawn, of_how_many = classes_to_draw(results)
    codes, labels, scores = [results.classes[row] for row in drawn], labels[:, drawn], scores[:, drawn]
    columns = min(4, len(codes))
    rows = -(-len(codes) // columns)
    figure = Figure(figsize=(max(7.5, 2.55 * columns + 0.4), 2.35 * rows + 1.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for position, axes in enumerate(grid.flat):
        if position >= len(codes):
            axes.set_axis_off()
            continue
        entry = results.per_class[codes[position]]
        known = labels[:, position] >= 0
        _precision_recall_panel(axes, labels[known, position], scores[known, position], entry)
        axes.set_title(shortened(readable_name(codes[position]), 16), fontsize=12, color=INK, loc="left")
        average_precision = results.test["per_class_ap"][codes[position]]
        axes.set_title(
            f"AP {average_precision:.2f}" if entry["support"] else "no clip", fontsize=10.5, color=QUIET, loc="right"
        )
        last_row, first_column = position // columns == rows - 1, position % columns == 0
        axes.tick_params(labelbottom=last_row, labelleft=first_column)
        axes.set_xlabel("recall" if last_row else "", fontsize=11.5, color=INK)
        axes.set_ylabel("precision" if first_column else "", fontsize=11.5, color=INK)
    grid.flat[0].plot([], [], "o", color=ORANGE, markersize=8, label=f"with the {regime} threshold")
    grid.flat[0].plot([], [], color=QUIET, linestyle=(0, (2, 2)), label="chance: share of clips with the instrument")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=11)
    title(figure, "Precision against recall of each instrument", f"mAP {results.test['map']:.3f}{of_how_many}")
    return figure


def _precision_recall_panel(axes: Axes, labels: np.ndarray, scores: np.ndarray, entry: dict) -> None:
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    tidy(axes, grid="both")
    axes.tick_params(labelsize=10)
    if not labels.any():
        return
    precision, recall, _ = precision_recall_curve(labels, scores)
    axes.fill_between(recall, precision, step="pre", color=BLUE, alpha=0.12, linewidth=0)
    axes.step(recall, precision, where="pre", color=BLUE, linewidth=1.8)
    axes.axhline(labels.mean(), color=QUIET, linewidth=1.2, linestyle=(0, (2, 2)))
    axes.plot(entry["recall"], entry["precision"], "o", color=ORANGE, markersize=8, markeredgecolor="white", zorder=5)


def confusion_rates(labels: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how often a missed class is answered by a class that is not there, and the clips behind each share.

    rates[i, j]: of the clips that carry i, miss it, and do not carry j, the share for which j is predicted; NaN on the
    diagonal and where there is no such clip. labels: (clips, classes), 1, 0, or -1: not known; predicted: bool of the same
    shape; both results (classes, classes).
    """
    absent, missed = labels == 0, ((labels == 1) & ~predicted).astype(float)
    candidates = missed.T @ absent.astype(float)
    false_alarms = missed.T @ (predicted & absent).astype(float)
    rates = np.divide(false_alarms, candidates, out=np.full_like(candidates, np.nan), where=candidates > 0)
    return rates, candidates


def draw_confusions(results: Results, labels: np.ndarray, scores: np.ndarray) -> Figure:
    """Draw which absent instrument is answered where one is missed (`confusion_rates`), in class order."""
    drawn, of_how_many = classes_to_draw(results)
    codes, labels = [results.classes[row] for row in drawn], labels[:, drawn]
    names = [readable_name(code) for code in codes]
    predicted = (scores >= results.thresholds)[:, drawn]
    rates, clips = confusion_rates(labels, predicted)
    rates[clips < FEWEST_MISSED] = np.nan
    missed = ((labels == 1) & ~predicted).sum(axis=0)
    figure = Figure(figsize=(3.4 + 0.6 * max(8, len(codes)), 3.1 + 0.5 * max(6, len(codes))), layout="constrained")
    axes = figure.add_subplot()
    highest = max(0.5, np.nanmax(rates, initial=0))
    axes.imshow(rates, cmap="Blues", vmin=0, vmax=highest, aspect="auto")
    for row, column in np.argwhere(~np.isnan(rates)):
        rate = rates[row, column]
        axes.text(
            column, row, f"{100 * rate:.0f}", ha="center", va="center", fontsize=11,
            color="white" if rate > 0.6 * highest else INK if rate >= 0.1 else QUIET,
        )  # fmt: skip
    if np.isnan(rates).all():
        words = f"No instrument is missed in {FEWEST_MISSED} clips or more."
        axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", fontsize=12, color=INK)
    counts = (labels == 1).sum(axis=0)
    rows = [f"{name}  ({some:,} of {all_:,})" for name, some, all_ in zip(names, missed, counts, strict=True)]
    axes.set_xticks(range(len(codes)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(codes)), rows)
    axes.set_xlabel("answered, though it does not play", fontsize=12, color=INK)
    axes.set_ylabel("plays, but is missed  (in so many of its clips)", fontsize=12, color=INK)
    tidy(axes, grid=None)
    axes.set_facecolor(PALE)  # seen where there is no rate, or none to speak of
    axes.tick_params(labelsize=11.5, labelcolor=INK)
    title(
        figure,
        "Which instrument is answered in place of a missed one",
        "Of the clips in which the row's instrument plays but is missed, and the column's does not play: "
        f"the percentage for which the column's is answered (grey: fewer than {FEWEST_MISSED} such clips){of_how_many}",
    )
    return figure


def draw_reliability(results: Results) -> Figure:
    """Draw how often an instrument plays against how likely it was said to play: by score, and by confidence."""
    calibration = results.test["calibration"]
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    most = max(part["decisions"] for of in ("scores", "confidence") for part in calibration[of]["bins"])
    for axes, (of, words, colour) in zip(
        figure.subplots(1, 2, sharey=True),
        (("scores", "score", QUIET), ("confidence", "confidence", BLUE)),
        strict=True,
    ):
        bins = calibration[of]["bins"]
        means, rates = ([part[name] for part in bins] for name in ("mean", "rate"))
        axes.plot([0, 1], [0, 1], color=QUIET, linestyle=(0, (2, 2)), linewidth=1.2)
        axes.plot(means, rates, color=colour, linewidth=1.8)
        sizes = [24 + 376 * np.sqrt(part["decisions"] / most) for part in bins]
        axes.scatter(means, rates, s=sizes, color=colour, edgecolor="white", zorder=5, clip_on=False)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        tidy(axes, grid="both")
        axes.set_title(f"by {words}: error {calibration[of]['ece']:.3f}", fontsize=12.5, color=INK, loc="left")
        axes.set_xlabel(f"{words}, mean of a tenth", fontsize=12, color=INK)
    figure.axes[0].set_ylabel("share of clips in which the instrument plays", fontsize=12, color=INK)
    title(
        figure,
        "How far a confidence can be taken at its word",
        f"{results.test_set[:1].upper()}{results.test_set[1:]}. On the dashed line it would be a probability; larger points "
        "stand for more answers.",
    )
    return figure


def draw_training_curves(history: list[dict]) -> Figure:
    """Draw loss, validation figures and learning rate over epochs from the Trainer's log."""
    evaluated = [
        name for name in ("map", "lrap", "micro_f1", "macro_f1") if any(f"eval_{name}" in entry for entry in history)
    ]
    figure = Figure(figsize=(12.5 if evaluated else 8.6, 4.6), layout="constrained")
    panels = list(figure.subplots(1, 3 if evaluated else 2))
    loss, rate = panels[0], panels[-1]
    loss.plot(*_logged(history, "loss"), color=BLUE, linewidth=1.6, label="training")
    if any("eval_loss" in entry for entry in history):
        loss.plot(*_logged(history, "eval_loss"), "o-", color=ORANGE, linewidth=2, markersize=5, label="validation")
    loss.set_title("Loss", **_panel_title())
    loss.set_ylim(bottom=0)
    for name, color, marker in zip(evaluated, (BLUE, GREEN, ORANGE, PINK), "osD^", strict=False):
        line = {"color": color, "linewidth": 2, "markersize": 5, "label": FIGURES[name]}
        panels[1].plot(*_logged(history, f"eval_{name}"), f"{marker}-", **line)
    if evaluated:
        panels[1].set_title("Validation figures", **_panel_title())
        panels[1].set_ylim(0, 1)
    rate.plot(*_logged(history, "learning_rate"), color=BLUE, linewidth=2)
    rate.set_title("Learning rate", **_panel_title())
    rate.set_ylim(bottom=0)
    rate.yaxis.set_major_formatter("{x:g}")
    for axes in panels:
        tidy(axes, grid="y")
        axes.set_xlabel("epoch", fontsize=12, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axes.set_xlim(left=0)
        if axes is not rate:
            axes.legend(frameon=False, fontsize=11, labelcolor=INK)
    title(figure, "Training", _best_epoch(history))
    return figure


def _best_epoch(history: list[dict]) -> str:
    """Say where the figure that chooses the checkpoint was best."""
    evaluated = [entry for entry in history if "eval_map" in entry]
    if not evaluated:
        return f"{max(entry['epoch'] for entry in history):g} epochs"
    best = max(evaluated, key=lambda entry: entry["eval_map"])
    return f"Best validation mAP: {best['eval_map']:.3f}, after {best['epoch']:.3g} epochs"


def _logged(history: list[dict], name: str) -> tuple[list[float], list[float]]:
    entries = [entry for entry in history if name in entry]
    return [entry["epoch"] for entry in entries], [entry[name] for entry in entries]


def _support(entry: dict) -> str:
    clips, songs = entry["support"], entry["songs"]
    return f"{clips:,} clip{'s' * (clips != 1)}, {songs:,} song{'s' * (songs != 1)}"


def _panel_title() -> dict:
    return {"fontsize": 13, "color": INK, "loc": "left"}
