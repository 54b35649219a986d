"""What carries over to recordings from elsewhere: zero-shot, a logistic regression and fine-tuning, sources left out.

python -m experiments.leave_source_out CHECKPOINT FOLDER --output_dir OUT [--recipe RECIPE.yaml] [--field value ...]

FOLDER is a folder of one's own, train/<class>/<source>__<name>.flac: a source is one collection, recorded with the same
microphones, instruments and rooms. In each fold some sources are left out of training, never a class's last one, and
form the unseen test clips; some recordings of the other sources form the seen ones. Every fold is trained by the steps
of the main job, so every field of a recipe can be given.
"""

import argparse
import re
import shlex
import shutil
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from datasets import DatasetDict
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from irmas_dataset.errors import UserError, start
from irmas_dataset.own_folder import list_own_folder
from irmas_dataset.splits import hold_out
from irmas_dataset.whole_file import write_json
from irmas_metric.bootstrap import song_weights
from irmas_recipe.report.provenance import commit
from irmas_recipe.report.text import with_interval
from irmas_recipe.training import evaluation
from irmas_recipe.training.averaging import average, interpolate
from irmas_recipe.training.clips import WindowedClips, multi_hot
from irmas_recipe.training.data import load_data, prepare_splits
from irmas_recipe.training.head import output_layer, window_embeddings
from irmas_recipe.training.model import build_model
from irmas_recipe.training.recipe import Recipe, parse_recipe
from irmas_recipe.training.run_folder import begin
from irmas_recipe.training.train import build_trainer
from irmas_recipe.training.train import train as train_model
from irmas_recipe.training.trainer import InstrumentTrainer

MIN_TRAINING_CLIPS = 5  # what each class keeps in every fold
FINE_TUNED, SOUP = "fine-tuned, initial_weight", "soup, initial_weight"
CHOSEN = "chosen on the other folds"


@dataclass(frozen=True)
class SourceClip:
    """One training file: where it lies, its class, and the collection it comes from."""

    path: Path
    label: str
    source: str


def main(argv: list[str]) -> None:
    """Run the folds, print the table and write leave_source_out.json."""
    arguments, fields = parse_arguments(argv)
    clips = list_clips(arguments.folder, arguments.source_pattern)
    folds = source_folds(clips, arguments.folds)
    rows = []
    for number, left_out in enumerate(folds):
        names = ", ".join(sorted({source for _, source in left_out}))
        print(f"Fold {number + 1} of {len(folds)}: without {names}", flush=True)
        fold_dir = arguments.output_dir / f"fold-{number + 1}"
        link_fold(fold_dir / "data", clips, left_out, arguments.seen_fraction)
        recipe = fold_recipe(arguments, fields, fold_dir, "run")
        others = [
            fold_recipe(arguments, [*fields, *shlex.split(also)], fold_dir, f"other-{place + 1}")
            for place, also in enumerate(arguments.soup)
        ]
        of_fold = run_fold(recipe, others, arguments.initial_weights, clips, left_out)
        rows += [row | {"fold": number + 1} for row in of_fold]
        print(table(summary(rows[-len(of_fold) :], arguments.resamples)), flush=True)
    choose_on_other_folds(rows)
    print(f"All {len(folds)} folds:")
    results = summary(rows, arguments.resamples)
    print(table(results))
    report = {"folder": str(arguments.folder), "recipe": recipe.values(), "commit": commit(),
              "left_out": [sorted(map(list, left_out)) for left_out in folds], "results": results, "clips": rows}  # fmt: skip
    write_json(arguments.output_dir / "leave_source_out.json", report)


