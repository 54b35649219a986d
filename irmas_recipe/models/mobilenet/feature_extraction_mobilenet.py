"""Log-mel spectrograms as EfficientAT's models were trained on: PaSST's, of any length."""

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torchaudio.compliance import kaldi
from transformers import BatchFeature, SequenceFeatureExtractor

LOG_OFFSET = 1e-5
SILENCE = (math.log(LOG_OFFSET) + 4.5) / 5
"""What digital silence becomes."""


class MobileNetAudioFeatureExtractor(SequenceFeatureExtractor):
    """Waveforms -> (ln(mel power spectrogram + 1e-5) + 4.5) / 5, one frame every `hop_length` samples (10 ms).

    Pre-emphasis of .97; frames of `window_length` samples centred in `fft_length`, both ends of the clip mirrored;
    kaldi's mel bands from `min_frequency` to `max_frequency` (Hz). A clip that is shorter than one FFT is lengthened
    with silence, none is cut.
    Source: the authors' `AugmentMelSTFT` in evaluation mode.
    """

    model_input_names = ["input_values"]

    def __init__(
        self,
        feature_size: int = 128,
        sampling_rate: int = 32000,
        padding_value: float = SILENCE,
        fft_length: int = 1024,
        window_length: int = 800,
        hop_length: int = 320,
        min_frequency: float = 0.0,
        max_frequency: float = 15000.0,
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
        self.window_length = window_length
        self.hop_length = hop_length
        self.min_frequency = min_frequency
        self.max_frequency = max_frequency

    @torch.no_grad()
    def extract(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return features (batch, frames, mel bands) of waveforms (batch, samples), float32, on their device."""
        # Half precision would drown quiet bands, so autocast is switched off here.
        with torch.autocast(waveforms.device.type, enabled=False):
            waveforms = F.pad(waveforms.float(), (0, max(0, self.fft_length - waveforms.shape[1])))
            spectrum = torch.stft(
                waveforms[:, 1:] - 0.97 * waveforms[:, :-1],
                n_fft=self.fft_length,
                hop_length=self.hop_length,
                win_length=self.window_length,
                window=_window(self.window_length, waveforms.device),
                center=True,
                return_complex=True,
            )
            power = (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2)
            bands = (self.feature_size, self.fft_length, self.sampling_rate, self.min_frequency, self.max_frequency)
            return ((power @ _mel_filters(*bands, waveforms.device)).add(LOG_OFFSET).log() + 4.5) / 5

    def __call__(
        self, raw_speech: Any, sampling_rate: int | None = None, return_tensors: str | None = None, **kwargs: Any
    ) -> BatchFeature:
        """Return `input_values` (batch, frames, mel bands) of one mono clip (samples,) or several.

        Clips shorter than the batch's longest are followed by silence, as in the authors' training. Raises ValueError
        for another sampling rate, more than one channel, or a clip without samples.
        """
        if sampling_rate not in (None, self.sampling_rate):
            raise ValueError(f"The audio is at {sampling_rate} Hz: resample it to {self.sampling_rate} Hz first.")
        is_batch = len(raw_speech) > 0 and np.ndim(raw_speech[0]) > 0
        clips = [torch.as_tensor(clip, dtype=torch.float32) for clip in (raw_speech if is_batch else [raw_speech])]
        if any(clip.ndim != 1 or len(clip) == 0 for clip in clips):
            raise ValueError("Each clip must be mono, of shape (samples,), and have at least one sample.")
        features = self.extract(torch.nn.utils.rnn.pad_sequence(clips, batch_first=True))
        if return_tensors != "pt":
            features = features.cpu().numpy()
        return BatchFeature({"input_values": features}, tensor_type=return_tensors)


@lru_cache
def _window(length: int, device: torch.device) -> torch.Tensor:
    return torch.hann_window(length, periodic=False, device=device)


@lru_cache
def _mel_filters(
    bands: int, fft_length: int, sampling_rate: int, low: float, high: float, device: torch.device
) -> torch.Tensor:
    """Return kaldi's mel filters (fft_length // 2 + 1, bands), built once per device."""
    filters, _ = kaldi.get_mel_banks(
        bands, fft_length, sampling_rate, low, high, vtln_low=100.0, vtln_high=-500.0, vtln_warp_factor=1.0
    )
    return F.pad(filters, (0, 1)).T.contiguous().to(device)  # kaldi has no filter at the Nyquist frequency
