"""Any run as the pipeline that hears files: of a network, a classical system or an ensemble, or what `evaluate` wrote."""

from pathlib import Path
from typing import Any

from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline
from irmas_recipe.report.results import FILE, Results
from irmas_recipe.training.recipe_file import system_of_run
from irmas_recipe.training.recogniser import load_recogniser


def load_system(
    model: str, *, trust_remote_code: bool = False, classes: str = "irmas", **options: Any
) -> InstrumentRecognitionPipeline:
    """Return the pipeline of a run folder, whatever its system, or of a model on the Hub.

    Args:
        trust_remote_code, classes, options: as of `load_recogniser`.

    Raises:
        UserError: the run cannot be loaded or used.
    """
    run, system = Path(model), system_of_run(Path(model))
    if system == "classical":
        from irmas_recipe.baselines.classical.recogniser import load_classical  # needs librosa, which takes a second

        return load_classical(run, **options)
    if system == "ensemble":
        from irmas_recipe.commands.ensemble.recogniser import load_ensemble

        return load_ensemble(run, load_system, trust_remote_code=trust_remote_code, **options)
    model = measured_model(run) or model  # a network: `evaluate` measures no other system
    return load_recogniser(model, trust_remote_code=trust_remote_code, classes=classes, **options)


def measured_model(folder: Path) -> str | None:
    """Return the model whose results a folder has, where `evaluate` wrote it: without a recipe or a model of its own."""
    if (folder / "recipe.yaml").exists() or (folder / "config.json").exists() or not (folder / FILE).is_file():
        return None
    results = Results.read(folder)
    if run := results.more.get("measured_run"):
        return str((folder / run).resolve())
    return results.recipe.get("model_name_or_path")
