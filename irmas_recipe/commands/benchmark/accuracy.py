"""Is anything lost by being fast? Ours and the stock example train the same network for as many epochs on the same clips."""

import time

import numpy as np
import torch
from transformers import default_data_collator

from irmas_dataset.errors import UserError
from irmas_metric.bootstrap import paired_song_bootstrap
from irmas_metric.figures import ranking_figures
from irmas_recipe.commands.benchmark.stock import Stock
from irmas_recipe.models.ast import ast
from irmas_recipe.training import evaluation
from irmas_recipe.training.clips import WindowedClips
from irmas_recipe.training.data import load_data, prepare_splits
from irmas_recipe.training.model import build_model
from irmas_recipe.training.recipe import Recipe
from irmas_recipe.training.train import build_trainer

RANKING = ("lrap", "map")
PLAIN = {
    "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": "false", "logging_strategy": "no",
    "disable_tqdm": "true", "max_steps": -1, "gradient_accumulation_steps": 1, "lr_scheduler_type": "constant",
    "warmup_steps": 0, "layer_decay": 1, "weight_averaging": "none", "weight_decay": 0.01, "balanced_sampling": "false",
    "mix_probability": 0, "min_gain_db": 0, "max_gain_db": 0, "noise_probability": 0, "polarity_inversion_probability": 0,
    "max_time_shift_seconds": 0, "time_masks": 0, "frequency_masks": 0,
}  # fmt: skip
"""Fields under which our training differs from the example's in nothing but what makes it fast."""


def compare_accuracy(recipe: Recipe, epochs: int) -> dict:
    """Return LRAP and mAP of both on the recipe's test clips, their seconds, and the paired difference by song.

    The test windows are the same; stock hears each padded to 10.24 s, as it was trained.

    Raises:
        UserError: the recipe starts from a checkpoint, which a comparison from random weights would not do justice.
    """
    if recipe.model.model_name_or_path:
        raise UserError("--epochs compares networks from scratch: name a recipe without model_name_or_path.")
    data = load_data(recipe.data)
    model, extractor = build_model(recipe, data)
    prepared = prepare_splits(data, recipe.data, extractor.sampling_rate)
    trainer = build_trainer(recipe, prepared, model, extractor)
    test = evaluation.windows_of(prepared["test"], recipe.data, extractor.sampling_rate)
    start = time.perf_counter()
    trainer.train()
    seconds = {"ours": time.perf_counter() - start}
    scores = {"ours": evaluation.clip_scores(trainer, test, recipe.data.aggregation)}

    stock = Stock(model.config, extractor, recipe.training.device)
    ast.initialize_tokens(stock.model)  # as ours: transformers leaves them at zero
    for group in stock.optimizer.param_groups:
        group |= {"lr": recipe.training.learning_rate, "weight_decay": recipe.training.weight_decay}
    start = time.perf_counter()
    train_stock(stock, data["train"]["path"][:], trainer.train_dataset.labels.numpy(), recipe, epochs)
    seconds["stock"] = time.perf_counter() - start
    scores["stock"] = test.scores(stock_logits(stock, test), recipe.data.aggregation)

    labels, half = test.labels, 0.5
    paired = paired_song_bootstrap(
        labels,
        scores["ours"],
        half,
        scores["stock"],
        half,
        prepared["test"]["song"][:],
        recipe.data.bootstrap_resamples,
    )
    return {
        "epochs": epochs,
        "clips": {"train": len(data["train"]), "test": len(labels)},
        **{side: {name: ranking_figures(labels, scores[side])[name] for name in RANKING}
           | {"training_seconds": seconds[side]} for side in scores},
        "difference": {name: paired[name] for name in RANKING},
    }  # fmt: skip


def train_stock(stock: Stock, paths: list[str], labels: np.ndarray, recipe: Recipe, epochs: int) -> None:
    """Train the example's way: shuffled clips, decoded and extracted anew in every epoch."""
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
