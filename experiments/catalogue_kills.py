"""Kill DataTrove's local executor while it tags a catalogue, relaunch it, and count what is lost, doubled or heard twice.

python -m experiments.catalogue_kills --kills 100 --seed 0

A catalogue of 200 wav files, one of them missing and one that is none, is tagged by two workers in four tasks, into parts of
ten files. The executor's whole process group gets SIGKILL at a random moment: before its first part, or up to .3 s after a
random number of parts; one to five times in a row. Then it runs to its end, and every file must have one row, with the
scores of an unbroken run; then the next catalogue begins. Needs the extra `catalogue`.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import soundfile
import torch
from datatrove.executor import LocalPipelineExecutor

from irmas_dataset.labels import INSTRUMENT_NAMES
from irmas_recipe.catalogue import TagMusic
from irmas_recipe.models.mobilenet import MobileNetAudioConfig, MobileNetAudioForAudioClassification
from irmas_recipe.models.mobilenet import MobileNetAudioFeatureExtractor as FeatureExtractor
from irmas_recipe.models.pipeline.attach import attach_pipeline

FILES, TASKS, WORKERS, PART_FILES, RATE = 200, 4, 2, 10, 16_000
PARTS = FILES // PART_FILES
MISSING, NO_AUDIO = 5, 77  # of the files
LONGEST_DELAY_SECONDS = 0.3
TOLERANCE = 1e-4  # batches are filled otherwise where some parts are there already


def main() -> None:
    """Kill as often as asked, and print what came of it as JSON; the exit code is 1 where anything was lost or doubled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--catalogue", type=Path, help=argparse.SUPPRESS)  # the process that is killed
    arguments = parser.parse_args()
    if arguments.catalogue:
        tag(arguments.catalogue)
        return
    with tempfile.TemporaryDirectory() as folder:
        counts = campaign(Path(folder), arguments.kills, random.Random(arguments.seed))
    print(json.dumps(counts, indent=2))
    sys.exit(
        1 if any(counts[name] for name in ("lost", "doubled", "other_scores", "heard_twice", "broken_parts")) else 0
    )


def tag(folder: Path) -> None:
    """Tag the catalogue in a folder with DataTrove's local executor."""
    os.chdir(folder)
    step = TagMusic("../model", lists=["../songs.txt"], parts="tags", part_files=PART_FILES, device="cpu")
    LocalPipelineExecutor(pipeline=[step], tasks=TASKS, workers=WORKERS, logging_dir="logs").run()


def campaign(folder: Path, kills: int, rng: random.Random) -> Counter:
    """Kill executors `kills` times, over as many catalogues as that takes; returns the counts."""
    write_model(folder / "model")
    names = write_music(folder / "music")
    (folder / "songs.txt").write_text("\n".join(names), encoding="utf-8")
    begin = time.monotonic()
    finish(folder / "unbroken")
    seconds = time.monotonic() - begin
    expected = {row["path"]: row for row in rows_in(folder / "unbroken")}
    assert len({round(row["score_violin"] or 0, 3) for row in expected.values()}) > FILES / 4, "the rows are too alike"
    counts = Counter(check(folder / "unbroken", names, expected))
    while counts["kills"] < kills:
        catalogue = folder / f"catalogue-{counts['catalogues']}"
        for _ in range(min(rng.randint(1, 5), kills - counts["kills"])):
            counts += kill_once(catalogue, rng, seconds)
        finish(catalogue)
        counts["launches"] += 1
        counts["catalogues"] += 1
        counts += check(catalogue, names, expected)
        shutil.rmtree(catalogue)
        print(f"{counts['kills']} kills: {dict(counts)}", file=sys.stderr)
    counted = ("kills", "kills_before_the_first_part", "kills_between_parts", "unfinished_parts_left", "catalogues", "launches",
               "rows", "lost", "doubled", "other_scores", "heard_twice", "broken_parts")  # fmt: skip
    return {name: counts[name] for name in counted}


