"""What AST needs beyond transformers' own class: batched features, a shorter input, patchout."""

import torch
import torchaudio
from torch import nn
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification
from transformers.models.audio_spectrogram_transformer.modeling_audio_spectrogram_transformer import ASTLayer

from irmas_dataset.errors import UserError

SAMPLING_RATE = 16000
FRAME_SAMPLES, HOP_SAMPLES, FFT_SAMPLES = 400, 160, 512  # 25 ms, 10 ms, the next power of two, at 16 kHz
PRE_EMPHASIS = 0.97
CPU_CHUNK_CLIPS = 4  # more clips at once leave the CPU's cache and take several times as long
CPU_MEL_BANDS = 4  # a group of neighbouring mel banks needs few of the 257 frequencies; more groups gain little
POOLED_TOKENS = 2  # class and distillation token


class AstFeatures(nn.Module):
    """ASTFeatureExtractor's log-mel features for a whole batch, on the waveforms' device.

    Kaldi's filter bank as torchaudio.compliance.kaldi.fbank computes it for one clip (DC removal, pre-emphasis, Hann
    window, power spectrum, mel, log), then padding or cutting to `max_length` and normalisation.
    """

    def __init__(self, extractor: ASTFeatureExtractor) -> None:
        super().__init__()
        if extractor.sampling_rate != SAMPLING_RATE:
            raise UserError(f"AST's features are defined at {SAMPLING_RATE} Hz, not at {extractor.sampling_rate} Hz.")
        self.max_length = extractor.max_length
        self.mean, self.std = (extractor.mean, extractor.std) if extractor.do_normalize else (0.0, 0.5)
        banks, _ = torchaudio.compliance.kaldi.get_mel_banks(
            extractor.num_mel_bins, FFT_SAMPLES, extractor.sampling_rate, 20.0, 0.0, 100.0, -500.0, 1.0
        )
        self.register_buffer("mel_banks", nn.functional.pad(banks, (0, 1)).T.contiguous(), persistent=False)
        self.bands = mel_bands(self.mel_banks, CPU_MEL_BANDS)
        self.register_buffer("window", torch.hann_window(FRAME_SAMPLES, periodic=False), persistent=False)

    @torch.no_grad()
    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Return features (batch, max_length, mels) of waveforms (batch, samples) in [-1, 1]."""
        self.to(waveforms.device)
        if waveforms.device.type == "cpu":
            return torch.cat([self.log_mel(chunk) for chunk in waveforms.split(CPU_CHUNK_CLIPS)])
        return self.log_mel(waveforms)

    def log_mel(self, waveforms: torch.Tensor) -> torch.Tensor:
        frames = waveforms.unfold(-1, FRAME_SAMPLES, HOP_SAMPLES)
        frames = frames - frames.mean(dim=-1, keepdim=True)
        previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        frames = (frames - PRE_EMPHASIS * previous) * self.window
        spectrum = torch.fft.rfft(frames, FFT_SAMPLES)
        power = spectrum.real.square() + spectrum.imag.square()
        features = self.mel(power).clamp_min(torch.finfo(torch.float32).eps).log()
        missing = self.max_length - features.shape[1]
        features = nn.functional.pad(features, (0, 0, 0, missing))  # a negative number of frames cuts
        return (features - self.mean) / (2 * self.std)

    def mel(self, power: torch.Tensor) -> torch.Tensor:
        """Return mel energies (batch, frames, mels) of power spectra (batch, frames, frequencies)."""
        if power.device.type != "cpu":
            return power @ self.mel_banks
        return torch.cat([power[..., rows] @ self.mel_banks[rows, columns] for rows, columns in self.bands], dim=-1)


def mel_bands(mel_banks: torch.Tensor, groups: int) -> list[tuple[slice, slice]]:
    """Cut a filter bank (frequencies, mels) into groups of neighbouring mels: the frequencies each needs, and the mels."""
    bands = []
    for columns in torch.arange(mel_banks.shape[1]).chunk(groups):
        columns = slice(int(columns[0]), int(columns[-1]) + 1)
        used = mel_banks[:, columns].sum(dim=1).nonzero().flatten().tolist() or [0]
        bands.append((slice(used[0], used[-1] + 1), columns))
    return bands


def frames_in(seconds: float, sampling_rate: int = 16000) -> int:
    """Return how many feature frames a window gives: 298 for 3 s."""
    return 1 + (round(seconds * sampling_rate) - FRAME_SAMPLES) // HOP_SAMPLES


def patch_grid(config: ASTConfig) -> tuple[int, int]:
    """Return the rows (frequency) and columns (time) of patches: 12 x 101 for the released models, 12 x 29 for 3 s."""
    rows = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
    columns = (config.max_length - config.patch_size) // config.time_stride + 1
    return rows, columns


def initialize_tokens(model: ASTForAudioClassification) -> None:
    """Start the class tokens and position embeddings of a model without pretraining as the authors do (std .02).

    transformers sets them to zero, and the first layer norm's gradient at a token of zeros is some hundred times that
    of all others, so that clipping leaves nothing of the first steps.
    """
    embeddings = model.audio_spectrogram_transformer.embeddings
    for tokens in (embeddings.cls_token, embeddings.distillation_token, embeddings.position_embeddings):
        nn.init.trunc_normal_(tokens, std=0.02)


def crop_to_frames(model: ASTForAudioClassification, frames: int) -> None:
    """Give a pretrained AST a shorter input, in place: keep the middle columns of its grid of position embeddings.

    As the authors do (Gong 2021, `ast_models.py`): `from_pretrained(max_length=...)` would set them all to zero.

    Raises:
        UserError: the window is longer than the checkpoint's, or shorter than a patch.
    """
    rows, old_columns = patch_grid(model.config)
    old_frames, model.config.max_length = model.config.max_length, frames
    _, columns = patch_grid(model.config)
    if not 1 <= columns <= old_columns:
        raise UserError(
            f"--window_seconds gives {frames} frames, but this AST takes {model.config.patch_size} to {old_frames}: "
            "choose a window of up to 10.24 s."
        )
    embeddings = model.audio_spectrogram_transformer.embeddings
    special, grid = embeddings.position_embeddings.data.split([2, rows * old_columns], dim=1)
    first = old_columns // 2 - columns // 2
    middle = grid.unflatten(1, (rows, old_columns))[:, :, first : first + columns].flatten(1, 2)
    embeddings.position_embeddings = nn.Parameter(torch.cat([special, middle], dim=1))


class PooledLayer(ASTLayer):
    """AST's last layer, computed only for the two tokens whose mean is classified; the others serve as keys and values."""

    def forward(self, hidden_states: torch.Tensor, attention_mask: None = None, **kwargs) -> torch.Tensor:
        """Return (batch, 2, hidden) of hidden states (batch, tokens, hidden)."""
        attention, normed = self.attention, self.layernorm_before(hidden_states)
        heads = (len(normed), -1, attention.num_attention_heads, attention.head_dim)
        query = attention.q_proj(normed[:, :POOLED_TOKENS]).view(heads).transpose(1, 2)
        key, value = (layer(normed).view(heads).transpose(1, 2) for layer in (attention.k_proj, attention.v_proj))
        dropout = attention.attention_dropout if self.training else 0.0
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        mixed = attention.o_proj(mixed.transpose(1, 2).flatten(2))
        hidden_states = hidden_states[:, :POOLED_TOKENS] + self.dropout(mixed)
        return hidden_states + self.dropout(self.mlp(self.layernorm_after(hidden_states)))


