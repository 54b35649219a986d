"""Augmentation of a batch on the model's device: waveforms (batch, samples) in [-1, 1], then features.

Everything draws from torch's default generator of the device; the Trainer seeds it for each batch, so that a run is
the same for a seed, resumed or not. Nothing here is saved with a model: the feature extractor stays deterministic.
"""

import random

import numpy as np
import torch
import torchaudio

from irmas_dataset.audit.levels import SILENT_PEAK_DB
from irmas_dataset.errors import UserError
from irmas_recipe.training.fields import AugmentationArguments


class Augmentation:
    """What a recipe asks for, in the order in which it happens."""

    def __init__(
        self, arguments: AugmentationArguments, sampling_rate: int, window_samples: int, time_axis: int = -2
    ) -> None:
        """`time_axis` is -2 for features (batch, frames, mels) and -1 for (batch, 1, mels, frames)."""
        self.arguments = arguments
        self.sampling_rate = sampling_rate
        self.window_samples = window_samples
        self.time_axis = time_axis

    def waveforms(
        self, waveforms: torch.Tensor, labels: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return augmented windows (batch, window samples) of waveforms (batch, samples), and labels (batch, classes).

        `lengths` (batch,) says how many samples each has before the zeros that fill it up.
        """
        a = self.arguments
        if waveforms.shape[1] > self.window_samples:
            waveforms = random_window(waveforms, self.window_samples, lengths)
        if a.max_time_shift_seconds:
            waveforms = time_shift(waveforms, round(a.max_time_shift_seconds * self.sampling_rate))
        if a.polarity_inversion_probability:
            waveforms = invert_polarity(waveforms, a.polarity_inversion_probability)
        if a.mix_probability:
            waveforms, labels = mix(waveforms, labels, a.mix_probability, a.mix_max_clips, a.mix_max_gain_db)
        if a.noise_probability:
            waveforms = add_white_noise(waveforms, a.noise_probability, a.min_snr_db, a.max_snr_db)
        if a.min_gain_db or a.max_gain_db:
            waveforms = gain(waveforms, a.min_gain_db, a.max_gain_db)
        return waveforms, labels

    def features(self, features: torch.Tensor) -> torch.Tensor:
        """Return features with SpecAugment's masks (Park 2019), filled with the batch's mean of each frequency band.

        Raises:
            UserError: masks may be longer than the features.
        """
        a = self.arguments
        if not (a.time_masks or a.frequency_masks):
            return features
        kept = torch.ones_like(features)
        for flag, count, axis in (
            ("max_time_mask_frames", a.time_masks, self.time_axis),
            ("max_frequency_mask_bins", a.frequency_masks, -3 - self.time_axis),
        ):
            longest, size = getattr(a, flag), features.shape[axis]
            if count and longest > size:
                raise UserError(
                    f"--{flag} {longest} would often mask everything: a window has {size} of them; lower it."
                )
            for _ in range(count):
                kept = mask_along(kept, axis, longest)
        return torch.where(kept > 0, features, features.mean(dim=(0, self.time_axis), keepdim=True))


def chosen(waveforms: torch.Tensor, probability: float) -> torch.Tensor:
    """Return a random mask (batch, 1) that is true with the given probability."""
    return torch.rand(len(waveforms), 1, device=waveforms.device) < probability


def uniform(waveforms: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Return random numbers (batch, 1) between `low` and `high`."""
    return torch.empty(len(waveforms), 1, device=waveforms.device).uniform_(low, high)


def amplitude(decibels: torch.Tensor) -> torch.Tensor:
    """Return the amplitude ratio of a level difference in decibels."""
    return 10 ** (decibels / 20)


def root_mean_square(waveforms: torch.Tensor) -> torch.Tensor:
    """Return each waveform's level (batch, 1)."""
    return waveforms.square().mean(dim=-1, keepdim=True).sqrt()


def is_audible(waveforms: torch.Tensor) -> torch.Tensor:
    """Return whether each waveform is anything but silence, as the audit defines it: (batch, 1)."""
    return waveforms.abs().amax(dim=-1, keepdim=True) >= 10 ** (SILENT_PEAK_DB / 20)


def gain(waveforms: torch.Tensor, min_gain_db: float, max_gain_db: float) -> torch.Tensor:
    """Scale each waveform by a random gain."""
    return waveforms * amplitude(uniform(waveforms, min_gain_db, max_gain_db))


def invert_polarity(waveforms: torch.Tensor, probability: float) -> torch.Tensor:
    """Flip the sign of some waveforms."""
    return torch.where(chosen(waveforms, probability), -waveforms, waveforms)


def add_white_noise(waveforms: torch.Tensor, probability: float, min_snr_db: float, max_snr_db: float) -> torch.Tensor:
    """Add Gaussian white noise at a random signal-to-noise ratio to some waveforms."""
    snr_db = uniform(waveforms, min_snr_db, max_snr_db)
    noise = torch.randn_like(waveforms) * root_mean_square(waveforms) / amplitude(snr_db)
    return torch.where(chosen(waveforms, probability), waveforms + noise, waveforms)


def time_shift(waveforms: torch.Tensor, longest: int) -> torch.Tensor:
    """Roll each waveform circularly by up to `longest` samples, either way."""
    batch, samples = waveforms.shape
    shift = torch.randint(-longest, longest + 1, (batch, 1), device=waveforms.device)
    index = (torch.arange(samples, device=waveforms.device) - shift) % samples
    return waveforms.gather(1, index)


def random_window(waveforms: torch.Tensor, window_samples: int, lengths: torch.Tensor | None = None) -> torch.Tensor:
    """Cut a random window out of each waveform: (batch, samples) -> (batch, window samples).

    Where `lengths` (batch,) are given the window lies within so many samples, or begins with a shorter waveform.
    """
    batch, samples = waveforms.shape
    whole = torch.full((batch,), samples, device=waveforms.device)
    starts = ((whole if lengths is None else lengths) - window_samples).clamp_min(0)[:, None] + 1
    start = (torch.rand(batch, 1, device=waveforms.device, dtype=torch.float64) * starts).long()
    return waveforms.gather(1, start + torch.arange(window_samples, device=waveforms.device))


def mix(
    waveforms: torch.Tensor, labels: torch.Tensor, probability: float, max_clips: int, max_gain_db: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum some clips with 1 to `max_clips` - 1 others of the batch that share no class with them, and unite the labels.

    Each partner is drawn among the clips that can be mixed with what is there and are not in it yet, so `probability` is the share of mixtures
    wherever the batch has two classes. Silence is neither a partner nor mixed: it carries no label that can be heard.

    IRMAS is trained on clips of one label and tested on clips of several; a mixture with the union of the labels shows
    the model what the test set holds. A partner is brought to the clip's level, then made louder or softer by up to
    `max_gain_db`; the sum is brought back to the clip's level.

    Args:
        waveforms: (batch, samples). labels: (batch, classes), 1, 0, or -1: not known.
    Returns:
        The same shapes.
    """
    batch, present = len(waveforms), (labels == 1).to(waveforms.dtype)
    level = root_mean_square(waveforms)
    partners = torch.randint(1, max_clips, (batch, 1), device=waveforms.device) * chosen(waveforms, probability)
    mixture, united, heard = waveforms, labels, is_audible(waveforms)
    mixed = torch.zeros_like(partners, dtype=torch.bool)
    others = heard & heard.T & ~torch.eye(batch, dtype=torch.bool, device=waveforms.device)
    for number in range(1, min(max_clips, batch)):
        possible = ((united == 1).to(present.dtype) @ present.T == 0) & others
        other = torch.rand(batch, batch, device=waveforms.device).where(possible, -1.0).argmax(dim=1)
        joins = possible.any(dim=1, keepdim=True) & (partners >= number)
        weight = level / level[other].clamp_min(1e-8) * amplitude(uniform(waveforms, -max_gain_db, max_gain_db))
        mixture = torch.where(joins, mixture + weight * waveforms[other], mixture)
        united = torch.where(joins, unite(united, labels[other]), united)
        mixed = mixed | joins
        others = others & ~(joins & (torch.arange(batch, device=waveforms.device) == other[:, None]))
    rescaled = mixture * level / root_mean_square(mixture).clamp_min(1e-8)
    return torch.where(mixed, rescaled, waveforms), united


def unite(labels: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return the labels (batch, classes) of sums of two clips each: 1 if one has it, 0 if neither has, else -1: not known."""
    return torch.where((labels == 1) | (others == 1), 1, torch.minimum(labels, others))


def mask_along(features: torch.Tensor, axis: int, longest: int) -> torch.Tensor:
    """Zero one random stretch of each example along `axis`, 0 to `longest` - 1 steps long (torchaudio's SpecAugment mask)."""
    as_images = features if features.dim() == 4 else features.unsqueeze(1)
    masked = torchaudio.functional.mask_along_axis_iid(as_images, longest, 0.0, as_images.dim() + axis)
    return masked if features.dim() == 4 else masked.squeeze(1)


class CpuTransform:
    """A recipe's `audiomentations` as one function of float32 samples in [-1, 1] and a seed, a list of numbers."""

    def __init__(self, transforms: list, sampling_rate: int) -> None:
        """Build the transforms, each `{Name: {parameter: value}}` with a class of audiomentations, and try them on noise.

        Raises:
            ValueError: an unknown class or parameter, or what it needs is missing (a package, a folder of noises).
        """
        import audiomentations

        self.sampling_rate, built = sampling_rate, []
        noise = np.random.default_rng(0).normal(0, 0.1, sampling_rate).astype(np.float32)
        for item in transforms:
            if not isinstance(item, dict) or len(item) != 1:
                raise ValueError(f"each of `audiomentations` must read {{Name: {{parameter: value}}}}, not {item}")
            ((name, parameters),) = item.items()
            if not hasattr(audiomentations, name):
                raise ValueError(f"audiomentations has no transform `{name}`")
            try:
                transform = getattr(audiomentations, name)(**(parameters or {}))
                probability, transform.p = transform.p, 1.0
                self.compose = audiomentations.Compose([transform])
                self(noise, [0])
                transform.p = probability
            except Exception as error:
                said = " ".join(str(error).split()) or type(error).__name__
                raise ValueError(
                    f"{name} cannot work with {parameters} ({said.rstrip('.')}): check its parameters and the files it names"
                ) from error
            built.append(transform)
        self.compose = audiomentations.Compose(built)

    def __call__(self, samples: np.ndarray, seed: list[int]) -> np.ndarray:
        """Return changed samples, the same for the same seed."""
        # audiomentations draws from Python's and numpy's own generators, which others draw from too.
        python_state, numpy_state = random.getstate(), np.random.get_state()
        number = int(np.random.SeedSequence(seed).generate_state(1)[0])
        random.seed(number)
        np.random.seed(number)
        try:
            return self.compose(samples, sample_rate=self.sampling_rate)
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
