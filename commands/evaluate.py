"""`run_irmas.py evaluate MODEL`: measure a trained model on a data folder's test set, by the protocol stored with the model."""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from datasets import Dataset
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from commands._recogniser import check_model_name
from irmas_dataset.errors import UserError
from models.instrument_recognition import check_protocol
from training import evaluation, run
from training.arguments import Recipe, parse_recipe
from training.clips import multi_hot
from training.report import draw_figures, results_table


def main(argv: list[str]) -> None:
    """Run `evaluate MODEL [--data_dir D]`: print the figures that the run itself had, and write them if asked to."""
    parser = argparse.ArgumentParser(
        prog="run_irmas.py evaluate",
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
    with tempfile.TemporaryDirectory() as scratch:
        recipe, is_own_test_set = evaluation_recipe(arguments, scratch)
        results, test, scores = evaluate(recipe, is_own_test_set)
    if arguments.output_dir:
        arguments.output_dir.mkdir(parents=True, exist_ok=True)
        folder = run.data_folder(recipe)
        evaluation.write_predictions(arguments.output_dir / "predictions.parquet", test, scores, folder)
        evaluation.write_json(arguments.output_dir / "results.json", results)
        draw_figures(arguments.output_dir)
    print(results_table(results))


def evaluation_recipe(arguments: argparse.Namespace, scratch: str) -> tuple[Recipe, bool]:
    """Return the recipe that the model was trained by, with nothing left to train, and whether its data is the run's.

    Raises:
        UserError: no such model, or one that this project did not make.
    """
    check_model_name(arguments.model)
    try:
        local = Path(arguments.model, "recipe.yaml")
        path = local if Path(arguments.model).is_dir() else Path(hf_hub_download(arguments.model, "recipe.yaml"))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"{arguments.model} could not be fetched from the Hub: check its name and the connection."
        ) from error
    if not path.is_file():
        raise UserError(
            f"{arguments.model} holds no recipe.yaml: `evaluate` takes the folder of a run of this project."
        )
    options = ["--model_name_or_path", arguments.model, "--num_train_epochs", "0", "--output_dir", scratch]
    options += ["--per_device_eval_batch_size", str(arguments.batch_size), "--max_steps", "-1", "--eval_strategy", "no"]
    options += ["--save_strategy", "no", "--load_best_model_at_end", "false"]
    options += ["--trust_remote_code"] if arguments.trust_remote_code else []
    recipe = parse_recipe([str(path), *options])
    data_of_run = run.data_folder(recipe).resolve()
    recipe.data.data_dir = arguments.data_dir or recipe.data.data_dir
    recipe.data.streaming &= arguments.data_dir is None or not Path(arguments.data_dir).is_dir()
    recipe.data.extra_train_dir = None
    recipe.model.model_config = recipe.model.feature_extractor_config = None  # they are in the model's folder by now
    return recipe, run.data_folder(recipe).resolve() == data_of_run


def evaluate(recipe: Recipe, is_own_test_set: bool) -> tuple[dict, Dataset, np.ndarray]:
    """Return the results, the test clips and the scores (clips, classes) of a trained model.

    Where its thresholds were tuned on half of this very test set, the clips are those of the other half.

    Raises:
        UserError: the model has other classes than the data, or no thresholds.
    """
    run.quiet_libraries(recipe)
    data = run.load_data(recipe)
    model, extractor = run.build_model(recipe, data)
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
        setattr(recipe.data, name, getattr(model.config, name))
    recipe.data.separation = getattr(model.config, "separation", "none")
    prepared = run.prepare(recipe, data, extractor.sampling_rate)
    trainer = run.build_trainer(recipe, prepared, model, extractor)
    protocol, reported = evaluation.protocol(recipe.data), list(range(len(data["test"])))
    if recipe.data.thresholds_from == "test_half" and is_own_test_set:
        _, reported = evaluation.test_halves(prepared["test"], recipe.data.split_seed)
    elif recipe.data.thresholds_from == "test_half":
        protocol["thresholds_from"] = "half of the test set that the model was trained beside"
    test = prepared["test"].select(reported)
    windows = evaluation.windows_of(test, recipe.data, extractor.sampling_rate, run.eval_batch(recipe))
    scores = evaluation.clip_scores(trainer, windows, recipe.data.aggregation)
    counts = multi_hot(data["train"]).sum(axis=0)
    results = {
        **evaluation.provenance(recipe),
        "dataset": run.describe_data(recipe, data, reported),
        "protocol": protocol,
        **evaluation.evaluate_test(test, scores, np.array(thresholds), recipe.data, counts),
    }
    return results, test, scores
