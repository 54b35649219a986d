"""Every field of a recipe: its default, its help and what it may hold."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from transformers import TrainingArguments

THRESHOLDS_FROM = {
    "validation": "validation mixtures",
    "test_half": "the other half of the test set, which shares no song with this one",
}
"""Value of a recipe's `thresholds_from` -> what results.json calls it."""


@dataclass
class ModelArguments:
    """Which network, from which weights."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "A Hub id or a local folder. Without it, `architecture` is trained from scratch."},
    )
    architecture: str = field(default="ast", metadata={"help": "The folder in models/ to train from scratch."})
    model_config: dict | str | None = field(
        default=None, metadata={"help": "Fields of the model's configuration to set, as a mapping (JSON on the shell)."}
    )
    feature_extractor_config: dict | str | None = field(
        default=None, metadata={"help": "Fields of the feature extractor to set, as a mapping (JSON on the shell)."}
    )
    head_initialization: Literal["labels", "regression", "random"] = field(
        default="labels",
        metadata={
            "help": "labels: start the head from the checkpoint's own rows for the same instruments, by label name "
            "(AudioSet's 527 classes name all eleven). regression: from a logistic regression on the frozen embeddings of "
            "the training clips that is pulled towards those rows (LP-FT, Kumar 2022). random: a fresh head."
        },
    )
    backbone_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "crnn with network swin: an ImageNet checkpoint of Swin to start from, a Hub id or a folder."
        },
    )
    freeze: Literal["none", "backbone", "batch_norm", "known_labels"] = field(
        default="none",
        metadata={
            "help": "backbone: only the last linear layer is trained (a linear probe). batch_norm: everything but batch "
            "normalisation is trained, which keeps the checkpoint's statistics (small, uneven data would spoil them). "
            "known_labels (mfcc): the data's new classes get sub-networks of their own, and only these are trained."
        },
    )
    patchout_time: int = field(default=0, metadata={"help": "Random patch columns (time) dropped in training."})
    patchout_frequency: int = field(default=0, metadata={"help": "Random patch rows (frequency) dropped in training."})
    patchout_tokens: int = field(default=0, metadata={"help": "Random tokens dropped in training, after the above."})
    layerdrop: float | None = field(
        default=None, metadata={"help": "BEATs: share of whole layers skipped in training. Default: the checkpoint's."}
    )
    drop_path_rate: float | None = field(
        default=None,
        metadata={"help": "PaSST: stochastic depth of the last layer in training. Default: the checkpoint's."},
    )
    head_dropout: float | None = field(
        default=None, metadata={"help": "Dropout before the output layer in training. Default: the checkpoint's."}
    )
    initial_weight: float = field(
        default=0.0,
        metadata={
            "help": "After training, weights = initial_weight * initial + (1 - initial_weight) * trained, which keeps "
            "what the pretrained model knows (WiSE-FT, Wortsman 2022)."
        },
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run model code that comes with a Hub checkpoint."}
    )
    model_revision: str = field(default="main", metadata={"help": "Branch, tag or commit of the Hub checkpoint."})


@dataclass
class DataArguments:
    """Which music, and how it is cut."""

    data_dir: str = field(
        default="data/irmas",
        metadata={
            "help": "IRMAS (extracted or its zips), `synthetic`, or a folder of one's own: train/<class>/*.wav, test/."
        },
    )
    streaming: bool = field(
        default=False,
        metadata={
            "help": "data_dir is an export (a folder, the https:// address of a served one, or a dataset on the Hub) whose "
            "training clips are read while training; only validation and test files are stored."
        },
    )
    synthetic_train: int = field(default=660, metadata={"help": "Training excerpts to make for `synthetic`."})
    synthetic_test: int = field(default=120, metadata={"help": "Test clips to make for `synthetic`."})
    synthetic_seed: int = field(default=0, metadata={"help": "Seed of the synthetic music."})
    corrections: str | None = field(
        default=None, metadata={"help": "A CSV of corrected labels: path,instruments or path,drop."}
    )
    recording_pattern: str | None = field(
        default=None,
        metadata={"help": "Own folders: a regular expression whose match in a file's name is its recording."},
    )
    validation_fraction: float = field(default=0.15, metadata={"help": "Share of the training recordings held out."})
    split_seed: int = field(default=0, metadata={"help": "Seed of the validation split."})
    max_train_clips: int | None = field(
        default=None, metadata={"help": "Use only so many training clips (a trial run)."}
    )
    max_test_clips: int | None = field(default=None, metadata={"help": "Use only so many test clips (a trial run)."})
    extra_train_dir: str | None = field(
        default=None,
        metadata={
            "help": "A folder whose clips (train/<class>/*.wav: generated ones, or any of one's own) join the training set "
            "and nothing else."
        },
    )
    separation: Literal["none", "harmonic", "percussive", "solo", "accompaniment"] = field(
        default="none", metadata={"help": "Hear only this part of all music, separated once (Gomez 2018)."}
    )
    preparation_processes: int | None = field(
        default=None, metadata={"help": "Processes that decode and resample. Default: one a core."}
    )
    window_seconds: float = field(default=3.0, metadata={"help": "Length of the model's input."})
    hop_seconds: float | None = field(
        default=None, metadata={"help": "Step between a test clip's windows. Default: half a window."}
    )
    aggregation: Literal["mean", "max", "mean_probability", "s1", "s2"] = field(
        default="mean", metadata={"help": "How the windows of a clip become its scores (s1, s2: Han 2017)."}
    )
    thresholds_from: Literal["validation", "test_half"] = field(
        default="validation",
        metadata={
            "help": "test_half: tune thresholds on one half of the test set and report the other, disjoint by song, as part "
            "of the literature does. No training clip is needed for them, but test labels are."
        },
    )
    bootstrap_resamples: int = field(default=1000, metadata={"help": "Song resamples behind every interval."})


@dataclass
class AugmentationArguments:
    """What happens to a training batch on the model's device. Everything is off by default."""

    balanced_sampling: bool = field(default=False, metadata={"help": "Draw every class equally often."})
    mix_probability: float = field(
        default=0.0, metadata={"help": "Share of clips that are mixed with clips of other classes; labels are united."}
    )
    mix_max_clips: int = field(default=2, metadata={"help": "A mixture holds 2 to this many clips (5 at most)."})
    mix_max_gain_db: float = field(default=3.0, metadata={"help": "Each partner is louder or softer by at most this."})
    min_gain_db: float = field(default=0.0, metadata={"help": "Softest random gain."})
    max_gain_db: float = field(default=0.0, metadata={"help": "Loudest random gain."})
    noise_probability: float = field(default=0.0, metadata={"help": "Share of clips that get white noise."})
    min_snr_db: float = field(default=10.0, metadata={"help": "Loudest white noise, as signal-to-noise ratio."})
    max_snr_db: float = field(default=40.0, metadata={"help": "Softest white noise, as signal-to-noise ratio."})
    polarity_inversion_probability: float = field(default=0.0, metadata={"help": "Share of clips with flipped sign."})
    max_time_shift_seconds: float = field(default=0.0, metadata={"help": "Largest circular shift, either way."})
    time_masks: int = field(default=0, metadata={"help": "SpecAugment: masks along time."})
    max_time_mask_frames: int = field(default=0, metadata={"help": "SpecAugment: longest mask along time."})
    frequency_masks: int = field(default=0, metadata={"help": "SpecAugment: masks along frequency."})
    max_frequency_mask_bins: int = field(default=0, metadata={"help": "SpecAugment: widest mask along frequency."})
    audiomentations: str | None = field(
        default=None,
        metadata={
            "help": "A list of audiomentations transforms, run on the CPU: [{PitchShift: {p: 0.5}}, ...] (JSON on the shell)."
        },
    )


