"""The steps of the main job, in the order in which `run_irmas.py` calls them."""

import copy
import logging
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from datasets import DatasetDict
from transformers import PreTrainedModel, set_seed
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.utils import logging as transformers_logging

from irmas_dataset import describe, load_irmas
from irmas_dataset import prepare as prepare_split
from irmas_dataset.download import ensure_irmas
from irmas_dataset.errors import UserError
from irmas_dataset.extra import add_training_clips, count_of
from irmas_dataset.separation import Separation
from irmas_dataset.streaming import files_folder, load_streamed
from irmas_dataset.synthetic import FORMAT_VERSION, synthesize
from models.instrument_recognition import attach_pipeline
from training import evaluation, run_folder
from training.arguments import Recipe
from training.augmentation import Augmentation, cpu_transform
from training.clips import TrainingClips, WindowedClips, collate, multi_hot
from training.example import write_example
from training.head import balanced_weights, fit_output_layer, window_embeddings
from training.model import device_features, load_model, output_layer
from training.model_card import write_model_card
from training.processes import leave
from training.report import draw_figures, results_table
from training.streaming import StreamedClips
from training.tracking import log_results
from training.trainer import InstrumentTrainer, interpolate

EXCERPT_SECONDS = 3.0  # IRMAS's training excerpts; longer training clips of one's own are cut into such pieces


def begin(recipe: Recipe) -> Path | None:
    """Make the run folder ready, once for all processes; return the checkpoint to go on from, or None.

    Raises:
        UserError: the folder holds something that this run must not touch.
    """
    quiet_libraries(recipe)
    with recipe.training.main_process_first(local=False, desc="the run folder"):
        checkpoint = run_folder.open_run_folder(recipe) if recipe.training.process_index == 0 else None
    if recipe.training.world_size > 1:
        (checkpoint,) = broadcast_object_list([checkpoint])
    if checkpoint:
        logging.warning("Going on from %s.", checkpoint)
    set_seed(recipe.training.seed)
    return checkpoint


def quiet_libraries(recipe: Recipe) -> None:
    """Let one process speak, and only of what a user can act on."""
    transformers_logging.disable_progress_bar()  # of loading and writing weights; the Trainer's own bar stays
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    if recipe.training.process_index > 0:
        logging.getLogger().setLevel(logging.ERROR)
        transformers_logging.set_verbosity_error()


def load_data(recipe: Recipe) -> DatasetDict:
    """Return train, validation and test; make or download them first where the recipe says so.

    Raises:
        UserError: no data, or data that cannot be used.
    """
    data = recipe.data
    folder = data_folder(recipe)
    options = {
        "validation_fraction": data.validation_fraction, "seed": data.split_seed, "corrections": data.corrections
    }  # fmt: skip
    if data.streaming:
        splits = load_streamed(data.data_dir, **options)
    else:
        if data.data_dir == "synthetic":
            synthesize(folder, train=data.synthetic_train, test=data.synthetic_test, seed=data.synthetic_seed)
        else:
            ensure_irmas(folder)
        splits = load_irmas(folder, recording_pattern=data.recording_pattern, **options)
    check_classes(splits["train"].features["instruments"].feature.names, folder)
    if data.extra_train_dir is not None:
        splits = add_training_clips(splits, data.extra_train_dir)
    for split, most in (("train", data.max_train_clips), ("test", data.max_test_clips)):
        if most is not None and most < len(splits[split]):
            splits[split] = splits[split].shuffle(seed=data.split_seed).select(range(most))
    for split in ("train", "validation", "test"):
        if len(splits[split]) == 0:
            raise UserError(f"{folder} gives no {split} clips: add recordings, or change --validation_fraction.")
    if isinstance(recipe, Recipe) and recipe.training.num_train_epochs > 0:  # a network's, not a classical system's
        check_before_training(recipe, splits)
    return splits


def check_classes(names: list[str], folder: Path) -> None:
    """Raise UserError for classes that no table of scores could hold: a single one, or one named as another column."""
    if len(names) < 2:
        raise UserError(f"{folder} holds one class, {names[0]}: there is nothing to tell apart; add folders of others.")
    if taken := sorted({"clip", "song", "instruments", "path", "duration_seconds"} & set(names)):
        raise UserError(f"{folder} holds a class named '{taken[0]}', as a column of every table is: rename its folder.")


