"""Load a trained model, from a run folder or the Hub, as the windowed pipeline; every way to fail is one sentence."""

from pathlib import Path

import torch
from huggingface_hub.utils import HFValidationError, validate_repo_id
from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForAudioClassification
from transformers.utils import logging

import irmas_recipe.models  # noqa: F401  registers this repository's architectures, so that its own runs need no remote code
from irmas_dataset.errors import UserError
from irmas_dataset.separation import SEPARATIONS, Separation
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline, check_protocol
from irmas_recipe.training.checkpoint import reach_hub


def load_recogniser(
    model: str,
    *,
    device: str | None = None,
    batch_size: int | None = None,
    trust_remote_code: bool = False,
    **options,
) -> InstrumentRecognitionPipeline:
    """Return the pipeline of a run folder or Hub id; `options` are those of a call (`aggregation`, `thresholds`, ...).

    Code that comes with the model runs only with `trust_remote_code`; a run of this repository uses the classes here.
    Without a device the first GPU is taken, or else the CPU. Raises UserError.
    """
    check_model_name(model)
    logging.disable_progress_bar()
    try:
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device} cannot be used on this machine; try --device cpu.") from error
    try:
        reach_hub(model)
        config = AutoConfig.from_pretrained(model, trust_remote_code=trust_remote_code)
        extractor = AutoFeatureExtractor.from_pretrained(model, trust_remote_code=trust_remote_code)
        network, report = AutoModelForAudioClassification.from_pretrained(
            model,
            config=config,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except Exception as error:  # whatever a foreign folder or the Hub can raise
        raise UserError(why_it_cannot_be_loaded(model, error)) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])[0]
        raise UserError(f"{model} is no trained classifier: it holds no weights for {missing}; give a run's folder.")
    if unfit := sorted(map(str, report["mismatched_keys"] | report["unexpected_keys"])):
        raise UserError(f"{model} holds weights that do not fit its config.json ({unfit[0]}); give a run's folder.")
    try:
        check_protocol(config)
    except ValueError as error:
        raise UserError(f"{model}/config.json cannot be used: {error}") from error
    separation = getattr(config, "separation", "none")
    try:
        return InstrumentRecognitionPipeline(
            model=network,
            separate=Separation(separation) if separation in SEPARATIONS else None,
            feature_extractor=extractor,
            device=device,
            batch_size=batch_size or (32 if device.type == "cuda" else 8),
            **options,
        )
    except ValueError as error:
        raise UserError(f"{model}: {error}") from error


def check_model_name(model: str) -> None:
    """Raise UserError unless `model` is a folder with a config.json or could be the id of a Hub repository."""
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            runs = sorted(path.parent for path in folder.glob("*/config.json"))
            hint = f"; did you mean {runs[0]}?" if runs else "; give the folder of a finished run."
            raise UserError(f"{model} holds no config.json{hint}")
        return
    if folder.exists():
        raise UserError(f"{model} is a file; give the folder of a run, or the id of a model on the Hub.")
    try:
        validate_repo_id(model)
        if "/" in model and folder.parent.is_dir():
            raise HFValidationError  # a mistyped run in a folder that is there: no need to ask the Hub
    except HFValidationError as error:
        raise UserError(f"There is no folder {model}; give the folder of a run, or the id of a model.") from error


def why_it_cannot_be_loaded(model: str, error: Exception) -> str:
    """Return one sentence with the way out for what transformers said, often in many lines."""
    said = str(error)
    if "trust_remote_code" in said:
        return f"{model} comes with its own code; read it, and then add --trust_remote_code to run it."
    if isinstance(error, OSError) and not Path(model).is_dir():
        return f"There is no folder {model}, and no model of that name could be fetched from the Hub; check the name."
    first_line = said.strip().splitlines()[0] if said.strip() else type(error).__name__
    return f"{model} cannot be loaded as an audio classifier ({first_line}); give the folder of a finished run."
