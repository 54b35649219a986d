"""Plant known faults in a copy of an IRMAS-shaped folder, and score an audit by how many of them it finds.

python tests/irmas_dataset/plant_faults.py plant SOURCE FOLDER [--seed 0]
python run_irmas.py audit --data_dir FOLDER --output_dir REPORT
python tests/irmas_dataset/plant_faults.py score FOLDER REPORT
"""

import argparse
import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import soundfile
from sklearn.metrics import average_precision_score

TRAINING = "IRMAS-TrainingData"
TEST_PART = "IRMAS-TestingData-Part1/Part1"
CODINGS = (None, "mp3", "ogg")
TRUTH = "planted.json"


def plant(
    source: Path, folder: Path, *, flipped_share: float = 0.05, duplicates: int = 30, silent: int = 10, seed: int = 0
) -> dict:
    """Copy `source` to `folder` and plant faults; returns, and writes beside `folder`, what was planted where.

    Whole recordings are flipped to another class, so that no excerpt of them keeps the right label. Copies get another
    level and lose up to 0.9 s of their start; two thirds of them go through mp3 or ogg; a third lies under another
    class, a sixth in the test set. Half of the silent files are zeros, half are noise at -80 dB.
    """
    shutil.copytree(source, folder)
    rng = np.random.default_rng(seed)
    clips = sorted(path.relative_to(folder).as_posix() for path in (folder / TRAINING).rglob("*.wav"))
    recordings = sorted({recording_of(clip) for clip in clips})
    rng.shuffle(recordings)

    flips = round(flipped_share * len(recordings))
    flipped_recordings, silenced, copied = np.split(np.array(recordings), [flips, flips + silent])
    truth = {"flipped": {}, "silent": [], "duplicates": [], "training_clips": len(clips)}
    for recording in flipped_recordings:
        other = other_class(recording, recordings, rng)
        for clip in [clip for clip in clips if recording_of(clip) == recording]:
            moved = under_class(clip, other)
            (folder / clip).rename(folder / moved)
            truth["flipped"][moved] = clip.split("/")[1]
    for number, recording in enumerate(silenced):
        clip = next(clip for clip in clips if recording_of(clip) == recording)
        silence(folder / clip, 0.0 if number % 2 else 1e-4, rng)
        truth["silent"].append(clip)
    for number, recording in enumerate(copied[:duplicates]):
        clip = next(clip for clip in clips if recording_of(clip) == recording)
        target = place_of_copy(clip, number, recordings, rng)
        write_copy(folder / clip, folder / target, CODINGS[number % 3], rng)
        truth["duplicates"].append({"path": clip, "copy": target, "coding": CODINGS[number % 3] or "wav"})
    truth_path(folder).write_text(json.dumps(truth, indent=2))
    return truth


def truth_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-{TRUTH}")


def recording_of(clip: str) -> str:
    return re.sub(r"__\d\.wav$", "", clip)


def other_class(clip: str, recordings: list[str], rng: np.random.Generator) -> str:
    return str(rng.choice(sorted({name.split("/")[1] for name in recordings} - {clip.split("/")[1]})))


def under_class(clip: str, code: str) -> str:
    """Return the path that a training clip would have as a clip of another class."""
    own = clip.split("/")[1]
    return clip.replace(f"/{own}/", f"/{code}/").replace(f"[{own}]", f"[{code}]", 1)


def place_of_copy(clip: str, number: int, recordings: list[str], rng: np.random.Generator) -> str:
    """Return where a copy goes: a new recording of the same or another class, or a new song of the test set."""
    if number % 6 == 5:
        return f"{TEST_PART}/Copied {number}-1.wav"
    code = other_class(clip, recordings, rng) if number % 3 == 2 else clip.split("/")[1]
    return f"{TRAINING}/{code}/[{code}][pop_roc]{9000 + number}__1.wav"