def check_before_training(recipe: Recipe, splits: DatasetDict) -> None:
    """Refuse what would show only when hours of training are lost.

    Raises:
        UserError: a window longer than every training clip, or a test set that cannot be halved.
    """
    data, longest = recipe.data, max(splits["train"]["duration"][:])
    if data.window_seconds > 1.1 * longest:
        raise UserError(
            f"--window_seconds {data.window_seconds:g} is longer than every training clip of {data_folder(recipe)} (the "
            f"longest lasts {longest:.1f} s): the model would learn from padding; set it to {longest:.1f} or less."
        )
    if data.thresholds_from == "test_half":
        evaluation.test_halves(splits["test"], data.split_seed)


def data_folder(recipe: Recipe) -> Path:
    """Return where the recipe's music is; synthetic music is kept by its version, size and seed."""
    data = recipe.data
    if data.streaming:
        return files_folder(data.data_dir)
    if data.data_dir == "synthetic":
        return Path(
            f"data/synthetic-v{FORMAT_VERSION}-{data.synthetic_train}-{data.synthetic_test}-seed{data.synthetic_seed}"
        )
    return Path(data.data_dir)


def build_model(recipe: Recipe, data: DatasetDict) -> tuple[PreTrainedModel, SequenceFeatureExtractor]:
    """Return the recipe's model with one output a class, and its feature extractor."""
    classes = data["train"].features["instruments"].feature.names
    return load_model(recipe.model, classes, recipe.data.window_seconds, trained=recipe.training.num_train_epochs > 0)


def prepare(recipe: Recipe, data: DatasetDict, sampling_rate: int) -> DatasetDict:
    """Decode, resample and, where asked for, separate every clip, once; what is cached already is only opened."""
    clip_seconds = max(recipe.data.window_seconds, EXCERPT_SECONDS)
    return DatasetDict(
        {
            name: split
            if name == "train" and recipe.data.streaming
            else prepare_split(
                split,
                sampling_rate,
                segment_seconds=None if name == "test" else clip_seconds,
                num_proc=recipe.data.preparation_processes,
                transform=separation(recipe),
            )
            for name, split in data.items()
        }
    )


def separation(recipe: Recipe) -> Separation | None:
    """Return what finds the part of the music that the recipe hears; None where it hears all."""
    return None if recipe.data.separation == "none" else Separation(recipe.data.separation)


def build_trainer(
    recipe: Recipe, prepared: DatasetDict, model: PreTrainedModel, extractor: SequenceFeatureExtractor
) -> InstrumentTrainer:
    """Return the Trainer: clips to train on, mixtures to validate on, features and augmentation on the device."""
    data, arguments, rate = recipe.data, recipe.training, extractor.sampling_rate
    window_samples, _ = evaluation.window_and_hop_samples(data, rate)
    clip_samples = round(max(data.window_seconds, EXCERPT_SECONDS) * rate)
    try:
        transform = cpu_transform(recipe.augmentation.audiomentations, rate)
    except ValueError as error:
        raise UserError(f"--audiomentations: {error}.") from error
    if data.streaming:
        training_clips = StreamedClips(
            prepared["train"], rate, clip_samples, arguments.train_batch_size, arguments.seed,
            arguments.process_index, arguments.world_size, transform,
        )  # fmt: skip
    else:
        training_clips = TrainingClips(
            prepared["train"], clip_samples, recipe.augmentation.balanced_sampling, transform, arguments.seed
        )
    validation = evaluation.windows_of_mixtures(prepared["validation"], data, rate, eval_batch(recipe))
    return InstrumentTrainer(
        model=model,
        args=arguments,
        train_dataset=training_clips,
        eval_dataset=validation,
        data_collator=collate,
        processing_class=extractor,
        compute_metrics=evaluation.validation_figures(validation, data.aggregation),
        features=device_features(extractor),
        augmentation=Augmentation(
            recipe.augmentation, rate, window_samples, time_axis=getattr(extractor, "time_axis", -2)
        ),
    )


def eval_batch(recipe: Recipe) -> int:
    """Return how many windows all processes evaluate at once."""
    return recipe.training.per_device_eval_batch_size * recipe.training.world_size


