"""Does speed cost accuracy? Ours and the stock example train the same network for as many epochs on the same clips."""

import time

import numpy as np
import torch
from transformers import default_data_collator

from irmas_metric.bootstrap import paired_song_bootstrap
from irmas_metric.figures import ranking_figures
from irmas_recipe.commands.benchmark.stock import Stock
from irmas_recipe.models.ast.adaptation import initialize_tokens
from irmas_recipe.training import evaluation
from irmas_recipe.training.clips import WindowedClips
from irmas_recipe.training.data import load_data, prepare_splits
from irmas_recipe.training.model import build_model
from irmas_recipe.training.recipe import Recipe
from irmas_recipe.training.train import build_trainer
from irmas_recipe.training.trainer import InstrumentTrainer

RANKING = ("lrap", "map")


def compare_accuracy(recipe: Recipe, epochs: int) -> dict:
    """Return LRAP and mAP of both on the recipe's test clips, their seconds, and the paired difference by song.

    The test windows are the same; stock hears each padded to 10.24 s, as it was trained.
    """
    data = load_data(recipe.data)
    model, extractor = build_model(recipe, data)
    prepared = prepare_splits(data, recipe.data, extractor.sampling_rate)
    trainer = build_trainer(recipe, prepared, model, extractor)
    test = evaluation.windows_of(prepared["test"], recipe.data, extractor.sampling_rate)
    start = time.perf_counter()
    trainer.train()
    seconds = {"ours": time.perf_counter() - start}
    scores = {"ours": evaluation.clip_scores(trainer, test, recipe.data.aggregation)}

    stock = comparable_stock(recipe, trainer)
    start = time.perf_counter()
    train_stock(stock, data["train"]["path"][:], trainer.train_dataset.labels.numpy(), recipe, epochs)
    seconds["stock"] = time.perf_counter() - start
    scores["stock"] = test.scores(stock_logits(stock, test), recipe.data.aggregation)

    labels, songs, half = test.labels, prepared["test"]["song"][:], 0.5
    paired = paired_song_bootstrap(
        labels, scores["ours"], half, scores["stock"], half, songs, recipe.data.bootstrap_resamples
    )
    sides = {}
    for side in scores:
        ranking = ranking_figures(labels, scores[side])
        sides[side] = {name: ranking[name] for name in RANKING} | {"training_seconds": seconds[side]}
    return {
        "epochs": epochs,
        "clips": {"train": len(data["train"]), "test": len(labels)},
        **sides,
        "difference": {name: paired[name] for name in RANKING},
    }


def comparable_stock(recipe: Recipe, trainer: InstrumentTrainer) -> Stock:
    """Return stock with the recipe's learning rate and weight decay, and its tokens initialised as ours."""
    stock = Stock(trainer.model.config, trainer.processing_class, recipe.training.device)
    initialize_tokens(stock.model)  # transformers leaves them at zero
    for group in stock.optimizer.param_groups:
        group |= {"lr": recipe.training.learning_rate, "weight_decay": recipe.training.weight_decay}
    return stock


def train_stock(stock: Stock, paths: list[str], labels: np.ndarray, recipe: Recipe, epochs: int) -> None:
    """Train the example's way: shuffled clips, decoded and extracted again in every epoch."""
    generator, batch = np.random.default_rng(recipe.training.seed), recipe.training.per_device_train_batch_size
    for _ in range(epochs):
        order = generator.permutation(len(paths))
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            stock.train([paths[row] for row in rows], labels[rows])


@torch.inference_mode()
def stock_logits(stock: Stock, windows: WindowedClips, batch: int = 16) -> np.ndarray:
    """Return logits (windows, classes) of windows that are extracted and padded one by one."""
    stock.model.eval()
    logits = []
    for start in range(0, len(windows), batch):
        chosen = [
            windows[row]["waveforms"].astype(np.float32) / 2**15
            for row in range(start, min(start + batch, len(windows)))
        ]
        inputs = default_data_collator([{"input_values": stock.features(waveform)} for waveform in chosen])
        logits.append(stock.model(inputs["input_values"].to(stock.device)).logits.float().cpu().numpy())
    return np.concatenate(logits)


def in_words(accuracy: dict) -> str:
    """Return the comparison in two lines."""
    difference = ", ".join(
        f"{name} {accuracy['difference'][name]['difference']:+.3f} "
        f"[{accuracy['difference'][name]['ci95'][0]:+.3f}, {accuracy['difference'][name]['ci95'][1]:+.3f}]"
        for name in RANKING
    )
    sides = "; ".join(
        f"{side}: LRAP {accuracy[side]['lrap']:.3f}, mAP {accuracy[side]['map']:.3f} in {accuracy[side]['training_seconds']:.0f} s"
        for side in ("ours", "stock")
    )
    return f"after {accuracy['epochs']} epochs, {sides}\nours - stock, by songs: {difference}"
