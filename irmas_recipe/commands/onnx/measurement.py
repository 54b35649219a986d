"""What an exported graph costs and gains: figures on the run's test set and time per window, beside torch's."""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from datasets import DatasetDict
from tqdm import tqdm

from irmas_dataset.errors import UserError
from irmas_dataset.labels import readable_name
from irmas_metric.figures import figures
from irmas_recipe.commands.evaluate.measurement import evaluation_recipe
from irmas_recipe.commands.onnx.export import WaveformClassifier, onnx_logits, open_session
from irmas_recipe.report.text import markdown_table
from irmas_recipe.training import evaluation, machine
from irmas_recipe.training.clips import WindowedClips
from irmas_recipe.training.data import load_data, prepare_splits
from irmas_recipe.training.processes import quiet_libraries

System = Callable[[np.ndarray], np.ndarray]
"""Waveforms (batch, samples) -> logits (batch, classes)."""


def measure(
    args: argparse.Namespace,
    classifier: WaveformClassifier,
    graphs: dict[str, Path],
    window_and_hop: tuple[float, float],
) -> str:
    """Return a table of torch and the graphs (name -> file) on the same windows of the run's test set.

    `window_and_hop` are in seconds; the window is the graphs'.

    Raises:
        UserError: the model is not a run of this project, or the test set has other classes.
    """
    config = classifier.model.config
    windows, class_names = windows_of_test(args, classifier.sampling_rate, window_and_hop)
    if [readable_name(code) for code in class_names] != [config.id2label[i] for i in range(config.num_labels)]:
        raise UserError(
            f"{args.model} was trained on other classes than the test set has; name its own test set with --data_dir."
        )
    systems: dict[str, System] = {"torch": partial(torch_logits, classifier)}
    systems |= {name: partial(onnx_logits, open_session(graph)) for name, graph in graphs.items()}
    logits, milliseconds = run_side_by_side(systems, windows, args.batch_size)
    rows = [["", "MB", "micro-F1", "LRAP", "largest difference of a logit", "ms per window"]]
    for name in systems:
        scores = windows.scores(logits[name], getattr(config, "aggregation", None) or "mean")
        found = figures(windows.labels, scores, config.thresholds, class_names)
        difference = "" if name == "torch" else f"{np.abs(logits[name] - logits['torch']).max():.1e}"
        size = f"{graphs[name].stat().st_size / 1e6:.1f}" if name in graphs else ""
        rows.append(
            [name, size, f"{found['micro_f1']:.3f}", f"{found['lrap']:.3f}", difference, f"{milliseconds[name]:.2f}"]
        )
    return "\n".join(
        [
            markdown_table(rows, right_aligned_from=1),
            "",
            f"{len(windows.windows_per_clip):,} test clips, {len(windows):,} windows, {args.batch_size} at a time, in turns; "
            f"median times on {machine.device_name(torch.device('cpu'))}.",
        ]
    )


def windows_of_test(
    args: argparse.Namespace, sampling_rate: int, window_and_hop: tuple[float, float]
) -> tuple[WindowedClips, list[str]]:
    """Return the windows of the run's test set (or of --data_dir's), and the codes of its classes."""
    with tempfile.TemporaryDirectory() as scratch:
        recipe, seen = evaluation_recipe(args, scratch)
    quiet_libraries(recipe.training.process_index)
    data = load_data(recipe.data, needed=("test",))
    recipe.data.window_seconds, recipe.data.hop_seconds = window_and_hop
    prepared = prepare_splits(DatasetDict({"test": data["test"]}), recipe.data, sampling_rate)["test"]
    prepared = prepared.select(seen.unseen_rows(data["test"], recipe.data))
    windows = evaluation.windows_of(prepared, recipe.data, sampling_rate)
    return windows, prepared.features["instruments"].feature.names


def torch_logits(classifier: WaveformClassifier, waveforms: np.ndarray) -> np.ndarray:
    """Return torch's logits (batch, classes)."""
    with torch.no_grad():
        return classifier(torch.from_numpy(waveforms)).numpy()


def run_side_by_side(
    systems: dict[str, System], windows: WindowedClips, batch_size: int
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return each system's logits (windows, classes) and median milliseconds per window.

    The systems take turns with every batch, so that whatever else the machine does slows all of them equally.
    """
    logits, times = {name: [] for name in systems}, {name: [] for name in systems}
    for first in tqdm(range(0, len(windows), batch_size), desc="measuring", unit="batch", disable=None, leave=False):
        batch = [windows[index]["waveforms"] for index in range(first, min(first + batch_size, len(windows)))]
        waveforms = np.stack(batch).astype(np.float32) / 2**15
        for name, system in systems.items():
            if first == 0:
                system(waveforms)  # the first call allocates
            start = time.perf_counter()
            logits[name].append(system(waveforms))
            times[name].append(1000 * (time.perf_counter() - start) / len(waveforms))
    return (
        {name: np.concatenate(parts) for name, parts in logits.items()},
        {name: float(np.median(values)) for name, values in times.items()},
    )
