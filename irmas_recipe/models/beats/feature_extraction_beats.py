"""Features of BEATs: kaldi log-mel filter banks, computed for a whole batch on any device."""

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torchaudio.compliance.kaldi import get_mel_banks
from transformers import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature

FRAME_SECONDS = 0.025
HOP_SECONDS = 0.010
PREEMPHASIS = 0.97
LOWEST_HZ = 20.0
INT16_SCALE = 2**15
"""Kaldi's features are those of 16-bit integers."""


@cache
def mel_filters(num_mel_bins: int, n_fft: int, sampling_rate: int, device: torch.device) -> torch.Tensor:
    """Return kaldi's triangular filters (n_fft / 2, mels) from 20 Hz to Nyquist; its bins leave Nyquist itself out.

    They are built once per device, since a copy in every step would make the CPU wait.
    """
    filters, _ = get_mel_banks(num_mel_bins, n_fft, float(sampling_rate), LOWEST_HZ, 0.0, 100.0, -500.0, 1.0)
    return filters.T.contiguous().to(device)


class BeatsFeatureExtractor(SequenceFeatureExtractor):
    """Turn waveforms in [-1, 1] into normalised log-mel features, padded to the longest clip of the batch only.

    - `num_mel_bins`: filters. `mean`, `std`: the features are (x - mean) / (2 std), as in the authors' code.
    - `max_length_seconds`: clips are cut there; None, as the model has no maximum.
    - `min_frames`: shorter clips are padded to it (one patch, without which the model has nothing to see).
    - `padding_value`: the feature of digital silence, for whoever pads features.
    """

    model_input_names = ["input_values", "attention_mask"]

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 16000,
        padding_value: float = -2.391693,
        num_mel_bins: int = 128,
        mean: float = 15.41663,
        std: float = 6.55582,
        max_length_seconds: float | None = None,
        min_frames: int = 16,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.num_mel_bins = num_mel_bins
        self.mean = mean
        self.std = std
        self.max_length_seconds = max_length_seconds
        self.min_frames = min_frames

    @property
    def frame_samples(self) -> int:
        return int(self.sampling_rate * FRAME_SECONDS)

    @property
    def hop_samples(self) -> int:
        return int(self.sampling_rate * HOP_SECONDS)

    @torch.no_grad()
    def extract(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return the features (batch, frames, mels), float32, of `waveforms` (batch, samples), on their device.

        Equal to `torchaudio.compliance.kaldi.fbank(2**15 * waveform, num_mel_bins=128, sample_frequency=16000)` per clip,
        normalised: 25 ms frames every 10 ms that fit in the clip, their mean removed, pre-emphasis .97, povey window,
        power spectrum, mel filters, logarithm. It is float32 under autocast too.
        Raises ValueError for anything but a batch of float waveforms of at least one frame.
        """
        if waveforms.ndim != 2 or not waveforms.is_floating_point() or waveforms.shape[1] < self.frame_samples:
            raise ValueError(
                f"Expected float waveforms (batch, samples) of {self.frame_samples} samples at least, "
                f"got {tuple(waveforms.shape)} of {waveforms.dtype}."
            )
        with torch.autocast(waveforms.device.type, enabled=False):
            frames = (waveforms.float() * INT16_SCALE).unfold(-1, self.frame_samples, self.hop_samples)
            frames = frames - frames.mean(dim=-1, keepdim=True)
            window = torch.hann_window(self.frame_samples, periodic=False, device=frames.device).pow(0.85)
            # The window is 0 at a frame's first sample, so what precedes that sample does not matter.
            frames = (frames[..., 1:] - PREEMPHASIS * frames[..., :-1]) * window[1:]
            n_fft = 1 << (self.frame_samples - 1).bit_length()
            spectrum = torch.fft.rfft(nn.functional.pad(frames, (1, n_fft - self.frame_samples)))
            power = (spectrum.real.square() + spectrum.imag.square())[..., : n_fft // 2]
            energies = power @ mel_filters(self.num_mel_bins, n_fft, self.sampling_rate, power.device)
            log_energies = energies.clamp_min(torch.finfo(torch.float32).eps).log()
            return (log_energies - self.mean) / (2 * self.std)

    def frame_mask(self, lengths: torch.Tensor, num_samples: int) -> torch.Tensor:
        """Return which frames of clips of `lengths` (batch,), padded to `num_samples`, are heard: (batch, frames), int.

        As in the authors' code the samples are shared out evenly over the frames, and a frame is padding when all of
        its share is.
        """
        num_frames = 1 + (num_samples - self.frame_samples) // self.hop_samples
        first_samples = torch.arange(num_frames, device=lengths.device) * (num_samples // num_frames)
        return (first_samples < lengths[:, None]).long()

    def __call__(
        self,
        raw_speech: np.ndarray | torch.Tensor | list,
        sampling_rate: int | None = None,
        return_tensors: str | None = None,
        device: str | torch.device | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Return `input_values` (batch, frames, mels) and `attention_mask` (batch, frames) of one or several clips.

        `raw_speech` is one mono waveform (samples,), or several as a list or as (batch, samples); `sampling_rate` says
        at which rate, and must be the extractor's own. `return_tensors` is "pt" or "np" (the default); `device` says
        where to compute, by default where the waveforms are. Other keywords are ignored, as the pipelines pass some.
        Raises ValueError for another rate, integers, several channels or an empty clip.
        """
        if sampling_rate not in (None, self.sampling_rate):
            raise ValueError(
                f"The model hears {self.sampling_rate} Hz, not {sampling_rate} Hz: resample the waveforms."
            )
        clips = [torch.as_tensor(clip, device=device) for clip in as_batch(raw_speech)]
        if any(clip.ndim != 1 or clip.numel() == 0 or not clip.is_floating_point() for clip in clips):
            raise ValueError("A waveform must be mono, not empty, and of floats in [-1, 1].")
        if self.max_length_seconds is not None:
            clips = [clip[: int(self.max_length_seconds * self.sampling_rate)] for clip in clips]

        waveforms = nn.utils.rnn.pad_sequence(clips, batch_first=True)
        shortest = self.frame_samples + (self.min_frames - 1) * self.hop_samples
        waveforms = nn.functional.pad(waveforms, (0, max(0, shortest - waveforms.shape[1])))
        lengths = torch.tensor([len(clip) for clip in clips], device=waveforms.device)
        data = {
            "input_values": self.extract(waveforms),
            "attention_mask": self.frame_mask(lengths, waveforms.shape[1]),
        }
        if return_tensors != "pt":
            data = {key: value.cpu().numpy() for key, value in data.items()}
        return BatchFeature(data, tensor_type=return_tensors)


def as_batch(raw_speech: np.ndarray | torch.Tensor | list) -> np.ndarray | torch.Tensor | list:
    """Return one waveform as a batch of one, and several as they are."""
    if len(raw_speech) == 0:
        raise ValueError("A waveform must be mono, not empty, and of floats in [-1, 1].")
    return raw_speech if np.ndim(raw_speech[0]) else [raw_speech]


__all__ = ["BeatsFeatureExtractor"]
