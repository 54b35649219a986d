"""From a recipe to a model and its feature extractor: load strictly, fit the window, start the head, freeze."""

import logging
from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor

from irmas_dataset.errors import UserError
from irmas_dataset.labels import AUDIOSET_LABELS, readable_name
from models import ARCHITECTURES
from models.mfcc import with_labels
from training import ast
from training.arguments import ModelArguments
from training.head import CHECKPOINT_SCALE
from training.hub import reach_hub

logger = logging.getLogger(__name__)

AST_TYPE = "audio-spectrogram-transformer"
CONVERTIBLE = ("beats", "mobilenet", "passt")  # released as bare weights, which `convert` turns into a folder
PATCHOUT_FIELDS = ("patchout_time", "patchout_frequency", "patchout_tokens")
REGULARIZATION = {
    "layerdrop": ("layerdrop",),
    "drop_path_rate": ("drop_path_rate",),
    "head_dropout": ("head_dropout", "classifier_dropout"),
}
"""Field of a recipe -> what the architectures' configurations call it."""


def load_model(
    arguments: ModelArguments, classes: list[str], window_seconds: float, trained: bool = True
) -> tuple[PreTrainedModel, SequenceFeatureExtractor]:
    """Return the recipe's model, with one output a class and the window's length, and its feature extractor.

    Args:
        classes: the dataset's class codes, in the order of its ClassLabel.
        window_seconds: length of the model's input.
        trained: whether training follows; if not, the checkpoint must know every class, and its head stays as it is.
    Raises:
        UserError: a checkpoint that is not there, incomplete, or does not know the instruments it should start from.
    """
    labels = [readable_name(code) for code in classes]
    if arguments.model_name_or_path:
        model, extractor = load_pretrained(arguments)
        unknown = missing_labels(model, labels)
        if unknown and not trained:
            raise UserError(
                f"{arguments.model_name_or_path} has no class for {', '.join(unknown)} and the recipe trains nothing: name a "
                "checkpoint that knows them, or set --num_train_epochs."
            )
    else:
        model, extractor = from_scratch(arguments, labels, window_seconds)
    fit_window(model, extractor, window_seconds)
    if arguments.freeze == "known_labels" and trained:
        model = add_sub_networks(model, labels)
    start_head(model, labels, arguments.head_initialization if trained else "labels")
    apply_patchout(model, arguments)
    if model.config.model_type == AST_TYPE:
        ast.compute_only_what_is_pooled(model)
        if arguments.head_dropout:
            ast.add_head_dropout(model, arguments.head_dropout)
    try_window(model, extractor, window_seconds)
    if arguments.freeze == "backbone":
        freeze_backbone(model)
    elif arguments.freeze == "batch_norm":
        freeze_batch_norm(model)
    model.config.problem_type = "multi_label_classification"
    model.accepts_loss_kwargs = False  # else the Trainer leaves dividing by accumulation steps to a loss that does not
    return model, extractor


def from_scratch(
    arguments: ModelArguments, labels: list[str], window_seconds: float
) -> tuple[PreTrainedModel, SequenceFeatureExtractor]:
    """Return a randomly initialised model of one of the project's architectures."""
    if arguments.architecture not in ARCHITECTURES:
        raise UserError(f"--architecture {arguments.architecture} is not one of {', '.join(sorted(ARCHITECTURES))}.")
    config_class, extractor_class, model_class = ARCHITECTURES[arguments.architecture]
    fields = dict(arguments.model_config or {})
    extractor_fields = dict(arguments.feature_extractor_config or {})
    if arguments.architecture == "ast":
        fields["max_length"] = extractor_fields["max_length"] = ast.frames_in(window_seconds)
    check_fields(fields, config_class(), "model_config")
    check_fields(extractor_fields, extractor_class(), "feature_extractor_config")
    try:
        config = config_class(**fields, id2label=dict(enumerate(labels)), label2id={n: i for i, n in enumerate(labels)})
        set_regularization(config, arguments)
        model = model_class(config)
        if arguments.architecture == "ast":
            ast.initialize_tokens(model)
        if arguments.backbone_name_or_path:
            load_backbone(model, arguments.backbone_name_or_path)
        return model, extractor_class(**extractor_fields)
    except ValueError as error:
        raise UserError(f"--model_config is not possible for {arguments.architecture}: {error}") from error


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
        f"convert them with `python run_irmas.py convert {ports[0]} DOWNLOADED_FILE {name}`, or name another folder with "
        "--model_name_or_path."
    )


