"""Every field of a recipe: its default, what it does, and which numbers it may hold.

Nothing here imports torch or transformers, so that `--help` answers at once.
"""

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from irmas_dataset.errors import UserError
from irmas_dataset.forms.flags import Columns


@dataclass(frozen=True)
class Bounds:
    """Which numbers a field may hold; every one must be finite."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def admit(self, value: float) -> bool:
        """Return whether a number is finite and within the bounds."""
        return (
            math.isfinite(value)
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """Return "between 0 and 1", or "at least 0 and less than 1"."""
        if self.at_least is not None and self.at_most is not None:
            return f"between {self.at_least:,} and {self.at_most:,}"
        words = {
            "at least": self.at_least,
            "greater than": self.above,
            "at most": self.at_most,
            "less than": self.below,
        }
        return " and ".join(f"{word} {limit:,}" for word, limit in words.items() if limit is not None) or "finite"


FINITE = Bounds()
COUNT = Bounds(at_least=1)
POSITIVE = Bounds(above=0)
NOT_NEGATIVE = Bounds(at_least=0)
PROBABILITY = Bounds(at_least=0, at_most=1)
SEED = Bounds(at_least=0, at_most=2**32 - 1)  # that numpy takes
OVERWRITE = (
    "Replace the run in the output folder: a finished one when the new one is finished, an unfinished one of another "
    "recipe at once."
)


def option(default: Any, help: str, bounds: Bounds | None = None) -> Any:
    """Declare a field of a recipe: its default, its line of `--help`, and the bounds of a number."""
    return field(default=default, metadata={"help": help, "bounds": bounds})


def check_numbers(part: object) -> None:
    """Refuse a number of one part of a recipe that is out of its bounds.

    Raises:
        UserError: naming the field and what it may hold.
    """
    for item in fields(part):
        value = getattr(part, item.name, None)
        bounds = item.metadata.get("bounds") or TRAINER_BOUNDS.get(item.name) or FINITE
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and not bounds.admit(value):
            raise UserError(f"--{item.name} must be {bounds}, not {value:g}.")


THRESHOLDS_FROM = {
    "validation": "validation mixtures",
    "test_half": "the other half of the test set, which shares no song with this one",
}
"""Value of a recipe's `thresholds_from` -> what results.json calls it."""