def train(recipe: Recipe, trainer: InstrumentTrainer, checkpoint: Path | None) -> dict:
    """Train, or not at all for 0 epochs; return the `train` part of results.json."""
    model, arguments = trainer.model, recipe.training
    start, clips = time.perf_counter(), 0.0
    if arguments.num_train_epochs > 0:
        keep = recipe.model.initial_weight
        # Before the regression: a resumed run, which goes without it, then ends with the same weights.
        initial = {name: tensor.clone() for name, tensor in model.state_dict().items()} if keep else {}
        if checkpoint is None and recipe.model.head_initialization == "regression":
            start_head_by_regression(recipe, trainer)
        if checkpoint is None or not trainer.restore_if_finished(checkpoint):
            metrics = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None).metrics
            runtime = metrics["train_runtime"]
            clips = metrics["train_samples_per_second"] * runtime / (runtime - trainer.evaluation_seconds)
        if keep:
            interpolate(trainer.model, initial, keep)
        trainer.save_state()
    return {
        "seconds": round(time.perf_counter() - start - trainer.evaluation_seconds, 3),
        "validation_seconds": round(trainer.evaluation_seconds, 3),
        "clips_per_second": clips,
        "peak_memory_bytes": evaluation.peak_memory_bytes(arguments.device),
        "device": evaluation.device_name(arguments.device),
        "processes": arguments.world_size,
        "precision": "bf16" if arguments.bf16 else "fp16" if arguments.fp16 else "fp32",
        "compiled": arguments.torch_compile,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "epochs": trainer.state.epoch or 0,
        "resumed": checkpoint is not None,
    }


def start_head_by_regression(recipe: Recipe, trainer: InstrumentTrainer) -> None:
    """Fit the output layer to the training clips before everything is trained; every process fits the same one."""
    clips, rate = trainer.train_dataset, trainer.processing_class.sampling_rate
    labels = clips.labels.numpy()
    windows = WindowedClips(clips.waveforms, labels, *evaluation.window_and_hop_samples(recipe.data, rate))
    _, layer = output_layer(trainer.model)
    embeddings = window_embeddings(
        trainer.model, layer, trainer.features, windows, recipe.training.eval_batch_size,
        quiet=recipe.training.disable_tqdm or not trainer.is_world_process_zero(),
    )  # fmt: skip
    weights = torch.from_numpy(balanced_weights(labels, windows.windows_per_clip))
    rows = np.repeat(np.arange(len(labels)), windows.windows_per_clip)
    fit_output_layer(layer, embeddings, clips.labels[rows], weights)


def evaluate(
    recipe: Recipe, data: DatasetDict, prepared: DatasetDict, trainer: InstrumentTrainer, training: dict
) -> dict:
    """Score validation mixtures and test clips, tune thresholds, write predictions.parquet, return the results."""
    settings, rate = recipe.data, trainer.processing_class.sampling_rate
    mixtures = trainer.eval_dataset
    validation_scores = evaluation.clip_scores(trainer, mixtures, settings.aggregation)
    test = evaluation.windows_of(prepared["test"], settings, rate, eval_batch(recipe))
    start = time.perf_counter()
    scores = evaluation.clip_scores(trainer, test, settings.aggregation)
    training["inference_clips_per_second"] = round(len(scores) / (time.perf_counter() - start), 3)
    run_dir = Path(recipe.training.output_dir) if trainer.is_world_process_zero() else None
    thresholds, reported = evaluation.tune_and_write(
        prepared, mixtures, validation_scores, scores, settings, data_folder(recipe), run_dir
    )
    remember_protocol(trainer.model, settings, thresholds)
    counts = multi_hot(data["train"]).sum(axis=0)
    return {
        **evaluation.provenance(recipe),
        "dataset": describe_data(recipe, data, reported),
        "train": training,
        "protocol": evaluation.protocol(settings),
        **evaluation.evaluate_test(prepared["test"].select(reported), scores[reported], thresholds, settings, counts),
    }


def describe_data(recipe: Recipe, data: DatasetDict, reported: list[int]) -> dict:
    """Return the `dataset` part of results.json; of the test set, the rows whose figures are reported."""
    measured = copy.copy(data)  # with what it knows of damaged files
    measured["test"] = data["test"].select(reported)
    description = describe(measured)
    description["synthetic"] = recipe.data.data_dir == "synthetic"
    if recipe.data.extra_train_dir is not None:
        description["extra_train_clips"] = count_of(data["train"], recipe.data.extra_train_dir)
    return description


