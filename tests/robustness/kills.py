"""Kill commands at random moments, start them again, and compare what they end with to an unbroken run's.

python -m tests.robustness.kills --kills 100 --seed 0

Each trial is a fresh folder. A command starts in a process group of its own, which gets SIGKILL at a random moment of a
randomly chosen phase (making music, decoding, training, writing a checkpoint, evaluating, saving, reporting,
downloading, extracting, exporting, unpacking, predicting); one to five times in a row; then it runs to its end. The end
has to be that of the unbroken run, byte for byte where the file depends on nothing but the recipe, and after each kill
nothing half-done may look finished. The starts that are killed are forks of this process, which has everything imported,
so that the time goes into the phases; the last start of a training is often a fresh interpreter.
"""

import argparse
import hashlib
import json
import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import datasets
from tqdm import tqdm

import run_irmas
from irmas_dataset import WaveformColumn, load_irmas, prepare
from irmas_dataset import download as downloading
from irmas_dataset.builder import Irmas
from irmas_dataset.download import download, ensure_irmas, is_complete
from irmas_dataset.export import unpack as unpacker
from irmas_dataset.export import write
from irmas_dataset.export.layout import UNPACKED_MARKER, is_exported
from irmas_dataset.synthetic import synthesize
from irmas_recipe.commands.predict.table import ResultTable
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline
from irmas_recipe.report import write as report
from irmas_recipe.report.results import Results
from irmas_recipe.training import checkpoint, data, evaluation, run_folder, train
from irmas_recipe.training.run_folder import is_finished
from irmas_recipe.training.trainer import InstrumentTrainer
from tests.irmas_dataset.record_server import PARTS, ZIPS, serve
from tests.robustness.tiny_run import command, environment, write_recipe

VOLATILE = (
    "seconds",
    "validation_seconds",
    "clips_per_second",
    "peak_memory_bytes",
    "inference_clips_per_second",
    "resumed",
)
RUN_FILES = ("model.safetensors", "config.json", "preprocessor_config.json", "predictions.parquet",
             "validation_predictions.parquet", "validation_moments.parquet", "recipe.yaml", "instrument_recognition.py", "audio_blocks.py",
             "separation.py", "windows.py")  # fmt: skip


class Phase(NamedTuple):
    """A function in which a command is killed: a module or class, and the function's name there."""

    holder: object
    function: str

    def __str__(self) -> str:
        return self.function


EXPORT_PHASES = (
    Phase(write, "files_of_earlier_export"), Phase(write, "write_shards"), Phase(write, "data_card"),
    Phase(Irmas, "_generate_examples"),
)  # fmt: skip
TRAINING_PHASES = (
    Phase(run_folder, "begin"), Phase(data, "load_data"), Phase(data, "prepare_splits"), Phase(train, "build_trainer"),
    Phase(train, "train"), Phase(InstrumentTrainer, "_save_checkpoint"), Phase(InstrumentTrainer, "evaluate"),
    Phase(evaluation, "evaluate"), Phase(checkpoint, "save"), Phase(report, "report"),
)  # fmt: skip
PREDICT_PHASES = (
    Phase(InstrumentRecognitionPipeline, "postprocess"), Phase(ResultTable, "append"), Phase(ResultTable, "close"),
)  # fmt: skip
UNPACK_PHASES = (Phase(unpacker, "unpack"), Phase(unpacker, "unpack_shard"))
EVALUATE_PHASES = (
    Phase(data, "load_data"), Phase(data, "prepare_splits"), Phase(evaluation, "window_logits"),
    Phase(evaluation, "write_predictions"), Phase(Results, "write"),
)  # fmt: skip
DOWNLOAD_PHASES = (Phase(downloading, "receive"), Phase(downloading, "extract"), Phase(downloading, "digest_of"))


@dataclass
class Scenario:
    """A command, the phases in which it is killed, what it ends with, and what a kill must not leave."""

    name: str
    share: int  # of the trials
    phases: tuple[Phase, ...]
    action: Callable[[Path], None]  # in the trial's folder
    outcome: Callable[[Path], dict[str, str]]  # file -> digest
    looks_finished: Callable[[Path], bool]
    last_start: list[str] | None = None  # command line of a fresh interpreter; None: another fork