@dataclass
class ModelArguments:
    """Which network, from which weights."""

    model_name_or_path: str | None = option(
        None,
        "A Hub id, a local folder, or a released checkpoint such as released/mn10, which is fetched once. Without it, "
        "`architecture` is trained from scratch.",
    )
    architecture: str = option(
        "ast",
        "What to train from scratch: a folder of irmas_recipe/models/, or any `model_type` with which transformers "
        "classifies audio, such as hubert or whisper. encoder, with model_name_or_path: the checkpoint's encoder under a "
        "learned mixture of its layers and one linear layer, as SUPERB probes encoders.",
    )
    model_config: dict | str | None = option(
        None, "Fields of the model's configuration to set, as a mapping (JSON on the shell)."
    )
    feature_extractor_config: dict | str | None = option(
        None, "Fields of the feature extractor to set, as a mapping (JSON on the shell)."
    )
    head_initialization: Literal["labels", "regression", "random", "text"] = option(
        "labels",
        "labels: start the head from the checkpoint's own rows for the same instruments, by label name "
        "(AudioSet's 527 classes name all eleven). regression: fit it to frozen embeddings of the training clips, "
        "regularised towards those rows (LP-FT, Kumar 2022). random: a fresh head. text (CLAP): start each class from its name in `text_prompt`.",
    )
    text_prompt: str = option(
        "the sound of a {label}",
        "head_initialization text: what CLAP's text encoder reads, with the class's name for {label}.",
    )
    backbone_name_or_path: str | None = option(
        None, "crnn with network swin: an ImageNet checkpoint of Swin to start from, a Hub id or a folder."
    )
    freeze: Literal["none", "backbone", "feature_encoder", "batch_norm", "known_labels"] = option(
        "none",
        "backbone: only the last linear layer is trained, of speech models all from the mixture of their layers on (a linear probe). "
        "feature_encoder: the convolutions at the start "
        "of wav2vec 2.0 and its relatives keep the checkpoint's weights, as is usual for them. batch_norm: everything but batch "
        "normalisation is trained, so the checkpoint's statistics stay (small, uneven data would spoil them). "
        "known_labels (mfcc): each new class of the data gets its own sub-network, and only these are trained.",
    )
    patchout_time: int = option(0, "Random patch columns (time) dropped in training.", NOT_NEGATIVE)
    patchout_frequency: int = option(0, "Random patch rows (frequency) dropped in training.", NOT_NEGATIVE)
    patchout_tokens: int = option(0, "Random tokens dropped in training, after the above.", NOT_NEGATIVE)
    layerdrop: float | None = option(
        None,
        "BEATs and the speech models: share of whole layers skipped in training. Default: the checkpoint's.",
        Bounds(at_least=0, below=1),
    )
    drop_path_rate: float | None = option(
        None,
        "PaSST: stochastic depth of the last layer in training. Default: the checkpoint's.",
        Bounds(at_least=0, below=1),
    )
    head_dropout: float | None = option(
        None, "Dropout before the output layer in training. Default: the checkpoint's.", Bounds(at_least=0, below=1)
    )
    initial_weight: float = option(
        0.0,
        "After training, weights = initial_weight * initial + (1 - initial_weight) * trained, which keeps "
        "what the pretrained model knows (WiSE-FT, Wortsman 2022).",
        PROBABILITY,
    )
    soup: list[str] | None = option(
        None,
        "Finished runs of the same network and classes: their weights are averaged with the trained ones, before "
        "initial_weight (a model soup, Wortsman 2022). All should start from one checkpoint and have initial_weight 0.",
    )
    trust_remote_code: bool = option(False, "Run model code that comes with a Hub checkpoint.")
    model_revision: str = option("main", "Branch, tag or commit of the Hub checkpoint.")


