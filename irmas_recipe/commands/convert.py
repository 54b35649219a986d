"""`irmas convert ARCHITECTURE CHECKPOINT OUTPUT_DIR`: turn the authors' weights into a model folder that the Auto classes load."""

import argparse
from pathlib import Path

from irmas_dataset.errors import UserError
from irmas_recipe.commands.arguments import check_output_folder

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
    arguments = parser.parse_args(argv)
    check_output_folder(arguments.output_dir, "OUTPUT_DIR")
    if (arguments.output_dir / "recipe.yaml").exists():
        raise UserError(f"OUTPUT_DIR {arguments.output_dir} holds a trained run; name a new folder.")

    from irmas_recipe.models.beats import convert_beats  # these need torch, which takes seconds
    from irmas_recipe.models.mobilenet import convert_mobilenet
    from irmas_recipe.models.passt import convert_passt
    from irmas_recipe.models.pipeline.attach import attach_pipeline

    converters = dict(zip(ARCHITECTURES, (convert_beats, convert_mobilenet, convert_passt), strict=True))
    converters[arguments.architecture].convert(arguments.checkpoint, arguments.output_dir)
    attach_pipeline(arguments.output_dir)
    print(f"Converted {arguments.checkpoint} to {arguments.output_dir}")
