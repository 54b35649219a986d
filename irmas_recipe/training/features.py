"""From waveforms to a model's input, batched on the waveforms' device, for every feature extractor of transformers' audio models.

transformers' own extractors take one clip after the other, on the CPU and in double precision. A run saves its extractor
as it is; the functions here give the same numbers (tested to 1e-3).
"""

import math

import torch
from torch import nn
from transformers import (
    ASTFeatureExtractor,
    ClapFeatureExtractor,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor

from irmas_dataset.errors import UserError
from irmas_recipe.models.ast.features import FRAME_SAMPLES, HOP_SAMPLES, PRE_EMPHASIS, AstFeatures
from irmas_recipe.models.pipeline.instrument_recognition import longest_window_seconds

VARIANCE_FLOOR = 1e-7  # transformers' own, in every normalisation


class DeviceFeatures(nn.Module):
    """What the functions of this file share; `time_axis` is that of the features, None where they are waveforms."""

    time_axis: int | None = -2

    def __init__(self, extractor: SequenceFeatureExtractor) -> None:
        """Take the sizes of a saved feature extractor."""
        super().__init__()
        self.extractor = extractor

    def hold(self, **tensors: torch.Tensor) -> None:
        """Keep constants that go to the waveforms' device and are not saved."""
        for name, tensor in tensors.items():
            self.register_buffer(name, torch.as_tensor(tensor, dtype=torch.float32), persistent=False)

    @torch.no_grad()
    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return the model's input for waveforms (batch, samples) in [-1, 1]."""
        return self.to(waveforms.device).extract(waveforms)

    def extract(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return features on the waveforms' device, where the constants are by now."""
        raise NotImplementedError


class WaveformFeatures(DeviceFeatures):
    """Wav2Vec2FeatureExtractor: the waveform itself (batch, samples), of zero mean and unit variance where it says so."""

    time_axis = None

    def extract(self, waveforms: torch.Tensor) -> torch.Tensor:
        if not self.extractor.do_normalize:
            return waveforms
        variance, mean = torch.var_mean(waveforms, dim=-1, correction=0, keepdim=True)
        return (waveforms - mean) / (variance + VARIANCE_FLOOR).sqrt()


class SeamlessFeatures(DeviceFeatures):
    """SeamlessM4TFeatureExtractor: Kaldi's log-mel features, normalised per band, `stride` frames in a row of features.

    Frames that fill no whole row are left out; the extractor marks such a row as padding, which the model ignores.
    """

    def __init__(self, extractor: SeamlessM4TFeatureExtractor) -> None:
        super().__init__(extractor)
        self.hold(mel_filters=extractor.mel_filters, window=extractor.window)

    def extract(self, waveforms: torch.Tensor) -> torch.Tensor:
        frames = waveforms.unfold(-1, FRAME_SAMPLES, HOP_SAMPLES) * 2**15
        frames = frames - frames.mean(dim=-1, keepdim=True)
        previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        spectrum = torch.fft.rfft((frames - PRE_EMPHASIS * previous) * self.window, 512)
        mel = (spectrum.abs().square() @ self.mel_filters).clamp_min(torch.finfo(torch.float32).eps).log()
        variance, mean = torch.var_mean(mel, dim=1, keepdim=True)
        normed = (mel - mean) / (variance + VARIANCE_FLOOR).sqrt()
        whole = normed.shape[1] // self.extractor.stride * self.extractor.stride
        return normed[:, :whole].unflatten(1, (-1, self.extractor.stride)).flatten(2)


class MelFeatures(DeviceFeatures):
    """What Whisper's and CLAP's features begin with: mel energies of clips filled up to a fixed length."""

    def mel(self, waveforms: torch.Tensor, fft_samples: int) -> torch.Tensor:
        """Return mel energies (batch, frames, mels) of waveforms (batch, samples)."""
        hop = self.extractor.hop_length
        spectrum = torch.stft(waveforms, fft_samples, hop, window=self.window, return_complex=True)
        return (spectrum.abs().square().transpose(1, 2) @ self.mel_filters).clamp_min(1e-10)


class WhisperFeatures(MelFeatures):
    """WhisperFeatureExtractor: log-mel (batch, mels, frames) of the clip and the silence after it, 30 s in all."""

    time_axis = -1

    def __init__(self, extractor: WhisperFeatureExtractor) -> None:
        super().__init__(extractor)
        self.hold(mel_filters=extractor.mel_filters, window=torch.hann_window(extractor.n_fft))

    def extract(self, waveforms: torch.Tensor) -> torch.Tensor:
        missing = self.extractor.n_samples - waveforms.shape[-1]
        filled = nn.functional.pad(waveforms, (0, missing), value=self.extractor.padding_value)  # or cut
        log_mel = self.mel(filled, self.extractor.n_fft)[:, :-1].log10()
        loudest = log_mel.amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(log_mel, loudest - 8) + 4).transpose(1, 2).contiguous() / 4


class ClapFeatures(MelFeatures):
    """ClapFeatureExtractor: decibels (batch, 1 or 4, frames, mels) of the clip, repeated to fill 10 s.

    A model with feature fusion takes the same spectrogram four times, as the extractor gives it of all but longer clips.
    """

    def __init__(self, extractor: ClapFeatureExtractor) -> None:
        super().__init__(extractor)
        self.copies = 4 if extractor.truncation == "fusion" else 1
        banks = extractor.mel_filters if self.copies == 4 else extractor.mel_filters_slaney
        self.hold(mel_filters=banks, window=torch.hann_window(extractor.fft_window_size))

    def extract(self, waveforms: torch.Tensor) -> torch.Tensor:
        longest = self.extractor.nb_max_samples
        repeats = max(1, longest // waveforms.shape[-1])
        if self.extractor.padding == "repeat":
            repeats += 1
        if self.extractor.padding != "pad":
            waveforms = waveforms.repeat(1, repeats)
        filled = nn.functional.pad(waveforms, (0, longest - waveforms.shape[-1]))  # or cut
        decibels = 10 * self.mel(filled, self.extractor.fft_window_size).log10()
        return decibels.unsqueeze(1).expand(-1, self.copies, -1, -1)


class OneByOne(DeviceFeatures):
    """Any other extractor, called as it is: clip by clip on the CPU."""

    def extract(self, waveforms: torch.Tensor) -> torch.Tensor:
        clips, rate = list(waveforms.cpu().numpy()), self.extractor.sampling_rate
        features = self.extractor(clips, sampling_rate=rate, return_tensors="pt")
        return features[self.extractor.model_input_names[0]].to(waveforms.device)


BATCHED = {
    ASTFeatureExtractor: AstFeatures,
    ClapFeatureExtractor: ClapFeatures,
    SeamlessM4TFeatureExtractor: SeamlessFeatures,
    Wav2Vec2FeatureExtractor: WaveformFeatures,
    WhisperFeatureExtractor: WhisperFeatures,
}
"""Feature extractor of transformers -> the same for a batch. A class that extends one may differ, and is called as it is."""


def device_features(extractor: SequenceFeatureExtractor) -> nn.Module:
    """Return a function from waveforms (batch, samples) in [-1, 1] to features, batched, on the waveforms' device.

    Its features equal the saved feature extractor's (tested to 1e-3).

    Raises:
        UserError: an AST's feature extractor with another sampling rate than 16 kHz.
    """
    if hasattr(extractor, "extract"):  # this project's own
        return extractor.extract
    try:
        return BATCHED.get(type(extractor), OneByOne)(extractor)
    except ValueError as error:
        raise UserError(f"The checkpoint's feature extractor cannot be used: {error}") from error


def batched_features(extractor: SequenceFeatureExtractor) -> nn.Module | None:
    """Return `device_features` where they are batched; None where only the extractor itself gives all that its model takes."""
    try:
        return BATCHED[type(extractor)](extractor) if type(extractor) in BATCHED else None
    except ValueError:  # AST's at another rate, which the extractor knows how to compute
        return None


def time_axis(extractor: SequenceFeatureExtractor) -> int | None:
    """Return the axis of time in a batch of features, of which the other one is frequency; None where they are waveforms."""
    return getattr(BATCHED.get(type(extractor), extractor), "time_axis", -2)


def longest_seconds(extractor: SequenceFeatureExtractor) -> float | None:
    """Return the length at which an extractor cuts every clip: Whisper's 30 s, CLAP's and PaSST's 10 s; None for others."""
    seconds = longest_window_seconds(extractor)
    if hasattr(extractor, "max_frames"):  # PaSST, whose last frame reaches further
        seconds += extractor.fft_length / extractor.sampling_rate
    return None if math.isinf(seconds) else seconds


def fills_up(extractor: SequenceFeatureExtractor) -> bool:
    """Return whether an extractor also fills shorter clips up to that length, as Whisper's and CLAP's do."""
    return hasattr(extractor, "n_samples") or hasattr(extractor, "nb_max_samples")