@dataclass
class DataArguments:
    """Which music, and how it is cut."""

    data_dir: str = option(
        "data/irmas",
        "IRMAS (extracted or its zips), OpenMIC-2018, `synthetic`, a folder of your own (train/<class>/*.wav, labels.csv), "
        "a folder in one of the Hub's forms (Parquet with audio, metadata.csv), or a data set's id on the Hub.",
    )
    audio_column: str | None = option(None, "Hub forms: the column of the audio. Default: the only one.")
    label_column: str | None = option(
        None, "Hub forms: the column of the labels, or several 0/1 columns with commas between. Default: a guess."
    )
    recording_column: str | None = option(
        None, "Hub forms: the column that names each clip's recording. Default: `recording`, `song` or `track`."
    )
    train_split: str | None = option(None, "Hub forms: the split to train on. Default: `train`.")
    test_split: str | None = option(
        None, "Hub forms: the split to test on; `none` holds recordings of the training split out. Default: `test`."
    )
    data_config: str | None = option(None, "Hub forms: the configuration, where a data set has several.")
    streaming: bool = option(
        False,
        "Read the training clips of an export, or of a data set in one of the Hub's forms, while training, and store "
        "only validation and test files. data_dir is a folder, the https:// address of a served one, or an id on the Hub.",
    )
    synthetic_train: int = option(660, "Training excerpts to make for `synthetic`.", COUNT)
    synthetic_test: int = option(120, "Test clips to make for `synthetic`.", COUNT)
    synthetic_seed: int = option(0, "Seed of the synthetic music.", SEED)
    corrections: str | None = option(None, "A CSV of corrected labels: path,instruments or path,drop.")
    recording_pattern: str | None = option(
        None, "Own folders: a regular expression that finds a clip's recording in its path."
    )
    validation_fraction: float = option(0.15, "Share of the training recordings held out.", Bounds(above=0, below=1))
    split_seed: int = option(0, "Seed of the validation split.", SEED)
    max_train_clips: int | None = option(None, "Use at most this many training clips (for a trial run).", COUNT)
    max_test_clips: int | None = option(None, "Use at most this many test clips (for a trial run).", COUNT)
    extra_train_dir: str | None = option(
        None,
        "A data set in any form that data_dir takes, whose training clips join the training set and nothing else.",
    )
    extra_label_map: dict | str | None = option(
        None,
        "Label of extra_train_dir -> class of the data, as a mapping (JSON on the shell); a label without one is dropped.",
    )
    extra_columns: dict | str | None = option(
        None,
        "Hub forms: which columns and splits of extra_train_dir mean what, as a mapping (JSON on the shell) of the fields from "
        "audio_column to data_config: {label_column: instrument}.",
    )
    compare_extra_sound: bool = option(
        True, "Find copies of validation and test clips in extra_train_dir by their sound, not by their bytes alone."
    )
    separation: Literal[
        "none", "harmonic", "percussive", "solo", "accompaniment", "drums", "bass", "other", "vocals"
    ] = option(
        "none",
        "Use only this part of all music, separated once (Gomez 2018); the last four by Hybrid Demucs, whose weights you "
        "fetch yourself.",
    )
    separated_mixtures: int = option(
        0,
        "With a separation, make this many training mixtures for each clip beforehand, summed first and separated then, as "
        "test music is (mix_probability of them of several clips); 0 sums separated clips anew in every step.",
        NOT_NEGATIVE,
    )
    preparation_processes: int | None = option(
        None,
        "Processes that decode, resample and separate. Default: one per core, fewer for little data; cores beyond them "
        "decode in threads.",
        COUNT,
    )
    window_seconds: float = option(3.0, "Length of the model's input.", Bounds(above=0, at_most=600))
    hop_seconds: float | None = option(
        None, "Step between a test clip's windows. Default: half a window.", Bounds(at_least=0.01)
    )
    aggregation: Literal["mean", "energy", "max", "mean_probability", "s1", "s2"] = option(
        "mean", "How the windows of a clip become its scores (energy: loud windows weigh more; s1, s2: Han 2017)."
    )
    validation_clips: Literal["mixtures", "single"] = option(
        "mixtures",
        "Tune and validate on mixtures of 1 to 3 held-out clips, since IRMAS's training clips have one label each and its "
        "test clips several; or on single clips, for data whose training and test clips are alike.",
    )
    thresholds_from: Literal["validation", "test_half"] = option(
        "validation",
        "test_half: tune thresholds on one half of the test set and report the other, disjoint by song, as part "
        "of the literature does. It needs no validation clips, but it uses test labels.",
    )
    bootstrap_resamples: int = option(1000, "Resamples of songs behind every interval.", COUNT)

    @property
    def columns(self) -> Columns:
        """What the flags of columns and splits say."""
        return Columns(**{item.name: getattr(self, item.name) for item in fields(Columns)})

    @property
    def columns_of_extra(self) -> Columns:
        """The same of `extra_train_dir`."""
        return Columns(**self.extra_columns or {})


