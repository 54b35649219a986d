"""Songs of minutes from recordings that no training heard: how well they are tagged, and their timelines.

python -m experiments.songs CHECKPOINT FOLDER --output_dir OUT [--songs 24] [--seed 0] [--field value ...]

FOLDER is as in experiments.leave_source_out, and so are the folds. In each the recipes are trained on what is left, and
songs are built of the test recordings: those of sources left out, and held-out ones of sources that training heard. A
song is 4 to 7 sections of 12 to 30 s; in each one instrument plays or two at once, each repeated from one recording. Two
answers are measured: that of the clip rule, the mean over the song, and that of the timeline. Beside them is what the scores of
the timeline would give with the one threshold that is best on these songs, which no answer may use. Finished runs are kept.
"""

import argparse
import shlex
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from experiments.jobs import open_notes
from experiments.leave_source_out import link_fold, list_clips, source_folds
from irmas_dataset import decode
from irmas_dataset.audio import resample
from irmas_dataset.errors import start
from irmas_dataset.labels import readable_name
from irmas_dataset.whole_file import write_json
from irmas_metric.single_threshold import best_single_threshold
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline
from irmas_recipe.report.provenance import commit
from irmas_recipe.report.text import markdown_table, with_interval
from irmas_recipe.training.recogniser import load_recogniser

ROOT = Path(__file__).parents[1]
RATE = 32_000
FADE_SECONDS = 0.05
SECTIONS, SECTION_SECONDS, BAND = (4, 7), (12.0, 30.0), (2, 4)
DUET_PROBABILITY, SECOND_PLAYER_LEVEL = 0.4, 0.7  # -3 dB
PRESENT_SECONDS = 8.0  # an instrument that plays for less in all is no tag of a song
LEVEL = 0.1  # -20 dBFS, root mean square
RECIPES = {"zero-shot": "recipes/mobilenet/zero_shot.yaml", "fine-tuned": "recipes/mobilenet/finetune.yaml"}


def main(argv: list[str]) -> None:
    """Train, build the songs, listen, print the table and write songs.json."""
    arguments, fields = parse_arguments(argv)
    clips = list_clips(arguments.folder, arguments.source_pattern)
    folds = source_folds(clips, arguments.folds)
    shared = {name: getattr(arguments, name) for name in ("source_pattern", "folds", "seen_fraction")}
    open_notes(arguments.output_dir / "folds.json", {"folder": str(arguments.folder.resolve())} | shared)
    rows = []
    for number, left_out in enumerate(folds, 1):
        fold = arguments.output_dir / f"fold-{number}"
        link_fold(fold / "data", clips, left_out, arguments.seen_fraction)
        songs = {"unseen": [], "seen": []}
        for path in sorted((fold / "data" / "test").glob("*/*")):
            source = next(
                clip.source for clip in clips if clip.path.name == path.name and clip.label == path.parent.name
            )
            songs["unseen" if (path.parent.name, source) in left_out else "seen"].append(path)
        for system, recipe in RECIPES.items():
            given = [recipe, f"--model_name_or_path={arguments.checkpoint}", f"--data_dir={fold / 'data'}", *fields]
            soup = arguments.soup if system == "fine-tuned" else []
            others = [str(fold / f"other-{place + 1}") for place in range(len(soup))]
            for other, also in zip(others, soup, strict=True):
                own = [*shlex.split(also), "--initial_weight=0"]  # that of the soup is mixed in last, once
                train(*given, *own, f"--output_dir={other}")
            if others:
                given += ["--soup", *others]
            train(*given, f"--output_dir={fold / system}")
            recognise = load_recogniser(str(fold / system))
            for part, paths in songs.items():
                built = build_songs(paths, fold / f"songs-{part}", arguments.songs, arguments.seed + number)
                rows += [{"fold": number, "system": system, "part": part} | row for row in listen(recognise, built)]
    results = summary(rows, arguments.resamples)
    print(table(results))
    report = {"folder": str(arguments.folder), "fields": fields, "seed": arguments.seed, "commit": commit()}
    write_json(arguments.output_dir / "songs.json", report | {"results": results, "songs": rows})


