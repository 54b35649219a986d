"""Save a run's model, and load any model strictly, from a folder or the Hub; every failure is one sentence with the way out."""

import contextlib
import logging
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url, is_offline_mode, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    PreTrainedConfig,
    PreTrainedModel,
    Trainer,
)
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor

import irmas_recipe.models  # noqa: F401  registers this repository's architectures: its own runs need no remote code
from irmas_dataset.errors import UserError
from irmas_recipe.models.encoder import EncoderConfig
from irmas_recipe.models.encoder.modeling_encoder import MAY_RUN_CODE
from irmas_recipe.models.pipeline.attach import attach_pipeline
from irmas_recipe.training.averaging import use_average_of
from irmas_recipe.training.conversion import local_name
from irmas_recipe.training.encoder import is_classifier, load_encoder
from irmas_recipe.training.recipe import Recipe
from irmas_recipe.training.recipe_file import system_of_run
from irmas_recipe.training.released import find_released, is_released

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10
FETCH_AGAIN = ": fetch it again, or use another model"
"""How a sentence about weights that do not fit ends."""


def save(recipe: Recipe, trainer: Trainer) -> None:
    """Write the model, its feature extractor and its pipeline into the run folder."""
    run_dir = Path(recipe.training.output_dir)
    trainer.save_model(str(run_dir))
    if trainer.is_world_process_zero():
        (run_dir / "training_args.bin").unlink(missing_ok=True)  # a pickle, which nobody should have to load
        attach_pipeline(run_dir)


def load_checkpoint(
    name: str,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    adapt: Callable[[PreTrainedConfig, SequenceFeatureExtractor], SequenceFeatureExtractor] | None = None,
    fresh_head: bool = False,
    encoder: str | None = None,
) -> tuple[PreTrainedModel, SequenceFeatureExtractor]:
    """Load a model, in float32, and its feature extractor; of a run's checkpoint the averaged weights, if it has them.

    Args:
        name: a folder, the id of a model on the Hub, or a released checkpoint such as `released/mn10`.
        revision: branch, tag or commit on the Hub.
        trust_remote_code: run code that comes with the model; this repository's own models need none.
        adapt: changes the configuration, in place, before the weights are loaded, and returns the feature extractor to use.
        fresh_head: accept an encoder without a classifier's head, or with that of another task, which starts fresh.
        encoder: how to pool the checkpoint's encoder under an output layer of this project (see EncoderConfig); None keeps
            the checkpoint's own classifier where there is one, and `layers` that of a run of this kind.

    Raises:
        UserError: there is no such model, it is damaged, it brings its own code, or its weights do not fit exactly.
    """
    name = local_name(name)
    check_name(name)
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    with failing_in_one_sentence(name), running_code(trust_remote_code):
        reach_hub(name, revision)
        config = AutoConfig.from_pretrained(name, **options)
        extractor = AutoFeatureExtractor.from_pretrained(name, **options)
        if adapt:
            extractor = adapt(config, extractor)
        if encoder == "layers" and isinstance(config, EncoderConfig):
            encoder = None
        if encoder or not is_classifier(config):
            if not fresh_head:
                raise UserError(
                    f"{name} is an encoder, which knows no classes: train one with --model_name_or_path {name}."
                )
            return load_encoder(name, config, encoder or "layers", **options), extractor
        network = strictly_from_pretrained(
            AutoModelForAudioClassification, name, config, fresh_head=fresh_head, **options
        )
        use_average_of(name, network)
        return network, extractor


@contextlib.contextmanager
def running_code(is_trusted: bool) -> Iterator[None]:
    """Let an encoder's own code run, or not, as the user has said."""
    before = MAY_RUN_CODE.set(is_trusted)
    try:
        yield
    finally:
        MAY_RUN_CODE.reset(before)


def strictly_from_pretrained(
    model_class: type, name: str, config: PreTrainedConfig, fresh_head: bool = False, **options: Any
) -> PreTrainedModel:
    """Return a model with a checkpoint's weights: none missing, unexpected, of another shape or not finite.

    Args:
        model_class: a model's class, or an Auto class.
        fresh_head: allow that all weights of the head are missing, or are those of another task.
        options: those of `from_pretrained`.

    Raises:
        UserError: the weights cannot be read or do not fit.
    """
    with failing_in_one_sentence(name):
        model, report = model_class.from_pretrained(
            name,
            config=config,
            dtype=torch.float32,
            weights_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that the report names them
            **options,
        )
    check_keys(name, head_keys(model), report, fresh_head)
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(f"{name} has weights that are not finite ({key}): use another model.")
    return model


def head_keys(model: PreTrainedModel) -> set[str]:
    """Return the names of all weights but the backbone's, which is the child with the most parameters, such as `hubert`."""
    sizes = {name: sum(weight.numel() for weight in child.parameters()) for name, child in model.named_children()}
    backbone = max(sizes, key=sizes.get)
    return {key for key in model.state_dict() if not key.startswith(f"{backbone}.")}