class Phases:
    """Counts of entered phases in memory that parent and child share, and the phase that the child is in."""

    def __init__(self, phases: tuple[Phase, ...]) -> None:
        self.phases, self.memory = phases, mmap.mmap(-1, 4096)

    def __getitem__(self, phase: Phase) -> int:
        return self.memory[self.phases.index(phase)]

    def watch(self) -> None:
        """Wrap each phase's function so that entering it is counted; in the child only."""
        for position, (holder, function) in enumerate(self.phases):
            setattr(holder, function, self.counted(getattr(holder, function), position))

    def counted(self, function: Callable, position: int) -> Callable:
        def entered(*args, **kwargs):
            self.memory[position] = min(255, self.memory[position] + 1)
            return function(*args, **kwargs)

        return entered


def fork(action: Callable[[Path], None], folder: Path, phases: Phases) -> int:
    """Run an action in a process group of its own, in `folder`, with its caches there; returns the process's id."""
    sys.stdout.flush()
    if child := os.fork():
        return child
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        datasets.config.HF_DATASETS_CACHE = folder / "cache"
        tqdm.set_lock(threading.RLock())  # the one from before the fork is shared, and a killed process may hold it
        phases.watch()
        action(folder)
        code = 0
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def kill_in_phase(child: int, phases: Phases, phase: Phase, occurrence: int, delay: float) -> bool:
    """Kill a child's group `delay` seconds after it entered a phase for the n-th time; False where it ended before."""
    deadline = None
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert os.waitstatus_to_exitcode(status) == 0, "a start failed"
            return False
        if deadline is None and phases[phase] >= occurrence:
            deadline = time.monotonic() + delay
        if deadline is not None and time.monotonic() >= deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return True
        time.sleep(0.0005)


def trial(
    scenario: Scenario, folder: Path, reference: dict, counts: dict, seconds: float, rng: random.Random
) -> list[str]:
    """Kill a scenario one to five times and let it end; returns the phases of the kills.

    Raises AssertionError where a start failed, or the end is not the unbroken run's.
    """
    killed = []
    for _ in range(rng.randint(1, 5)):
        phase = rng.choice([name for name in scenario.phases if counts[name]])
        phases = Phases(scenario.phases)
        occurrence = rng.randint(1, counts[phase])
        delay = rng.choice((0, 0.01, 0.1, 0.3)) * seconds * rng.random()
        if not kill_in_phase(fork(scenario.action, folder, phases), phases, phase, occurrence, delay):
            break
        killed.append(str(phase))
        if scenario.looks_finished(folder):
            compare(scenario.outcome(folder), reference, "looks finished after a kill and is not")
    finish(scenario, folder, fresh=rng.random() < 0.4)
    compare(scenario.outcome(folder), reference, "ended otherwise than the unbroken run")
    return killed


def finish(scenario: Scenario, folder: Path, fresh: bool) -> None:
    """Run a scenario to its end, in a fresh interpreter if asked and possible; AssertionError where it fails."""
    if fresh and scenario.last_start and not scenario.looks_finished(folder):
        with open(folder / "log", "a") as log:
            done = subprocess.run(scenario.last_start, cwd=folder, env=environment(folder), stdout=log, stderr=log)
        assert done.returncode == 0, "the last start failed"
    elif not scenario.looks_finished(folder):
        _, status = os.waitpid(fork(scenario.action, folder, Phases(scenario.phases)), 0)
        assert os.waitstatus_to_exitcode(status) == 0, "the last start failed"


def compare(outcome: dict[str, str], reference: dict[str, str], words: str) -> None:
    different = sorted(name for name in outcome | reference if outcome.get(name) != reference.get(name))
    assert not different, f"{words}: {', '.join(different)}"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "absent"


def digests(folder: Path, *patterns: str) -> dict[str, str]:
    files = [path for pattern in patterns for path in folder.glob(pattern) if path.is_file()]
    return {path.relative_to(folder).as_posix(): digest(path) for path in files}


def train_tiny(folder: Path) -> None:
    run_irmas.main(["tiny.yaml"])


