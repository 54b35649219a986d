"""Which descriptors a system listens to: how much mAP falls when one is shuffled among the clips (Breiman 2001)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from irmas_recipe.baselines.classical.classifiers import mean_average_precision
from irmas_recipe.report.style import BLUE, INK, LIGHT_BLUE, QUIET, save, tidy, title

MOST_BARS = 25


def permutation_importance(
    logits: Callable[[np.ndarray], np.ndarray],
    features: np.ndarray,
    labels: np.ndarray,
    groups: dict[str, list[int]],
    repeats: int,
    seed: int,
) -> dict[str, dict[str, float]]:
    """Return {descriptor: {"mean", "deviation"}}: the loss of mAP when its columns are shuffled together.

    features: (rows, columns) and labels (rows, classes) that the system was not fitted on.
    """
    generator = np.random.default_rng(seed)
    whole = mean_average_precision(labels, logits(features))
    result = {}
    for name, columns in tqdm(groups.items(), desc="Importances", disable=None):
        losses = []
        for _ in range(repeats):
            shuffled = features.copy()
            shuffled[:, columns] = features[generator.permutation(len(features))][:, columns]
            losses.append(whole - mean_average_precision(labels, logits(shuffled)))
        result[name] = {"mean": float(np.mean(losses)), "deviation": float(np.std(losses))}
    return result


def draw_importance(importances: dict[str, dict[str, float]], path: Path) -> Path:
    """Write a PNG of the most important descriptors, best first."""
    rows = sorted(importances.items(), key=lambda row: -row[1]["mean"])[:MOST_BARS]
    figure = Figure(figsize=(9, 1.6 + 0.3 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    means = [entry["mean"] for _, entry in rows]
    axes.barh(range(len(rows)), means, height=0.66, color=LIGHT_BLUE)
    axes.errorbar(
        means, range(len(rows)), xerr=[entry["deviation"] for _, entry in rows], fmt="none", ecolor=BLUE, elinewidth=2
    )
    axes.axvline(0, color=QUIET, linewidth=1)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("loss of mAP (bar: mean of the shuffles, line: standard deviation)", fontsize=11.5, color=INK)
    tidy(axes, grid="x")
    axes.tick_params(axis="y", labelsize=11.5, labelcolor=INK)
    title(
        figure,
        "What the system listens to",
        "Validation mixtures with one descriptor shuffled: how much mAP that costs",
    )
    return save(figure, path)
