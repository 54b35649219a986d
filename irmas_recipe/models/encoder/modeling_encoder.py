"""A linear classifier on any encoder of audio: a learned mixture of its layers, averaged over time (SUPERB, Yang 2021).

The mean over time is taken of each layer before they are mixed, which gives the same and keeps little in memory.
"""

import os
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, ClapAudioModel, ClapAudioModelWithProjection, PreTrainedConfig, PreTrainedModel
from transformers.dynamic_module_utils import custom_object_save, get_class_from_dynamic_module
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from .configuration_encoder import EncoderConfig

OF_CODE = "transformers_modules."  # how the names of modules begin that came with a model
CAME_WITH_A_MODEL = __name__.startswith(OF_CODE)
MAY_RUN_CODE = ContextVar("MAY_RUN_CODE", default=CAME_WITH_A_MODEL)
"""Whether code that comes with an encoder may run: the user's word, as a file can make a configuration say anything.

Of a copy of this file that came with a model it is given already, since the copy runs.
"""


def code_of_encoder(reference: str, folder: str, has_run: bool = False) -> type:
    """Return a class of the code beside a model; raises ValueError where that has not run and the user has not said it may."""
    if not has_run and not MAY_RUN_CODE.get():
        raise ValueError("its encoder needs trust_remote_code")
    return get_class_from_dynamic_module(reference, folder)


def encoder_config(config: EncoderConfig) -> PreTrainedConfig:
    """Return the encoder's configuration as an object; code of its own lies beside the model."""
    own = config.encoder
    if isinstance(own, PreTrainedConfig):
        return own
    if config.brings_code:
        of_encoder = code_of_encoder(own["auto_map"]["AutoConfig"], config._name_or_path)
        of_encoder.register_for_auto_class()
        return of_encoder(**own, name_or_path=config._name_or_path)
    return CONFIG_MAPPING[own["model_type"]](**own)


def make_encoder(own: PreTrainedConfig, pooling: str) -> PreTrainedModel:
    """Return a new encoder of this configuration: of Whisper and CLAP the part that hears."""
    if own.model_type == "whisper":
        return WhisperEncoder(own)
    if own.model_type == "clap_audio_model":
        return ClapAudioModelWithProjection(own) if pooling == "projection" else ClapAudioModel(own)
    if getattr(own, "auto_map", None):
        of_encoder = code_of_encoder(
            own.auto_map["AutoModel"], own._name_or_path, type(own).__module__.startswith(OF_CODE)
        )
        of_encoder.register_for_auto_class("AutoModel")
        return of_encoder(own)
    return AutoModel.from_config(own, dtype=torch.get_default_dtype())  # not that in which its checkpoint was saved


def tokens_of(state: torch.Tensor) -> torch.Tensor:
    """Return (batch, tokens, width) of hidden states; CLAP's are a map (batch, width, rows, columns)."""
    return state.flatten(2).transpose(1, 2) if state.ndim == 4 else state


class EncoderForAudioClassification(PreTrainedModel):
    """An encoder, a mixture of its layers and one linear layer, for several labels at once."""

    config_class = EncoderConfig
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.encoder = make_encoder(encoder_config(config), config.pooling)
        config.encoder = self.encoder.config  # one object: what is changed in the encoder is saved
        self.main_input_name = self.encoder.main_input_name
        self.supports_gradient_checkpointing = self.encoder.supports_gradient_checkpointing
        if config.mixed_layers > 1:
            self.layer_weights = nn.Parameter(torch.zeros(config.mixed_layers))
        self.classifier = nn.Linear(config.embedding_size, config.num_labels)
        self.num_labels = config.num_labels
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if module is self:
            if self.config.mixed_layers > 1:
                nn.init.zeros_(self.layer_weights)
        elif module is self.classifier:
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)

    def get_input_embeddings(self) -> None:
        """Return None: there is no vocabulary."""

    def embed(self, features: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return what the output layer sees (batch, embedding_size) of the encoder's input.

        attention_mask: of frames (batch, frames); a mask of samples is not used, for windows are of one length.
        """
        of_frames = attention_mask is not None and attention_mask.shape == features.shape[:2] and features.ndim == 3
        more = {"attention_mask": attention_mask} if of_frames else {}
        if getattr(self.config.encoder, "enable_fusion", False):
            # CLAP asks which clips are longer than what it hears at once: no window is.
            more["is_longer"] = torch.zeros(len(features), 1, dtype=torch.bool, device=features.device)
        mixed = self.config.mixed_layers
        outputs = self.encoder(features, output_hidden_states=mixed > 1, return_dict=True, **more)
        if self.config.pooling == "projection":
            return nn.functional.normalize(outputs.audio_embeds, dim=-1)
        below = list(outputs.hidden_states[-mixed:-1]) if mixed > 1 else []
        layers = [tokens_of(state) for state in (*below, outputs.last_hidden_state)]
        if of_frames and attention_mask.shape[1] == layers[-1].shape[1]:
            heard = attention_mask[..., None].to(layers[-1].dtype)
            means = torch.stack([(layer * heard).sum(dim=1) / heard.sum(dim=1) for layer in layers])
        else:
            means = torch.stack([layer.mean(dim=1) for layer in layers])
        if mixed == 1:
            return means[0]
        return torch.einsum("l,lbw->bw", self.layer_weights.softmax(dim=0), means)

    def forward(
        self,
        input_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        is_longer: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[torch.Tensor, ...]:
        """Classify the encoder's input, under either of its names.

        Args:
            is_longer: from CLAP's extractor, which draws it at random for short clips; not used.
            labels: (batch, classes), 0 or 1, for the binary cross-entropy.
        """
        features = input_features if input_values is None else input_values
        logits = self.classifier(self.embed(features, attention_mask))
        loss = None
        if labels is not None:
            loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), labels.float())
        output = SequenceClassifierOutput(loss=loss, logits=logits)
        return output if return_dict is not False else output.to_tuple()

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Save as every model; an encoder's own code goes along."""
        if self.config.brings_code:
            os.makedirs(save_directory, exist_ok=True)
            custom_object_save(self.encoder, save_directory, config=self.encoder.config)
            custom_object_save(self.encoder.config, save_directory)
        super().save_pretrained(save_directory, *args, **kwargs)
