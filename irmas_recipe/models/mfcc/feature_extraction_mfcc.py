"""Mel-frequency cepstral coefficients, librosa's definition, in batched torch."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torchaudio
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature, SequenceFeatureExtractor


class MfccFeatureExtractor(SequenceFeatureExtractor):
    """Waveforms -> MFCCs, one row every `hop_length` samples.

    A Hamming window of `fft_length` samples, frames centred (zeros beyond both ends), `num_mel_bins` mel bands in dB
    with a floor 80 dB below the clip's loudest, and the first `num_mfcc` coefficients of their orthonormal DCT-II.
    The definition is librosa's `feature.mfcc`; torchaudio's puts HTK's mel scale and the loudest of the whole batch in
    its place. Source of the parameters: Blaszke and Kostek 2022 (Sensors 22(8):3033); the bands are librosa's default.
    """

    model_input_names = ["input_values"]

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 44100,
        padding_value: float = 0.0,
        fft_length: int = 1024,
        hop_length: int = 512,
        num_mel_bins: int = 128,
        num_mfcc: int = 40,
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
        self.num_mfcc = num_mfcc

    @torch.no_grad()
    def extract(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return features (batch, 1 + samples // hop_length, num_mfcc) of waveforms (batch, samples), float32.

        Deterministic, on the waveforms' device; each clip's features depend on that clip alone.
        """
        # Half precision would drown quiet bands, so autocast is switched off here.
        with torch.autocast(waveforms.device.type, enabled=False):
            spectrum = torch.stft(
                waveforms.float(),
                n_fft=self.fft_length,
                hop_length=self.hop_length,
                window=torch.hamming_window(self.fft_length, device=waveforms.device),
                pad_mode="constant",
                return_complex=True,
            )
            # In float64, since TF32, which a run may allow for float32, would move a coefficient by a tenth of a decibel.
            power = (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2).double()
            mel = power @ _mel_filters(self.sampling_rate, self.fft_length, self.num_mel_bins, waveforms.device)
            decibels = 10 * mel.clamp_min(1e-10).log10()
            decibels = decibels.maximum(decibels.amax(dim=(1, 2), keepdim=True) - 80)
            return (decibels @ _dct(self.num_mel_bins, self.num_mfcc, waveforms.device)).float()

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
def _mel_filters(sampling_rate: int, fft_length: int, num_mel_bins: int, device: torch.device) -> torch.Tensor:
    """Return librosa's mel filter bank (fft_length // 2 + 1, num_mel_bins), built once per device."""
    return torchaudio.functional.melscale_fbanks(
        fft_length // 2 + 1, 0.0, sampling_rate / 2, num_mel_bins, sampling_rate, norm="slaney", mel_scale="slaney"
    ).to(device, torch.float64)


@lru_cache
def _dct(num_mel_bins: int, num_mfcc: int, device: torch.device) -> torch.Tensor:
    """Return the orthonormal DCT-II as a matrix (num_mel_bins, num_mfcc), built once per device."""
    return torchaudio.functional.create_dct(num_mfcc, num_mel_bins, norm="ortho").to(device, torch.float64)
