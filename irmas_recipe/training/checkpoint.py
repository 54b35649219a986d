"""Load and save a model, strictly."""

from pathlib import Path

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url, is_offline_mode, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor

from irmas_dataset.errors import UserError
from irmas_recipe.models.pipeline.instrument_recognition import attach_pipeline
from irmas_recipe.training.fields import ModelArguments
from irmas_recipe.training.recipe import Recipe
from irmas_recipe.training.trainer import InstrumentTrainer


def save(recipe: Recipe, trainer: InstrumentTrainer) -> None:
    """Write the model, its feature extractor and its pipeline into the run folder."""
    run_dir = Path(recipe.training.output_dir)
    trainer.save_model(str(run_dir))
    if trainer.is_world_process_zero():
        (run_dir / "training_args.bin").unlink(missing_ok=True)  # a pickle, which nobody should have to load
        attach_pipeline(run_dir)


CONVERTIBLE = ("beats", "mobilenet", "passt")  # released as bare weights, which `convert` turns into a folder


def load_pretrained(arguments: ModelArguments) -> tuple[PreTrainedModel, SequenceFeatureExtractor]:
    """Load a checkpoint from a folder or the Hub, whole: no missing, unexpected or re-shaped weight is accepted."""
    name = arguments.model_name_or_path
    options = {"revision": arguments.model_revision, "trust_remote_code": arguments.trust_remote_code}
    if Path(name).exists() and not (Path(name) / "config.json").is_file():
        raise UserError(
            f"{name} holds no config.json: --model_name_or_path takes a Hub id or a folder with a saved model."
        )
    try:
        reach_hub(name, arguments.model_revision)
        config = AutoConfig.from_pretrained(name, **options)
        extractor = AutoFeatureExtractor.from_pretrained(name, **options)
        check_fields(arguments.model_config or {}, config, "model_config")
        check_fields(arguments.feature_extractor_config or {}, extractor, "feature_extractor_config")
        if hasattr(config, "trainable_labels"):
            config.trainable_labels = None  # what that run froze; this one says for itself
        for field, value in (arguments.model_config or {}).items():
            setattr(config, field, value)
        for field, value in (arguments.feature_extractor_config or {}).items():
            setattr(extractor, field, value)
        set_regularization(config, arguments)
        model, report = AutoModelForAudioClassification.from_pretrained(
            name, config=config, output_loading_info=True, dtype=torch.float32, ignore_mismatched_sizes=True, **options
        )
    except UserError:
        raise
    except OSError as error:
        if Path(name).exists():
            raise UserError(damaged_checkpoint(name, error)) from error
        if looks_local(name):
            raise UserError(missing_folder(name)) from error
        raise UserError(
            f"The checkpoint {name} is neither a folder here nor in the Hub's local cache, and could not be fetched "
            f"({first_sentence(error)}): connect, fetch it elsewhere with `hf download {name}`, or name a folder with "
            "--model_name_or_path."
        ) from error
    except Exception as error:  # whatever transformers makes of a damaged or foreign folder
        raise UserError(damaged_checkpoint(name, error)) from error
    wrong = {kind: sorted(map(str, report[kind])) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if any(wrong.values()):
        found = "; ".join(f"{kind.replace('_', ' ')}: {', '.join(keys[:5])}" for kind, keys in wrong.items() if keys)
        raise UserError(f"The checkpoint {name} does not fit its configuration ({found}): fetch it again.")
    tensors = model.state_dict().items()
    broken = [key for key, tensor in tensors if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise UserError(f"The checkpoint {name} holds weights that are no numbers ({broken[0]}): name another one.")
    return model, extractor


def load_backbone(model: PreTrainedModel, checkpoint: str) -> None:
    """Start the part of a new model that has an ImageNet checkpoint (Swin) from it.

    Raises:
        UserError: the model has no such part, or the checkpoint is not there or does not fit.
    """
    if not hasattr(model, "load_swin"):
        raise UserError(
            f"--backbone_name_or_path: {model.config.model_type} has no part that starts from ImageNet; remove it, or set "
            '--architecture crnn with --model_config \'{"network": "swin"}\'.'
        )
    try:
        model.load_swin(checkpoint)
    except OSError as error:
        raise UserError(
            f"--backbone_name_or_path {checkpoint} is neither a folder here nor in the Hub's local cache, and could not be "
            f"fetched ({first_sentence(error)}): connect, fetch it elsewhere with `hf download {checkpoint}`, or remove it "
            "to start from scratch."
        ) from error
    except ValueError as error:
        raise UserError(f"--backbone_name_or_path: {first_sentence(error)}.") from error


def check_fields(fields: dict, known: object, flag: str) -> None:
    """Refuse a field that the configuration does not have: transformers would take it silently."""
    for name in fields:
        if not hasattr(known, name):
            raise UserError(f"--{flag}: {type(known).__name__} has no field `{name}`.")


def damaged_checkpoint(name: str, error: Exception) -> str:
    """Return the sentence about a checkpoint that is there and cannot be loaded."""
    if "trust_remote_code" in str(error):
        return f"The checkpoint {name} comes with its own code: read it, and then add --trust_remote_code to run it."
    return (
        f"The checkpoint {name} could not be loaded ({first_sentence(error)}): fetch it again, or name another with "
        "--model_name_or_path."
    )


def looks_local(name: str) -> bool:
    """Return whether a checkpoint's name is meant as a folder here, not as a Hub id (`owner/name`)."""
    return name.startswith((".", "/", "~", "checkpoints/")) or name.count("/") > 1


def missing_folder(name: str) -> str:
    """Return the sentence about a folder that is not there; weights of a port have to be converted first."""
    ports = [port for port in CONVERTIBLE if port in Path(name).name]
    if not ports:
        return f"There is no folder {name}: --model_name_or_path takes a Hub id or a folder with a saved model."
    return (
        f"There is no checkpoint {name}: download the authors' weights (the address stands in recipes/{ports[0]}/*.yaml) and "
        f"convert them with `irmas convert {ports[0]} DOWNLOADED_FILE {name}`, or name another folder with "
        "--model_name_or_path."
    )


def first_sentence(error: Exception) -> str:
    """Return the first line of an error, without its final stop."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(". ")


TIMEOUT_SECONDS = 10


def reach_hub(model: str, revision: str | None = None) -> None:
    """Raise ConnectionError where a model lies neither in a folder nor in the Hub's local cache and the Hub is silent.

    `from_pretrained` and `hf_hub_download` would ask six times more: half a minute without a network, six minutes
    behind a firewall that swallows their questions.
    """
    try:
        if is_offline_mode() or Path(model).is_dir() or try_to_load_from_cache(model, "config.json", revision=revision):
            return
        get_hf_file_metadata(hf_hub_url(model, "config.json", revision=revision), timeout=TIMEOUT_SECONDS)
    except (HfHubHTTPError, HFValidationError):
        pass  # the Hub answers, or the name is none of its own: whoever loads the model says so
    except Exception as error:  # of whatever library carries the question
        raise ConnectionError(f"the Hub cannot be reached: {error}") from error


REGULARIZATION = {
    "layerdrop": ("layerdrop",),
    "drop_path_rate": ("drop_path_rate",),
    "head_dropout": ("head_dropout", "classifier_dropout"),
}
"""Field of a recipe -> what the architectures' configurations call it."""


def set_regularization(config: PreTrainedConfig, arguments: ModelArguments) -> None:
    """Write the recipe's layerdrop, drop_path_rate and head_dropout into a configuration, under the model's own names.

    Raises:
        UserError: the architecture has no such thing.
    """
    for field, names in REGULARIZATION.items():
        value = getattr(arguments, field)
        known = [name for name in names if hasattr(config, name)]
        if value is not None and known:
            setattr(config, known[0], value)
        elif value is not None and not (field == "head_dropout" and config.model_type == AST_TYPE):
            raise UserError(f"{config.model_type} has no {field}: remove --{field} from the recipe.")


AST_TYPE = "audio-spectrogram-transformer"