def parse_arguments(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return our own arguments, and the recipe's fields that follow them."""
    parser = argparse.ArgumentParser(prog="python -m experiments.leave_source_out", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", help="a pretrained model: a folder or a Hub id")
    parser.add_argument("folder", type=Path, help="train/<class>/<source>__<name>.flac")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--recipe", default="recipes/mobilenet/finetune.yaml")
    parser.add_argument("--source_pattern", default="([^/]+?)__", help="its first group, in a path, is the source")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument(
        "--seen_fraction", type=float, default=0.15, help="recordings of seen sources that are tested on"
    )
    parser.add_argument(
        "--initial_weights",
        type=float,
        nargs="*",
        default=[],
        help="further values of initial_weight, and what choosing one on the other folds gives",
    )
    parser.add_argument(
        "--soup", metavar="'--FIELD VALUE ...'", nargs="+", default=[],
        help="also train a run with each of these strings of fields, and average the weights of all runs",
    )  # fmt: skip
    parser.add_argument("--resamples", type=int, default=2000, help="resamples of the sources behind every interval")
    arguments, fields = parser.parse_known_args(argv)
    if not 0 < arguments.seen_fraction < 1 or arguments.folds < 1:
        raise UserError("--seen_fraction must lie between 0 and 1, and --folds must be 1 at least.")
    if not all(0 <= weight <= 1 for weight in arguments.initial_weights):
        raise UserError("--initial_weights must lie between 0 and 1.")
    return arguments, fields


def list_clips(folder: Path, source_pattern: str) -> list[SourceClip]:
    """Return the training files of a folder; UserError where there are none, or where every file is a source of its own."""
    listing = list_own_folder(folder, source_pattern) if folder.is_dir() else None
    found = [clip for clip in listing.clips if clip.split == "train"] if listing else []
    clips = [SourceClip(Path(clip.path), clip.instruments[0], clip.recording) for clip in found]
    if not clips:
        raise UserError(f"{folder} has no train/<class>/ with recordings.")
    twice = [place for place, count in Counter((clip.label, clip.path.name) for clip in clips).items() if count > 1]
    if twice:  # the folds have one folder for each class
        raise UserError(f"{folder} has several files {'/'.join(twice[0])} in folders of one class: rename all but one.")
    if len({clip.source for clip in clips}) == len(clips) or not any(
        re.search(source_pattern, str(clip.path)) for clip in clips
    ):
        raise UserError(f"--source_pattern {source_pattern!r} finds no source that two files of {folder} share.")
    return clips


def source_folds(clips: list[SourceClip], count: int) -> list[set[tuple[str, str]]]:
    """Return the (class, source) pairs to leave out in each of `count` folds: each pair at most once.

    The pairs of one source go together where they can; a class keeps at least MIN_TRAINING_CLIPS in every fold, and a
    source without which it would not is never left out for it. The fullest sources are placed first, each into the fold
    with the fewest clips left out so far.
    """
    size = Counter((clip.label, clip.source) for clip in clips)
    of_class = Counter(clip.label for clip in clips)
    by_source = defaultdict(list)
    for label, source in sorted(size):
        by_source[source].append((label, source))
    folds: list[set[tuple[str, str]]] = [set() for _ in range(count)]

    def remains(fold: set, label: str) -> int:
        return of_class[label] - sum(size[pair] for pair in fold if pair[0] == label)

    for source in sorted(by_source, key=lambda source: (-sum(size[pair] for pair in by_source[source]), source)):
        waiting = [pair for pair in by_source[source] if of_class[pair[0]] - size[pair] >= MIN_TRAINING_CLIPS]
        for fold in sorted(folds, key=lambda fold: sum(size[pair] for pair in fold)):
            fitting = [pair for pair in waiting if remains(fold, pair[0]) - size[pair] >= MIN_TRAINING_CLIPS]
            fold.update(fitting)
            waiting = [pair for pair in waiting if pair not in fitting]
    folds = [fold for fold in folds if fold]
    if not folds:
        raise UserError("No class has two sources with clips enough: there is nothing to leave out.")
    return folds


def link_fold(data_dir: Path, clips: list[SourceClip], left_out: set[tuple[str, str]], seen_fraction: float) -> None:
    """Make a folder of one's own out of links: left-out sources and some seen recordings under test/, the rest train/."""
    shutil.rmtree(data_dir, ignore_errors=True)
    seen = [clip for clip in clips if (clip.label, clip.source) not in left_out]
    names = [f"{clip.label}/{clip.path.name}" for clip in seen]  # the draw is the same wherever the folder lies
    held_out = hold_out(names, [[clip.label] for clip in seen], seen_fraction, seed=0)
    train = {clip for clip, out in zip(seen, held_out, strict=True) if not out}
    for clip in clips:
        link = data_dir / ("train" if clip in train else "test") / clip.label / clip.path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(clip.path)


def fold_recipe(arguments: argparse.Namespace, fields: list[str], fold_dir: Path, run: str) -> Recipe:
    """Return the recipe for one run of a fold."""
    ours = {"model_name_or_path": arguments.checkpoint, "data_dir": fold_dir / "data", "output_dir": fold_dir / run}
    given = [f"--{name}={value}" for name, value in ours.items()]
    return parse_recipe([arguments.recipe, *fields, *given, "--overwrite_output_dir"])


def run_fold(
    recipe: Recipe,
    others: list[Recipe],
    initial_weights: list[float],
    clips: list[SourceClip],
    left_out: set[tuple[str, str]],
) -> list[dict]:
    """Return one row a test clip: {"clip", "label", "source", "unseen", "answers": {method: class}}.

    With the recipes of `others` there are answers of the soup of all runs as well.
    """
    trainer, prepared, initial = train_fold(recipe)
    model, rate = trainer.model, trainer.processing_class.sampling_rate
    runs = {FINE_TUNED: copied(model)}
    train, test = (evaluation.windows_of(prepared[name], recipe.data, rate) for name in ("train", "test"))
    names = np.array(prepared["test"].features["instruments"].feature.names)

    def answers_of(weights: dict[str, torch.Tensor], initial_weight: float) -> np.ndarray:
        model.load_state_dict(weights)
        interpolate(model, initial, initial_weight)
        return names[test_scores(trainer, test, recipe).argmax(axis=1)]

    if others:
        average(model, [train_fold(other)[0].model.state_dict() for other in others])
        runs[SOUP] = copied(model)
    answers = {"zero-shot": answers_of(initial, 0.0)}
    answers["logistic regression"] = names[regression_answers(trainer, train, test, multi_hot(prepared["train"]))]
    for run, weights in runs.items():
        for weight in sorted({recipe.model.initial_weight, *initial_weights}):
            answers[f"{run} {weight:g}"] = answers_of(weights, weight)

    clip_of = {(clip.label, clip.path.name): clip for clip in clips}
    rows = []
    for row, path in enumerate(prepared["test"]["path"]):
        clip = clip_of[Path(path).parts[-2:]]
        rows.append({"clip": "/".join(Path(path).parts[-2:]), "label": clip.label, "source": clip.source,
                     "unseen": (clip.label, clip.source) in left_out,
                     "answers": {method: str(answer[row]) for method, answer in answers.items()}})  # fmt: skip
    return rows


def train_fold(recipe: Recipe) -> tuple[InstrumentTrainer, DatasetDict, dict[str, torch.Tensor]]:
    """Train as the main job does, but without initial_weight; return the Trainer, the data and the weights from before."""
    begin(recipe).claim(recipe)
    data = load_data(recipe.data)
    model, extractor = build_model(recipe, data)
    prepared = prepare_splits(data, recipe.data, extractor.sampling_rate)
    trainer, initial = build_trainer(recipe, prepared, model, extractor), copied(model)
    own_weight, recipe.model.initial_weight = recipe.model.initial_weight, 0.0
    train_model(recipe, trainer, checkpoint=None)
    recipe.model.initial_weight = own_weight
    return trainer, prepared, initial


def copied(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of a model's weights."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def choose_on_other_folds(rows: list[dict]) -> None:
    """Add what each fold gets from the initial_weight that is best on the other folds: it is chosen as a user would.

    Best is the highest mean of the accuracies on unseen and on seen sources.
    """
    folds = sorted({row["fold"] for row in rows})

    def merit(method: str, left_out: int) -> float:
        parts = (
            [row for row in rows if row["fold"] != left_out and row["unseen"] == unseen] for unseen in (True, False)
        )
        return float(np.mean([np.mean([row["answers"][method] == row["label"] for row in part]) for part in parts]))

    for run in (FINE_TUNED, SOUP):
        weights = [method for method in rows[0]["answers"] if method.startswith(run)]
        if len(weights) > 1 and len(folds) > 1:
            chosen = {fold: max(weights, key=partial(merit, left_out=fold)) for fold in folds}
            for row in rows:
                row["answers"][f"{run} {CHOSEN}"] = row["answers"][chosen[row["fold"]]]


def test_scores(trainer: InstrumentTrainer, windows: WindowedClips, recipe: Recipe) -> np.ndarray:
    """Return the model's scores (clips, classes), and leave the Trainer ready to train."""
    compute_metrics = trainer.compute_metrics
    scores = evaluation.clip_scores(trainer, windows, recipe.data.aggregation)
    trainer.compute_metrics = compute_metrics
    return scores


def regression_answers(
    trainer: InstrumentTrainer, train: WindowedClips, test: WindowedClips, train_labels: np.ndarray
) -> np.ndarray:
    """Return the class index (test clips,) that a logistic regression on the frozen embeddings gives."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    classifier.fit(clip_embeddings(trainer, train), train_labels.argmax(axis=1))
    return classifier.predict(clip_embeddings(trainer, test))


def clip_embeddings(trainer: InstrumentTrainer, windows: WindowedClips) -> np.ndarray:
    """Return what enters the head, averaged over a clip's windows: (clips, width).

    It is MobileNet's pooled features, which EfficientAT calls its embedding, and another model's input of the output layer.
    """
    model = trainer.model
    layer = model.projection if hasattr(model, "projection") else output_layer(model)[1]
    embeddings = window_embeddings(model, layer, trainer.features, windows, trainer.args.eval_batch_size, quiet=True)
    ends = np.cumsum(windows.windows_per_clip)
    return np.stack([of_clip.mean(axis=0) for of_clip in np.split(embeddings.numpy()[: ends[-1]], ends[:-1])])


def summary(rows: list[dict], resamples: int) -> dict:
    """Return for seen and unseen clips each method's accuracy, by fold and over all, and the pairs' differences.

    Intervals (95 %) resample whole sources of a class: the clips of one are no independent draws.
    """
    results = {}
    for part, unseen in (("unseen", True), ("seen", False)):
        chosen = [row for row in rows if row["unseen"] == unseen]
        weights = song_weights([f"{row['label']}/{row['source']}" for row in chosen], resamples, seed=0)
        folds = np.array([row["fold"] for row in chosen])
        right = {method: np.array([row["answers"][method] == row["label"] for row in chosen], dtype=float)
                 for method in chosen[0]["answers"]}  # fmt: skip
        results[part] = {"clips": len(chosen), "methods": {}, "differences": {}}
        for method, of_clips in right.items():
            results[part]["methods"][method] = {
                "accuracy": float(of_clips.mean()),
                "ci95": interval(of_clips, weights),
                "folds": [float(of_clips[folds == fold].mean()) for fold in np.unique(folds)],
            }
            for other in ("zero-shot", "logistic regression", method.replace(SOUP, FINE_TUNED)):
                if method != other:
                    difference = of_clips - right[other]
                    results[part]["differences"][f"{method} - {other}"] = {
                        "difference": float(difference.mean()),
                        "ci95": interval(difference, weights),
                    }
    return results


def interval(values: np.ndarray, weights: np.ndarray) -> list[float]:
    """Return the 2.5 and 97.5 percentiles of the mean of values (clips,) under weights (clips, resamples)."""
    return np.percentile(values @ weights / weights.sum(axis=0), [2.5, 97.5]).tolist()


def table(results: dict) -> str:
    """Return the accuracies as a Markdown table."""
    lines = [f"| method | unseen sources ({results['unseen']['clips']} clips) | by fold | seen sources ({results['seen']['clips']} clips) |",
             "|---|---|---|---|"]  # fmt: skip
    for method, unseen in results["unseen"]["methods"].items():
        seen = results["seen"]["methods"][method]
        folds = " ".join(f"{accuracy:.2f}" for accuracy in unseen["folds"])
        lines.append(
            f"| {method} | {with_interval(unseen['accuracy'], unseen['ci95'])} | {folds} | {with_interval(seen['accuracy'], seen['ci95'])} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    start(main)
