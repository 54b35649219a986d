"""`irmas convert ARCHITECTURE CHECKPOINT OUTPUT_DIR`: turn the authors' weights into a model folder that the Auto classes load."""

import argparse
import json
from pathlib import Path

from irmas_dataset.errors import UserError
from irmas_dataset.whole_file import open_to_readers, whole_folder, write_json
from irmas_recipe.commands.arguments import add_overwrite, check_output_folder

ARCHITECTURES = ("beats", "mobilenet", "passt")


def main(argv: list[str]) -> None:
    """Run `convert ARCHITECTURE CHECKPOINT OUTPUT_DIR`; raise UserError where the checkpoint is not the authors'."""
    parser = argparse.ArgumentParser(
        prog="irmas convert",
        description="Turn the authors' weights into a model folder that recipes and `predict` take.",
    )
    parser.add_argument("architecture", metavar="ARCHITECTURE", choices=ARCHITECTURES, help=", ".join(ARCHITECTURES))
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="the authors' file of weights")
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", type=Path, help="folder to write the model to")
    add_overwrite(parser, "replace the converted model in OUTPUT_DIR")
    arguments = parser.parse_args(argv)
    folder = arguments.output_dir
    check_output_folder(folder, "OUTPUT_DIR")
    if (folder / "recipe.yaml").exists():
        raise UserError(f"OUTPUT_DIR {folder} has a trained run; name a new folder.")
    if (folder / "config.json").exists() and not arguments.overwrite_output_dir:
        raise UserError(f"OUTPUT_DIR {folder} has a model: name a new folder, or add --overwrite_output_dir true.")

    from irmas_recipe.models.beats import convert_beats  # these need torch, which takes seconds
    from irmas_recipe.models.mobilenet import convert_mobilenet
    from irmas_recipe.models.passt import convert_passt
    from irmas_recipe.models.pipeline.attach import attach_pipeline

    converters = dict(zip(ARCHITECTURES, (convert_beats, convert_mobilenet, convert_passt), strict=True))
    with whole_folder(folder) as unfinished:
        converters[arguments.architecture].convert(arguments.checkpoint, unfinished)
        attach_pipeline(unfinished)
        open_to_readers(unfinished)
        config = json.loads((unfinished / "config.json").read_text(encoding="utf-8"))
        write_json(unfinished / "config.json", config | {"released_as": arguments.checkpoint.name})  # for model cards
    print(f"Converted {arguments.checkpoint} to {folder}")
