"""A tiny, random instance of each speech model of transformers that classifies audio, and of encoders without a classifier."""

import json
from pathlib import Path

from transformers import (
    ClapAudioConfig,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    HubertConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Wav2Vec2FeatureExtractor,
)
from transformers.feature_extraction_utils import FeatureExtractionMixin

from irmas_recipe.models import classes_of
from irmas_recipe.models.encoder import EncoderConfig, EncoderForAudioClassification

SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
HEAD = {"classifier_proj_size": 8, "use_weighted_layer_sum": True}
UNCHANGED = {"layerdrop": 0.0, "mask_time_prob": 0.0, "mask_feature_prob": 0.0}
"""Without layer drop and masks, so that a step in training mode uses every parameter."""
CONVOLUTIONS = {"conv_dim": (8, 8, 8), "conv_kernel": (10, 8, 4), "conv_stride": (10, 8, 4)}
POSITIONS = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}

LAST_LAYER = {"use_weighted_layer_sum": False}
"""For models with a part after their layers, which the sum of these would not use."""

WAVEFORM = SIZES | HEAD | UNCHANGED | CONVOLUTIONS | POSITIONS
WHISPER = {"d_model": 16, "encoder_layers": 3, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_layers": 1,
           "decoder_attention_heads": 2, "decoder_ffn_dim": 32, "max_source_positions": 50}  # fmt: skip
CONFIGURATIONS: dict[str, dict] = {
    "data2vec-audio": WAVEFORM | {"conv_pos_kernel_size": 3, "num_conv_pos_embeddings": 2},
    "hubert": WAVEFORM,
    "sew": WAVEFORM | LAST_LAYER,
    "sew-d": WAVEFORM | LAST_LAYER | {"position_buckets": 8, "max_position_embeddings": 64},
    "unispeech": WAVEFORM,
    "unispeech-sat": WAVEFORM,
    "wav2vec2": WAVEFORM,
    "wav2vec2-bert": SIZES | HEAD | UNCHANGED | {"conv_depthwise_kernel_size": 7},
    "wav2vec2-conformer": WAVEFORM | LAST_LAYER | {"conv_depthwise_kernel_size": 7},
    "wavlm": WAVEFORM,
    "whisper": WHISPER | HEAD | {"encoder_layerdrop": 0.0},
}
UNUSED = {"unispeech-sat": "masked_spec_embed", "wav2vec2-conformer": "pos_conv_embed"}
"""What these models have and do not use here: the mask of training, positions of another kind."""
EXTRACTORS = {"whisper": {"chunk_length": 1}}


def tiny_speech(architecture: str, **options) -> tuple[PreTrainedModel, FeatureExtractionMixin]:
    """Return a speech model whose configuration has these further `options`, and its feature extractor."""
    config, extractor, model = classes_of(architecture)
    return model(config(**CONFIGURATIONS[architecture] | options)), extractor(**EXTRACTORS.get(architecture, {}))


CLAP_AUDIO = {
    "patch_embeds_hidden_size": 8, "depths": [1, 1], "num_attention_heads": [1, 2], "hidden_size": 16, "projection_dim": 8,
    "num_hidden_layers": 2, "drop_path_rate": 0.0,
}  # fmt: skip
CLAP_TEXT = SIZES | {"initializer_factor": 50.0, "vocab_size": 32, "max_position_embeddings": 40, "projection_dim": 8}
WORDS = ["<s>", "<pad>", "</s>", "<unk>", "the", "sound", "of", "a", "music", "cello", "clarinet", "flute", "acoustic", "electric",
         "guitar", "organ", "piano", "saxophone", "trumpet", "violin", "voice"]  # fmt: skip


def tiny_encoder(**options) -> tuple[PreTrainedModel, FeatureExtractionMixin]:
    """Return HuBERT's encoder with a mixture of its layers."""
    own = HubertConfig(**WAVEFORM)
    model = EncoderForAudioClassification(EncoderConfig(encoder=own, mixed_layers=4, embedding_size=16, **options))
    return model, Wav2Vec2FeatureExtractor()


def tiny_clap(pooling: str = "projection", **options) -> tuple[PreTrainedModel, FeatureExtractionMixin]:
    """Return CLAP's audio tower, which hears 1 s."""
    sizes = {"pooling": pooling, "embedding_size": 8 if pooling == "projection" else 16}
    model = EncoderForAudioClassification(EncoderConfig(encoder=ClapAudioConfig(**CLAP_AUDIO), **sizes, **options))
    return model, ClapFeatureExtractor(max_length_s=1, truncation="rand_trunc")


def saved_clap(folder: Path) -> Path:
    """Save a random CLAP with its tokenizer and feature extractor, as its authors publish it; return the folder."""
    ClapModel(ClapConfig(audio_config=CLAP_AUDIO, text_config=CLAP_TEXT, projection_dim=8)).save_pretrained(folder)
    ClapFeatureExtractor(truncation="rand_trunc").save_pretrained(folder)
    words = {"type": "WordLevel", "vocab": {word: place for place, word in enumerate(WORDS)}, "unk_token": "<unk>"}
    file = folder / "words.json"
    file.write_text(json.dumps({"version": "1.0", "model": words, "pre_tokenizer": {"type": "Whitespace"}}))
    PreTrainedTokenizerFast(tokenizer_file=str(file), pad_token="<pad>", unk_token="<unk>").save_pretrained(folder)
    return folder