def silence(path: Path, level: float, rng: np.random.Generator) -> None:
    frames, rate = soundfile.read(path, always_2d=True)
    soundfile.write(path, level * rng.uniform(-1, 1, frames.shape), rate, subtype="PCM_16")


def write_copy(path: Path, target: Path, coding: str | None, rng: np.random.Generator) -> None:
    """Write a copy with another level, a trimmed start, silence at its end where it was longer, and coding losses."""
    frames, rate = soundfile.read(path, always_2d=True)
    skipped = round(rng.uniform(0.02, 0.3) * len(frames))
    gain = rng.uniform(0.2, min(1.8, 0.99 / np.abs(frames).max()))
    copy = np.concatenate([gain * frames[skipped:], np.zeros((skipped, frames.shape[1]))])
    if coding is not None:
        coded = io.BytesIO()
        soundfile.write(coded, copy, rate, format=coding.upper())
        coded.seek(0)
        copy, rate = soundfile.read(coded, always_2d=True)
    soundfile.write(target, copy, rate, subtype="PCM_16")
    if not target.is_relative_to(target.parents[2] / TRAINING):
        target.with_suffix(".txt").write_text(f"{path.parent.name}\t\n")


def score(folder: Path, report: Path) -> dict:
    """Return what an audit found of the planted faults and what it reported beside them."""
    truth = json.loads(truth_path(folder).read_text())
    pairs = {frozenset((row["path"], row["other_path"])) for row in rows(report / "duplicates.csv")}
    planted = {frozenset((copy["path"], copy["copy"])) for copy in truth["duplicates"]}
    silent = {row["path"] for row in rows(report / "clips.csv") if row["silent"] == "yes"}
    conflicting = {
        frozenset((row["path"], row["other_path"]))
        for row in rows(report / "duplicates.csv")
        if row["conflicting"] == "yes"
    }
    truly_conflicting = {
        frozenset((copy["path"], copy["copy"]))
        for copy in truth["duplicates"]
        if copy["copy"].startswith(TRAINING) and copy["path"].split("/")[1] != copy["copy"].split("/")[1]
    }
    ranked = rows(report / "label_errors.csv")
    flipped = np.array([row["path"] in truth["flipped"] for row in ranked])
    suspicion = np.array([float(row["suspicion"]) for row in ranked])
    flagged = np.array([row["flagged"] == "yes" for row in ranked])
    return {
        "duplicates_found": len(pairs & planted) / max(1, len(planted)),
        "duplicates_missed": [sorted(pair) for pair in planted - pairs],
        "duplicates_false": [sorted(pair) for pair in pairs - planted],
        "conflicts_right": conflicting == truly_conflicting,
        "silent_found": len(silent & set(truth["silent"])) / max(1, len(truth["silent"])),
        "silent_false": sorted(silent - set(truth["silent"])),
        "flipped_clips": int(flipped.sum()),
        "flipped_base_rate": float(flipped.mean()),
        "flipped_average_precision": float(average_precision_score(flipped, suspicion)),
        "flagged_clips": int(flagged.sum()),
        "flagged_precision": float(flipped[flagged].mean()) if flagged.any() else None,
        "flagged_recall": float(flagged[flipped].mean()),
    }


def rows(path: Path) -> list[dict]:
    with open(path, encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    planting = verbs.add_parser("plant")
    planting.add_argument("source", type=Path)
    planting.add_argument("folder", type=Path)
    planting.add_argument("--seed", type=int, default=0)
    scoring = verbs.add_parser("score")
    scoring.add_argument("folder", type=Path)
    scoring.add_argument("report", type=Path)
    args = parser.parse_args()
    if args.verb == "plant":
        truth = plant(args.source, args.folder, seed=args.seed)
        print(
            f"Planted {len(truth['flipped'])} flipped labels, {len(truth['duplicates'])} copies, {len(truth['silent'])} silent files."
        )
    else:
        print(json.dumps(score(args.folder, args.report), indent=2))


if __name__ == "__main__":
    main()