def training_outcome(folder: Path) -> dict[str, str]:
    """Return the digests of a run's files, of its figures in numbers, and of the prepared waveforms."""
    run_dir = folder / "runs/tiny"
    results = json.loads((run_dir / "results.json").read_text())
    results["train"] = {name: value for name, value in results["train"].items() if name not in VOLATILE}
    figures = {path.name: "drawn" for path in run_dir.glob("figures/*.png") if path.stat().st_size > 1000}
    logged = json.loads((run_dir / "trainer_state.json").read_text())["log_history"]
    steps = [
        {name: row[name] for name in ("step", "loss", "eval_map") if name in row}
        for row in logged
        if "loss" in row or "eval_map" in row
    ]
    card = (run_dir / "README.md").read_text()
    assert card.count("---") >= 2 and "micro" in card, "the card is incomplete"
    outcome = (
        {name: digest(run_dir / name) for name in RUN_FILES}
        | figures
        | digests(folder, "data/*/*/**/*.wav", "data/*/*/**/*.txt")
    )
    return outcome | {
        "results": json.dumps(results, sort_keys=True),
        "log": json.dumps(steps),
        "prepared": prepared_digest(folder),
    }


def prepared_digest(folder: Path) -> str:
    """Return the digest of every prepared waveform, as the next start would read them from the cache."""
    music = next(folder.glob("data/synthetic-*"))
    rate, found = 16000, hashlib.sha256()
    before = os.getcwd()
    os.chdir(folder)
    try:
        for name, split in load_irmas(Path("data", music.name), cache_dir=folder / "cache").items():
            prepared = prepare(split, rate, segment_seconds=None if name == "test" else 3.0, num_proc=2)
            waveforms = WaveformColumn(prepared)
            for row, path in enumerate(prepared["path"][:]):
                found.update(os.path.relpath(path, folder).encode() + waveforms[row].tobytes())
    finally:
        os.chdir(before)
    return found.hexdigest()


def export_scenario(music: Path) -> Scenario:
    def export(folder: Path) -> None:
        run_irmas.main(["export", "--data_dir", str(music), "--output_dir", "exported"])

    def outcome(folder: Path) -> dict[str, str]:
        return digests(folder / "exported", "**/*")

    return Scenario("export", 2, EXPORT_PHASES, export, outcome, lambda folder: is_exported(folder / "exported"))


def unpack_scenario(exported: Path) -> Scenario:
    def copy_and_unpack(folder: Path) -> None:
        if not (folder / "copied").exists():
            shutil.copytree(exported, folder / "copying", dirs_exist_ok=True)
            (folder / "copying").rename(folder / "copied")
        unpacker.unpack(folder / "copied")

    def outcome(folder: Path) -> dict[str, str]:
        return digests(folder / "copied", "**/*.wav", "**/*.csv", "**/*.txt")

    def looks_finished(folder: Path) -> bool:
        return (folder / "copied" / UNPACKED_MARKER).exists()

    return Scenario("unpack", 1, UNPACK_PHASES, copy_and_unpack, outcome, looks_finished)


def predict_scenario(model: Path, music: Path, kind: str) -> Scenario:
    tables = ["--output", f"table.{kind}", "--resume", "--timeline_table", f"times.{kind}", "--timeline", "pictures"]

    def predict(folder: Path) -> None:
        run_irmas.main(["predict", str(model), str(music), *tables])

    def outcome(folder: Path) -> dict[str, str]:
        drawn = {path.name: "drawn" for path in folder.glob("pictures/**/*.png") if path.stat().st_size > 1000}
        return digests(folder, "table.*", "times.*") | drawn

    return Scenario(f"predict {kind}", 1, PREDICT_PHASES, predict, outcome, lambda folder: False)


def evaluate_scenario(model: Path, music: Path) -> Scenario:
    def evaluate(folder: Path) -> None:
        run_irmas.main(["evaluate", str(model), "--data_dir", str(music), "--output_dir", "measured"])

    def outcome(folder: Path) -> dict[str, str]:
        results = json.loads((folder / "measured/results.json").read_text())
        results["recipe"].pop("output_dir")  # a folder for the time of the command
        return digests(folder / "measured", "*.parquet") | {"results": json.dumps(results, sort_keys=True)}

    return Scenario("evaluate", 1, EVALUATE_PHASES, evaluate, outcome, lambda folder: False)


def download_scenario(url: str) -> Scenario:
    def outcome(folder: Path) -> dict[str, str]:
        return digests(folder / "irmas", "IRMAS*/**/*", "*.zip*")

    def looks_finished(folder: Path) -> bool:
        is_whole = all(is_complete(folder / "irmas", part) for part in PARTS)
        return is_whole and not list(folder.glob("irmas/*.part"))

    return Scenario("download", 2, DOWNLOAD_PHASES, lambda folder: fetch(folder, url), outcome, looks_finished)


