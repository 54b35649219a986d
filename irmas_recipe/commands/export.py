"""`irmas export --data_dir D --output_dir O`: a data folder as Parquet with a dataset card, for the Hub."""

import argparse
from pathlib import Path

from irmas_dataset.forms.flags import Columns, add_column_flags
from irmas_recipe.commands.arguments import check_output_folder


def main(argv: list[str]) -> None:
    """Write the folder, with the audio inside or labels alone, and push it if asked."""
    parser = argparse.ArgumentParser(
        prog="irmas export",
        description="Write a data folder as a dataset that `datasets.load_dataset` reads, and push it to the Hub if asked.",
    )
    parser.add_argument("--data_dir", metavar="D", required=True, help="a folder, or a data set's id on the Hub")
    parser.add_argument(
        "--output_dir", metavar="O", type=Path, required=True, help="a new folder, or that of an earlier export"
    )
    parser.add_argument(
        "--metadata_only", action="store_true", help="labels, recordings, checksums and durations, but no audio"
    )
    parser.add_argument("--recording_pattern", metavar="REGEX", help="as in the recipe")
    add_column_flags(parser)
    parser.add_argument("--push_to_hub", metavar="REPO", help="upload to this dataset repository (user/name)")
    parser.add_argument(
        "--public", action="store_true",
        help="make the repository public: only if you may publish what is inside; IRMAS's audio may not be redistributed",
    )  # fmt: skip
    args = parser.parse_args(argv)
    check_output_folder(args.output_dir, "--output_dir")

    from irmas_dataset.export.push import push  # these need datasets, which takes a second
    from irmas_dataset.export.write import export

    counts = export(
        args.data_dir,
        args.output_dir,
        metadata_only=args.metadata_only,
        recording_pattern=args.recording_pattern,
        columns=Columns.of(args),
    )
    held = "labels without audio" if args.metadata_only else "audio and labels"
    print(
        f"Wrote {held} of {', '.join(f'{count:,} {split} clips' for split, count in counts.items())} to {args.output_dir}."
    )
    print(f'Read it with datasets.load_dataset("{args.output_dir}").')
    if args.push_to_hub:
        address = push(args.output_dir, args.push_to_hub, public=args.public)
        print(f"Pushed to {address}" + ("." if args.public else " (private)."))
