"""`irmas predict [MODEL] PATH...`: which instruments are heard in files and folders, for people or for programs."""

import os
import sys
from pathlib import Path

from irmas_recipe.commands.predict.arguments import parse_arguments


def main(argv: list[str]) -> None:
    """Recognise the instruments of every file; exits with code 1 where some could not be read."""
    args = parse_arguments(argv)

    from tqdm import tqdm

    from irmas_dataset.files import to_text  # the imports below need torch, which takes seconds
    from irmas_recipe.commands.predict.catalogue import load_asked, tag_catalogue, workers_for
    from irmas_recipe.commands.predict.files import find_audio, sizes_of
    from irmas_recipe.commands.predict.lists import every_name
    from irmas_recipe.commands.predict.outputs import Outputs
    from irmas_recipe.commands.predict.rows import ASKED, errors_in_words, warnings_in_words
    from irmas_recipe.training.processes import Processes

    if args.parts:
        return tag_catalogue(args)
    processes = Processes(args.device)
    with processes.ending_together():
        args.paths += map(Path, every_name([], args.list, args.column))
        files = processes.from_first(find_audio(args.paths) if processes.is_first else None)
        if args.is_default and processes.is_first:
            print(f"No MODEL is named: {args.model} answers, which was trained on AudioSet.", file=sys.stderr)
        recognise = load_asked(args, processes.device, map(os.fspath, files))
        outputs = Outputs(args, processes, files, recognise)
    todo, errors, warnings = outputs.begin(), [], []
    mine = processes.share(todo, sizes_of(todo))
    results = recognise(
        (os.fspath(file) for file in mine), return_windows=args.window_table is not None,
        num_workers=workers_for(args.workers, len(mine)), **ASKED,
    )  # fmt: skip
    progress = {"total": len(mine), "unit": "file", "disable": None if processes.is_first else True, "leave": False}
    try:
        for file, result in tqdm(zip(mine, results, strict=True), **progress):
            if error := result.get("error") or outputs.add(file, result):
                errors.append((to_text(file), error))
            elif "warning" in result:
                warnings.append(result["warning"])
    except KeyboardInterrupt:
        resumable = f" {args.output} can be resumed with --resume." * bool(args.output)
        conclude([], 0, f"Stopped.{resumable}" * processes.is_first)
        processes.leave(130)
    errors, warnings = sorted(processes.gather(errors)), sorted(processes.gather(warnings))
    outputs.close(errors)
    if summary := outputs.summary():
        print("", *summary, sep="\n", file=sys.stdout if outputs.screen else sys.stderr)
    if processes.is_first:
        notes = warnings and warnings_in_words(warnings, len(todo)), errors and errors_in_words(errors, len(todo))
        conclude(outputs.written(), len(files) - len(errors), *notes)
    processes.leave(1 if errors else 0)


def conclude(written: list[str], files: int, *notes: str | list) -> None:
    """Print how many files' results went where, and what there is to say about others."""
    if written:
        print(f"Wrote {files} files' results to {', '.join(written)}.", file=sys.stderr)
    for note in filter(None, notes):
        print(note, file=sys.stderr)