def train(*given: str) -> None:
    """Run the program, unless the run is there."""
    subprocess.run([sys.executable, "run_irmas.py", *given], cwd=ROOT, check=True)


def parse_arguments(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return our own arguments, and the recipe's fields that follow them."""
    parser = argparse.ArgumentParser(prog="python -m experiments.songs", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", help="a pretrained model: a folder, a Hub id or a released checkpoint")
    parser.add_argument("folder", type=Path, help="train/<class>/<source>__<name>.flac")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--source_pattern", default="([^/]+?)__", help="its first group, in a path, is the source")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--seen_fraction", type=float, default=0.15)
    parser.add_argument("--songs", type=int, default=24, help="of each fold, from left-out and from other sources each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--soup", metavar="'--FIELD VALUE ...'", nargs="+", default=[],
        help="also fine-tune a run with each of these strings of fields, and average the weights of all runs",
    )  # fmt: skip
    parser.add_argument("--resamples", type=int, default=2000, help="resamples of the songs behind every interval")
    return parser.parse_known_args(argv)


def build_songs(recordings: list[Path], folder: Path, count: int, seed: int) -> list[tuple[Path, list[tuple]]]:
    """Write songs of these recordings, <class>/<name> each; return each with its (class, start, end) in seconds."""
    random = np.random.default_rng(seed)
    of_class = defaultdict(list)
    for path in recordings:
        of_class[path.parent.name].append(path)
    folder.mkdir(parents=True, exist_ok=True)
    songs = []
    for number in range(count):
        size = min(len(of_class), random.integers(BAND[0], BAND[1] + 1))
        band = random.choice(sorted(of_class), size=size, replace=False)
        clips = {label: sounding(of_class[label][random.integers(len(of_class[label]))]) for label in band}
        sections, truth, now = [], [], 0.0
        for _ in range(random.integers(SECTIONS[0], SECTIONS[1] + 1)):
            samples = round(random.uniform(*SECTION_SECONDS) * RATE)
            players = random.choice(band, size=min(size, 1 + (random.random() < DUET_PROBABILITY)), replace=False)
            levels = (SECOND_PLAYER_LEVEL**place for place in range(len(players)))
            sections.append(
                sum(level * repeated(clips[label], samples) for label, level in zip(players, levels, strict=True))
            )
            truth += [(str(label), now, now + samples / RATE) for label in players]
            now += samples / RATE
        song = np.concatenate(sections)
        path = folder / f"song-{number:02d}.flac"
        soundfile.write(path, 0.9 * song / max(0.9, np.abs(song).max()), RATE, subtype="PCM_16")
        songs.append((path, truth))
    return songs


def sounding(path: Path) -> np.ndarray:
    """Return a recording without the silence around it, at LEVEL: float32 (samples,)."""
    samples, rate = decode(path)
    mono = resample(samples, rate, RATE)
    loud = np.flatnonzero(np.abs(mono) > 0.02 * np.abs(mono).max())
    mono = mono[loud[0] : loud[-1] + 1] if len(loud) else mono
    return LEVEL * mono / max(1e-6, float(np.sqrt(np.mean(mono**2))))


def repeated(clip: np.ndarray, samples: int) -> np.ndarray:
    """Return a clip again and again, faded into itself, as float32 (samples,)."""
    fade = min(round(FADE_SECONDS * RATE), len(clip) // 4)
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    faded = clip.copy()
    faded[:fade] *= ramp
    faded[len(faded) - fade :] *= ramp[::-1]
    whole = np.zeros(samples + len(clip), np.float32)
    for first in range(0, samples, len(clip) - fade):
        whole[first : first + len(clip)] += faded
    return whole[:samples]


def listen(recognise: InstrumentRecognitionPipeline, songs: list[tuple[Path, list[tuple]]]) -> list[dict]:
    """Return for each song how many tags and seconds were right, said and true: {"clip" | "timeline" | "seconds": [3]}.

    Beside them are the timeline's `scores` of all labels, and the labels that are `present`.
    """
    rows = []
    for path, truth in tqdm(songs, desc=path_words(songs), leave=False):
        played, true_seconds = defaultdict(float), set()
        for code, first, last in truth:
            played[readable_name(code)] += last - first
            true_seconds |= {(readable_name(code), second) for second in range(round(first), round(last))}
        present = {label for label, seconds in played.items() if seconds >= PRESENT_SECONDS}
        by_time = recognise(str(path), return_timeline=True, all_labels=True)
        said_seconds = {
            (part["label"], second)
            for part in by_time["timeline"]
            for second in range(round(part["start_seconds"]), round(part["end_seconds"]))
        }
        own = getattr(recognise.model.config, "aggregation", "mean")
        scores = {entry["label"]: entry["score"] for entry in by_time["instruments"]}
        said = {
            "clip": {entry["label"] for entry in recognise(str(path), aggregation=own)},
            "timeline": {label for label, score in scores.items() if score >= by_time["thresholds"][label]},
        }
        row = {"song": path.name, "present": sorted(present), "scores": scores}
        row |= {rule: counted(heard, present) for rule, heard in said.items()}
        rows.append(row | {"seconds": counted(said_seconds, true_seconds)})
    return rows


def counted(said: set, true: set) -> list[int]:
    """Return how many were right, said and true."""
    return [len(said & true), len(said), len(true)]


def path_words(songs: list[tuple[Path, list[tuple]]]) -> str:
    """Return where songs are, for the progress bar."""
    return "/".join(songs[0][0].parts[-3:-1])


def summary(rows: list[dict], resamples: int) -> dict:
    """Return micro-F1 of tags by both rules, of the timeline by seconds, and the paired gain, with 95 % intervals over songs.

    `oracle` is that of tags by the timeline's scores, at the one threshold that is best on these songs.
    """
    results = {}
    for part in ("unseen", "seen"):
        for system in RECIPES:
            chosen = [row for row in rows if (row["part"], row["system"]) == (part, system)]
            weights = np.random.default_rng(0).multinomial(len(chosen), np.ones(len(chosen)) / len(chosen), resamples).T
            rows_of = {name: [row[name] for row in chosen] for name in ("clip", "timeline", "seconds")}
            rows_of["oracle"] = at_best_threshold(chosen)
            figures = {name: f1(np.array(of_songs), weights) for name, of_songs in rows_of.items()}
            gain = (figures["timeline"][0] - figures["clip"][0], figures["timeline"][1] - figures["clip"][1])
            results[f"{part}, {system}"] = {
                name: {"micro_f1": float(value), "ci95": np.percentile(resampled, [2.5, 97.5]).tolist()}
                for name, (value, resampled) in (figures | {"gain": gain}).items()
            } | {"songs": len(chosen)}
    return results


def at_best_threshold(rows: list[dict]) -> list[list[int]]:
    """Return how many tags of each song would be right, said and true at the one threshold that is best for all songs."""
    labels = sorted(rows[0]["scores"])
    scores = np.array([[row["scores"][label] for label in labels] for row in rows])
    present = np.array([[label in row["present"] for label in labels] for row in rows])
    heard = scores >= best_single_threshold(present, scores)
    return [
        counted(set(np.flatnonzero(one)), set(np.flatnonzero(true))) for one, true in zip(heard, present, strict=True)
    ]


def f1(counts: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """Return micro-F1 of counts (songs, 3) of right, said and true, and of its resamples by weights (songs, resamples)."""
    right, said, true = counts.sum(axis=0)
    r, s, t = counts.T @ weights
    return 2 * right / max(1, said + true), 2 * r / np.maximum(1, s + t)


def table(results: dict) -> str:
    """Return the figures as a Markdown table."""
    figures = {
        "clip": "tags by the mean", "timeline": "tags by the timeline", "gain": "gain", "oracle": "tags, oracle",
        "seconds": "timeline by seconds",
    }  # fmt: skip
    rows = [["sources, system", "songs", *figures.values()]]
    for name, of_one in results.items():
        cells = [
            with_interval(of_one[figure]["micro_f1"], of_one[figure]["ci95"], signed=figure == "gain")
            for figure in figures
        ]
        rows.append([name, str(of_one["songs"]), *cells])
    return markdown_table(rows)


if __name__ == "__main__":
    start(main)