def remember_protocol(model: PreTrainedModel, data, thresholds) -> None:
    """Store in the model's configuration how it was evaluated; the pipeline does the same."""
    protocol = evaluation.protocol(data)
    for name in ("window_seconds", "hop_seconds", "aggregation", "separation"):
        setattr(model.config, name, protocol[name])
    model.config.thresholds = [float(threshold) for threshold in thresholds]


def save(recipe: Recipe, trainer: InstrumentTrainer, results: dict) -> None:
    """Write the model, its feature extractor and pipeline, and the results into the run folder."""
    run_dir = Path(recipe.training.output_dir)
    trainer.save_model(str(run_dir))
    if trainer.is_world_process_zero():
        (run_dir / "training_args.bin").unlink(missing_ok=True)  # a pickle, which nobody should have to load
        attach_pipeline(run_dir)
        evaluation.write_json(run_dir / "results.json", results)


def report(recipe: Recipe, trainer: InstrumentTrainer, results: dict) -> None:
    """Draw the figures, write the model card, and say what came out and what to do next."""
    if not trainer.is_world_process_zero():
        return
    run_dir = Path(recipe.training.output_dir)
    draw_figures(run_dir)
    write_example(run_dir, results["dataset"]["classes"])
    write_model_card(run_dir, repo_id=recipe.training.hub_model_id)
    log_results(trainer, run_dir, results)
    print(
        f"\n{results_table(results)}\n\nThe run folder is {run_dir}: the card is README.md, the pictures are in figures/."
    )
    print(next_steps(recipe, run_dir))


def next_steps(recipe: Recipe, run_dir: Path) -> str:
    """Return two lines to paste: tag a test clip with the model, and train on the real IRMAS."""
    python = Path(sys.executable)
    python = python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python
    clip = next(iter(sorted(data_folder(recipe).glob("IRMAS-TestingData-Part1/Part1/*.wav"))), "music.wav")
    code = (
        f"import soundfile; from transformers import pipeline; audio, rate = soundfile.read('{clip}', always_2d=True); "
        f"print(pipeline('audio-classification', model='{run_dir}')({{'raw': audio.mean(1), 'sampling_rate': rate}}))"
    )
    lines = ["\nTag a clip with it:", f'  {python} -c "{code}"']
    if recipe.data.data_dir == "synthetic":
        lines += ["Train AST on the real IRMAS (downloads about 10 GB into data/irmas, and the checkpoint):",
                  f"  {python} -m accelerate.commands.launch run_irmas.py recipes/ast/finetune.yaml"]  # fmt: skip
    return "\n".join(lines)


def push(recipe: Recipe, trainer: InstrumentTrainer) -> None:
    """Upload the run folder to the Hub with --push_to_hub; private unless --hub_private_repo false."""
    arguments = recipe.training
    if not arguments.push_when_finished or not trainer.is_world_process_zero():
        return
    from huggingface_hub import HfApi

    run_dir = Path(arguments.output_dir)
    api = HfApi(token=arguments.hub_token)
    private = arguments.hub_private_repo is not False
    try:
        repo_id = api.create_repo(arguments.hub_model_id or run_dir.name, private=private, exist_ok=True).repo_id
        if private and not api.repo_info(repo_id).private:
            raise UserError(
                f"--hub_model_id {repo_id} is a public repository: give another, make it private, or add "
                f"--hub_private_repo false. The finished run is in {run_dir}."
            )
        write_model_card(run_dir, repo_id=repo_id)
        api.upload_folder(
            repo_id=repo_id,
            folder_path=run_dir,
            ignore_patterns=["checkpoint-*", "runs/**", "*.unfinished", "training_args.bin", "non_finite_batch_*"],
            commit_message=f"Upload {run_dir.name}",
        )
    except UserError:
        raise
    except Exception as error:  # of the Hub, or of whatever library speaks to it
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"--push_to_hub failed ({reason}). The finished run is in {run_dir}.") from error
    print(f"Pushed to https://huggingface.co/{repo_id}" + (" (private)" if private else ""))


def end(trainer: InstrumentTrainer) -> None:
    """Close trackers and let the processes leave together."""
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
    leave(0, several_on_cpu=trainer.args.world_size > 1 and trainer.args.device.type == "cpu")
