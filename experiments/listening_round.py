"""What one round of listening gains: windows of new music chosen by a model, put right by a listener, and trained with.

python -m experiments.listening_round CHECKPOINT FOLDER --output_dir OUT [--budget 60] [--seeds 0 1] [--field value ...]

FOLDER and its folds of sources left out are those of `experiments.leave_source_out`. In each fold a model is trained
without some sources. Half of their recordings are the music of a user, without labels; the other half is the test set.
`irmas segments` cuts windows of the music, confident ones or, with --unsure, doubtful ones; a third choice is random.
The true labels play the listener: each window goes into its true class. Then the recipe is trained again with them.
"""

import argparse
import random
import shutil
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path

import pandas as pd

from experiments.leave_source_out import SourceClip, interval, list_clips, source_folds
from irmas_dataset.errors import UserError, start
from irmas_dataset.labels import readable_name
from irmas_dataset.splits import halve
from irmas_dataset.whole_file import write_json
from irmas_metric.bootstrap import song_weights
from irmas_recipe.report.provenance import commit
from irmas_recipe.report.text import markdown_table, with_interval

ROOT = Path(__file__).parents[1]
EVERY = "1000000"  # more than any music has windows
CHOICES = {
    "confident": (),
    "unsure": ("--unsure",),
    "random": ("--unsure", "--per_class", EVERY, "--per_recording", EVERY),
}
"""Choice of windows -> the arguments of `segments`; a random choice is drawn from all windows, whatever their order."""


def main(argv: list[str]) -> None:
    """Run the folds with each seed, print the table and write listening_round.json."""
    arguments, fields = parse_arguments(argv)
    clips = list_clips(arguments.folder, arguments.source_pattern)
    folds = source_folds(clips, arguments.folds)
    rows, heard = [], []
    for number, left_out in enumerate(folds, start=1):
        for seed in arguments.seeds:
            print(f"Fold {number} of {len(folds)}, seed {seed}", flush=True)
            folder = arguments.output_dir / f"fold-{number}-seed-{seed}"
            shutil.rmtree(folder, ignore_errors=True)
            link_fold(folder, clips, left_out)
            of_fold, heard_here = one_round(arguments, [*fields, f"--seed={seed}"], folder, seed)
            rows += [row | {"fold": number, "seed": seed} for row in of_fold]
            heard += [row | {"fold": number, "seed": seed} for row in heard_here]
    results = summary(rows, heard, arguments.resamples)
    print(table(results))
    report = {"arguments": {name: str(value) for name, value in vars(arguments).items()}, "fields": fields, "commit": commit(),
              "left_out": [sorted(map(list, left_out)) for left_out in folds], "results": results, "clips": rows, "heard": heard}  # fmt: skip
    write_json(arguments.output_dir / "listening_round.json", report)


