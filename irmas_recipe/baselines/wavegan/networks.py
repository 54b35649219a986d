"""WaveGAN (Donahue, McAuley, Puckette, "Adversarial Audio Synthesis", ICLR 2019): raw waveforms from noise.

One pair of networks a class; what it generates can be added to a training set (CMMR 2021 did so on IRMAS).
"""

import math

import torch
from torch import nn
from torch.nn import functional

LATENT_SIZE = 100
KERNEL, STRIDE = 25, 4
START_SAMPLES = 16
LEAKY_SLOPE = 0.2
PHASE_SHUFFLE = 2
PENALTY_WEIGHT = 10.0


class Generator(nn.Module):
    """z (batch, 100), uniform in [-1, 1] -> waveforms (batch, samples) in [-1, 1]."""

    def __init__(self, samples: int = 16_384, model_size: int = 64) -> None:
        """samples: 16 times a power of 4 (16,384 or 65,536 in the paper). model_size: channels before the last layer."""
        super().__init__()
        channels = channel_counts(samples, model_size)[::-1]
        self.start_channels = channels[0]
        self.dense = nn.Linear(LATENT_SIZE, START_SAMPLES * channels[0])
        pairs = zip(channels, [*channels[1:], 1], strict=True)
        self.layers = nn.ModuleList(
            nn.ConvTranspose1d(inputs, outputs, KERNEL, STRIDE, padding=11, output_padding=1)
            for inputs, outputs in pairs
        )
        self.apply(initialize)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        hidden = functional.relu(self.dense(z).view(len(z), self.start_channels, START_SAMPLES))
        for layer in self.layers[:-1]:
            hidden = functional.relu(layer(hidden))
        return torch.tanh(self.layers[-1](hidden)).squeeze(1)


class Discriminator(nn.Module):
    """Waveforms (batch, samples) -> one unbounded score each, (batch,)."""

    def __init__(self, samples: int = 16_384, model_size: int = 64, phase_shuffle: int = PHASE_SHUFFLE) -> None:
        super().__init__()
        channels = channel_counts(samples, model_size)
        self.phase_shuffle = phase_shuffle
        pairs = zip([1, *channels[:-1]], channels, strict=True)
        self.layers = nn.ModuleList(nn.Conv1d(inputs, outputs, KERNEL, STRIDE, padding=11) for inputs, outputs in pairs)
        self.dense = nn.Linear(START_SAMPLES * channels[-1], 1)
        self.apply(initialize)

    def forward(self, waveforms: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """`generator` draws the phases; without one torch's own does."""
        hidden = waveforms.unsqueeze(1)
        for number, layer in enumerate(self.layers):
            hidden = functional.leaky_relu(layer(hidden), LEAKY_SLOPE)
            if number < len(self.layers) - 1:
                hidden = shuffle_phase(hidden, self.phase_shuffle, generator)
        return self.dense(hidden.flatten(1)).squeeze(1)


def channel_counts(samples: int, model_size: int) -> list[int]:
    """Return the channels after each of the discriminator's layers; the generator has them the other way round.

    Raises ValueError where the length is not 16 times a power of 4.
    """
    layers = round(math.log(samples / START_SAMPLES, STRIDE)) if samples > START_SAMPLES else 0
    if START_SAMPLES * STRIDE**layers != samples or layers < 1:
        raise ValueError(f"WaveGAN makes {START_SAMPLES} * 4^n samples, such as 16384 or 65536, not {samples}.")
    return [model_size * 2**number for number in range(layers)]


def initialize(module: nn.Module) -> None:
    """Draw weights as the authors' TensorFlow layers do: Glorot uniform, no bias."""
    if isinstance(module, nn.Linear | nn.Conv1d | nn.ConvTranspose1d):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


def shuffle_phase(hidden: torch.Tensor, most: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """Shift each example (batch, channels, samples) by -most to most samples, filled by reflection (section 3.3).

    Otherwise the discriminator would know generated sound by the phase at which its upsampling artefacts sit.
    """
    if most == 0:
        return hidden
    batch, _, samples = hidden.shape
    shifts = torch.randint(-most, most + 1, (batch, 1), generator=generator).to(hidden.device)
    index = torch.arange(samples, device=hidden.device) + shifts
    index = index.abs()  # reflected at the start, and at the end:
    index = (samples - 1) - ((samples - 1) - index).abs()
    return hidden.gather(2, index.unsqueeze(1).expand_as(hidden))


def gradient_penalty(
    discriminator: nn.Module, real: torch.Tensor, generated: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Return the mean of (|gradient| - 1)^2 at random points between real and generated (Gulrajani 2017, equation 3)."""
    share = torch.rand((len(real), 1), generator=generator).to(real.device)
    between = (real + share * (generated - real)).detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def discriminator_loss(
    discriminator: nn.Module, real: torch.Tensor, generated: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Return D(generated) - D(real) + 10 * penalty (Gulrajani 2017, equation 3)."""
    distance = discriminator(generated).mean() - discriminator(real).mean()
    return distance + PENALTY_WEIGHT * gradient_penalty(discriminator, real, generated, generator)
