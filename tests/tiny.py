"""Every small model of the tests: one untrained instance of each architecture, and folders of them as runs save them."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    PreTrainedModel,
    WhisperForConditionalGeneration,
)
from transformers.feature_extraction_utils import FeatureExtractionMixin

import irmas_recipe.models  # noqa: F401  registers our architectures with the Auto classes
from irmas_dataset.labels import INSTRUMENT_NAMES
from irmas_recipe.models.audioset import audioset_labels
from irmas_recipe.models.beats import BeatsConfig, BeatsFeatureExtractor, BeatsForAudioClassification
from irmas_recipe.models.cnn import CnnConfig, CnnFeatureExtractor, CnnForAudioClassification
from irmas_recipe.models.crnn import CrnnConfig, CrnnFeatureExtractor, CrnnForAudioClassification
from irmas_recipe.models.mfcc import MfccConfig, MfccFeatureExtractor, MfccForAudioClassification
from irmas_recipe.models.mobilenet import (
    MobileNetAudioConfig,
    MobileNetAudioFeatureExtractor,
    MobileNetAudioForAudioClassification,
)
from irmas_recipe.models.mobilenet.convert_mobilenet import authors_prefixes
from irmas_recipe.models.passt import PasstConfig, PasstFeatureExtractor, PasstForAudioClassification
from irmas_recipe.models.passt.convert_passt import authors_name
from irmas_recipe.models.pipeline.attach import attach_pipeline
from tests.tiny_speech import CONFIGURATIONS, saved_clap, tiny_clap, tiny_encoder, tiny_speech

SECONDS = 1.0
"""Length of the clips that the suite feeds; a model of a fixed input length is built for it."""

TinyModel = tuple[PreTrainedModel, FeatureExtractionMixin]


BLOCKS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
"""Sizes of a narrow transformer."""


def label_options(names: Iterable[str] = tuple(INSTRUMENT_NAMES.values())) -> dict:
    """Return the configuration options of a multi-label head, by default over the eleven instruments."""
    names = list(names)
    return {
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
        "problem_type": "multi_label_classification",
    }


def save(model: PreTrainedModel, extractor: FeatureExtractionMixin, folder: Path) -> Path:
    """Save a model and its feature extractor into a folder; return the folder."""
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


def small_ast(labels: Iterable[str], seed: int = 0, mel_bins: int = 128, layers: int = 1, **config) -> TinyModel:
    """Return a random AST of one second, which knows `labels`; `config` are further fields of its configuration."""
    sizes = BLOCKS | {"num_hidden_layers": layers, "num_mel_bins": mel_bins, "max_length": 98}
    torch.manual_seed(seed)
    model = ASTForAudioClassification(ASTConfig(**sizes | label_options(labels) | config))
    return model, ASTFeatureExtractor(max_length=98, num_mel_bins=mel_bins)


def saved_run(folder: Path, labels: Iterable[str], thresholds: Sequence[float], seed: int = 0) -> Path:
    """Save a random AST as a run saves its model: 1 s windows every 0.5 s, thresholds, the pipeline's code."""
    protocol = {"window_seconds": 1.0, "hop_seconds": 0.5, "aggregation": "mean", "thresholds": list(thresholds)}
    save(*small_ast(labels, seed, mel_bins=32, **protocol), folder)
    attach_pipeline(folder)
    return folder


def released(architecture: str, folder: Path, std: float | None = None) -> Path:
    """Save a narrow, random model in the form of a released AudioSet checkpoint: 527 labels, the released patch grid.

    std: of all weights; None keeps the architecture's own initialisation.
    """
    labels = label_options(name for _, name in audioset_labels())
    torch.manual_seed(0)
    if architecture in CONFIGURATIONS:  # published without a classifier's head
        return encoder(architecture, folder)
    if architecture == "encoder":
        return encoder("wavlm", folder)
    if architecture == "clap":
        return saved_clap(folder)
    if architecture == "ast":
        model, extractor = ASTForAudioClassification(ASTConfig(**BLOCKS, **labels)), ASTFeatureExtractor()
    elif architecture == "beats":
        config = BeatsConfig(**BLOCKS, **labels, position_groups=4, patch_embedding_size=8)
        model, extractor = BeatsForAudioClassification(config), BeatsFeatureExtractor()
    elif architecture == "passt":
        model, extractor = PasstForAudioClassification(PasstConfig(**BLOCKS, **labels)), PasstFeatureExtractor()
    else:
        model = MobileNetAudioForAudioClassification(MobileNetAudioConfig(width_mult=0.1, **labels))
        extractor = MobileNetAudioFeatureExtractor()
    for parameter in model.parameters() if std else ():
        nn.init.normal_(parameter, std=std)
    return save(model, extractor, folder)


