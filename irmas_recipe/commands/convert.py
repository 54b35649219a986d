"""`irmas convert`: turn the authors' weights into a model folder that the Auto classes load, from a file or by name."""

import argparse
import shutil
from pathlib import Path

from irmas_dataset.errors import UserError
from irmas_dataset.whole_file import whole_folder
from irmas_recipe.commands.arguments import add_overwrite, check_output_folder
from irmas_recipe.training.released import ARCHITECTURES, RELEASED, find_released


def main(argv: list[str]) -> None:
    """Run the command; raise UserError where the checkpoint is not the authors' or a folder would be lost."""
    arguments = parse_arguments(argv)
    if arguments.output_dir:
        check_target(arguments.output_dir, arguments.overwrite_output_dir)

    from irmas_recipe.training.conversion import convert, released_model  # these need torch, which takes seconds

    if arguments.released:
        cached = released_model(arguments.released)
        if arguments.output_dir is None:
            print(f"{find_released(arguments.released).path} is in {cached}")
            return
        with whole_folder(arguments.output_dir) as unfinished:
            shutil.copytree(cached, unfinished, dirs_exist_ok=True)
    else:
        with whole_folder(arguments.output_dir) as unfinished:
            convert(arguments.architecture, arguments.checkpoint, unfinished, arguments.checkpoint.name)
    print(f"Converted {arguments.released or arguments.checkpoint} to {arguments.output_dir}")


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Return `released`, or `architecture` and `checkpoint`, and `output_dir`, None where a released model stays in the cache."""
    parser = argparse.ArgumentParser(
        prog="irmas convert",
        usage="irmas convert ARCHITECTURE CHECKPOINT OUTPUT_DIR\n       irmas convert --released NAME [OUTPUT_DIR]",
        description="Turn the authors' weights into a model folder that recipes and `predict` take.",
    )
    parser.add_argument("names", metavar="ARCHITECTURE CHECKPOINT OUTPUT_DIR", nargs="*",
                        help=f"one of {', '.join(ARCHITECTURES)}, the authors' file of weights, the folder to write to")  # fmt: skip
    parser.add_argument(
        "--released",
        metavar="NAME",
        help=f"download it, once for all commands: {', '.join(RELEASED)}; a folder is optional",
    )
    add_overwrite(parser, "replace the converted model in OUTPUT_DIR")
    arguments = parser.parse_args(argv)
    names = arguments.names
    if arguments.released:
        find_released(arguments.released)
        if len(names) > 1:
            parser.error("--released NAME takes OUTPUT_DIR alone")
        arguments.output_dir = Path(names[0]) if names else None
        return arguments
    if len(names) != 3:
        parser.error("give ARCHITECTURE CHECKPOINT OUTPUT_DIR, or --released NAME")
    if names[0] not in ARCHITECTURES:
        parser.error(f"ARCHITECTURE {names[0]} is not one of {', '.join(ARCHITECTURES)}")
    arguments.architecture, arguments.checkpoint, arguments.output_dir = names[0], Path(names[1]), Path(names[2])
    return arguments


def check_target(folder: Path, overwrite: bool) -> None:
    """Raise UserError where a folder has a run, or a model that nobody asked to replace."""
    check_output_folder(folder, "OUTPUT_DIR")
    if (folder / "recipe.yaml").exists():
        raise UserError(f"OUTPUT_DIR {folder} has a trained run; name a new folder.")
    if (folder / "config.json").exists() and not overwrite:
        raise UserError(f"OUTPUT_DIR {folder} has a model: name a new folder, or add --overwrite_output_dir true.")