def kill_once(catalogue: Path, rng: random.Random, seconds: float) -> Counter:
    """Launch an executor and kill it at a random moment; returns the counts. One that ends before counts as a launch alone.

    Args:
        seconds: how long an unbroken run takes, start-up included.
    """
    counts, before = Counter(launches=1), markers(catalogue)
    new_parts = rng.randint(0, max(0, PARTS - len(before) - 1))
    delay = rng.random() * (LONGEST_DELAY_SECONDS if new_parts else seconds)
    executor = launch(catalogue)
    while len(markers(catalogue)) < len(before) + new_parts and executor.poll() is None:
        time.sleep(0.005)
    deadline = time.monotonic() + delay
    while time.monotonic() < deadline and executor.poll() is None:
        time.sleep(0.005)
    if executor.poll() is None:
        os.killpg(executor.pid, signal.SIGKILL)
        after = markers(catalogue)
        counts["kills"] += 1
        counts["kills_between_parts" if len(after) > len(before) else "kills_before_the_first_part"] += 1
    executor.wait()
    after = markers(catalogue)
    counts["unfinished_parts_left"] += len(list(catalogue.glob("tags/*.unfinished")))
    counts["heard_twice"] += sum(after.get(marker) != written for marker, written in before.items())
    counts["broken_parts"] += sum(not is_whole(marker) for marker in after)
    return counts


def launch(catalogue: Path) -> subprocess.Popen:
    """Start an executor, in a process group of its own."""
    catalogue.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "experiments.catalogue_kills", "--catalogue", str(catalogue)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with open(catalogue / "said", "a") as said:
        return subprocess.Popen(command, env=environment, stdout=said, stderr=said, start_new_session=True)


def finish(catalogue: Path) -> None:
    """Run an executor to its end."""
    if launch(catalogue).wait():
        raise RuntimeError((catalogue / "said").read_text()[-3000:])


def markers(catalogue: Path) -> dict[Path, int]:
    """Return the markers of finished parts and when each was written."""
    return {marker: marker.stat().st_mtime_ns for marker in catalogue.glob("tags/*.done")}


def is_whole(marker: Path) -> bool:
    """Return whether the part of a marker has the rows that it counts."""
    return parquet.read_table(marker.with_suffix(".parquet")).num_rows == json.loads(marker.read_text())["files"]


def rows_in(catalogue: Path) -> list[dict]:
    """Return the rows of all parts."""
    return [row for file in sorted(catalogue.glob("tags/*.parquet")) for row in parquet.read_table(file).to_pylist()]


def check(catalogue: Path, names: list[str], expected: dict[str, dict]) -> Counter:
    """Compare the rows of a catalogue that is finished with the files and with an unbroken run."""
    rows = rows_in(catalogue)
    times = Counter(row["path"] for row in rows)
    other = sum(not says_the_same(row, expected[row["path"]]) for row in rows)
    return Counter(rows=len(rows), lost=len(set(names) - times.keys()), other_scores=other,
                   doubled=sum(count - 1 for count in times.values()))  # fmt: skip


def says_the_same(row: dict, expected: dict) -> bool:
    """Return whether two rows have the same error, or the same scores."""
    scores = [name for name in expected if name.startswith("score_")]
    if row["error"] is not None or expected["error"] is not None:
        return row["error"] == expected["error"]
    return np.allclose([row[name] for name in scores], [expected[name] for name in scores], atol=TOLERANCE)


def write_model(folder: Path) -> None:
    """Write a narrow, untrained MobileNet that hears windows of a second."""
    torch.manual_seed(0)
    labels = list(INSTRUMENT_NAMES.values())
    config = MobileNetAudioConfig(
        width_mult=0.1, id2label=dict(enumerate(labels)), label2id={name: index for index, name in enumerate(labels)},
        problem_type="multi_label_classification",
    )  # fmt: skip
    config.update({"window_seconds": 1.0, "hop_seconds": 0.5})
    model = MobileNetAudioForAudioClassification(config)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:  # fresh batch statistics would give all files the same scores
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(4, 100, 128))
    [layer] = [
        module for module in model.modules() if isinstance(module, torch.nn.Linear) and module.out_features == 11
    ]
    with torch.no_grad():
        layer.weight *= 1000  # untrained scores are nearly alike
    model.eval().save_pretrained(folder)
    FeatureExtractor().save_pretrained(folder)
    attach_pipeline(folder)


def write_music(folder: Path) -> list[str]:
    """Write files of 1 to 7 s, each of another pitch; returns their names, with those of a file that is missing and of one that is no audio."""
    folder.mkdir()
    names = [str(folder / f"{index:03d}.wav") for index in range(FILES)]
    for index, name in enumerate(names):
        moments = np.arange(RATE * (1 + index % 7)) / RATE
        noise = np.random.default_rng(index).standard_normal(len(moments))
        soundfile.write(name, 0.02 * noise + 0.3 * np.sin(2 * np.pi * (100 + 25 * index) * moments), RATE)
    Path(names[MISSING]).unlink()
    Path(names[NO_AUDIO]).write_text("no music", encoding="utf-8")
    return names


if __name__ == "__main__":
    main()