def train_scenario() -> Scenario:
    def looks_finished(folder: Path) -> bool:
        return is_finished(folder / "runs/tiny")

    return Scenario("train", 8, TRAINING_PHASES, train_tiny, training_outcome, looks_finished, command("tiny.yaml"))


def scenarios(shared: Path) -> list[Scenario]:
    """Return what is killed; `shared` holds the music, the model and the record that they read."""
    music, model = shared / "music", shared / "train/runs/tiny"
    return [
        train_scenario(),
        download_scenario((shared / "url").read_text()),
        export_scenario(music),
        unpack_scenario(shared / "export/exported"),
        *(predict_scenario(model, music, kind) for kind in ("csv", "json", "parquet")),
        evaluate_scenario(model, music),
    ]


def fetch(folder: Path, url: str) -> None:
    """Download as the verb does, which a training then leaves alone."""
    download(folder / "irmas", parts=PARTS, base_url=url)
    ensure_irmas(folder / "irmas", parts=PARTS, base_url=url)


def serve_record(address: Path) -> int:
    """Serve the small record slowly from a process of its own; returns its id once `address` holds its URL."""
    if server := os.fork():
        while not address.exists():
            time.sleep(0.01)
        return server
    with serve(ZIPS) as record:
        record.seconds_per_piece = 0.002
        address.with_suffix(".new").write_text(record.url)
        address.with_suffix(".new").rename(address)
        signal.pause()
    os._exit(0)


def unbroken(scenario: Scenario, folder: Path) -> tuple[dict[str, str], dict[str, int], float]:
    """Run a scenario without a kill; returns its outcome, how often each phase was entered, and its seconds."""
    folder.mkdir()
    write_recipe(folder, preparation_processes=2)
    phases, start = Phases(scenario.phases), time.monotonic()
    _, status = os.waitpid(fork(scenario.action, folder, phases), 0)
    assert os.waitstatus_to_exitcode(status) == 0, (folder / "log").read_text()[-3000:]
    seconds = time.monotonic() - start
    return scenario.outcome(folder), {name: phases[name] for name in scenario.phases}, seconds


def campaign(shared: Path, kills: int, seed: int, only: str | None = None) -> tuple[dict[str, Counter], list[str]]:
    """Kill until there were so many kills; returns the counts of each scenario, and a sentence a failure."""
    synthesize(shared / "music", train=22, test=6, seed=1)
    found = scenarios(shared)
    references = {scenario.name: unbroken(scenario, shared / scenario.name) for scenario in found}
    if only:
        found = [scenario for scenario in found if scenario.name.startswith(only)]
    rng = random.Random(seed)
    counts = {scenario.name: Counter() for scenario in found}
    failures: list[str] = []
    number = 0
    while sum(count["kills"] for count in counts.values()) < kills:
        scenario = rng.choices(found, [scenario.share for scenario in found])[0]
        number += 1
        folder = shared / f"trial-{number}"
        folder.mkdir()
        write_recipe(folder, preparation_processes=2)
        count = counts[scenario.name]
        count["trials"] += 1
        try:
            killed = trial(scenario, folder, *references[scenario.name], rng)
        except (AssertionError, OSError, ValueError, KeyError) as error:
            count["lost"] += 1
            failures.append(f"{scenario.name} in {folder}: {error}")
            print(failures[-1], flush=True)
            continue
        count["kills"] += len(killed)
        for phase in killed:
            count[phase] += 1
        print(
            f"{number}: {scenario.name}, killed in {', '.join(killed) or 'no phase'}; ended as the unbroken run",
            flush=True,
        )
        shutil.rmtree(folder)
    return counts, failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="kill only the scenarios whose names begin so")
    arguments = parser.parse_args()
    shared = Path(tempfile.mkdtemp(prefix="irmas-kills-"))
    server = serve_record(shared / "url")
    try:
        counts, failures = campaign(shared, arguments.kills, arguments.seed, arguments.only)
    finally:
        os.kill(server, signal.SIGKILL)
    for name, count in counts.items():
        print(
            f"{name}: {count.pop('trials', 0)} trials, {count.pop('kills', 0)} kills, {count.pop('lost', 0)} lost; {dict(count)}"
        )
    if failures:
        print(f"{len(failures)} trials failed; their folders are in {shared}:", *failures, sep="\n")
        sys.exit(1)
    shutil.rmtree(shared)


if __name__ == "__main__":
    main()
