"""`irmas models`: every architecture and released checkpoint with what it costs, and the recipe to start with."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from irmas_recipe.commands.doctor import hub_cache, is_here
from irmas_recipe.home import shipped
from irmas_recipe.training.recipe_file import read_recipe, shipped_recipes
from irmas_recipe.training.released import LICENCES_ON_THE_HUB, RELEASED

SECONDS = 3.0
HEADER = ["model", "parameters", "operations", "licence", "trained on", "here", "recipe"]
FIRST = ("finetune", "linear_probe", "zero_shot")
"""Which recipe of a checkpoint is named: the first of these."""


@dataclass(frozen=True)
class Entry:
    """A checkpoint, or an architecture to train from scratch, and the configuration of its size."""

    name: str
    architecture: str
    config: dict[str, Any] = field(default_factory=dict)
    licence: str = "-"
    trained_on: str = "nothing"


WHISPER_BASE = {"d_model": 512, "encoder_layers": 6, "encoder_attention_heads": 8, "encoder_ffn_dim": 2048}
LARGER_CLAP = {"depths": [2, 2, 12, 2], "hidden_size": 1024, "patch_embeds_hidden_size": 128}
ON_THE_HUB = tuple(
    Entry(name, architecture, config, LICENCES_ON_THE_HUB[name] + note, trained_on)
    for name, architecture, config, note, trained_on in (
        ("MIT/ast-finetuned-audioset-10-10-0.4593", "ast", {}, "", "AudioSet, mAP .459"),
        ("facebook/hubert-base-ls960", "hubert", {}, "", "960 h of speech"),
        ("microsoft/wavlm-base-plus", "wavlm", {}, "*", "94,000 h of speech"),
        ("openai/whisper-base", "whisper", WHISPER_BASE, "", "680,000 h of speech with text"),
        ("laion/larger_clap_general", "clap", LARGER_CLAP, "", "sounds, music and speech with texts"),
    )
)
"""What the recipes start from, beside the released checkpoints."""
SIZES = {"mn04": {"width_mult": 0.4}, "passt-s16": {"frequency_stride": 16, "time_stride": 16}}
"""Released checkpoints of another size than their architecture's default."""


def main(argv: list[str]) -> None:
    """Print the table."""
    argparse.ArgumentParser(
        prog="irmas models",
        description="List every architecture and released checkpoint: parameters, operations of a forward pass of 3 s, "
        "licence, training data, whether it is on this machine, and the recipe to start with.",
    ).parse_args(argv)

    from transformers.utils import logging

    from irmas_recipe.report.text import aligned

    logging.set_verbosity_error()

    rows = [HEADER, *(row_of(entry) for entry in entries())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(*(aligned(row, widths) for row in rows), sep="\n")
    print(
        f"\nOperations: multiplications and additions, for a window of {SECONDS:g} s; Whisper and CLAP fill it up to 30 and "
        "10 s. An architecture without a checkpoint has its default size. Any other id on the Hub works with the "
        "recipe of its architecture, and any encoder with encoder/finetune: --model_name_or_path ID.\n"
        "* By the licence that its card links to; the repository of its code says MIT (microsoft/unilm issue 1757)."
    )


def entries() -> list[Entry]:
    """Return the checkpoints that are known here, then the architectures without one."""
    from irmas_recipe.models import ARCHITECTURES, OF_TRANSFORMERS

    released = [
        Entry(one.path, one.architecture, SIZES.get(one.name, {}), one.licence, one.trained_on)
        for one in RELEASED.values()
    ]
    started = {entry.architecture for entry in (*ON_THE_HUB, *released)} | {"audio-spectrogram-transformer"}  # as ast
    others = sorted({*ARCHITECTURES, *OF_TRANSFORMERS} - started)
    return [*ON_THE_HUB, *released, *(Entry(architecture, architecture) for architecture in others)]


def row_of(entry: Entry) -> list[str]:
    """Return an entry's row of the table."""
    is_checkpoint = "/" in entry.name
    here = ("yes" if is_here(entry.name, hub_cache()) else "no") if is_checkpoint else "-"
    return [entry.name, *cost_of(entry), entry.licence, entry.trained_on, here, recipe_of(entry)]


def recipe_of(entry: Entry) -> str:
    """Return the recipe that starts from a checkpoint, or trains an architecture without one."""
    ranked = sorted(shipped_recipes(), key=lambda path: (path.parent.name != entry.architecture, rank(path)))
    for path in ranked:
        values = read_recipe(path)
        start = values.get("model_name_or_path") or values.get("architecture")
        if "system" not in values and start == entry.name:
            return name_of(path)
    own = [path for path in ranked if path.parent.name == entry.architecture]
    any_encoder = "encoder/finetune --model_name_or_path ID"
    return f"{name_of(own[0])} --model_name_or_path {entry.name}" if own else any_encoder


def rank(recipe: Path) -> int:
    return FIRST.index(recipe.stem) if recipe.stem in FIRST else len(FIRST)


def name_of(recipe: Path) -> str:
    return recipe.relative_to(shipped("recipes")).with_suffix("").as_posix()


def cost_of(entry: Entry) -> tuple[str, str]:
    """Return the parameters, and the operations of a forward pass of one window, of a model without data."""
    import torch

    from irmas_recipe.commands.benchmark.ours import forward_flops
    from irmas_recipe.training.features import device_features

    extractor, config, model_class = parts_of(entry)
    features = device_features(extractor)(torch.zeros(1, round(SECONDS * extractor.sampling_rate)))
    with torch.device("meta"):
        model = model_class(config)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return f"{parameters / 1e6:.1f} M", f"{forward_flops(model, features) / 1e9:.1f} G"


def parts_of(entry: Entry) -> tuple[Any, Any, type]:
    """Return the feature extractor, the configuration and the class of a model of an entry's size."""
    from transformers import ClapAudioConfig, ClapFeatureExtractor

    from irmas_recipe.models import classes_of, encoder
    from irmas_recipe.models.ast.features import frames_in

    if entry.architecture == "clap":  # its audio tower
        own = ClapAudioConfig(**entry.config)
        config = encoder.EncoderConfig(encoder=own, embedding_size=own.hidden_size, num_labels=11)
        return ClapFeatureExtractor(truncation="rand_trunc"), config, encoder.EncoderForAudioClassification
    config_class, extractor_class, model_class = classes_of(entry.architecture)
    size = {"max_length": frames_in(SECONDS)} if entry.architecture == "ast" else {}
    return extractor_class(**size), config_class(**size, **entry.config, num_labels=11), model_class