@dataclass
class AugmentationArguments:
    """What happens to a training batch on the model's device. Everything is off by default."""

    balanced_sampling: bool = option(
        False,
        "Draw every class equally often, as far as clips of several classes allow; a clip of none is never drawn.",
    )
    mix_probability: float = option(
        0.0,
        "Share of clips that are mixed with clips of other classes in their batch; the mixture has all their labels.",
        PROBABILITY,
    )
    mix_max_clips: int = option(2, "A mixture holds 2 to this many clips (5 at most).", Bounds(at_least=2, at_most=5))
    mix_max_gain_db: float = option(
        3.0, "Each clip that is mixed in is louder or softer by at most this.", NOT_NEGATIVE
    )
    min_gain_db: float = option(0.0, "Lowest random gain.")
    max_gain_db: float = option(0.0, "Highest random gain.")
    noise_probability: float = option(0.0, "Share of clips that get white noise.", PROBABILITY)
    min_snr_db: float = option(10.0, "Lowest signal-to-noise ratio of the white noise.")
    max_snr_db: float = option(40.0, "Highest signal-to-noise ratio of the white noise.")
    polarity_inversion_probability: float = option(0.0, "Share of clips whose sign is flipped.", PROBABILITY)
    max_time_shift_seconds: float = option(0.0, "Largest circular shift, either way.", NOT_NEGATIVE)
    time_masks: int = option(0, "SpecAugment: masks along time.", NOT_NEGATIVE)
    max_time_mask_frames: int = option(0, "SpecAugment: every mask along time is shorter than this.", NOT_NEGATIVE)
    frequency_masks: int = option(0, "SpecAugment: masks along frequency.", NOT_NEGATIVE)
    max_frequency_mask_bins: int = option(
        0, "SpecAugment: every mask along frequency is narrower than this.", NOT_NEGATIVE
    )
    audiomentations: str | None = option(
        None, "A list of audiomentations transforms, run on the CPU: [{PitchShift: {p: 0.5}}, ...] (JSON on the shell)."
    )


@dataclass
class TrainingFields:
    """What sets our training apart from transformers' TrainingArguments: other defaults, and a few fields more."""

    bf16: bool | None = option(None, "Mixed precision. Default: on where the hardware multiplies bf16 matrices.")
    torch_compile: bool | None = option(None, "Compile the model. Default: on CUDA, where a block is repeated.")
    cuda_graph: bool | None = option(
        None,
        "Replay a step's forward and backward pass as one CUDA graph. Default: on one GPU, for the models made for it.",
    )
    report_to: None | str | list[str] = option(  # noqa: RUF036 (the parser needs None first)
        "none", "tensorboard, trackio, wandb, ...; by default nothing is sent anywhere."
    )
    eval_strategy: str = option("epoch", "When to evaluate on the validation mixtures.")
    save_strategy: str = option("epoch", "When to write a checkpoint.")
    save_total_limit: int | None = option(2, "Checkpoints to keep: the best and the last.", COUNT)
    load_best_model_at_end: bool = option(True, "End with the checkpoint that is best on validation.")
    metric_for_best_model: str | None = option("map", "The validation figure that decides: map, lrap or loss.")
    per_device_eval_batch_size: int | None = option(
        None, "Windows per batch in evaluation. Default: 32 on a GPU, otherwise 8.", COUNT
    )
    logging_steps: float = option(10, "Log the loss every this many steps.", POSITIVE)
    remove_unused_columns: bool = option(False, "Keep False: batches are made from raw columns.")
    ddp_find_unused_parameters: bool | None = option(
        None, "Look for parameters that a step skipped, which costs time. Default: for models with layer drop."
    )
    ddp_broadcast_buffers: bool | None = option(
        False, "Keep False: buffers are shared before every evaluation, and True would share them in every step."
    )
    layer_decay: float = option(
        1.0,
        "Each layer's learning rate as a share of the rate of the layer above it (BEiT, Bao 2021).",
        Bounds(above=0, at_most=1),
    )
    logging_nan_inf_filter: bool = option(False, "Keep False: True makes the CPU wait for the GPU at every step.")
    one_cycle: bool = option(False, "Use torch's OneCycleLR instead of lr_scheduler_type (Smith 2018).")
    global_train_batch_size: int | None = option(
        None,
        "Clips per optimizer step over all processes and accumulated batches: the recipe then means the same on any number "
        "of processes. Sets per_device_train_batch_size, which replaces it if it is given on the command line.",
        COUNT,
    )
    weight_averaging: Literal["none", "ema"] = option(
        "none", "ema: evaluate and keep an exponential moving average of the weights."
    )
    averaging_decay: float = option(0.999, "Decay of that average per step.", PROBABILITY)
    enable_jit_checkpoint: bool = option(
        False,
        "At SIGTERM, which schedulers send before they kill, write a checkpoint after a step and end with exit code 143; the "
        "same command resumes.",
    )
    overwrite_output_dir: bool = option(False, OVERWRITE)


