"""Convert EfficientAT's `mn` weights (github.com/fschmid56/EfficientAT, releases) to a folder that Transformers loads."""

import re
from pathlib import Path

import torch

from irmas_dataset.errors import UserError
from irmas_recipe.models.audioset import audioset_labels

from . import MobileNetAudioConfig, MobileNetAudioFeatureExtractor, MobileNetAudioForAudioClassification


def convert(checkpoint: str | Path, output_dir: str | Path) -> None:
    """Write the model and its feature extractor to `output_dir`, from the authors' plain state dict.

    The width is read from the weights' shapes. Raises UserError if the file is not such a state dict, naming each key
    that is missing, unexpected or of another shape; the models with a fully convolutional head are refused as well.
    """
    weights = read_weights(checkpoint)
    model = MobileNetAudioForAudioClassification(config_from_weights(weights, checkpoint))
    model.load_state_dict(rename(weights, model, checkpoint))
    model.save_pretrained(output_dir)
    extractor_from_name(Path(checkpoint).name).save_pretrained(output_dir)


def read_weights(checkpoint: str | Path) -> dict[str, torch.Tensor]:
    """Return the state dict in `checkpoint`; raise UserError for a file that is anything else, without running it."""
    try:
        weights = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(
            f"{checkpoint} cannot be read ({error.strerror}): give the path of the authors' .pt file."
        ) from None
    except Exception:  # whatever the unpickler raises for damaged data
        raise UserError(
            f"{checkpoint} is refused: it is damaged, or contains Python objects besides plain weights; "
            "download the authors' .pt file again."
        ) from None
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise UserError(f"{checkpoint} is not a plain state dict (name -> tensor): give the authors' .pt file.")
    return weights


def config_from_weights(weights: dict[str, torch.Tensor], checkpoint: str | Path) -> MobileNetAudioConfig:
    """Return the configuration that the shapes of the two linear layers of the head imply."""
    for name in ("classifier.2.weight", "classifier.5.weight"):
        if name not in weights:
            raise UserError(
                f"{checkpoint} is not an EfficientAT mn checkpoint with a linear head: the key {name} is missing."
            )
        if weights[name].dim() != 2:
            raise UserError(f"{checkpoint} is not an EfficientAT mn checkpoint: {name} is not a matrix.")
    names = [name for _, name in audioset_labels()]
    classes = len(weights["classifier.5.weight"])
    if classes != len(names):
        names = [f"LABEL_{index}" for index in range(classes)]
    return MobileNetAudioConfig(
        # This layer is 1280 * width_mult wide, to the nearest multiple of 8: exact for a width of two decimals.
        width_mult=round(len(weights["classifier.2.weight"]) / 1280, 2),
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )


def extractor_from_name(file_name: str) -> MobileNetAudioFeatureExtractor:
    """Return the feature extractor of a released file.

    A few of them differ in the hop (`mn10_as_hop_5`, in milliseconds) or the mel bands (`mn10_as_mels_40`), which the
    weights do not show, only the name.
    """
    hop_milliseconds = re.search(r"_hop_(\d+)", file_name)
    bands = re.search(r"_mels_(\d+)", file_name)
    return MobileNetAudioFeatureExtractor(
        feature_size=int(bands[1]) if bands else 128,
        hop_length=32 * int(hop_milliseconds[1]) if hop_milliseconds else 320,
    )


def rename(weights: dict[str, torch.Tensor], model: torch.nn.Module, checkpoint: str | Path) -> dict[str, torch.Tensor]:
    """Return `weights` under our names; raise UserError naming what is missing, unexpected or of another shape."""
    ours = model.state_dict()
    prefixes = authors_prefixes(model)
    authors = {}
    for name in ours:
        prefix = next(prefix for prefix in prefixes if name.startswith(prefix))
        authors[prefixes[prefix] + name.removeprefix(prefix)] = name
    problems = [f"the key {name} is missing" for name in authors if name not in weights]
    problems += [f"the key {name} is unexpected" for name in weights if name not in authors]
    problems += [
        f"{theirs} has the shape {tuple(weights[theirs].shape)} instead of {tuple(ours[name].shape)}"
        for theirs, name in authors.items()
        if theirs in weights and weights[theirs].shape != ours[name].shape
    ]
    if problems:
        raise UserError(f"{checkpoint} is not an EfficientAT mn checkpoint: {'; '.join(problems)}.")
    return {name: weights[theirs] for theirs, name in authors.items()}


def authors_prefixes(model: MobileNetAudioForAudioClassification) -> dict[str, str]:
    """Return how our parameters' names begin -> how the authors' do; theirs number the parts that a block has."""
    prefixes = {"mobilenet.stem.": "features.0."}
    for index, layer in enumerate(model.mobilenet.layers):
        for position, part in enumerate(layer.block._modules):
            inside = "conc_se_layers.0." if part == "squeeze_excitation" else ""
            prefixes[f"mobilenet.layers.{index}.block.{part}."] = f"features.{index + 1}.block.{position}.{inside}"
    prefixes["mobilenet.last."] = f"features.{len(model.mobilenet.layers) + 1}."
    return prefixes | {"projection.": "classifier.2.", "classifier.": "classifier.5."}