def compute_only_what_is_pooled(model: ASTForAudioClassification) -> None:
    """Skip what nothing reads in the last layer, in place: the same logits and gradients for a twelfth less work.

    Names and shapes of the weights stay, so that what is saved is transformers' own AST.
    """
    layers = model.audio_spectrogram_transformer.layers
    pooled = PooledLayer(model.config)
    pooled.load_state_dict(layers[-1].state_dict())
    layers[-1] = pooled.train(layers[-1].training)


def add_patchout(model: ASTForAudioClassification, columns: int, rows: int, tokens: int) -> None:
    """Drop random patches in training (Koutini 2022): whole time columns, whole frequency rows, then single tokens.

    The counts are constant, so that a compiled graph keeps its shapes; the same patches leave every clip of a batch.

    Raises:
        UserError: nothing would be left.
    """
    grid_rows, grid_columns = patch_grid(model.config)
    kept_rows, kept_columns = grid_rows - rows, grid_columns - columns
    if min(kept_rows, kept_columns) < 1 or kept_rows * kept_columns <= tokens:
        raise UserError(
            f"patchout of {columns} columns, {rows} rows and {tokens} tokens leaves nothing of {grid_columns} x {grid_rows} "
            "patches: lower --patchout_time, --patchout_frequency or --patchout_tokens."
        )

    def drop(module: nn.Module, _, embeddings: torch.Tensor) -> torch.Tensor:
        if not module.training:
            return embeddings
        device = embeddings.device
        row = torch.rand(grid_rows, device=device).argsort()[:kept_rows].sort().values
        column = torch.rand(grid_columns, device=device).argsort()[:kept_columns].sort().values
        patches = (row[:, None] * grid_columns + column).flatten()
        kept = torch.rand(len(patches), device=device).argsort()[tokens:].sort().values
        return torch.cat([embeddings[:, :2], embeddings[:, 2 + patches[kept]]], dim=1)

    model.audio_spectrogram_transformer.embeddings.register_forward_hook(drop)


def add_head_dropout(model: ASTForAudioClassification, probability: float) -> None:
    """Drop inputs of the output layer in training: transformers' AST has no such dropout, and weights keep their names."""

    def drop(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (nn.functional.dropout(inputs[0], probability, module.training), *inputs[1:])

    model.classifier.dense.register_forward_pre_hook(drop)