def first_sentence(error: Exception) -> str:
    """Return the first line of an error, without its final stop."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(". ")


def fit_window(model: PreTrainedModel, extractor: SequenceFeatureExtractor, window_seconds: float) -> None:
    """Make model and feature extractor take exactly the window. Only AST has a fixed length; the others take any."""
    if model.config.model_type != AST_TYPE:
        return
    frames = ast.frames_in(window_seconds, extractor.sampling_rate)
    if frames != model.config.max_length:
        ast.crop_to_frames(model, frames)
    extractor.max_length = frames


def output_layer(model: nn.Module) -> tuple[str, nn.Linear]:
    """Return the name and the module of the last linear layer, which gives the logits."""
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    name, layer = linear[-1]
    if layer.out_features != model.config.num_labels:
        raise UserError(
            f"{model.config.model_type} has no single output layer, so its head can be neither replaced, nor fitted or trained "
            "alone: keep the checkpoint's classes, --freeze none and --head_initialization labels, or add classes with "
            "--freeze known_labels where it can."
        )
    return name, layer


def start_head(model: PreTrainedModel, labels: list[str], initialization: str) -> None:
    """Give the model one output a label, in place; each starts from the checkpoint's row for it, looked up by name.

    A row is found under the label's own name (a model trained on the same classes) or its AudioSet name. A label that
    the checkpoint does not know starts fresh, and a warning names it. Where a regression follows, the rows are what it is
    pulled towards: scaled, and nothing for an unknown label.
    """
    own_names = [model.config.id2label[i] for i in range(model.config.num_labels)]
    if own_names == labels:
        return
    row_of = {name: row for row, name in enumerate(own_names)}
    rows = [row_of.get(label, row_of.get(AUDIOSET_LABELS.get(label))) for label in labels]
    name, old = output_layer(model)
    new = nn.Linear(old.in_features, len(labels))
    nn.init.trunc_normal_(new.weight, std=getattr(model.config, "initializer_range", 0.02))
    nn.init.zeros_(new.bias)
    if initialization == "regression":
        nn.init.zeros_(new.weight)
    if initialization != "random":
        scale = CHECKPOINT_SCALE if initialization == "regression" else 1.0
        with torch.no_grad():
            for row, source in enumerate(rows):
                if source is not None:
                    new.weight[row] = scale * old.weight[source]
                    new.bias[row] = scale * old.bias[source]
        if unknown := missing_labels(model, labels):
            logger.warning("The checkpoint has no class for %s: the head starts fresh there.", ", ".join(unknown))
    if thresholds := getattr(model.config, "thresholds", None):  # they follow their labels, or mean nothing any more
        model.config.thresholds = None if None in rows else [thresholds[row] for row in rows]
    model.set_submodule(name, new)
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: i for i, label in enumerate(labels)}
    model.num_labels = len(labels)


def add_sub_networks(model: PreTrainedModel, labels: list[str]) -> PreTrainedModel:
    """Return a model of sub-networks with a new one for each label that it lacks, in the labels' order, the old ones frozen.

    Raises:
        UserError: the model has no sub-networks, or the data has nothing new or lacks one of the model's classes.
    """
    if not hasattr(model, "subnetworks"):
        raise UserError(
            f"--freeze known_labels needs a sub-network a class, which {model.config.model_type} does not have: choose "
            "an mfcc run, or --freeze backbone."
        )
    if lost := sorted(set(model.label_names) - set(labels)):
        raise UserError(
            f"--freeze known_labels keeps the checkpoint's classes, but the data has none of {', '.join(lost)}: add clips of "
            "it, which a new class needs as counterexamples anyway."
        )
    if set(labels) == set(model.label_names):
        raise UserError("--freeze known_labels has nothing to train: the checkpoint knows every class of the data.")
    return with_labels(model, labels)


def missing_labels(model: PreTrainedModel, labels: list[str]) -> list[str]:
    """Return the labels that a checkpoint's head does not name, under their own or AudioSet's name."""
    names = set(model.config.id2label.values())
    return [label for label in labels if label not in names and AUDIOSET_LABELS.get(label) not in names]


def apply_patchout(model: PreTrainedModel, arguments: ModelArguments) -> None:
    """Switch on patchout: AST by a hook, a model of ours by its own configuration."""
    counts = {name: getattr(arguments, name) for name in PATCHOUT_FIELDS}
    if not any(counts.values()):
        return
    if model.config.model_type == AST_TYPE:
        ast.add_patchout(model, *counts.values())
    elif all(hasattr(model.config, name) for name in PATCHOUT_FIELDS):
        for name, count in counts.items():
            setattr(model.config, name, count)
    else:
        raise UserError(f"{model.config.model_type} has no patches to drop: remove patchout_* from the recipe.")


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


def try_window(model: PreTrainedModel, extractor: SequenceFeatureExtractor, window_seconds: float) -> None:
    """Run one silent window through the model, so that what it cannot take is refused before any work.

    Raises:
        UserError: the window is too long or too short, or patchout leaves nothing of it.
    """
    silence = torch.zeros(1, round(window_seconds * extractor.sampling_rate))
    drops_patches = any(getattr(model.config, name, 0) for name in PATCHOUT_FIELDS)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            model.train(drops_patches)(device_features(extractor)(silence))
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"{model.config.model_type} cannot take windows of {window_seconds:g} s: {first_sentence(error)} "
            "(--window_seconds, --patchout_*)."
        ) from error


def freeze_backbone(model: PreTrainedModel) -> None:
    """Leave only the last linear layer trainable."""
    model.requires_grad_(False)
    output_layer(model)[1].requires_grad_(True)


def freeze_batch_norm(model: PreTrainedModel) -> None:
    """Train neither the scale and shift of batch normalisation nor, since the Trainer keeps frozen modules in evaluation
    mode, its statistics.

    Raises:
        UserError: the model has none.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        raise UserError(f"{model.config.model_type} has no batch normalisation: set --freeze none.")
    for norm in norms:
        norm.requires_grad_(False)


def device_features(extractor: SequenceFeatureExtractor):
    """Return a function from waveforms (batch, samples) in [-1, 1] to features, batched, on the waveforms' device.

    It gives what the saved feature extractor gives (tested to 1e-3).
    """
    if hasattr(extractor, "extract"):
        return extractor.extract
    return ast.AstFeatures(extractor)
