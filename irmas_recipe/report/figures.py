"""The figures and the text table of a finished run."""

import json
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import precision_recall_curve

from irmas_dataset.errors import UserError
from irmas_dataset.labels import readable_name

# Okabe and Ito's palette (2008): told apart by colour-blind readers.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
LIGHT_BLUE = "#B3D4E8"
INK, QUIET, FAINT = "#222222", "#6B6B6B", "#DDDDDD"
DOTS_PER_INCH = 150

LOGGED_FIGURES = {"map": "mAP", "lrap": "LRAP", "micro_f1": "micro-F1", "macro_f1": "macro-F1"}
REGIME_NAMES = {"tuned": "tuned thresholds", "fixed": "fixed threshold", "oracle": "oracle threshold"}


def draw_figures(run_dir: Path) -> list[Path]:
    """Draw figures/*.png of a run folder from its results.json, predictions.parquet and trainer_state.json.

    Returns the pictures' paths. The training curves are left out where nothing was trained.
    Raises UserError where results.json or predictions.parquet is missing.
    """
    run_dir = Path(run_dir)
    results = read_results(run_dir)
    labels, scores = read_predictions(run_dir, results["dataset"]["classes"])
    figures = {
        "per_class_f1": draw_per_class_f1(results),
        "precision_recall": draw_precision_recall(results, labels, scores),
        "confusions": draw_confusions(results, labels, scores),
    }
    history = read_log_history(run_dir)
    if any("loss" in entry for entry in history):
        figures["training_curves"] = draw_training_curves(history)
    (run_dir / "figures").mkdir(exist_ok=True)
    return [_save(figure, run_dir / "figures" / f"{name}.png") for name, figure in figures.items()]


def read_results(run_dir: Path) -> dict:
    """Return results.json of a run folder, or raise UserError."""
    path = Path(run_dir) / "results.json"
    if not path.is_file():
        raise UserError(
            f"{path} is missing: {run_dir} is no finished run; train and evaluate it with run_irmas.py first."
        )
    return json.loads(path.read_text(encoding="utf-8"))


def read_predictions(run_dir: Path, classes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return multi-hot labels and scores, both (clips, classes), of a run's predictions.parquet, or raise UserError."""
    path = Path(run_dir) / "predictions.parquet"
    if not path.is_file():
        raise UserError(
            f"{path} is missing: evaluate again with `python run_irmas.py evaluate {run_dir} --data_dir ...`."
        )
    table = pd.read_parquet(path)
    labels = np.array([[code in clip for code in classes] for clip in table["instruments"]], dtype=int)
    return labels, table[list(classes)].to_numpy(dtype=float)


def read_log_history(run_dir: Path) -> list[dict]:
    """Return what the Trainer logged, or nothing where nothing was trained."""
    path = Path(run_dir) / "trainer_state.json"
    return json.loads(path.read_text(encoding="utf-8"))["log_history"] if path.is_file() else []


def headline_regime(test: dict) -> str:
    """Return the threshold regime that stands for a run: tuned, or fixed where no thresholds could be tuned."""
    return "tuned" if "tuned" in test else "fixed"


def draw_per_class_f1(results: dict) -> Figure:
    """Draw one bar a class, best first: F1 with its interval, precision, recall, and how much music is behind it."""
    regime = headline_regime(results["test"])
    test = results["test"][regime]
    rows = sorted(test["per_class"].items(), key=lambda row: row[1]["f1"])
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
    _tidy(axes, grid="x")
    axes.tick_params(axis="y", labelsize=12.5, labelcolor=INK)
    axes.plot(
        [], [], "|-", color=BLUE, linewidth=2.4, markersize=13, markeredgewidth=2.4, label="F1 with 95 % interval"
    )
    axes.plot([], [], "D", color=ORANGE, markersize=6, label="precision")
    axes.plot([], [], "o", color=INK, markersize=6.5, label="recall")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=11.5)
    _title(
        figure,
        "How well each instrument is recognised",
        f"{REGIME_NAMES[regime]}: micro-F1 {test['micro_f1']:.3f}, macro-F1 {test['macro_f1']:.3f}",
    )
    return figure


