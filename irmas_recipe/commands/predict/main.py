"""`run_irmas.py predict MODEL PATH...`: which instruments are heard in files and folders, for people or for programs."""

import argparse
import os
import sys
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path

from tqdm import tqdm

from irmas_dataset.errors import UserError
from irmas_dataset.files import to_text
from irmas_recipe.commands.predict import screen as screens
from irmas_recipe.commands.predict.table import FORMATS, LIST_SEPARATOR, ResultPart, ResultTable
from irmas_recipe.models.pipeline.instrument_recognition import AGGREGATIONS, InstrumentRecognitionPipeline
from irmas_recipe.report.timeline import draw_timeline, save_picture
from irmas_recipe.training.output import check_output_file, check_output_folder
from irmas_recipe.training.processes import Processes
from irmas_recipe.training.recogniser import check_batch_size, load_recogniser

READ_BY_SOUNDFILE = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".caf", ".w64")
READ_BY_FFMPEG = (".m4a", ".mp4", ".aac", ".wma", ".webm", ".mka", ".ac3", ".ape", ".wv")
TIMELINE_COLUMNS = ["path", "label", "start_seconds", "end_seconds", "score"]


def main(argv: list[str]) -> None:
    """Recognise the instruments of every file; exits with code 1 where some could not be read."""
    args = parse_arguments(argv)
    processes = Processes(args.device)
    results = timelines = None
    with processes.ending_together():
        files = find_audio(args.paths)
        recognise = load_recogniser(
            args.model,
            device=processes.device,
            batch_size=args.batch_size,
            trust_remote_code=args.trust_remote_code,
            thresholds=args.threshold,
            aggregation=args.aggregation,
            window_seconds=args.window_seconds,
            hop_seconds=args.hop_seconds,
        )
        thresholds = recognise.resolve_thresholds(args.threshold)
        if processes.is_first:
            results = open_results(args, recognise.labels)
            if results:
                check_is_of_this_model(results, recognise, files, thresholds)
            timelines = open_timelines(args, results)
    finished = processes.from_first(set(results.paths) if results else set())
    if not processes.is_first:
        results, timelines = (
            ResultPart(file, processes.index) if file else None for file in (args.output, args.timeline_table)
        )
    todo = [file for file in files if to_text(file) not in finished]
    if len(todo) < len(files) and processes.is_first:
        print(f"{len(files) - len(todo)} of {len(files)} files are in {args.output} already.", file=sys.stderr)
    screen = open_screen(args.format, todo, recognise.labels) if processes.is_first and not results else None
    unreadable, unshown = [], []
    try:
        for file, result in recognised(recognise, processes.share(todo, sizes_of(todo)), quiet=not processes.is_first):
            if "error" in result:
                unreadable.append(result["error"])
                continue
            row = result_row(file, result, recognise.labels, thresholds)
            if args.timeline:
                save_picture(draw_timeline(file, result, thresholds), picture_of(file, files, args.timeline))
            if timelines:
                timelines.append([timeline_row(file, segment) for segment in result["timeline"]])
            if results:
                results.append([row])  # last: a file whose row is there has all the rest, and --resume skips it
            elif processes.count == 1:
                screen.add(row, result["timeline"])
            else:
                unshown.append((files.index(file), row, result["timeline"]))
    except KeyboardInterrupt:
        if processes.is_first:
            print("Stopped." + f" {args.output} goes on with --resume." * (results is not None), file=sys.stderr)
        processes.leave(130)
    for table in (timelines, results):
        if table:
            close_together(table, processes, order=[to_text(file) for file in files])
    unshown, unreadable = processes.gather(unshown), processes.gather(unreadable)
    if screen:
        for _, row, timeline in sorted(unshown, key=itemgetter(0)):
            screen.add(row, timeline)
        screen.close()
    if unreadable and processes.is_first:
        print(f"{len(unreadable)} of {len(todo)} files could not be read:", *unreadable, sep="\n  ", file=sys.stderr)
    processes.leave(1 if unreadable else 0)


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Return the arguments, with `format` filled in from the name of the output; raises UserError where they disagree."""
    parser = argparse.ArgumentParser(
        prog="run_irmas.py predict", description="Tell which instruments are heard in audio files, and when."
    )
    parser.add_argument("model", metavar="MODEL", help="folder of a run, or id of a model on the Hub")
    parser.add_argument("paths", metavar="PATH", nargs="+", type=Path, help="audio files, and folders of them")
    parser.add_argument("--format", choices=("table", *FORMATS), help="default: by the name of --output, else table")
    parser.add_argument("--output", metavar="F", type=Path, help="write here, not to the screen: csv, json or parquet")
    parser.add_argument("--resume", action="store_true", help="keep the rows that --output has, and skip their files")
    parser.add_argument("--timeline", metavar="DIR", type=Path, help="draw the instruments over time of each file here")
    parser.add_argument(
        "--timeline_table", metavar="F", type=Path, help="write when each is heard: csv, json or parquet"
    )
    parser.add_argument("--threshold", metavar="T", type=float, help="for all instruments, instead of the model's own")
    parser.add_argument(
        "--aggregation", choices=AGGREGATIONS, help="of the windows' scores, instead of the model's own"
    )
    parser.add_argument("--window_seconds", metavar="S", type=float, help="instead of the model's own")
    parser.add_argument("--hop_seconds", metavar="S", type=float, help="instead of the model's own")
    parser.add_argument("--batch_size", metavar="N", type=int, help="windows at once (default: 32 on a GPU, else 8)")
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1, mps (default: the first GPU, else the CPU)")
    parser.add_argument("--trust_remote_code", action="store_true", help="run the code that a model on the Hub brings")
    args = parser.parse_args(argv)
    if args.format is None:
        args.format = format_of(args.output, "--output") if args.output else "table"
    if args.output and args.format == "table":
        raise UserError("--format table is for the screen; with --output choose --format csv, json or parquet.")
    if args.format == "parquet" and not args.output:
        raise UserError("--format parquet cannot be shown on the screen; add --output FILE.parquet.")
    if args.resume and not args.output:
        raise UserError("--resume needs the table to go on with; add --output FILE.")
    if args.timeline_table and args.output and args.timeline_table.resolve() == args.output.resolve():
        raise UserError("--output and --timeline_table name the same file; give each its own.")
    check_output_file(args.output, "--output")
    check_output_file(args.timeline_table, "--timeline_table")
    check_output_folder(args.timeline, "--timeline")
    check_batch_size(args.batch_size)
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        raise UserError(f"--threshold {args.threshold} is no score; give a number from 0 to 1.")
    return args


def format_of(file: Path, flag: str) -> str:
    """Return the format that a table's name asks for."""
    suffix = file.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise UserError(f"{flag} {file} does not say its format; end it with .csv, .json or .parquet.")
    return suffix


