"""Log-mel spectrograms as PaSST was trained on."""

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
"""What digital silence becomes: the value of padded frames."""


class PasstFeatureExtractor(SequenceFeatureExtractor):
    """Waveforms -> (ln(mel power spectrogram + 1e-5) + 4.5) / 5, one frame every `hop_length` samples (10 ms).

    Pre-emphasis of .97; frames of `window_length` samples centred in `fft_length`, both ends of the clip mirrored;
    kaldi's mel bands from `min_frequency` to `max_frequency` (Hz). At most `max_frames` frames are kept, as many as the
    model has time positions for; a clip too short for one patch, `min_frames`, is lengthened with silence.
    Source: the authors' `AugmentMelSTFT` in evaluation mode.
    """

    model_input_names = ["input_values", "attention_mask"]

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
        min_frames: int = 16,
        max_frames: int = 998,
        return_attention_mask: bool = True,
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
        self.min_frames = min_frames
        self.max_frames = max_frames

    @torch.no_grad()
    def extract(self, waveforms: torch.Tensor, num_samples: torch.Tensor | None = None) -> torch.Tensor:
        """Return features (batch, frames, mel bands) of waveforms (batch, samples), float32, on their device.

        `num_samples` (batch,) says where each clip ends when zeros follow it; a clip's features do not depend on them.
        Frames beyond a clip's own, `num_frames` of them, are silence.
        """
        # Half precision would drown quiet bands, so autocast is switched off here.
        with torch.autocast(waveforms.device.type, enabled=False):
            # Past the last frame that is kept, only the samples that this frame covers matter.
            waveforms = waveforms[:, : self.max_frames * self.hop_length + self.fft_length].float()
            waveforms = F.pad(waveforms, (0, max(0, self._min_samples - waveforms.shape[1])))
            if num_samples is None:
                num_samples = torch.full(waveforms.shape[:1], waveforms.shape[1], device=waveforms.device)
            num_samples = num_samples.clamp(self._min_samples, waveforms.shape[1])

            emphasised = waveforms[:, 1:] - 0.97 * waveforms[:, :-1]
            spectrum = torch.stft(
                _mirror_ends(emphasised, num_samples - 1, self.fft_length // 2),
                n_fft=self.fft_length,
                hop_length=self.hop_length,
                win_length=self.window_length,
                window=_window(self.window_length, waveforms.device),
                center=False,
                return_complex=True,
            )
            power = (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2)
            bands = (self.feature_size, self.fft_length, self.sampling_rate, self.min_frequency, self.max_frequency)
            features = ((power @ _mel_filters(*bands, waveforms.device)).add(LOG_OFFSET).log() + 4.5) / 5
            features = features[:, : self.max_frames]
            real = torch.arange(features.shape[1], device=features.device) < self.num_frames(num_samples)[:, None]
            return features.masked_fill(~real[:, :, None], SILENCE)

    def num_frames(self, num_samples: torch.Tensor) -> torch.Tensor:
        """Return how many frames (batch,) clips of `num_samples` (batch,) give."""
        frames = 1 + (num_samples.clamp(min=self._min_samples) - 1) // self.hop_length
        return frames.clamp(max=self.max_frames)

    @property
    def _min_samples(self) -> int:
        # One more than remains after pre-emphasis: enough for `min_frames`, and to mirror half an FFT at each end.
        return max((self.min_frames - 1) * self.hop_length, self.fft_length // 2 + 1) + 1

    def __call__(
        self, raw_speech: Any, sampling_rate: int | None = None, return_tensors: str | None = None, **kwargs: Any
    ) -> BatchFeature:
        """Return `input_values` and `attention_mask` (batch, frames) of one mono clip (samples,) or several.

        Clips shorter than the batch's longest are padded, and masked where padded. Raises ValueError for another
        sampling rate, more than one channel, or a clip without samples.
        """
        if sampling_rate not in (None, self.sampling_rate):
            raise ValueError(f"The audio is at {sampling_rate} Hz: resample it to {self.sampling_rate} Hz first.")
        is_batch = len(raw_speech) > 0 and np.ndim(raw_speech[0]) > 0
        clips = [torch.as_tensor(clip, dtype=torch.float32) for clip in (raw_speech if is_batch else [raw_speech])]
        if any(clip.ndim != 1 or len(clip) == 0 for clip in clips):
            raise ValueError("Each clip must be mono, of shape (samples,), and have at least one sample.")
        waveforms = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
        num_samples = torch.tensor([len(clip) for clip in clips], device=waveforms.device)
        features = self.extract(waveforms, num_samples)
        mask = torch.arange(features.shape[1], device=features.device) < self.num_frames(num_samples)[:, None]
        if return_tensors != "pt":
            features, mask = features.cpu().numpy(), mask.cpu().numpy()
        return BatchFeature({"input_values": features, "attention_mask": mask * 1}, tensor_type=return_tensors)


def _mirror_ends(signals: torch.Tensor, lengths: torch.Tensor, margin: int) -> torch.Tensor:
    """Return signals (batch, samples) with `margin` mirrored samples at each end, the end of each being its own.

    As `torch.stft(center=True)` extends signals that are all of one length.
    """
    last = lengths[:, None] - 1
    positions = torch.arange(-margin, signals.shape[1] + margin, device=signals.device).abs()
    positions = last - (last - positions).abs()
    return signals.gather(1, positions.clamp(min=0))


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
