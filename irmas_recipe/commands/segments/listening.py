"""From music to a folder of segments: score every window, choose, cut, and say what to do with the folder."""

import argparse
import os
import shlex
import sys
from pathlib import Path

from tqdm import tqdm

from irmas_dataset.errors import UserError
from irmas_dataset.files import to_text
from irmas_dataset.label_text import folder_name
from irmas_dataset.whole_file import whole_folder
from irmas_recipe.commands.predict.files import find_audio
from irmas_recipe.commands.predict.rows import errors_in_words, warnings_in_words
from irmas_recipe.commands.segments.choice import Choice, Segment, WindowedLogits
from irmas_recipe.commands.segments.cutting import recordings_of, write_segments, write_table
from irmas_recipe.report.text import aligned
from irmas_recipe.training.recipe_file import read_recipe
from irmas_recipe.training.recogniser import load_recogniser


def fill(args: argparse.Namespace) -> bool:
    """Write the folder of segments and say what to do with it; return whether every file could be read.

    Raises:
        UserError: there is nothing to write.
    """
    files = find_audio(args.paths)
    recognise = load_recogniser(
        args.model, device=args.device, batch_size=args.batch_size, trust_remote_code=args.trust_remote_code,
        kind=WindowedLogits,
    )  # fmt: skip
    folders = [folder_name(label) for label in recognise.labels]  # a label that cannot be one's is refused at once
    choice = Choice(recognise, unsure=args.unsure, per_class=args.per_class, per_recording=args.per_recording)
    errors, warnings = listen(recognise, files, choice)
    with whole_folder(args.output_dir) as unfinished:
        rows, errors_in_cutting = write(choice.segments, recordings_of(files), unfinished)
        errors += errors_in_cutting
        if warnings:
            print(warnings_in_words(sorted(warnings), len(files)), file=sys.stderr)
        if errors:
            print(errors_in_words(sorted(errors), len(files)), file=sys.stderr)
        if not rows:
            reason = "it is silent" if args.unsure else "no window reaches a threshold; --unsure takes the nearest ones"
            reason = "none of the files could be read" if len(errors) == len(files) else reason
            raise UserError(f"There is nothing to write to {args.output_dir}: {reason}.")
        for name in folders:  # a listener may move files to any class
            (unfinished / "train" / name).mkdir(parents=True, exist_ok=True)
        write_table(list(rows.values()), unfinished / "segments.csv")
    print(summary(list(rows), args.output_dir))
    print(next_steps(args.model, args.output_dir))
    return not errors


def listen(recognise: WindowedLogits, files: list[Path], choice: Choice) -> tuple[list[tuple[str, str]], list[str]]:
    """Show the windows of every file to `choice`; return (path, error) of those that cannot be read, and warnings."""
    errors, warnings = [], []
    results = recognise((os.fspath(file) for file in files), skip_unreadable=True)
    progress = {"total": len(files), "unit": "file", "disable": None, "leave": False}
    for file, result in tqdm(zip(files, results, strict=True), **progress):
        if "error" in result:
            errors.append((to_text(file), result["error"]))
            continue
        choice.add(file, result["windows"])
        warnings += [result["warning"]] if "warning" in result else []
    return errors, warnings


def write(
    segments: list[Segment], recordings: dict[Path, str], folder: Path
) -> tuple[dict[Segment, list], list[tuple[str, str]]]:
    """Write the segments file by file; return the row of each that was written, and (path, error) of the files lost."""
    rows, errors = {}, []
    for file in dict.fromkeys(segment.file for segment in segments):
        of_file = [segment for segment in segments if segment.file == file]
        try:
            rows |= write_segments(of_file, recordings[file], folder)
        except ValueError as error:
            errors.append((to_text(file), str(error)))
    return {segment: rows[segment] for segment in segments if segment in rows}, errors


def summary(segments: list[Segment], folder: Path) -> str:
    """Return how many windows of how many files each class got, and their margins."""
    seconds = sum(segment.end_seconds - segment.start_seconds for segment in segments)
    count = len({segment.file for segment in segments})
    lines = [["class", "windows", "files", "margin"]]
    for label in dict.fromkeys(segment.label for segment in segments):
        of_label = [segment for segment in segments if segment.label == label]
        margins = [segment.margin for segment in of_label]
        files = {segment.file for segment in of_label}
        lines.append([label, str(len(of_label)), str(len(files)), f"{min(margins):+.1f} to {max(margins):+.1f}"])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    head = f"Wrote {len(segments)} windows of {count} files to {folder}, {seconds / 60:.1f} minutes of music:"
    return "\n".join([head, *(aligned(cells, widths) for cells in lines)])


def next_steps(model: str, folder: Path) -> str:
    """Return what a listener does with the folder, and the command that trains with it."""
    given = shlex.quote(str(folder))
    recipe = Path(model, "recipe.yaml")
    steps = [f"Listen to {folder / 'train'}: move a wrong file into the folder of the right class, or delete it."]
    if recipe.is_file():
        trained_by = read_recipe(recipe)
        about_earlier = [name for name in ("extra_label_map", "extra_columns") if trained_by.get(name) is not None]
        if earlier := trained_by.get("extra_train_dir"):
            classes = f" (extra_label_map in {recipe} names them)" if "extra_label_map" in about_earlier else ""
            steps.append(
                f"{model} was trained with {earlier} too: to keep its clips, copy them into the folders of their classes in "
                f"{folder / 'train'}{classes}."
            )
        command = f"irmas {shlex.quote(str(recipe))} --extra_train_dir {given}"
        command += "".join(f" --{name} null" for name in about_earlier)
        command += f" --output_dir {shlex.quote(model.rstrip('/') + '-corrected')}"
    else:
        command = f"irmas RECIPE --data_dir {given}"
    return "\n".join([*steps, f"Then train again: {command}"])
