"""Log-mel spectrograms as Han 2017 made them."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torchaudio
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature, SequenceFeatureExtractor


class CnnFeatureExtractor(SequenceFeatureExtractor):
    """Waveforms -> ln(mel power spectrogram + `log_offset`), one row every `hop_length` samples.

    Each clip is first divided by the largest absolute value of its samples. Frames are centred as librosa centres them
    (zeros beyond both ends) and the last, which reaches past the clip, is dropped: 1.0 s at 22,050 Hz is 43 frames.
    Source: Han, Kim and Lee 2017, section III-A; the mel bands are librosa's (Slaney's scale and area normalisation).
    """

    model_input_names = ["input_values"]

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 22050,
        padding_value: float = 0.0,
        fft_length: int = 1024,
        hop_length: int = 512,
        num_mel_bins: int = 128,
        log_offset: float = 1e-6,
        normalize_amplitude: bool = True,
        return_attention_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            feature_size=feature_size,
            sampling_rate=sampling_rate,
            padding_value=padding_value,
            return_attention_mask=return_attention_mask,
            **kwargs,
        )
        self.fft_length = fft_length
        self.hop_length = hop_length
        self.num_mel_bins = num_mel_bins
        self.log_offset = log_offset
        self.normalize_amplitude = normalize_amplitude

    @torch.no_grad()
    def extract(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return features (batch, max(1, samples // hop_length), num_mel_bins) of waveforms (batch, samples), float32.

        Deterministic, on the waveforms' device; each clip's features depend on that clip alone.
        """
        # Half precision would drown quiet bands, so autocast is switched off here.
        with torch.autocast(waveforms.device.type, enabled=False):
            waveforms = waveforms.float()
            if self.normalize_amplitude:
                waveforms = waveforms / waveforms.abs().amax(dim=-1, keepdim=True).clamp_min(1e-8)
            spectrum = torch.stft(
                waveforms,
                n_fft=self.fft_length,
                hop_length=self.hop_length,
                window=_hann_window(self.fft_length, waveforms.device),
                pad_mode="constant",
                return_complex=True,
            )
            power = (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2)
            power = power[:, : max(1, waveforms.shape[-1] // self.hop_length)]
            filters = _mel_filters(self.sampling_rate, self.fft_length, self.num_mel_bins, waveforms.device)
            return (power @ filters).add(self.log_offset).log()

    def __call__(
        self, raw_speech: Any, sampling_rate: int | None = None, return_tensors: str | None = None, **kwargs: Any
    ) -> BatchFeature:
        """Return `input_values` of one mono clip (samples,) or of a list or array of clips.

        Clips of a batch that are shorter than its longest are padded with zeros at their end. Raises ValueError for
        another sampling rate, more than one channel, or a clip without samples.
        """
        if sampling_rate not in (None, self.sampling_rate):
            raise ValueError(f"The audio is at {sampling_rate} Hz: resample it to {self.sampling_rate} Hz first.")
        is_batch = len(raw_speech) > 0 and np.ndim(raw_speech[0]) > 0
        clips = [torch.as_tensor(clip, dtype=torch.float32) for clip in (raw_speech if is_batch else [raw_speech])]
        if any(clip.ndim != 1 or len(clip) == 0 for clip in clips):
            raise ValueError("Each clip must be mono, of shape (samples,), and have at least one sample.")
        features = self.extract(pad_sequence(clips, batch_first=True, padding_value=self.padding_value))
        if return_tensors != "pt":
            features = features.cpu().numpy()
        return BatchFeature({"input_values": features}, tensor_type=return_tensors)


@lru_cache
def _hann_window(length: int, device: torch.device) -> torch.Tensor:
    return torch.hann_window(length, device=device)


@lru_cache
def _mel_filters(sampling_rate: int, fft_length: int, num_mel_bins: int, device: torch.device) -> torch.Tensor:
    """Return librosa's mel filter bank (fft_length // 2 + 1, num_mel_bins), built once per device."""
    return torchaudio.functional.melscale_fbanks(
        fft_length // 2 + 1, 0.0, sampling_rate / 2, num_mel_bins, sampling_rate, norm="slaney", mel_scale="slaney"
    ).to(device)
