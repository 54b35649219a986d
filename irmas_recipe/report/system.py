"""The run folder of a system that is no network: the same files as a network's, without weights."""

import platform
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import ModelCard

from irmas_metric.protocol import test_results
from irmas_metric.trivial import trivial_figures
from irmas_recipe.report import card as model_card
from irmas_recipe.report.figures import draw_figures, read_results
from irmas_recipe.training.evaluation import FIXED_THRESHOLD, commit, write_json

PACKAGES = ("numpy", "scipy", "scikit-learn", "librosa", "datasets")


def provenance(recipe: dict, seed: int) -> dict:
    """Return what results.json says a system depended on: recipe, commit, seed, versions."""
    versions = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    return {"recipe": recipe, "commit": commit(), "seed": seed, "versions": versions}


def measure(labels, scores, songs, classes, thresholds, training_counts=None, resamples: int = 1000) -> dict:
    """Return the `trivial` and `test` parts of results.json; `tuned` is left out where `thresholds` is None."""
    return {
        "trivial": trivial_figures(labels, classes, training_counts),
        "test": test_results(labels, scores, songs, classes, thresholds, FIXED_THRESHOLD, resamples=resamples),
    }


def finish(run_dir: Path, results: dict, how_made: str, library: str) -> None:
    """Write results.json, the figures and the card, in this order: a card says that the run is finished."""
    write_json(run_dir / "results.json", results)
    draw_figures(run_dir)
    write_card(run_dir, how_made, library)


def write_card(run_dir: Path, how_made: str, library: str) -> Path:
    """Write README.md: the sections of a network's card that hold for any system, and `how_made`, in Markdown."""
    results = read_results(run_dir)
    name = run_dir.resolve().name
    data = model_card.metadata(results, name, "apache-2.0")
    data.library_name = library
    sections = [
        f"# {name}",
        model_card.notice(results),
        model_card.introduction(results),
        how_made,
        model_card.results_section(results),
        model_card.per_class_section(results, run_dir),
        model_card.published_section(results),
        model_card.limits_section(results),
        provenance_section(results),
        model_card.citation_section(results),
    ]
    text = "\n\n".join(section for section in sections if section)
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n").save(run_dir / "README.md")
    return run_dir / "README.md"


def provenance_section(results: dict) -> str:
    """Say what is in the folder and with which versions it was made."""
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    made_at = f" at commit `{results['commit']}`" if results.get("commit") else ""
    return (
        "## Files\n\n`results.json` holds every figure and the recipe; `predictions.parquet` every score. There are no "
        f"weights here: run the recipe again to make the system anew. Made by irmas-recipe{made_at}, seed "
        f"{results['seed']}, with {versions}."
    )
