"""A bare encoder, such as WavLM or CLAP's audio tower, becomes a classifier; CLAP's can start from the classes' names."""

from typing import Any

import torch
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer, ClapModel, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING, MODEL_MAPPING

from irmas_dataset.errors import UserError
from irmas_recipe.models.encoder import EncoderConfig, EncoderForAudioClassification

SAME_TEXT = 0.98
"""Above this mean cosine between the texts of classes, a text encoder does not tell them apart."""
NEUTRAL_TEXT = "the sound of music"
LABEL = "{label}"  # where a prompt has the name of a class


def is_classifier(config: PreTrainedConfig) -> bool:
    """Tell whether transformers, this project or the model's own code can classify audio with this architecture."""
    own_code = getattr(config, "auto_map", None) or {}
    return type(config) in MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING or "AutoModelForAudioClassification" in own_code


def load_encoder(name: str, config: PreTrainedConfig, pooling: str, **options: Any) -> PreTrainedModel:
    """Return a classifier with a fresh output layer on top of a checkpoint's encoder.

    Args:
        config: of the checkpoint.
        pooling: `layers` or `projection`, see EncoderConfig.
        options: those of `from_pretrained`.

    Raises:
        UserError: it is no encoder of audio, or its weights are not complete.
    """
    is_clap = config.model_type == "clap"
    if pooling == "projection" and not is_clap:
        raise UserError(
            f"--head_initialization text needs a CLAP, which has learned from texts; {config.model_type} has not."
        )
    own = config.audio_config if is_clap else config
    has_code = type(config) in MODEL_MAPPING or "AutoModel" in (getattr(config, "auto_map", None) or {})
    if not has_code or not hasattr(own, "hidden_size"):
        raise UserError(
            f"{name} ({config.model_type}) is no encoder of audio that stands alone: choose another --model_name_or_path, or "
            "remove --architecture encoder; --freeze backbone trains the last layer of any network alone."
        )
    layers = 1 if is_clap else getattr(own, "num_hidden_layers", 0) + 1
    size = own.projection_dim if pooling == "projection" else own.hidden_size
    loaded, report = (ClapModel if is_clap else AutoModel).from_pretrained(
        name, config=config, dtype=torch.float32, weights_only=True, output_loading_info=True, **options
    )
    if missing := [key for key in report["missing_keys"] if not key.endswith("masked_spec_embed")]:
        raise UserError(f"{name} has no weights for {missing[0]}: fetch it again, or use another model.")
    model = EncoderForAudioClassification(
        EncoderConfig(encoder=own, pooling=pooling, mixed_layers=layers, embedding_size=size)
    )
    model.encoder.load_state_dict(audio_weights(loaded, pooling))
    return model


def audio_weights(loaded: PreTrainedModel, pooling: str) -> dict[str, torch.Tensor]:
    """Return the weights of the part of a loaded model that hears, under the encoder's names."""
    if isinstance(loaded, ClapModel):
        if pooling == "layers":
            return loaded.audio_model.state_dict()
        parts = ("audio_model.", "audio_projection.")
        return {key: weight for key, weight in loaded.state_dict().items() if key.startswith(parts)}
    return (loaded.get_encoder() if loaded.config.is_encoder_decoder else loaded).state_dict()


@torch.no_grad()
def start_head_by_text(model: PreTrainedModel, name: str, labels: list[str], prompt: str, **options: Any) -> None:
    """Start each class of a CLAP, in place, from what its text encoder makes of the class's name in the prompt.

    A logit is then the log odds, in CLAP's own softmax, of this text against one that names no instrument.

    Args:
        name: the CLAP's folder or id on the Hub.
        prompt: such as "the sound of a {label}".
        options: those of `from_pretrained`.

    Raises:
        UserError: the prompt does not name the class, or the text encoder gives one vector for all.
    """
    if LABEL not in prompt:
        raise UserError(f"--text_prompt '{prompt}' does not say where the name of a class goes: write {LABEL} there.")
    clap = ClapModel.from_pretrained(name, dtype=torch.float32, **options)
    texts = [prompt.replace(LABEL, label) for label in labels]
    tokens = AutoTokenizer.from_pretrained(name, **options)([*texts, NEUTRAL_TEXT], padding=True, return_tensors="pt")
    embeddings = clap.get_text_features(**tokens).pooler_output
    if len(labels) > 1 and (alike := mean_cosine(embeddings[:-1])) > SAME_TEXT:
        raise UserError(
            f"The text encoder of {name} gives nearly the same vector for every class (mean cosine {alike:.4f}), as the "
            "laion/larger_clap_music of the Hub does: choose another --model_name_or_path, such as "
            "laion/larger_clap_general, or --head_initialization random."
        )
    model.classifier.weight.copy_(clap.logit_scale_a.exp() * (embeddings[:-1] - embeddings[-1]))
    model.classifier.bias.zero_()


def mean_cosine(vectors: torch.Tensor) -> float:
    """Return the mean cosine between two different rows of (rows, width)."""
    unit = normalize(vectors)
    return ((unit @ unit.T).sum() - len(unit)).item() / (len(unit) * (len(unit) - 1))