def parse_arguments(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return our own arguments, and the recipe's fields that follow them."""
    parser = argparse.ArgumentParser(prog="python -m experiments.listening_round", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", help="a pretrained model: a folder or a Hub id")
    parser.add_argument("folder", type=Path, help="train/<class>/<source>__<name>.flac")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--recipe", default="recipes/mobilenet/finetune.yaml")
    parser.add_argument("--source_pattern", default="([^/]+?)__", help="its first group, in a path, is the source")
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the training and of the random choice")
    parser.add_argument("--budget", type=int, default=60, help="windows that the listener hears (default: %(default)s)")
    parser.add_argument("--per_recording", type=int, default=1, help="windows of a class from one file, at most")
    parser.add_argument("--resamples", type=int, default=2000, help="resamples of the recordings behind every interval")
    arguments, fields = parser.parse_known_args(argv)
    if min(arguments.folds, arguments.budget, arguments.per_recording) < 1:
        raise UserError("--folds, --budget and --per_recording must be 1 at least.")
    return arguments, fields


def link_fold(folder: Path, clips: list[SourceClip], left_out: set[tuple[str, str]]) -> None:
    """Link the recordings: of the sources left out half to music/<class>/ and half to data/test/, the rest to data/train/."""
    unseen = [clip for clip in clips if (clip.label, clip.source) in left_out]
    is_music = halve([str(clip.path) for clip in unseen], [[f"{clip.label}/{clip.source}"] for clip in unseen], seed=0)
    place = {clip: "music" if music else "data/test" for clip, music in zip(unseen, is_music, strict=True)}
    for clip in clips:
        link = folder / place.get(clip, "data/train") / clip.label / clip.path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(clip.path)


def one_round(
    arguments: argparse.Namespace, fields: list[str], folder: Path, seed: int
) -> tuple[list[dict], list[dict]]:
    """Train before and after listening; return a row for each test clip and run, and one for each window heard."""
    fields = [*fields, f"--model_name_or_path={arguments.checkpoint}", f"--data_dir={folder / 'data'}"]
    irmas(arguments.recipe, *fields, f"--output_dir={folder / 'before'}")
    rows, heard = answers(folder / "before"), []
    chosen = ("--per_class", arguments.budget, "--per_recording", arguments.per_recording)
    for choice, options in CHOICES.items():
        segments = folder / "segments" / choice
        limits = options if choice == "random" else (*options, *chosen)
        irmas("segments", folder / "before", folder / "music", "--output_dir", segments, *limits)
        windows = in_turn(pd.read_csv(segments / "segments.csv").to_dict("records"))
        if choice == "random":
            random.Random(seed).shuffle(windows)
        heard += listen(windows[: arguments.budget], segments, folder / "heard" / choice, choice)
        extra = f"--extra_train_dir={folder / 'heard' / choice}"
        irmas(arguments.recipe, *fields, extra, f"--output_dir={folder / choice}")
        rows += answers(folder / choice)
    return rows, heard


def irmas(*words: object) -> None:
    """Run the program; what it prints is shown only where it fails."""
    command = [sys.executable, str(ROOT / "run_irmas.py"), *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if done.returncode:
        raise UserError(f"irmas {words[0]} failed: {done.stdout[-2000:]}")


def in_turn(windows: list[dict]) -> list[dict]:
    """Return windows, sorted by class and rank, with each class's first before any class's second."""
    by_label: dict[str, list[dict]] = {}
    for window in windows:
        by_label.setdefault(window["label"], []).append(window)
    return [window for turn in zip_longest(*by_label.values()) for window in turn if window is not None]


def listen(windows: list[dict], segments: Path, folder: Path, choice: str) -> list[dict]:
    """Copy windows into the folder of their true class, as a listener moves them; return what was heard."""
    heard = []
    for window in windows:
        label = Path(window["source"]).parent.name
        target = folder / "train" / label / Path(window["path"]).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(segments / window["path"], target)
        heard.append({"choice": choice, "source": "/".join(Path(window["source"]).parts[-2:]), "label": label,
                      "said": window["label"], "was_right": window["label"] == readable_name(label)})  # fmt: skip
    return heard


def answers(run: Path) -> list[dict]:
    """Return whether the class with the highest score is right, for each test clip of a run."""
    frame = pd.read_parquet(run / "predictions.parquet")
    scores = frame.drop(columns=["clip", "song", "instruments"])
    best = scores.columns[scores.to_numpy().argmax(axis=1)]
    truth = [next(iter(labels)) for labels in frame["instruments"]]
    return [{"run": run.name, "clip": clip, "answer": answer, "label": label, "right": answer == label}
            for clip, answer, label in zip(frame["clip"], best, truth, strict=True)]  # fmt: skip


def summary(rows: list[dict], heard: list[dict], resamples: int) -> dict:
    """Return each run's accuracy, its difference from before listening, and how many windows the model had filed right.

    A clip counts with the mean over the seeds. Intervals (95 %) resample the test recordings, a clip each, in pairs.
    """
    right = pd.DataFrame(rows).pivot_table(index=["fold", "clip"], columns="run", values="right", aggfunc="mean")
    weights = song_weights([f"{fold}/{clip}" for fold, clip in right.index], resamples, seed=0)
    windows, results = pd.DataFrame(heard), {"recordings": len(right), "runs": {}}
    for run in ("before", *CHOICES):
        of_clips, difference = right[run].to_numpy(float), (right[run] - right["before"]).to_numpy(float)
        results["runs"][run] = {
            "accuracy": float(of_clips.mean()),
            "ci95": interval(of_clips, weights),
            "difference": float(difference.mean()),
            "difference_ci95": interval(difference, weights),
            "folds": right[run].groupby("fold").mean().tolist(),
        }
        if run != "before":
            of_choice = windows[windows["choice"] == run]
            rounds = len(of_choice[["fold", "seed"]].drop_duplicates())
            results["runs"][run] |= {
                "windows": len(of_choice) / rounds,
                "was_right": float(of_choice["was_right"].mean()),
            }
    return results


def table(results: dict) -> str:
    """Return the accuracies as a Markdown table."""
    lines = [
        ["windows heard", "a round", "filed right", f"accuracy ({results['recordings']} recordings)", "by fold", "gain"]
    ]
    for run, found in results["runs"].items():
        folds = " ".join(f"{accuracy:.2f}" for accuracy in found["folds"])
        accuracy = with_interval(found["accuracy"], found["ci95"])
        if run == "before":
            lines.append(["none", "", "", accuracy, folds, ""])
            continue
        gain = with_interval(found["difference"], found["difference_ci95"], signed=True)
        lines.append([run, f"{found['windows']:.0f}", f"{found['was_right']:.0%}", accuracy, folds, gain])
    return markdown_table(lines)


if __name__ == "__main__":
    start(main)