def draw_precision_recall(results: dict, labels: np.ndarray, scores: np.ndarray) -> Figure:
    """Draw one small precision-recall curve a class, in class order, with the point that the threshold chooses."""
    regime = headline_regime(results["test"])
    codes = results["dataset"]["classes"]
    columns = min(4, len(codes))
    rows = -(-len(codes) // columns)
    figure = Figure(figsize=(max(7.5, 2.55 * columns + 0.4), 2.35 * rows + 1.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for position, axes in enumerate(grid.flat):
        if position >= len(codes):
            axes.set_axis_off()
            continue
        entry = results["test"][regime]["per_class"][codes[position]]
        _precision_recall_panel(axes, labels[:, position], scores[:, position], entry)
        axes.set_title(_shortened(readable_name(codes[position])), fontsize=12, color=INK, loc="left")
        average_precision = results["test"]["per_class_ap"][codes[position]]
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
    _title(figure, "Precision against recall of each instrument", f"mAP {results['test']['map']:.3f}")
    return figure


def _precision_recall_panel(axes: Axes, labels: np.ndarray, scores: np.ndarray, entry: dict) -> None:
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    _tidy(axes, grid="both")
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
    diagonal and where there is no such clip. labels, predicted: bool (clips, classes); both results (classes, classes).
    """
    missed = (labels & ~predicted).astype(float)
    candidates = missed.T @ (~labels).astype(float)
    false_alarms = missed.T @ (predicted & ~labels).astype(float)
    rates = np.divide(false_alarms, candidates, out=np.full_like(candidates, np.nan), where=candidates > 0)
    return rates, candidates


def draw_confusions(results: dict, labels: np.ndarray, scores: np.ndarray) -> Figure:
    """Draw which absent instrument is answered where one is missed (`confusion_rates`), in class order."""
    regime = headline_regime(results["test"])
    codes = results["dataset"]["classes"]
    names = [readable_name(code) for code in codes]
    thresholds = np.array([results["test"][regime]["per_class"][code]["threshold"] for code in codes])
    labels, predicted = labels.astype(bool), scores >= thresholds
    rates, _ = confusion_rates(labels, predicted)
    missed = (labels & ~predicted).sum(axis=0)
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
    counts = labels.sum(axis=0)
    rows = [f"{name}  ({some:,} of {all_:,})" for name, some, all_ in zip(names, missed, counts, strict=True)]
    axes.set_xticks(range(len(codes)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(codes)), rows)
    axes.set_xlabel("answered, though it does not play", fontsize=12, color=INK)
    axes.set_ylabel("plays, but is missed  (in so many of its clips)", fontsize=12, color=INK)
    _tidy(axes, grid=None)
    axes.set_facecolor("#EEEEEE")  # seen where there is no rate
    axes.tick_params(labelsize=11.5, labelcolor=INK)
    _title(
        figure,
        "Which instrument is answered in place of a missed one",
        "Of the clips in which the row's instrument plays but is missed, and the column's does not play: "
        "the percentage for which the column's is answered",
    )
    return figure


def draw_training_curves(history: list[dict]) -> Figure:
    """Draw loss, validation figures and learning rate over epochs from the Trainer's log."""
    evaluated = [name for name in LOGGED_FIGURES if any(f"eval_{name}" in entry for entry in history)]
    figure = Figure(figsize=(12.5 if evaluated else 8.6, 4.6), layout="constrained")
    panels = list(figure.subplots(1, 3 if evaluated else 2))
    loss, rate = panels[0], panels[-1]
    loss.plot(*_logged(history, "loss"), color=BLUE, linewidth=1.6, label="training")
    if any("eval_loss" in entry for entry in history):
        loss.plot(*_logged(history, "eval_loss"), "o-", color=ORANGE, linewidth=2, markersize=5, label="validation")
    loss.set_title("Loss", **_panel_title())
    loss.set_ylim(bottom=0)
    for name, color, marker in zip(evaluated, (BLUE, GREEN, ORANGE, PINK), "osD^", strict=False):
        line = {"color": color, "linewidth": 2, "markersize": 5, "label": LOGGED_FIGURES[name]}
        panels[1].plot(*_logged(history, f"eval_{name}"), f"{marker}-", **line)
    if evaluated:
        panels[1].set_title("Validation figures", **_panel_title())
        panels[1].set_ylim(0, 1)
    rate.plot(*_logged(history, "learning_rate"), color=BLUE, linewidth=2)
    rate.set_title("Learning rate", **_panel_title())
    rate.set_ylim(bottom=0)
    rate.yaxis.set_major_formatter("{x:g}")
    for axes in panels:
        _tidy(axes, grid="y")
        axes.set_xlabel("epoch", fontsize=12, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        axes.set_xlim(left=0)
        if axes is not rate:
            axes.legend(frameon=False, fontsize=11, labelcolor=INK)
    _title(figure, "Training", _best_epoch(history))
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


def _shortened(name: str) -> str:
    """Return a name that fits above a small panel, its end kept since numbers often stand there."""
    return name if len(name) <= 16 else f"{name[:8]}…{name[-7:]}"


def _panel_title() -> dict:
    return {"fontsize": 13, "color": INK, "loc": "left"}


def _title(figure: Figure, title: str, subtitle: str) -> None:
    """Write a title and a quieter line below it at the top left, and keep the axes below them."""
    lines = textwrap.wrap(subtitle, int(figure.get_figwidth() * 11))
    inch = 1 / figure.get_figheight()
    figure.text(0.012, 1 - 0.14 * inch, title, va="top", fontsize=15.5, color=INK, weight="bold")
    figure.text(0.012, 1 - 0.47 * inch, "\n".join(lines), va="top", fontsize=11.5, color=QUIET)
    figure.get_layout_engine().set(rect=(0.006, 0.006, 0.988, 0.994 - (0.55 + 0.2 * len(lines)) * inch))


def _tidy(axes: Axes, grid: str | None) -> None:
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=11, labelcolor=QUIET)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(axis=grid, color=FAINT, linewidth=0.8)


def _save(figure: Figure, path: Path) -> Path:
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=DOTS_PER_INCH, facecolor="white", pil_kwargs={"optimize": True})
    return path


def results_table(results: dict) -> str:
    """Return the run's figures as an aligned text table: the headline regime first, what needs no listening last."""
    test, dataset, trivial = results["test"], results["dataset"], results["trivial"]
    header = ["", "micro-F1", "macro-F1", "LRAP", "mAP"]
    measured = [_regime_row(test, regime) for regime in REGIME_NAMES if regime in test]
    unheard = [
        ["constant answer", f"{trivial['constant']['micro_f1']:.3f}", f"{trivial['constant']['macro_f1']:.3f}", "", ""],
        ["every class", f"{trivial['all']['micro_f1']:.3f}", f"{trivial['all']['macro_f1']:.3f}", "", ""],
        ["ranked by frequency", "", "", f"{trivial['prior']['lrap']:.3f}", f"{trivial['prior']['map']:.3f}"],
    ]
    widths = [max(map(len, column)) for column in zip(header, *measured, *unheard, strict=True)]
    rule = "-" * sum(widths, 2 * (len(widths) - 1))
    lines = [
        f"{dataset['name']}: {dataset['clips']['test']:,} test clips, {dataset['songs']:,} songs, "
        f"{len(dataset['classes'])} classes",
        rule,
        _line(header, widths),
        rule,
        *(_line(row, widths) for row in measured),
        rule,
        *(_line(row, widths) for row in unheard),
        rule,
        f"[95 % interval], {results['protocol']['bootstrap_resamples']:,} resamples of whole songs. "
        "Oracle: the threshold that is best on the test set itself.",
        *notes_on_protocol(results["protocol"]),
        f"Constant answer: {', '.join(map(readable_name, trivial['constant']['classes']))}.",
    ]
    return "\n".join(lines)


def notes_on_protocol(protocol: dict) -> list[str]:
    """Return a line for each thing that sets a run's protocol apart from the project's own."""
    lines, source = [], protocol.get("thresholds_from", "validation mixtures")
    if source != "validation mixtures":
        lines.append(f"Tuned: thresholds from {source}.")
    if protocol.get("separation", "none") != "none":
        lines.append(f"Heard: the {protocol['separation']} part of the music only.")
    return lines


def _regime_row(test: dict, regime: str) -> list[str]:
    """Return one row of the table; LRAP and mAP know no threshold and stand in the headline's row alone."""
    name = REGIME_NAMES[regime]
    if regime != "tuned":
        name += f" {single_threshold(test[regime]):.2f}"
    ranking = [_with_interval(test, figure) for figure in ("lrap", "map")]
    decisions = [_with_interval(test[regime], figure) for figure in ("micro_f1", "macro_f1")]
    return [name, *decisions, *(ranking if regime == headline_regime(test) else ["", ""])]


def single_threshold(regime_results: dict) -> float:
    """Return the threshold of a regime that has one for all classes."""
    return next(iter(regime_results["per_class"].values()))["threshold"]


def _line(cells: list[str], widths: list[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _with_interval(figures: dict, name: str) -> str:
    lo, hi = (f"{end:.3f}".removeprefix("0") for end in figures["ci95"][name])
    return f"{figures[name]:.3f} [{lo}, {hi}]"