def cpu_multiplies_bf16() -> bool:
    """Return whether this CPU multiplies bf16 matrices in hardware (AMX, or AVX-512's bf16): about twice fp32's rate."""
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


@dataclass
class IrmasTrainingArguments(TrainingArguments):
    """transformers' TrainingArguments with this project's defaults and a few fields more."""

    bf16: bool | None = field(
        default=None, metadata={"help": "Mixed precision. Default: where the hardware multiplies bf16 matrices."}
    )
    torch_compile: bool | None = field(default=None, metadata={"help": "Compile the model. Default: on CUDA only."})
    report_to: None | str | list[str] = field(  # noqa: RUF036 (the parser needs None first)
        default="none", metadata={"help": "tensorboard, trackio, wandb ...: nothing is sent anywhere by default."}
    )
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate on the validation mixtures."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to write a checkpoint."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints to keep: the best and the last."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "End with the best checkpoint by validation."})
    metric_for_best_model: str | None = field(default="map", metadata={"help": "Validation figure that chooses it."})
    per_device_eval_batch_size: int = field(default=32, metadata={"help": "Windows per batch in evaluation."})
    logging_steps: float = field(default=10, metadata={"help": "Log the loss every so many steps."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Batches are made from raw columns: keep False."}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "True where a step leaves parameters out, as layer-drop does; it costs time."}
    )
    layer_decay: float = field(
        default=1.0, metadata={"help": "Each layer learns this much slower than the one above it (BEiT, Bao 2021)."}
    )
    one_cycle: bool = field(
        default=False, metadata={"help": "torch's OneCycleLR in place of lr_scheduler_type (Smith 2018)."}
    )
    weight_averaging: Literal["none", "ema"] = field(
        default="none", metadata={"help": "ema: evaluate and keep an exponential moving average of the weights."}
    )
    averaging_decay: float = field(default=0.999, metadata={"help": "Decay of that average per step."})
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Discard an unfinished run of another recipe in the output folder."}
    )

    def __post_init__(self) -> None:
        cuda = torch.cuda.is_available() and not self.use_cpu
        if self.bf16 is None:
            self.bf16 = not self.fp16 and (torch.cuda.is_bf16_supported() if cuda else cpu_multiplies_bf16())
        if self.bf16 and not torch.cuda.is_available():
            self.use_cpu = True  # transformers refuses bf16 on a CPU that it was not told to use
        if self.torch_compile is None:
            self.torch_compile = cuda
        self.dataloader_pin_memory = self.dataloader_pin_memory and cuda
        # The run folder is pushed once, when it is finished: the Trainer's own push would upload checkpoints and its card.
        self.push_when_finished, self.push_to_hub = self.push_to_hub, False
        super().__post_init__()


VALIDATION_FIGURES = ("map", "lrap", "loss")
"""What an evaluation during training measures, by which the best checkpoint can be chosen."""