def check_keys(name: str, head: set[str], report: dict[str, set], fresh_head: bool = False) -> None:
    """Raise UserError if a loading report of transformers names a weight that has to fit.

    Args:
        head: the names of the head's weights.
        fresh_head: whether all of the head's weights may be missing, and those of another task's head be left.
    """
    missing, unexpected = (
        {key for key in report[f"{kind}_keys"] if not is_mask(key)} for kind in ("missing", "unexpected")
    )
    other_shape = {key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]}
    if missing and missing == head and not other_shape and fresh_head:
        logger.warning("%s is an encoder without a classifier's head: it gets a fresh one.", name)
        return
    if missing and missing <= head and not unexpected | other_shape:
        raise UserError(
            f"{name} is not a trained classifier (it has no weights for {min(missing)}): give the folder of a finished run."
        )
    wrong = {"missing keys": missing, "unexpected keys": unexpected, "keys of another shape": other_shape}
    if any(wrong.values()):
        found = "; ".join(f"{kind}: {', '.join(sorted(keys)[:5])}" for kind, keys in wrong.items() if keys)
        raise UserError(f"{name} does not fit its config.json ({found}){FETCH_AGAIN}.")


def is_mask(key: str) -> bool:
    """Tell whether a weight is the vector that hides frames in the training of wav2vec 2.0 and its relatives.

    A checkpoint has it or not by how it was trained, and it plays no part in an answer.
    """
    return key.endswith("masked_spec_embed")


def check_name(name: str) -> None:
    """Raise UserError unless a name is the folder of a saved model, or could be the id of a model on the Hub."""
    folder = Path(name)
    if is_released(name):
        path = find_released(name).path
        raise UserError(f"{path} is no finished run: start a recipe from it with --model_name_or_path {path}.")
    if folder.is_dir():
        if (system := system_of_run(folder)) != "network":
            raise UserError(f"{name} is a run of another system ({system}): give the folder of a network's run.")
        if not (folder / "config.json").is_file():
            runs = sorted(path.parent for path in folder.glob("*/config.json"))
            hint = f"did you mean {runs[0]}?" if runs else "give the folder of a finished run."
            raise UserError(f"{name} has no config.json: {hint}")
    elif folder.exists():
        raise UserError(f"{name} is a file: give the folder of a finished run, or the id of a model on the Hub.")
    elif not could_be_hub_id(name):
        raise UserError(
            f"There is no folder {name}: give the folder of a finished run, or the id of a model on the Hub."
        )


def could_be_hub_id(name: str) -> bool:
    """Return whether a name without a folder may be an id on the Hub; `runs/tpyo` is not where there is a folder `runs`."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not ("/" in name and Path(name).parent.is_dir())


@contextlib.contextmanager
def failing_in_one_sentence(name: str) -> Iterator[None]:
    """Turn whatever transformers or the Hub raise about a model into a UserError of one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(why_it_failed(name, error)) from error


def why_it_failed(name: str, error: Exception) -> str:
    """Return the sentence about a model that could not be loaded."""
    if "trust_remote_code" in str(error):
        return f"{name} comes with its own code: read it, then add --trust_remote_code to run it."
    if isinstance(error, OSError) and not Path(name).exists():
        return unreachable(name, error)
    if isinstance(error, pickle.UnpicklingError):
        return f"{name} has its weights in a pickle, which might run code: use a model saved as safetensors."
    return f"{name} could not be loaded ({first_sentence(error)}){FETCH_AGAIN}."


def unreachable(name: str, error: Exception) -> str:
    """Return the sentence about a model that is not on this machine and could not be fetched."""
    return (
        f"{name} is neither a folder here nor in the Hub's local cache, and could not be fetched ({first_sentence(error)}): "
        f"check the name and the connection, or fetch it elsewhere with `hf download {name}`."
    )


def first_sentence(error: Exception) -> str:
    """Return the first sentence of an error without its full stop; a line that ends with a colon includes the next."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return said.partition(". ")[0].rstrip(". ")


def reach_hub(name: str, revision: str | None = None) -> None:
    """Raise ConnectionError if a model is neither a folder nor in the Hub's local cache and the Hub does not answer.

    `from_pretrained` and `hf_hub_download` would try six more times: half a minute without a network, six minutes
    behind a firewall that drops the requests.
    """
    try:
        if is_offline_mode() or Path(name).is_dir() or try_to_load_from_cache(name, "config.json", revision=revision):
            return
        get_hf_file_metadata(hf_hub_url(name, "config.json", revision=revision), timeout=TIMEOUT_SECONDS)
    except (HfHubHTTPError, HFValidationError):
        pass  # the Hub answered, or this cannot be an id: loading the model will say so
    except Exception as error:  # of whatever library sends the request
        raise ConnectionError(f"the Hub cannot be reached: {error}") from error