def find_audio(paths: list[Path]) -> list[Path]:
    """Return the files named, and those in the folders named that end as audio does; hidden ones are left out."""
    found = []
    for path in paths:
        if not os.path.exists(path):
            raise UserError(f"There is no file or folder {to_text(path)}.")
        if not path.is_dir():
            found.append(path)
            continue
        inside = [
            file
            for file in sorted(path.rglob("*"))
            if file.suffix.lower() in READ_BY_SOUNDFILE + READ_BY_FFMPEG
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
            and (file.is_file() or (file.is_symlink() and not file.exists()))  # a broken link is told, not passed over
        ]
        if not inside:
            raise UserError(
                f"{to_text(path)} holds no audio files (wav, flac, mp3, ogg, ...); give a folder that does."
            )
        found += inside
    return list(dict.fromkeys(found))


def open_results(args: argparse.Namespace, labels: list[str]) -> ResultTable | None:
    """Return the table of results, where one was asked for."""
    if not args.output:
        return None
    columns = ["path", "duration_seconds", "instruments", *labels]
    return ResultTable(args.output, columns, format=args.format, resume=args.resume)


def open_timelines(args: argparse.Namespace, results: ResultTable | None) -> ResultTable | None:
    """Return the table of timelines, where one was asked for, with the rows of the files that `results` holds."""
    if not args.timeline_table:
        return None
    if results is None and args.timeline_table.exists():
        raise UserError(f"{args.timeline_table} exists; delete it, or add --output and --resume to go on with both.")
    return ResultTable(
        args.timeline_table, TIMELINE_COLUMNS, format=format_of(args.timeline_table, "--timeline_table"),
        resume=args.resume, only_paths=results and set(results.paths),
    )  # fmt: skip


