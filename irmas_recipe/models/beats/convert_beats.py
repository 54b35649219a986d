"""Turn a checkpoint of the authors (https://github.com/microsoft/unilm/tree/master/beats) into a model folder."""

from pathlib import Path
from typing import Any

import torch

from irmas_dataset.errors import UserError
from irmas_recipe.models.audioset import audioset_labels

from .configuration_beats import BeatsConfig
from .feature_extraction_beats import BeatsFeatureExtractor
from .modeling_beats import BeatsForAudioClassification

FIELDS = {
    "embed_dim": ("patch_embedding_size", 512),
    "conv_bias": ("patch_bias", False),
    "encoder_layers": ("num_hidden_layers", 12),
    "encoder_embed_dim": ("hidden_size", 768),
    "encoder_ffn_embed_dim": ("intermediate_size", 3072),
    "encoder_attention_heads": ("num_attention_heads", 12),
    "deep_norm": ("deep_norm", False),
    "dropout": ("hidden_dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.1),
    "activation_dropout": ("activation_dropout", 0.0),
    "encoder_layerdrop": ("layerdrop", 0.0),
    "dropout_input": ("input_dropout", 0.0),
    "predictor_dropout": ("classifier_dropout", 0.1),
    "conv_pos": ("position_kernel_size", 128),
    "conv_pos_groups": ("position_groups", 16),
    "relative_position_embedding": ("relative_position_embedding", False),
    "gru_rel_pos": ("gru_rel_pos", False),
    "num_buckets": ("num_buckets", 320),
    "max_distance": ("max_distance", 1280),
}
"""The authors' field -> (ours, the value that the authors' code takes where a checkpoint leaves the field out).

`layer_wise_gradient_decay_ratio` is not converted: it is a training setting, which the optimiser's layer-wise
learning rates replace.
"""

ONLY = {"layer_norm_first": False, "activation_fn": "gelu"}
"""What the authors' code could also do otherwise, and no released checkpoint does."""

KEYS = {
    "beats.patch_embeddings.projection.": "patch_embedding.",
    "beats.patch_embeddings.layer_norm.": "layer_norm.",
    "beats.patch_embeddings.output.": "post_extract_proj.",
    "beats.position_convolution.conv.parametrizations.weight.original0": "encoder.pos_conv.0.weight_g",
    "beats.position_convolution.conv.parametrizations.weight.original1": "encoder.pos_conv.0.weight_v",
    "beats.position_convolution.conv.": "encoder.pos_conv.0.",
    "beats.layer_norm.": "encoder.layer_norm.",
    "beats.layers.": "encoder.layers.",
    "classifier.": "predictor.",
}
"""How a weight's name begins here -> there."""

POSITION_BIAS = "beats.position_bias.embedding.weight"


def convert(checkpoint: str | Path, output_dir: str | Path) -> None:
    """Save the model and the feature extractor of the authors' file `checkpoint` into the folder `output_dir`.

    A fine-tuned checkpoint keeps its head, and its labels get AudioSet's display names. A pre-trained one has no head:
    it gets a fresh one of two labels (`config.pretrained_head` is False), to be replaced by fine-tuning. The logits are
    those whose sigmoid the authors' `extract_features` returns.
    Raises UserError if the file is not at a BEATs checkpoint, uses an option that no released checkpoint uses, or lacks,
    adds or reshapes weights.
    """
    stored = load_checkpoint(Path(checkpoint))
    config = read_config(stored, checkpoint)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the head of a pre-trained checkpoint is the only weight that stays random
        model = BeatsForAudioClassification(config)
    model.load_state_dict(rename_weights(stored["model"], model, checkpoint))
    model.save_pretrained(output_dir)
    BeatsFeatureExtractor(min_frames=config.patch_size).save_pretrained(output_dir)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read the authors' file without executing code that it may hold."""
    if not path.is_file():
        raise UserError(f"The checkpoint {path} does not exist: give the path of a BEATs .pt file.")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the unpickler raises for damaged data
        raise UserError(
            f"The checkpoint {path} cannot be read as weights: download the BEATs .pt file again."
        ) from error
    if not isinstance(stored, dict) or not all(isinstance(stored.get(key), dict) for key in ("cfg", "model")):
        raise UserError(f"{path} is not a BEATs checkpoint: it must have the two dictionaries 'cfg' and 'model'.")
    return stored


def read_config(stored: dict[str, Any], path: str | Path) -> BeatsConfig:
    """Return our configuration of the authors' `cfg` and `label_dict`."""
    cfg = stored["cfg"]
    for field, only in ONLY.items():
        if cfg.get(field, only) != only:
            raise UserError(
                f"{path} has {field}={cfg[field]!r}: only checkpoints with {field}={only!r} can be converted."
            )
    if cfg.get("input_patch_size", -1) < 1:
        raise UserError(f"{path} does not say its input_patch_size: give a BEATs model, not its tokenizer.")
    options = {ours: cfg.get(theirs, default) for theirs, (ours, default) in FIELDS.items()}
    if cfg.get("finetuned_model", False):
        names = label_names(stored.get("label_dict"), cfg.get("predictor_class", 527), path)
        options |= {"id2label": names, "label2id": {name: index for index, name in names.items()}}
    else:
        options |= {"num_labels": 2}
    try:
        return BeatsConfig(
            patch_size=cfg["input_patch_size"],
            pretrained_head=cfg.get("finetuned_model", False),
            problem_type="multi_label_classification",
            **options,
        )
    except ValueError as error:
        raise UserError(f"{path} cannot be converted: {error}") from error


def label_names(label_dict: dict | None, num_labels: int, path: str | Path) -> dict[int, str]:
    """Return index -> name; `label_dict` maps indices to AudioSet's machine ids, in an order of the authors' own.

    A label that is not a machine id keeps its text; without `label_dict` the labels are LABEL_0, LABEL_1, ...
    """
    if label_dict is None:
        return {index: f"LABEL_{index}" for index in range(num_labels)}
    display_names = dict(audioset_labels())
    names = {int(index): display_names.get(label, str(label)) for index, label in label_dict.items()}
    if sorted(names) != list(range(num_labels)):
        raise UserError(f"{path} names {len(names)} labels in 'label_dict', but its head has {num_labels}.")
    return dict(sorted(names.items()))


def rename_weights(
    weights: dict[str, torch.Tensor], model: BeatsForAudioClassification, path: str | Path
) -> dict[str, torch.Tensor]:
    """Return `model`'s state dict, float32, from the authors' `weights`; none may lack, be left over or differ in shape.

    Their file repeats the one table of relative positions in every layer. Loading it, the authors' code fills that one
    table in the order of the layers, so the last one stays, and it does here.
    """
    own = model.state_dict()
    sources = {their_name(name): name for name in own if name != POSITION_BIAS}
    if POSITION_BIAS in own:
        layers = range(model.config.num_hidden_layers)
        sources |= {
            f"encoder.layers.{layer}.self_attn.relative_attention_bias.weight": POSITION_BIAS for layer in layers
        }
    if not model.config.pretrained_head:
        del sources["predictor.weight"], sources["predictor.bias"]

    missing = ", ".join(sorted(sources.keys() - weights.keys()))
    unexpected = ", ".join(sorted(weights.keys() - sources.keys()))
    if missing or unexpected:
        raise UserError(
            f"The weights of {path} do not fit its 'cfg': missing {missing or 'none'}; unexpected {unexpected or 'none'}."
        )
    reshaped = [theirs for theirs, ours in sources.items() if weights[theirs].shape != own[ours].shape]
    if reshaped:
        raise UserError(f"The weights of {path} do not fit its 'cfg': other shapes of {', '.join(sorted(reshaped))}.")
    return own | {ours: weights[theirs].float() for theirs, ours in sources.items()}


def their_name(name: str) -> str:
    """Return the authors' name of our weight `name`."""
    for ours, theirs in KEYS.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name
