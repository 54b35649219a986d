"""What a user of transformers' audio-classification example gets, with the same clips and the same network.

`examples/pytorch/audio-classification/run_audio_classification.py` decodes with `datasets.Audio` in every epoch, calls the
feature extractor in a transform of the dataset, passes whole features through the collator, and trains in float32 without
compiling. AST's extractor pads every clip to 1,024 frames (10.24 s), however short.
"""

import copy
from collections.abc import Callable

import librosa
import numpy as np
import soundfile
import torch
from datasets import Audio
from torch import nn
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, default_data_collator

from irmas_recipe.commands.benchmark.clock import Stages
from irmas_recipe.models.pipeline.windows import window_starts

STOCK_FRAMES = 1024
STOCK_SECONDS = 10.24


class Stock:
    """The example's model, its way to features, and its training step."""

    def __init__(self, config: ASTConfig, extractor: ASTFeatureExtractor, device: torch.device) -> None:
        """Copy our `config` and `extractor` with a length of 1,024 frames; the weights are random."""
        config, self.extractor = copy.deepcopy(config), copy.deepcopy(extractor)
        config.max_length = self.extractor.max_length = STOCK_FRAMES
        self.device, self.rate = device, extractor.sampling_rate
        self.model = ASTForAudioClassification(config).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=5e-5, fused=True)  # the Trainer's default
        self.decoder, self.decode = choose_decoder(self.rate)
        self.stages = Stages(device)
        self._inputs = self.stages.watch("decoding and features", self.inputs)
        self._forward = self.stages.watch("forward", self.model)
        self._backward = self.stages.watch("backward", torch.Tensor.backward)
        self._update = self.stages.watch("optimizer", self.update)

    def inputs(self, paths: list[str], labels: np.ndarray | None = None) -> dict[str, torch.Tensor]:
        """Return a batch on the device: files decoded and extracted one by one, features collated."""
        items = [{"input_values": self.features(self.decode(path))} for path in paths]
        for position, item in enumerate(items if labels is not None else []):
            item["labels"] = labels[position]
        return {name: tensor.to(self.device) for name, tensor in default_data_collator(items).items()}

    def features(self, waveform: np.ndarray) -> np.ndarray:
        """Return features (1024, mels) of one clip (samples,)."""
        return self.extractor(waveform, sampling_rate=self.rate, return_tensors="np")["input_values"][0]

    def train(self, paths: list[str], labels: np.ndarray) -> None:
        """Take one training step, from files to updated weights."""
        self.model.train()
        batch = self._inputs(paths, labels)
        self._backward(self._forward(**batch).loss)
        self._update()

    def update(self) -> None:
        """Clip the gradients as the Trainer does, and change the weights."""
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.inference_mode()
    def score_whole(self, path: str) -> None:
        """Score a long file from end to end in as few inputs of 10.24 s as possible, as one batch."""
        self.model.eval()
        waveform = self.decode(path)
        length = round(STOCK_SECONDS * self.rate)
        parts = [waveform[start : start + length] for start in window_starts(len(waveform), length, length)]
        items = [{"input_values": self.features(part)} for part in parts]
        self.model(**{name: tensor.to(self.device) for name, tensor in default_data_collator(items).items()})


def choose_decoder(rate: int) -> tuple[str, Callable[[str], np.ndarray]]:
    """Return a name and a function from a path to mono samples: `datasets.Audio` where torchcodec works.

    Elsewhere the closest thing is what `datasets` did before version 4: soundfile, then librosa.
    """
    audio = Audio(sampling_rate=rate)

    def by_datasets(path: str) -> np.ndarray:
        return audio.decode_example({"path": path, "bytes": None})["array"]

    def by_librosa(path: str) -> np.ndarray:
        samples, own_rate = soundfile.read(path)
        mono = librosa.to_mono(samples.T)
        return librosa.resample(mono, orig_sr=own_rate, target_sr=rate)

    try:
        import torchcodec  # noqa: F401
    except (ImportError, OSError, RuntimeError):  # not installed, or without the ffmpeg libraries it needs
        return (
            "soundfile and librosa, as datasets 3 decoded (torchcodec, which datasets.Audio needs, does not work here)",
            by_librosa,
        )
    return "datasets.Audio (torchcodec)", by_datasets
