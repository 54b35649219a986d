"""`irmas compare RUN...`: finished runs side by side, with what the choice of songs alone could explain."""

import argparse
from pathlib import Path

from irmas_dataset.whole_file import whole_folder
from irmas_recipe.commands.arguments import check_output_folder

FILES = {"text": "comparison.txt", "markdown": "comparison.md", "csv": "comparison.csv"}


def main(argv: list[str]) -> None:
    """Print one table of all runs; with `--output_dir` write it in every format, and the picture, as well."""
    parser = argparse.ArgumentParser(
        prog="irmas compare",
        description="Compare finished runs on one test set: figures with 95 % intervals, cost, and each run's difference "
        "from the first one under resampling of whole songs.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="a run folder; the first is the reference")
    parser.add_argument("--output_dir", metavar="DIR", type=Path, help="write comparison.txt, .md, .csv and .png there")
    parser.add_argument("--format", choices=FILES, default="text", help="what is printed (default: text)")
    arguments = parser.parse_intermixed_args(argv)  # a run may stand behind a flag

    check_output_folder(arguments.output_dir, "--output_dir")

    from irmas_recipe.report.comparison import compare_runs  # these need pandas and scikit-learn, which take seconds
    from irmas_recipe.report.comparison_figure import draw_comparison
    from irmas_recipe.report.comparison_table import as_csv, as_markdown, as_text

    formats = {"text": as_text, "markdown": as_markdown, "csv": as_csv}
    comparison = compare_runs(arguments.runs)
    print(formats[arguments.format](comparison))
    if arguments.output_dir is None:
        return
    with whole_folder(arguments.output_dir) as folder:
        for name, render in formats.items():
            (folder / FILES[name]).write_text(render(comparison) + "\n", encoding="utf-8")
        draw_comparison(comparison, folder / "comparison.png")
    if arguments.format == "text":
        print(f"\nWritten to {arguments.output_dir}: {', '.join(FILES.values())}, comparison.png")