def encoder(architecture: str, folder: Path) -> Path:
    """Save a narrow, random encoder of speech as its authors publish it: without a classifier's head, trained with masks."""
    longer = {"max_source_positions": 200} if architecture == "whisper" else {"mask_time_prob": 0.05, "layerdrop": 0.1}
    model, extractor = tiny_speech(architecture, use_weighted_layer_sum=False, **longer)
    if architecture == "whisper":
        model, extractor.chunk_length = WhisperForConditionalGeneration(model.config), 4
        extractor.n_samples, extractor.nb_max_frames = 64000, 400
    else:
        model = model.base_model
    return save(model, extractor, folder)


def authors_file(architecture: str, file: Path) -> Path:
    """Write a narrow, random mobilenet or passt as its authors publish weights, with AudioSet's 527 classes; return the file."""
    torch.manual_seed(0)
    if architecture == "mobilenet":
        model = MobileNetAudioForAudioClassification(MobileNetAudioConfig(width_mult=0.1, num_labels=527))
        prefixes = authors_prefixes(model)
        ours = {name: next(prefix for prefix in prefixes if name.startswith(prefix)) for name in model.state_dict()}
        names = {name: prefixes[prefix] + name.removeprefix(prefix) for name, prefix in ours.items()}
        dropped = {}
    else:
        sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 64}
        model = PasstForAudioClassification(PasstConfig(**sizes, num_labels=527))
        names = {name: authors_name(name) for name in model.state_dict()}
        dropped = {"head_dist.weight": torch.zeros(527, 64), "head_dist.bias": torch.zeros(527)}
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({names[name]: weight for name, weight in model.state_dict().items()} | dropped, file)
    return file


def tiny_ast() -> TinyModel:
    model = ASTForAudioClassification(ASTConfig(**BLOCKS, max_length=98, **label_options()))  # 98 frames in one second
    return model, ASTFeatureExtractor(max_length=98)


def tiny_beats() -> TinyModel:
    config = BeatsConfig(
        patch_embedding_size=12,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=24,
        position_kernel_size=8,
        position_groups=4,
        layerdrop=0.1,
        classifier_dropout=0.1,
        **label_options(),
    )
    return BeatsForAudioClassification(config), BeatsFeatureExtractor()


def tiny_passt() -> TinyModel:
    config = PasstConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_frames=200,
        patchout_time=2,
        patchout_frequency=1,
        patchout_tokens=3,
        drop_path_rate=0.1,
        **label_options(),
    )
    return PasstForAudioClassification(config), PasstFeatureExtractor(max_frames=200)


def tiny_mobilenet() -> TinyModel:
    model = MobileNetAudioForAudioClassification(MobileNetAudioConfig(width_mult=0.1, **label_options()))
    # Fresh batch statistics would let the untrained maps vanish: take those of one batch of noise.
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(4, 100, 128))
    for norm in norms:
        norm.momentum = 0.01
    return model, MobileNetAudioFeatureExtractor()


def tiny_cnn() -> TinyModel:
    config = CnnConfig(filters=[4, 4, 8, 8], hidden_size=16, **label_options())
    return CnnForAudioClassification(config), CnnFeatureExtractor()


def tiny_crnn() -> TinyModel:
    config = CrnnConfig(filters=[4, 4, 8, 8], gru_hidden_size=8, **label_options())
    return CrnnForAudioClassification(config), CrnnFeatureExtractor(representation="modgd")


def tiny_swin() -> TinyModel:
    swin = {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
    config = CrnnConfig(network="swin", swin=swin, **label_options())
    return CrnnForAudioClassification(config), CrnnFeatureExtractor(representation="tempogram")


def tiny_mfcc() -> TinyModel:
    config = MfccConfig(filters=[4, 4], dense_sizes=[8, 4], **label_options())
    return MfccForAudioClassification(config), MfccFeatureExtractor()


TINY: dict[str, Callable[[], TinyModel]] = {
    "ast": tiny_ast,
    "beats": tiny_beats,
    "cnn": tiny_cnn,
    "crnn": tiny_crnn,
    "encoder": partial(tiny_encoder, **label_options()),
    "encoder-of-clap": partial(tiny_clap, **label_options()),
    "mfcc": tiny_mfcc,
    "mobilenet": tiny_mobilenet,
    "passt": tiny_passt,
    "swin": tiny_swin,
    **{name: partial(tiny_speech, name, **label_options()) for name in CONFIGURATIONS},
}
"""Name of an architecture -> builder; a new model adds one function and one line."""


def build(name: str, seed: int = 0) -> TinyModel:
    """Return the tiny model `name` in evaluation mode, with weights that depend on `seed` only, and its extractor."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, feature_extractor = TINY[name]()
    return model.eval(), feature_extractor