def check_is_of_this_model(
    table: ResultTable, recognise: InstrumentRecognitionPipeline, files: list[Path], thresholds: list[float]
) -> None:
    """Hear the shortest of the files again that the table held already; UserError where the answer is another now."""
    by_path = {to_text(file): file for file in files}
    rows = [row for row in table.kept if row["path"] in by_path]
    if not rows:
        return
    before = min(rows, key=lambda row: float(row["duration_seconds"]))
    ((file, result),) = recognised(recognise, [by_path[before["path"]]], quiet=True)
    if "error" in result:
        return  # it will not be heard again, and what was heard stays
    now = result_row(file, result, recognise.labels, thresholds)
    heard = (
        before["instruments"].split(LIST_SEPARATOR) if isinstance(before["instruments"], str) else before["instruments"]
    )
    for label, needed in zip(recognise.labels, thresholds, strict=True):
        score = float(before[label])
        other_threshold = (label in heard) != (score >= needed) and abs(score - needed) > 1e-4
        if abs(score - now[label]) > 0.01 or other_threshold:
            raise UserError(
                f"{table.file} has rows of another model, or of other thresholds or windows ({before['path']}, {label}: "
                f"{score:.2f} there, {now[label]:.2f} now): resume with the same, or name another --output."
            )


def close_together(table: ResultTable | ResultPart, processes: Processes, order: list[str]) -> None:
    """Close the parts of a table, then the table, which takes them in."""
    if not processes.is_first:
        table.close()
    processes.wait()
    if processes.is_first:
        if processes.count > 1:
            table.take_parts(order)
        table.close()


def open_screen(format: str, files: list[Path], labels: list[str]):
    """Return what prints the results in this format; a single file gets more room than many."""
    if format == "csv":
        return screens.Csv(["path", "duration_seconds", "instruments", *labels])
    if format == "json":
        return screens.Json()
    return screens.Bars() if len(files) == 1 else screens.Lines([to_text(file) for file in files])


def sizes_of(files: list[Path]) -> list[int]:
    """Return the files' sizes in bytes, 0 for one that is missing: about how long each takes."""
    return [file.stat().st_size if file.exists() else 0 for file in files]


def recognised(
    recognise: InstrumentRecognitionPipeline, files: list[Path], quiet: bool = False
) -> Iterator[tuple[Path, dict]]:
    """Yield each file with its scores and timeline, or with the error that kept it from being read."""
    wanted = {"all_labels": True, "return_timeline": True, "return_activity": True, "skip_unreadable": True}
    results = recognise((os.fspath(file) for file in files), **wanted)
    progress = {"total": len(files), "unit": "file", "disable": quiet or None, "leave": False}
    yield from tqdm(zip(files, results, strict=True), **progress)


def result_row(file: Path, result: dict, labels: list[str], thresholds: list[float]) -> dict:
    """Return `path`, `duration_seconds`, `instruments` (best first) and one score a label, in the model's order."""
    scores = {entry["label"]: entry["score"] for entry in result["instruments"]}
    needed = dict(zip(labels, thresholds, strict=True))
    return {
        "path": to_text(file),
        "duration_seconds": round(result["duration_seconds"], 3),
        "instruments": [label for label, score in scores.items() if score >= needed[label]],
        **{label: round(scores[label], 6) for label in labels},
    }


def timeline_row(file: Path, segment: dict) -> dict:
    """Return one row of the table of timelines."""
    return {
        "path": to_text(file),
        "label": segment["label"],
        "start_seconds": round(segment["start_seconds"], 3),
        "end_seconds": round(segment["end_seconds"], 3),
        "score": round(segment["score"], 6),
    }


def picture_of(file: Path, files: list[Path], folder: Path) -> Path:
    """Return where the file's picture goes: in subfolders as the file is, with its suffix, so that no two collide."""
    common = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in files])
    inside = Path(os.path.abspath(file)).relative_to(common)
    return folder / inside.with_name(inside.name + ".png")
