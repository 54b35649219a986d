"""How fast wav files become the model's input, and each part of the way."""

import torch

from irmas_dataset.audio import decode, resample
from irmas_recipe.commands.benchmark import ours
from irmas_recipe.commands.benchmark.bench import Bench, Speeds


def measure_audio(bench: Bench) -> Speeds:
    """Return the speeds from files to waveforms, from files to features, and of one batch on the device."""
    return measure_decoding(bench) | measure_loading(bench) | measure_one_batch(bench)


def measure_decoding(bench: Bench) -> Speeds:
    """Return the speeds of decoding and of resampling, one clip after another."""
    decoded = [decode(path) for path in bench.paths]

    def decode_all() -> list:
        return [decode(path) for path in bench.paths]

    def resample_all() -> list:
        return [resample(*clip, bench.rate) for clip in decoded]

    count = len(decoded)
    return {"decode": bench.speeds(count, decode_all), "resample": bench.speeds(count, resample_all)}


def measure_loading(bench: Bench) -> Speeds:
    """Return the speeds from files to features, in a run's first epoch and later, and of reading the cache alone."""

    def prepare_first() -> None:
        ours.to_model_input(bench.prepared_clips(), bench.batch, bench.features, bench.device)

    def stocks_inputs() -> None:
        for start in range(0, len(bench.paths), bench.batch):
            bench.stock.inputs(bench.paths[start : start + bench.batch])

    against, count = stocks_inputs if bench.stock else None, len(bench.paths)
    speeds = {"prepare_first": bench.speeds(count, prepare_first, against, before=bench.clips.cleanup_cache_files)}
    prepared = bench.prepared_clips()

    def prepare_cached() -> None:
        ours.to_model_input(prepared, bench.batch, bench.features, bench.device)

    def read_cached() -> list[torch.Tensor]:
        return list(ours.read_batches(prepared, bench.batch))

    speeds["prepare_cached"] = bench.speeds(count, prepare_cached, against)
    speeds["cached_loading"] = bench.speeds(count, read_cached)
    return speeds


def measure_one_batch(bench: Bench) -> Speeds:
    """Return the speeds of features and augmentation on the device."""
    prepared, augmentation = bench.prepared_clips(), bench.trainer.augmentation
    waveforms = next(ours.read_batches(prepared, bench.batch)).to(bench.device).float() / 2**15
    labels = prepared.labels[: len(waveforms)].to(bench.device)

    def extract() -> torch.Tensor:
        return bench.features(waveforms)

    def augment() -> None:
        augmentation.waveforms(waveforms, labels)
        augmentation.features(bench.inputs)

    count = len(waveforms)
    return {"features": bench.speeds(count, extract), "augmentation": bench.speeds(count, augment)}
