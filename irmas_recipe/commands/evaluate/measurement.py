"""A trained model on a test set: the recipe that measures it, and its results."""

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict
from huggingface_hub import hf_hub_download
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.utils.import_utils import is_torch_tf32_available

from irmas_dataset.errors import UserError
from irmas_dataset.forms.flags import Columns
from irmas_dataset.loading import is_held_out
from irmas_recipe.report.heard import check_unheard, heard_as_extra, is_same
from irmas_recipe.report.results import Results
from irmas_recipe.report.runs import TEST_FILE, VALIDATION_FILE
from irmas_recipe.training import evaluation
from irmas_recipe.training.checkpoint import check_name, reach_hub, unreachable
from irmas_recipe.training.clips import multi_hot
from irmas_recipe.training.data import describe_data, load_data, prepare_splits, training_counts
from irmas_recipe.training.features import device_features
from irmas_recipe.training.fields import DataArguments
from irmas_recipe.training.machine import windows_at_once
from irmas_recipe.training.model import build_model
from irmas_recipe.training.processes import quiet_libraries
from irmas_recipe.training.recipe import Recipe, parse_recipe
from irmas_recipe.training.recogniser import check_stored_protocol


@dataclass(frozen=True)
class Seen:
    """What a run has seen of the music that it is measured on.

    tuned_songs: of the half of its test set on which its thresholds were tuned, if they were.
    is_own: whether the music is what it was trained on, where test clips may have been held out.
    is_extra: whether all of the music joined its training set.
    """

    model: str
    tuned_songs: set[str]
    is_own: bool
    is_extra: bool = False

    def tuned_on_another(self, test: Dataset) -> bool:
        """Return whether thresholds were tuned on half of another test set, some of whose songs are not among these."""
        return not self.tuned_songs <= set(test["song"][:])

    def unseen_rows(self, test: Dataset, data: DataArguments) -> list[int]:
        """Return the rows of the test clips on whose songs no threshold was tuned.

        Raises:
            UserError: there are none; or clips were held out of music that the run may have been trained on.
        """
        rows = [row for row, song in enumerate(test["song"][:]) if song not in self.tuned_songs]
        if not rows:
            raise UserError(
                "The model's thresholds were tuned on every song of this test set: name another --data_dir."
            )
        if len(rows) < len(test) and self.tuned_on_another(test):
            logging.warning(
                "%d of %d test clips of %s are left out: their songs are named like some on which the model's thresholds were "
                "tuned.", len(test) - len(rows), len(test), data.data_dir,
            )  # fmt: skip
        if self.is_extra and is_held_out(test):
            raise heard_as_extra(self.model, data.data_dir)
        if self.is_own and is_held_out(test):
            names = [TEST_FILE, *[VALIDATION_FILE] * bool(self.tuned_songs)]
            check_unheard(self.model, [file_of_run(self.model, name) for name in names], test, data)
        return rows


def evaluation_recipe(arguments: argparse.Namespace, scratch: str) -> tuple[Recipe, Seen]:
    """Return the recipe by which the model was trained, with nothing left to train, and what it has seen of the test set.

    Args:
        scratch: a folder for what the recipe's training arguments would write.

    Raises:
        UserError: there is no such model, or this project did not make it.
    """
    check_name(arguments.model)
    path = file_of_run(arguments.model, "recipe.yaml")
    fixed = {
        "model_name_or_path": arguments.model,
        "model_revision": "main",  # the run's own is of what it started from
        "trust_remote_code": arguments.trust_remote_code,  # not the run's word, which may be a stranger's
        "backbone_name_or_path": "",  # the model's folder has all of its weights
        "head_initialization": "labels",  # and its own head
        "output_dir": scratch,
        "num_train_epochs": 0,
        "max_steps": -1,
        "per_device_train_batch_size": 1,  # whatever the number of processes, no batch has to be divided
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
    }
    fixed |= dict.fromkeys(("fp16", "bf16", "cuda_graph"), False)  # of training
    fixed |= {} if is_torch_tf32_available() else {"tf32": False}  # where it is, the run was measured with it
    options = [text for name, value in fixed.items() for text in (f"--{name}", str(value))]
    recipe = parse_recipe([str(path), *options])
    recipe.training.per_device_eval_batch_size = arguments.batch_size or windows_at_once(recipe.training.device)
    data_dir = arguments.data_dir or recipe.data.data_dir
    is_own, is_extra = is_same(recipe.data.data_dir, data_dir), is_same(recipe.data.extra_train_dir, data_dir)
    recipe.data.data_dir = data_dir
    recipe.data.streaming &= arguments.data_dir is None or not Path(arguments.data_dir).is_dir()
    flags = vars(Columns.of(arguments)) | {"recording_pattern": arguments.recording_pattern}
    flags |= dict.fromkeys(("corrections", "max_train_clips", "max_test_clips"))
    for name, given in flags.items():  # the run's own flags are for the run's own data
        if given is not None or arguments.data_dir is not None:
            setattr(recipe.data, name, given)
    recipe.data.extra_train_dir = recipe.data.extra_label_map = recipe.data.extra_columns = None
    recipe.model.model_config = recipe.model.feature_extractor_config = None
    recipe.model.soup = recipe.model.layerdrop = None  # in the weights, and in the model's own configuration
    tuned_songs = set()
    if recipe.data.thresholds_from == "test_half":
        tuned_songs = set(pd.read_parquet(file_of_run(arguments.model, VALIDATION_FILE), columns=["song"])["song"])
    return recipe, Seen(arguments.model, tuned_songs, is_own, is_extra)