SEVERAL_LABELS = "means a clip to have one label"
TEXT = "is about models of text"
LOGITS = "would change the logits that an evaluation works on"
PRECISION = "would lower the precision of the evaluation, which is the same for all runs"
RESUME = "would leave checkpoints from which no run could resume"
BATCHES = "would change how clips become batches, which the sampler decides"
WHOLE_MODEL = "would divide the model among processes, which would help only models larger than any here"
ALWAYS = "changes nothing: a run trains (with --num_train_epochs 0 it does not), evaluates and predicts"
ONE_UPLOAD = "changes nothing: a run is uploaded once, when it is finished, with --push_to_hub"

UNUSABLE = {
    "label_smoothing_factor": SEVERAL_LABELS,
    "average_tokens_across_devices": TEXT,
    "include_num_input_tokens_seen": TEXT,
    "neftune_noise_alpha": TEXT,
    "use_cache": TEXT,
    "use_liger_kernel": TEXT,
    "liger_kernel_config": TEXT,
    "train_sampling_strategy": TEXT,
    "length_column_name": TEXT,
    "prediction_loss_only": LOGITS,
    "batch_eval_metrics": LOGITS,
    "eval_do_concat_batches": LOGITS,
    "eval_use_gather_object": LOGITS,
    "include_for_metrics": LOGITS,
    "label_names": LOGITS,
    "dataloader_in_order": LOGITS,
    "bf16_full_eval": PRECISION,
    "fp16_full_eval": PRECISION,
    "save_only_model": RESUME,
    "auto_find_batch_size": BATCHES,
    "dataloader_drop_last": BATCHES,
    "accelerator_config": BATCHES,
    "remove_unused_columns": "would drop the waveforms",
    "optim_target_modules": "is about optimizers that choose their own groups of parameters",
    "fsdp": WHOLE_MODEL,
    "fsdp_config": WHOLE_MODEL,
    "deepspeed": WHOLE_MODEL,
    "parallelism_config": WHOLE_MODEL,
    "do_train": ALWAYS,
    "do_eval": ALWAYS,
    "do_predict": ALWAYS,
    "hub_strategy": ONE_UPLOAD,
    "hub_always_push": ONE_UPLOAD,
    "hub_revision": ONE_UPLOAD,
}
"""Field of transformers' TrainingArguments that a recipe cannot set -> why: it would crash, do harm or do nothing."""

VALIDATION_FIGURES = ("map", "lrap", "loss")
"""What an evaluation during training measures, by which the best checkpoint can be chosen."""

TRAINER_BOUNDS = {
    "adam_beta1": PROBABILITY,
    "adam_beta2": PROBABILITY,
    "adam_epsilon": POSITIVE,
    "data_seed": SEED,
    "dataloader_num_workers": NOT_NEGATIVE,
    "dataloader_prefetch_factor": COUNT,
    "eval_accumulation_steps": COUNT,
    "eval_delay": NOT_NEGATIVE,
    "eval_steps": POSITIVE,
    "gradient_accumulation_steps": COUNT,
    "learning_rate": NOT_NEGATIVE,
    "max_grad_norm": NOT_NEGATIVE,
    "num_train_epochs": NOT_NEGATIVE,
    "per_device_train_batch_size": COUNT,
    "save_steps": POSITIVE,
    "seed": SEED,
    "warmup_steps": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
}
"""Bounds of fields that transformers declares."""
