"""Convert the authors' PaSST weights (github.com/kkoutini/PaSST, releases) to a folder that Transformers loads."""

import re
from pathlib import Path

import torch

from irmas_dataset.errors import UserError
from irmas_recipe.models.audioset import audioset_labels

from . import PasstConfig, PasstFeatureExtractor, PasstForAudioClassification

AUTHORS_NAMES = {
    "passt.embeddings.projection.": "patch_embed.proj.",
    "passt.embeddings.token_positions": "new_pos_embed",
    "passt.embeddings.frequency_positions": "freq_new_pos_embed",
    "passt.embeddings.time_positions": "time_new_pos_embed",
    "passt.embeddings.": "",
    "passt.layers.": "blocks.",
    "passt.norm.": "norm.",
    ".attention.projection.": ".attn.proj.",
    ".attention.": ".attn.",
    "head_norm.": "head.0.",
    "classifier.": "head.1.",
}
"""Part of our parameter names -> the authors', applied in this order."""

DROPPED = {"head_dist.weight", "head_dist.bias"}
"""Dropped on purpose: the distillation head that DeiT left behind. PaSST never uses it, in training or after."""

STRIDES = (10, 12, 14, 16, 20)
PATCH_SIZE = 16
HEAD_SIZE = 64  # of every released PaSST; the weights do not say
NUM_MEL_BINS = 128
TEN_SECONDS = 998  # frames that the models of 10-second clips were built for


def convert(checkpoint: str | Path, output_dir: str | Path) -> None:
    """Write the model and its feature extractor to `output_dir`, from the authors' plain state dict.

    The sizes are read from the weights' shapes. Raises UserError if the file is not such a state dict, naming each
    key that is missing, unexpected or of another shape.
    """
    weights = read_weights(checkpoint)
    config = config_from_weights(weights, checkpoint)
    model = PasstForAudioClassification(config)
    model.load_state_dict(rename(weights, model, checkpoint))
    model.save_pretrained(output_dir)
    hop = re.search(r"stfthop(\d+)", Path(checkpoint).name)  # two releases have another hop, only their name says so
    PasstFeatureExtractor(
        hop_length=int(hop[1]) if hop else 320, min_frames=config.patch_size, max_frames=config.max_frames
    ).save_pretrained(output_dir)


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


def config_from_weights(weights: dict[str, torch.Tensor], checkpoint: str | Path) -> PasstConfig:
    """Return the configuration that the shapes imply.

    The number of rows of the frequency encoding, 128 // stride, tells the released strides apart; time and frequency
    have the same stride in all of them.
    """

    def shape(name: str, dimensions: int) -> torch.Size:
        if name not in weights:
            raise UserError(f"{checkpoint} is not a PaSST checkpoint: the key {name} is missing.")
        if weights[name].dim() != dimensions:
            raise UserError(
                f"{checkpoint} is not a PaSST checkpoint: {name} has the shape {tuple(weights[name].shape)}."
            )
        return weights[name].shape

    width, rows = shape("freq_new_pos_embed", 4)[1:3]
    positions = shape("time_new_pos_embed", 4)[3]
    stride_of_rows = {NUM_MEL_BINS // stride: stride for stride in STRIDES}
    if rows not in stride_of_rows:
        raise UserError(
            f"{checkpoint} has {rows} rows of patches, which no stride of {STRIDES} gives: it is not PaSST."
        )
    if width % HEAD_SIZE:
        raise UserError(
            f"{checkpoint} has a width of {width}, which is not a multiple of {HEAD_SIZE}, the released head size."
        )
    stride = stride_of_rows[rows]
    blocks = {int(match[1]) for name in weights if (match := re.match(r"blocks\.(\d+)\.", name))}
    names = [name for _, name in audioset_labels()]
    classes = shape("head.1.weight", 2)[0]
    if classes != len(names):
        names = [f"LABEL_{index}" for index in range(classes)]
    return PasstConfig(
        hidden_size=width,
        num_hidden_layers=max(blocks, default=-1) + 1,
        num_attention_heads=width // HEAD_SIZE,
        intermediate_size=shape("blocks.0.mlp.fc1.weight", 2)[0],
        num_mel_bins=NUM_MEL_BINS,
        patch_size=PATCH_SIZE,
        frequency_stride=stride,
        time_stride=stride,
        max_frames=longest_input(positions, stride),
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )


def longest_input(positions: int, stride: int) -> int:
    """Return the frames of the longest input that a time encoding of `positions` at `stride` serves.

    The authors made encodings of frames // stride positions, for 998 frames in most models. Several numbers of frames
    give the same encoding: where 998 is not one of them, or would leave the last position unused (stride 12), it is
    the fewest frames that use every position. No patch of the authors' model is lost.
    """
    fewest = max((positions - 1) * stride + PATCH_SIZE, positions * stride)
    return TEN_SECONDS if TEN_SECONDS // stride == positions and fewest <= TEN_SECONDS else fewest


def rename(weights: dict[str, torch.Tensor], model: torch.nn.Module, checkpoint: str | Path) -> dict[str, torch.Tensor]:
    """Return `weights` under our names; raise UserError naming what is missing, unexpected or of another shape."""
    ours = model.state_dict()
    authors = {authors_name(name): name for name in ours}
    problems = [f"the key {name} is missing" for name in sorted(authors.keys() | DROPPED) if name not in weights]
    problems += [f"the key {name} is unexpected" for name in weights if name not in authors.keys() | DROPPED]
    problems += [
        f"{theirs} has the shape {tuple(weights[theirs].shape)} instead of {tuple(ours[name].shape)}"
        for theirs, name in authors.items()
        if theirs in weights and weights[theirs].shape != ours[name].shape
    ]
    if problems:
        raise UserError(f"{checkpoint} is not a PaSST checkpoint: {'; '.join(problems)}.")
    return {name: weights[theirs] for theirs, name in authors.items()}


def authors_name(name: str) -> str:
    """Return the authors' name of our parameter `name`."""
    for ours, theirs in AUTHORS_NAMES.items():
        name = name.replace(ours, theirs)
    return name