def file_of_run(model: str, name: str) -> Path:
    """Return a file of a run's folder, or of its copy on the Hub.

    Raises:
        UserError: the folder does not have it, or it cannot be fetched from the Hub.
    """
    if not Path(model).is_dir():
        try:
            reach_hub(model)
            return Path(hf_hub_download(model, name))
        except OSError as error:  # the Hub's own errors too
            raise UserError(unreachable(model, error)) from error
    if not Path(model, name).is_file():
        raise UserError(f"{model} has no {name}: `evaluate` takes the folder of a run of this project.")
    return Path(model, name)


def measure(recipe: Recipe, seen: Seen) -> tuple[Results, Dataset, np.ndarray]:
    """Return the results, the test clips and the scores (clips, classes) of a trained model.

    Clips of songs on which the model's thresholds were tuned are left out.

    Raises:
        UserError: the model has other classes than the data, or no thresholds; or it has seen the test set.
    """
    quiet_libraries(recipe.training.process_index)
    splits = load_data(recipe.data, needed=("test",))
    model, extractor = build_model(recipe, splits)
    use_stored_protocol(recipe, model)
    reported = seen.unseen_rows(splits["test"], recipe.data)
    prepared = prepare_splits(DatasetDict({"test": splits["test"]}), recipe.data, extractor.sampling_rate)
    test = prepared["test"].select(reported)
    scores = score(recipe, model, extractor, test)
    protocol = evaluation.protocol(recipe.data)
    if seen.tuned_on_another(splits["test"]):
        protocol["thresholds_from"] = "half of another test set"
    results = Results.measure(
        recipe=recipe.values(),
        seed=recipe.training.seed,
        dataset=describe_data(recipe.data, splits, reported),
        protocol=protocol,
        labels=multi_hot(test),
        scores=scores,
        songs=test["song"],
        thresholds=np.array(model.config.thresholds),
        training_counts=training_counts(recipe.data, splits["train"]),
        slopes=slopes_of(model.config),
    )
    return results, test, scores


def slopes_of(config: PreTrainedConfig) -> np.ndarray | None:
    """Return the slopes of the model's confidence (classes, 2), where it has them."""
    stored = getattr(config, "confidence_slopes", None)
    return None if stored is None else np.array(stored)


def use_stored_protocol(recipe: Recipe, model: PreTrainedModel) -> None:
    """Set window, hop, aggregation and separation in the recipe to those stored with the model.

    Raises:
        UserError: the model has no thresholds, window or aggregation, or they are impossible.
    """
    name, config = recipe.model.model_name_or_path, model.config
    if not getattr(config, "thresholds", None):
        raise UserError(f"{name} has no thresholds for its classes: train it with a recipe first.")
    check_stored_protocol(name, config)
    for field in ("window_seconds", "hop_seconds", "aggregation"):
        setattr(recipe.data, field, getattr(config, field, None))
    if not (recipe.data.window_seconds and recipe.data.aggregation):
        raise UserError(
            f"{name}/config.json lacks `window_seconds` or `aggregation`: give the folder of a finished run."
        )
    recipe.data.separation = getattr(config, "separation", "none")


def score(recipe: Recipe, model: PreTrainedModel, extractor: SequenceFeatureExtractor, test: Dataset) -> np.ndarray:
    """Return a model's scores (clips, classes) of prepared test clips, on the recipe's device."""
    batch_size = recipe.training.per_device_eval_batch_size
    windows = evaluation.windows_of(test, recipe.data, extractor.sampling_rate, batch_size)
    model.to(recipe.training.device)
    logits = evaluation.window_logits(model, device_features(extractor), windows, batch_size, "Scoring")
    return windows.scores(logits, recipe.data.aggregation)
