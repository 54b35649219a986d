"""AST's log-mel features, as transformers' feature extractor computes them, but for a whole batch on its device."""

import torch
import torchaudio
from torch import nn
from transformers import ASTFeatureExtractor

SAMPLING_RATE = 16000
FRAME_SAMPLES, HOP_SAMPLES, FFT_SAMPLES = 400, 160, 512  # 25 ms, 10 ms, the next power of two, at 16 kHz
PRE_EMPHASIS = 0.97
CPU_CHUNK_CLIPS = 4  # more clips at once do not fit the CPU's cache and take several times as long
CPU_MEL_BANDS = 8  # a group of neighbouring mel banks needs few of the 257 frequencies; more groups gain little


class AstFeatures(nn.Module):
    """Compute ASTFeatureExtractor's log-mel features for a whole batch, on the waveforms' device.

    Kaldi's filter bank as torchaudio.compliance.kaldi.fbank computes it for one clip (DC removal, pre-emphasis, Hann
    window, power spectrum, mel, log), then padding or cutting to `max_length` and normalisation.
    """

    def __init__(self, extractor: ASTFeatureExtractor) -> None:
        """Take the sizes and statistics of a saved feature extractor.

        Raises:
            ValueError: its sampling rate is not 16 kHz.
        """
        super().__init__()
        if extractor.sampling_rate != SAMPLING_RATE:
            raise ValueError(f"AST's features are defined at {SAMPLING_RATE} Hz, not at {extractor.sampling_rate} Hz.")
        self.max_length = extractor.max_length
        self.mean, self.std = (extractor.mean, extractor.std) if extractor.do_normalize else (0.0, 0.5)
        banks, _ = torchaudio.compliance.kaldi.get_mel_banks(
            extractor.num_mel_bins, FFT_SAMPLES, extractor.sampling_rate, 20.0, 0.0, 100.0, -500.0, 1.0
        )
        self.register_buffer("mel_banks", nn.functional.pad(banks, (0, 1)).T.contiguous(), persistent=False)
        self.bands = mel_bands(self.mel_banks, CPU_MEL_BANDS)
        window = torch.hann_window(FRAME_SAMPLES, periodic=False)
        self.register_buffer("window", nn.functional.pad(window, (0, FFT_SAMPLES - FRAME_SAMPLES)), persistent=False)

    @torch.no_grad()
    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return features (batch, max_length, mels) of waveforms (batch, samples) in [-1, 1]."""
        self.to(waveforms.device)
        if waveforms.device.type == "cpu":
            return torch.cat([self.log_mel(chunk) for chunk in waveforms.split(CPU_CHUNK_CLIPS)])
        return self.log_mel(waveforms)

    def log_mel(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return normalised log-mel features (batch, max_length, mels) of waveforms (batch, samples)."""
        waveforms = waveforms - waveforms.mean(dim=-1, keepdim=True)  # so that little is lost in the differences below
        emphasised = waveforms[:, 1:] - PRE_EMPHASIS * waveforms[:, :-1]
        # Frames with the zeros that fill them up. The first sample of each, which Kaldi treats apart, weighs 0 in the window.
        frames = nn.functional.pad(emphasised, (1, FFT_SAMPLES - FRAME_SAMPLES)).unfold(-1, FFT_SAMPLES, HOP_SAMPLES)
        means = waveforms.unfold(-1, FRAME_SAMPLES, HOP_SAMPLES).mean(dim=-1, keepdim=True)
        spectrum = torch.fft.rfft((frames - (1 - PRE_EMPHASIS) * means).mul_(self.window))
        power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
        features = self.mel(power).clamp_min_(torch.finfo(torch.float32).eps).log_()
        missing = self.max_length - features.shape[1]
        features = nn.functional.pad(features, (0, 0, 0, missing))  # a negative number of frames cuts
        return features.sub_(self.mean).div_(2 * self.std)

    def mel(self, power: torch.Tensor) -> torch.Tensor:
        """Return mel energies (batch, frames, mels) of power spectra (batch, frames, frequencies)."""
        if power.device.type != "cpu":
            return power @ self.mel_banks
        return torch.cat([power[..., rows] @ self.mel_banks[rows, columns] for rows, columns in self.bands], dim=-1)


def mel_bands(mel_banks: torch.Tensor, groups: int) -> list[tuple[slice, slice]]:
    """Cut a filter bank (frequencies, mels) into groups of neighbouring mels; return each one's frequencies and mels."""
    bands = []
    for columns in torch.arange(mel_banks.shape[1]).chunk(groups):
        columns = slice(int(columns[0]), int(columns[-1]) + 1)
        used = mel_banks[:, columns].sum(dim=1).nonzero().flatten().tolist() or [0]
        bands.append((slice(used[0], used[-1] + 1), columns))
    return bands


def frames_in(seconds: float, sampling_rate: int = SAMPLING_RATE) -> int:
    """Return how many feature frames a window has: 298 for 3 s."""
    return 1 + (round(seconds * sampling_rate) - FRAME_SAMPLES) // HOP_SAMPLES
