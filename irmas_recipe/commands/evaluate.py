"""`irmas evaluate MODEL`: measure a trained model on a data folder's test set, by the protocol stored with the model."""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from irmas_dataset.errors import UserError
from irmas_recipe.commands.arguments import check_batch_size, check_is_no_run, check_output_folder
from irmas_recipe.models.pipeline.instrument_recognition import check_protocol
from irmas_recipe.report.figures import draw_figures
from irmas_recipe.report.results import Results
from irmas_recipe.report.runs import VALIDATION_FILE
from irmas_recipe.report.table import results_table
from irmas_recipe.training import evaluation
from irmas_recipe.training.checkpoint import reach_hub
from irmas_recipe.training.clips import multi_hot
from irmas_recipe.training.data import data_folder, describe_data, load_data, prepare_splits
from irmas_recipe.training.model import build_model
from irmas_recipe.training.processes import quiet_libraries
from irmas_recipe.training.recipe import Recipe, parse_recipe
from irmas_recipe.training.recogniser import check_model_name
from irmas_recipe.training.train import build_trainer


def main(argv: list[str]) -> None:
    """Run `evaluate MODEL [--data_dir D]`: print the figures that the run itself had, and write them if asked to."""
    parser = argparse.ArgumentParser(
        prog="irmas evaluate",
        description="Measure a model on a test set by the protocol stored with it: on its run's own, its figures again.",
    )
    parser.add_argument("model", metavar="MODEL", help="folder of a run, or id of a model of this project on the Hub")
    parser.add_argument(
        "--data_dir", metavar="D", help="IRMAS, `synthetic`, or a folder of one's own (default: the run's)"
    )
    parser.add_argument(
        "--output_dir", metavar="O", type=Path, help="write results.json, predictions.parquet and figures here"
    )
    parser.add_argument("--batch_size", metavar="N", type=int, default=32, help="windows at a time (default: 32)")
    parser.add_argument("--trust_remote_code", action="store_true", help="run model code that comes from the Hub")
    arguments = parser.parse_args(argv)
    check_output_folder(arguments.output_dir, "--output_dir")
    if arguments.output_dir:
        check_is_no_run(arguments.output_dir, "--output_dir")
    check_batch_size(arguments.batch_size)
    with tempfile.TemporaryDirectory() as scratch:
        recipe, tuned_songs = evaluation_recipe(arguments, scratch)
        results, test, scores = evaluate(recipe, tuned_songs)
    if arguments.output_dir:
        arguments.output_dir.mkdir(parents=True, exist_ok=True)
        folder = data_folder(recipe.data)
        evaluation.write_predictions(arguments.output_dir / "predictions.parquet", test, scores, folder)
        results.write(arguments.output_dir)
        draw_figures(arguments.output_dir)
    print(results_table(results))


def evaluation_recipe(arguments: argparse.Namespace, scratch: str) -> tuple[Recipe, set[str]]:
    """Return the recipe that the model was trained by, with nothing left to train, and the test songs that it has seen.

    These are the songs of the half of its test set on which its thresholds were tuned, if they were.

    Raises:
        UserError: no such model, or one that this project did not make.
    """
    check_model_name(arguments.model)
    path = file_of_run(arguments.model, "recipe.yaml")
    options = ["--model_name_or_path", arguments.model, "--num_train_epochs", "0", "--output_dir", scratch]
    options += ["--per_device_eval_batch_size", str(arguments.batch_size), "--max_steps", "-1", "--eval_strategy", "no"]
    options += ["--save_strategy", "no", "--load_best_model_at_end", "false"]
    options += ["--backbone_name_or_path", ""]  # what the model was made of is in its folder by now
    options += ["--trust_remote_code"] if arguments.trust_remote_code else []
    recipe = parse_recipe([str(path), *options])
    recipe.data.data_dir = arguments.data_dir or recipe.data.data_dir
    recipe.data.streaming &= arguments.data_dir is None or not Path(arguments.data_dir).is_dir()
    recipe.data.extra_train_dir = None
    recipe.model.model_config = recipe.model.feature_extractor_config = None
    if recipe.data.thresholds_from != "test_half":
        return recipe, set()
    tuned_on = pd.read_parquet(file_of_run(arguments.model, VALIDATION_FILE), columns=["song"])
    return recipe, set(tuned_on["song"])


def file_of_run(model: str, name: str) -> Path:
    """Return a file of a run's folder, or of its copy on the Hub.

    Raises:
        UserError: the folder does not hold it, or the Hub does not give it.
    """
    if not Path(model).is_dir():
        try:
            reach_hub(model)
            return Path(hf_hub_download(model, name))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise UserError(f"{model} could not be fetched from the Hub: check its name and the connection.") from error
    if not Path(model, name).is_file():
        raise UserError(f"{model} holds no {name}: `evaluate` takes the folder of a run of this project.")
    return Path(model, name)


def unseen_rows(test: Dataset, tuned_songs: set[str]) -> list[int]:
    """Return the rows of the test clips on whose songs no threshold was tuned; UserError where there are none."""
    rows = [row for row, song in enumerate(test["song"][:]) if song not in tuned_songs]
    if not rows:
        raise UserError("The model's thresholds were tuned on every song of this test set: name another --data_dir.")
    return rows


def evaluate(recipe: Recipe, tuned_songs: set[str]) -> tuple[Results, Dataset, np.ndarray]:
    """Return the results, the test clips and the scores (clips, classes) of a trained model.

    The clips of `tuned_songs` are left out: the model's thresholds were tuned on them.

    Raises:
        UserError: the model has other classes than the data, or no thresholds; or it knows every test song.
    """
    quiet_libraries(recipe.training.process_index)
    data = load_data(recipe.data)
    model, extractor = build_model(recipe, data)
    thresholds = getattr(model.config, "thresholds", None)
    if not thresholds:
        raise UserError(
            f"{recipe.model.model_name_or_path} holds no thresholds for its classes: train it by a recipe first."
        )
    try:
        check_protocol(model.config)
    except ValueError as error:
        raise UserError(f"{recipe.model.model_name_or_path}/config.json cannot be used: {error}") from error
    for name in ("window_seconds", "hop_seconds", "aggregation"):
        setattr(recipe.data, name, getattr(model.config, name, None))
    if not (recipe.data.window_seconds and recipe.data.aggregation):
        raise UserError(
            f"{recipe.model.model_name_or_path}/config.json lacks `window_seconds` or `aggregation`: give a run's folder."
        )
    recipe.data.separation = getattr(model.config, "separation", "none")
    prepared = prepare_splits(data, recipe.data, extractor.sampling_rate)
    trainer = build_trainer(recipe, prepared, model, extractor)
    reported = unseen_rows(prepared["test"], tuned_songs)
    protocol = evaluation.protocol(recipe.data)
    if tuned_songs and len(reported) == len(data["test"]):
        protocol["thresholds_from"] = "half of another test set"
    test = prepared["test"].select(reported)
    windows = evaluation.windows_of(test, recipe.data, extractor.sampling_rate, evaluation.eval_batch(recipe))
    scores = evaluation.clip_scores(trainer, windows, recipe.data.aggregation)
    results = Results.measure(
        recipe=recipe.values(),
        seed=recipe.training.seed,
        dataset=describe_data(recipe.data, data, reported),
        protocol=protocol,
        labels=multi_hot(test),
        scores=scores,
        songs=test["song"],
        thresholds=np.array(thresholds),
        training_counts=multi_hot(data["train"]).sum(axis=0),
    )
    return results, test, scores
