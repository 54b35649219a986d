"""Three images of a clip, of equal size: log-mel spectrogram, modified group delay, tempogram."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torchaudio
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature, SequenceFeatureExtractor

REPRESENTATIONS = ("mel", "modgd", "tempogram")


class CrnnFeatureExtractor(SequenceFeatureExtractor):
    """Waveforms -> images (frames, `num_bins`) of one `representation`, a frame of 50 ms every 10 ms.

    - `mel`: ln(mel power spectrogram + `log_offset`), `num_bins` of librosa's mel bands.
    - `modgd`: modified group delay; the bins of the DFT are averaged in `num_bins` groups of equal width (172 Hz).
    - `tempogram`: local autocorrelation of the onset strength over `tempogram_window` frames, at lags of 0 to
      `num_bins` - 1 frames (1.27 s, or 47 beats a minute).

    A clip is first divided by the largest absolute value of its samples; its image ends with mean 0 and variance 1.
    Frames are centred (zeros beyond both ends) and the last, which reaches past the clip, is dropped, so that the
    three images of a clip show the same moments.
    Source: Reghunath and Rajan, CMMR 2021 and 2022, for the three representations, 50 ms, 10 ms, alpha and gamma.
    """

    model_input_names = ["input_values"]

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 22050,
        padding_value: float = 0.0,
        representation: str = "mel",
        frame_seconds: float = 0.05,
        frame_hop_seconds: float = 0.01,
        fft_length: int = 2048,
        num_bins: int = 128,
        log_offset: float = 1e-6,
        group_delay_alpha: float = 0.9,
        group_delay_gamma: float = 0.5,
        lifter: int = 10,
        tempogram_window: int = 384,
        return_attention_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        if representation not in REPRESENTATIONS:
            raise ValueError(f"Unknown representation '{representation}': choose one of {', '.join(REPRESENTATIONS)}.")
        super().__init__(
            feature_size=feature_size,
            sampling_rate=sampling_rate,
            padding_value=padding_value,
            return_attention_mask=return_attention_mask,
            **kwargs,
        )
        self.representation = representation
        self.frame_seconds = frame_seconds
        self.frame_hop_seconds = frame_hop_seconds
        self.fft_length = fft_length
        self.num_bins = num_bins
        self.log_offset = log_offset
        self.group_delay_alpha = group_delay_alpha
        self.group_delay_gamma = group_delay_gamma
        self.lifter = lifter
        self.tempogram_window = tempogram_window

    @property
    def frame_length(self) -> int:
        return round(self.frame_seconds * self.sampling_rate)

    @property
    def hop_length(self) -> int:
        return round(self.frame_hop_seconds * self.sampling_rate)

    @torch.no_grad()
    def extract(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return images (batch, max(1, samples // hop_length), num_bins) of waveforms (batch, samples), float32.

        Deterministic, on the waveforms' device; each clip's image depends on that clip alone.
        """
        # Half precision would drown quiet bins, so autocast is switched off here.
        with torch.autocast(waveforms.device.type, enabled=False):
            # Four clips at a time on a CPU, whose cache has no room for more: two to three times faster.
            pieces = waveforms.float().split(4 if waveforms.device.type == "cpu" else len(waveforms))
            return torch.cat([self._images(piece) for piece in pieces])

    def _images(self, waveforms: torch.Tensor) -> torch.Tensor:
        waveforms = waveforms / waveforms.abs().amax(dim=-1, keepdim=True).clamp_min(1e-8)
        draw = {"mel": self._log_mel, "modgd": self._group_delay, "tempogram": self._tempogram}[self.representation]
        images = draw(waveforms)[:, : max(1, waveforms.shape[-1] // self.hop_length)]
        centred = images - images.mean(dim=(1, 2), keepdim=True)
        return centred / (centred.square().mean(dim=(1, 2), keepdim=True).sqrt() + 1e-5)

    def _log_mel(self, waveforms: torch.Tensor) -> torch.Tensor:
        return self._mel_power(waveforms).add(self.log_offset).log()

    def _group_delay(self, waveforms: torch.Tensor) -> torch.Tensor:
        margin = self.frame_length // 2
        frames = F.pad(waveforms, (margin, margin)).unfold(-1, self.frame_length, self.hop_length)
        frames = frames * torch.hamming_window(self.frame_length, device=waveforms.device)
        delay = modified_group_delay(
            frames, self.fft_length, self.group_delay_alpha, self.group_delay_gamma, self.lifter
        )
        # Without the Nyquist bin there are fft_length / 2 bins; the mean of each group of neighbours is one of the image.
        return F.adaptive_avg_pool1d(delay[..., :-1], self.num_bins)

    def _tempogram(self, waveforms: torch.Tensor) -> torch.Tensor:
        delay = self.fft_length // (2 * self.hop_length)
        envelope = onset_strength(self._mel_power(waveforms), delay)
        return local_autocorrelation(envelope, self.tempogram_window, self.num_bins)

    def _mel_power(self, waveforms: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(
            waveforms,
            n_fft=self.fft_length,
            hop_length=self.hop_length,
            win_length=self.frame_length,
            window=torch.hann_window(self.frame_length, device=waveforms.device),
            pad_mode="constant",
            return_complex=True,
        )
        power = (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2)
        return power @ _mel_filters(self.sampling_rate, self.fft_length, self.num_bins, waveforms.device)

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


def modified_group_delay(
    frames: torch.Tensor, fft_length: int, alpha: float = 0.9, gamma: float = 0.5, lifter: int = 10
) -> torch.Tensor:
    """Return the modified group delay (..., fft_length // 2 + 1) of windowed frames (..., samples).

    With X and Y the DFTs of x(n) and n x(n), and S the magnitude of X smoothed by keeping its first `lifter` cepstral
    coefficients, tau = (X_R Y_R + X_I Y_I) / S^(2 gamma), and the result is sign(tau) |tau|^alpha.
    Source: Murthy and Gadde 2003; Hegde, Murthy and Gadde 2007.
    """
    ramp = torch.arange(frames.shape[-1], device=frames.device, dtype=frames.dtype)
    spectrum = torch.fft.rfft(frames, fft_length)
    ramp_spectrum = torch.fft.rfft(frames * ramp, fft_length)
    product = spectrum.real * ramp_spectrum.real + spectrum.imag * ramp_spectrum.imag
    cepstrum = torch.fft.irfft(torch.log(spectrum.abs() + 1e-8), fft_length)
    cepstrum[..., lifter : fft_length - lifter + 1] = 0
    smooth = torch.fft.rfft(cepstrum).real.exp()
    tau = product / smooth ** (2 * gamma)
    return tau.sign() * tau.abs() ** alpha


def onset_strength(mel_power: torch.Tensor, delay_frames: int) -> torch.Tensor:
    """Return how much louder each frame's bands became, in dB (batch, frames), of mel power (batch, frames, bands).

    `delay_frames` shifts the envelope by half an FFT, to the moment that the frame's power rose. Source: librosa's
    `onset.onset_strength` with its defaults (a floor of 1e-10 and of 80 dB below the clip's maximum).
    """
    decibels = 10 * mel_power.clamp_min(1e-10).log10()
    decibels = decibels.maximum(decibels.amax(dim=(1, 2), keepdim=True) - 80)
    rises = decibels.diff(dim=1).clamp_min(0).mean(dim=2)
    return F.pad(rises, (1 + delay_frames, 0))[:, : mel_power.shape[1]]


def local_autocorrelation(envelope: torch.Tensor, window: int, num_lags: int) -> torch.Tensor:
    """Return the autocorrelation of each frame's surroundings (batch, frames, num_lags), divided by its maximum.

    The surroundings are `window` frames under a Hann window; beyond the ends of the envelope (batch, frames) it falls
    linearly to zero. Source: librosa's `feature.tempogram`.
    """
    margin = window // 2
    ramp = torch.arange(margin, device=envelope.device) / margin
    padded = torch.cat([envelope[:, :1] * ramp, envelope, envelope[:, -1:] * ramp.flip(0)], dim=1)
    surroundings = padded.unfold(1, window, 1)[:, : envelope.shape[1]]
    surroundings = surroundings * torch.hann_window(window, device=envelope.device)
    spectrum = torch.fft.rfft(surroundings, window + num_lags)  # long enough that no lag below num_lags wraps around
    power = spectrum.real.square() + spectrum.imag.square()
    correlation = torch.fft.irfft(power, window + num_lags)[..., :num_lags]
    maximum = correlation.abs().amax(dim=-1, keepdim=True)
    return correlation / torch.where(maximum > torch.finfo(maximum.dtype).tiny, maximum, 1.0)


@lru_cache
def _mel_filters(sampling_rate: int, fft_length: int, num_mel_bins: int, device: torch.device) -> torch.Tensor:
    """Return librosa's mel filter bank (fft_length // 2 + 1, num_mel_bins), built once per device."""
    return torchaudio.functional.melscale_fbanks(
        fft_length // 2 + 1, 0.0, sampling_rate / 2, num_mel_bins, sampling_rate, norm="slaney", mel_scale="slaney"
    ).to(device)
