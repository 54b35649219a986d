"""Which instruments are heard in audio of any length, and when: the `instrument-recognition` pipeline.

This one file is stored beside every saved model, so it imports nothing of this repository:

    from transformers import pipeline
    recognise = pipeline("instrument-recognition", model=FOLDER_OR_HUB_ID, trust_remote_code=True)
    recognise("song.flac")                          # [{"label": "piano", "score": 0.93}, ...]
    recognise("song.flac", return_timeline=True)    # and from when to when
"""

import io
import json
import math
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torchaudio
from transformers.pipelines.base import ChunkPipeline

try:
    import soxr
except ImportError:  # optional: without it torchaudio resamples
    soxr = None

TASK = "instrument-recognition"
AGGREGATIONS = ("mean", "max", "mean_probability", "s1", "s2")
BLOCK_FRAMES = 1 << 17  # what is decoded at a time: 3 s at 44.1 kHz
PIECE_SECONDS = 60  # music is separated piece by piece, as it was for training
MAX_WINDOW_SECONDS = 600
MAX_LEVEL = 100  # of floating-point samples, where 1 is full scale: unscaled integers are louder
MAX_KERNEL_SIZE = 50_000_000  # values of the filter that torchaudio builds for two rates without a common divisor


def window_starts(num_samples: int, window: int, hop: int) -> list[int]:
    """Return where the windows of a clip begin: 0, hop, 2 hop, ..., and a last one aligned to the clip's end.

    All three are counted in samples (or in any other unit, as long as it is one). A clip that is no longer than the
    window gives `[0]`.
    """
    if window < 1 or hop < 1:
        raise ValueError(f"A window of {window} samples every {hop} samples is not possible; both must be positive.")
    if num_samples <= window:
        return [0]
    last = num_samples - window
    return [*range(0, last, hop), last]


def aggregate(logits: torch.Tensor | np.ndarray, how: str = "mean") -> np.ndarray:
    """Return one score in [0, 1] a class from the logits (windows, classes) of a clip's windows.

    - `mean`: sigmoid of the mean logit (the default of this project).
    - `max`: sigmoid of the largest logit.
    - `mean_probability`: mean of the sigmoids; `s1` (Han, Kim and Lee 2017, strategy 1) is the same figure.
    - `s2` (Han, Kim and Lee 2017, strategy 2): class-wise sum of the sigmoids divided by its maximum over the classes.

    Raises ValueError for any other name. Returns float32 (classes,).
    """
    logits = torch.as_tensor(logits).detach().to("cpu", torch.float64)
    if how == "mean":
        scores = torch.sigmoid(logits.mean(dim=0))
    elif how == "max":
        scores = torch.sigmoid(logits.max(dim=0).values)
    elif how in ("mean_probability", "s1"):
        scores = torch.sigmoid(logits).mean(dim=0)
    elif how == "s2":
        sums = torch.sigmoid(logits).sum(dim=0)
        scores = sums / sums.max().clamp_min(torch.finfo(sums.dtype).tiny)
    else:
        raise ValueError(f"Unknown aggregation '{how}'; choose one of {', '.join(AGGREGATIONS)}.")
    return scores.to(torch.float32).numpy()


class InstrumentRecognitionPipeline(ChunkPipeline):
    """Recognise instruments in audio of any length, rate and number of channels with a multi-label model.

    The audio is cut into windows, the windows' logits are aggregated into one score a label, and the labels whose
    score reaches their threshold are returned. Window, hop, aggregation and thresholds come from the model's
    configuration (`window_seconds`, `hop_seconds`, `aggregation`, `thresholds`) and can be given at every call.
    Files are decoded block by block in a thread of their own while the model computes, so that memory stays bounded
    for files of hours; windows of neighbouring files share a batch.
    """

    _load_feature_extractor = True
    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_tokenizer = False

    def __init__(
        self,
        *args,
        batch_size: int = 8,
        separate: Callable[[np.ndarray, int], np.ndarray] | None = None,
        **kwargs,
    ):
        """separate: for a model that hears only a part of the music (`separation` in its configuration), the function
        that finds this part: (mono samples float32, rate) -> as many samples.
        """
        super().__init__(*args, batch_size=batch_size, **kwargs)
        config = self.model.config
        if self.feature_extractor is None:
            raise ValueError(f"{TASK} needs the model's feature extractor; pass `feature_extractor`.")
        if config.problem_type == "single_label_classification":
            raise ValueError(f"{TASK} needs a multi-label model, but this one was trained to choose a single label.")
        check_protocol(config)
        for name, tensor in self.model.state_dict().items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise ValueError(f"The model holds weights that are no numbers, in {name}; take another one.")
        self.separate = separate or separation_of(getattr(config, "separation", None))

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Return the instruments of one input, [{"label", "score"}] best first; of a list of inputs a list of those.

        An input is a path, the bytes of a file, a one-dimensional array, or a dictionary with `array` (or `raw`) and
        `sampling_rate`, or with `path` or `bytes`. An array may be (samples,), (samples, channels) or
        (channels, samples): the smaller dimension is taken for the channels. Integer arrays are scaled to [-1, 1].
        A generator of inputs gives a generator of results.

        Options, here or when the pipeline is made:
        - `sampling_rate`: of bare arrays, in Hz.
        - `window_seconds`, `hop_seconds`, `aggregation` (mean, max, mean_probability, s1, s2).
        - `thresholds`: one number, one number a label in the order of the label ids, or a dictionary label -> number.
        - `all_labels=True`: every label, whatever its threshold; `top_k`: the best k labels, whatever their threshold.
        - `return_timeline=True`: a dictionary with `duration_seconds`, `instruments` (as above) and `timeline`, the
          list of {"label", "start_seconds", "end_seconds", "score"} in which a label reaches its threshold;
          `return_activity=True`: also `activity`, the scores behind it as {"edges_seconds": (moments + 1),
          "scores": {label: (moments)}}.
        - `batch_size`: windows that the model sees at once.
        - `skip_unreadable=True`: an input that cannot be read gives {"error": sentence} and does not end the others.

        Raises FileNotFoundError or ValueError with one sentence for an input that cannot be read.
        """
        if isinstance(inputs, (list, tuple)):
            inputs = list(inputs)
            if not inputs:
                return []
            if all(isinstance(value, (int, float)) for value in inputs):
                raise ValueError("A list is a list of inputs; pass samples as an array (numpy.asarray) instead.")
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(
        self,
        sampling_rate: int | None = None,
        window_seconds: float | None = None,
        hop_seconds: float | None = None,
        skip_unreadable: bool | None = None,
        aggregation: str | None = None,
        thresholds: float | list[float] | dict[str, float] | None = None,
        all_labels: bool | None = None,
        top_k: int | None = None,
        return_timeline: bool | None = None,
        return_activity: bool | None = None,
    ) -> tuple[dict, dict, dict]:
        if aggregation is not None and aggregation not in AGGREGATIONS:
            raise ValueError(f"Unknown aggregation '{aggregation}'; choose one of {', '.join(AGGREGATIONS)}.")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k={top_k} asks for no label; give 1 or more.")
        if thresholds is not None:
            thresholds = self.resolve_thresholds(thresholds)
        if window_seconds is not None or hop_seconds is not None:
            self.window_and_hop(window_seconds, hop_seconds)
        preprocess = {
            "sampling_rate": sampling_rate,
            "window_seconds": window_seconds,
            "hop_seconds": hop_seconds,
            "skip_unreadable": skip_unreadable,
        }
        postprocess = {
            "aggregation": aggregation,
            "thresholds": thresholds,
            "all_labels": all_labels,
            "top_k": top_k,
            "return_timeline": return_timeline,
            "return_activity": return_activity,
        }
        given = [{key: value for key, value in part.items() if value is not None} for part in (preprocess, postprocess)]
        return given[0], {}, given[1]

    @property
    def labels(self) -> list[str]:
        """The names of the labels in the order of their ids, which is not the order in which JSON lists `id2label`."""
        config = self.model.config
        return [config.id2label[index] for index in range(config.num_labels)]

    def resolve_thresholds(self, thresholds: float | list[float] | dict[str, float] | None = None) -> list[float]:
        """Return one threshold a label, in the order of the label ids: those given, else the configuration's, else 0.5."""
        labels = self.labels
        stored = getattr(self.model.config, "thresholds", None)
        stored = [0.5] * len(labels) if stored is None else list(stored)
        if thresholds is None:
            return stored
        if isinstance(thresholds, dict):
            unknown = sorted(set(thresholds) - set(labels))
            if unknown:
                raise ValueError(f"The model has no label '{unknown[0]}' to set a threshold for; it has {labels}.")
            return [float(thresholds.get(label, value)) for label, value in zip(labels, stored, strict=True)]
        if isinstance(thresholds, (int, float)):
            return [float(thresholds)] * len(labels)
        if len(thresholds) != len(labels):
            raise ValueError(f"{len(thresholds)} thresholds were given for a model of {len(labels)} labels.")
        return [float(value) for value in thresholds]

    def window_and_hop(
        self, window_seconds: float | None = None, hop_seconds: float | None = None
    ) -> tuple[float, float]:
        """Return window and hop in seconds: those given, else the configuration's, else 10 s and half a window.

        A window given without a hop keeps the configuration's proportion of the two.
        """
        stored_window = getattr(self.model.config, "window_seconds", None) or 10.0
        stored_hop = getattr(self.model.config, "hop_seconds", None) or stored_window / 2
        window = stored_window if window_seconds is None else window_seconds
        hop = window * stored_hop / stored_window if hop_seconds is None else hop_seconds
        if not 0 < hop <= window:
            raise ValueError(f"hop_seconds must be above 0 and at most window_seconds; got {hop} and {window}.")
        if window > MAX_WINDOW_SECONDS:
            raise ValueError(
                f"window_seconds={window} is longer than {MAX_WINDOW_SECONDS} s; a model hears less at once."
            )
        longest = longest_window_seconds(self.feature_extractor)
        if window > 1.1 * longest:  # a few frames fewer than the window are as good
            raise ValueError(f"window_seconds={window} is longer than the {longest:.2f} s that the model looks at.")
        return window, hop

    def preprocess(
        self,
        audio: Any,
        sampling_rate: int | None = None,
        window_seconds: float | None = None,
        hop_seconds: float | None = None,
    ) -> Iterator[dict]:
        """Yield the windows of one input: `waveform` (samples,), `start` and `stop` in samples, and `is_last`."""
        window_seconds, hop_seconds = self.window_and_hop(window_seconds, hop_seconds)
        rate, blocks = read_blocks(audio, sampling_rate)
        own_rate = self.feature_extractor.sampling_rate
        window, hop = round(window_seconds * own_rate), max(1, round(hop_seconds * own_rate))
        held_back = None  # the last window is known to be the last only when the audio has ended
        blocks = resample_blocks(blocks, rate, own_rate)
        if self.separate is not None:
            blocks = separate_blocks(blocks, own_rate, self.separate)
        for start, stop, waveform in cut_windows(blocks, window, hop):
            if held_back is not None:
                yield held_back
            held_back = {"waveform": waveform, "start": start, "stop": stop, "is_last": False}
        if held_back is None:
            raise ValueError(f"{_name(audio)} holds no samples.")
        yield {**held_back, "is_last": True}

    def get_iterator(self, inputs, num_workers, batch_size, preprocess_params, forward_params, postprocess_params):
        """Yield one result an input; `num_workers` is not used, one thread reads ahead."""
        windows = read_ahead(self._windows_of(inputs, **preprocess_params), depth=2 * batch_size)
        of_this_input = []
        while batch := list(islice(windows, batch_size)):
            sound = [window for window in batch if "error" not in window]
            if sound:
                waveforms = np.stack([window.pop("waveform") for window in sound])
                logits = self.forward({"waveforms": waveforms}, **forward_params)["logits"]
                for window, row in zip(sound, logits, strict=True):
                    window["logits"] = row
            for window in batch:
                of_this_input.append(window)
                if window["is_last"]:
                    error = window.get("error")
                    yield {"error": error} if error else self.postprocess(of_this_input, **postprocess_params)
                    of_this_input = []

    def _windows_of(self, inputs: Iterable, skip_unreadable: bool = False, **preprocess_params) -> Iterator[dict]:
        if isinstance(inputs, torch.utils.data.Dataset):
            inputs = (inputs[index] for index in range(len(inputs)))
        for audio in inputs:
            try:
                yield from self.preprocess(audio, **preprocess_params)
            except (OSError, ValueError) as error:
                if not skip_unreadable:
                    raise
                yield {"error": str(error), "is_last": True}

    def _forward(self, model_inputs: dict) -> dict:
        """Return `logits` (windows, classes) of `waveforms` (windows, samples)."""
        extractor, waveforms = self.feature_extractor, model_inputs["waveforms"]
        if hasattr(extractor, "extract"):  # this project's extractors: batched, on the model's device
            features = {"input_values": extractor.extract(torch.from_numpy(waveforms).to(self.device))}
        else:
            features = extractor(list(waveforms), sampling_rate=extractor.sampling_rate, return_tensors="pt")
        features = {
            name: value.to(self.device, self.model.dtype if value.is_floating_point() else None)
            for name, value in features.items()
        }
        return {"logits": self.model(**features).logits.float()}

    def postprocess(
        self,
        windows: list[dict],
        aggregation: str | None = None,
        thresholds: list[float] | None = None,
        all_labels: bool = False,
        top_k: int | None = None,
        return_timeline: bool = False,
        return_activity: bool = False,
    ) -> list[dict] | dict:
        """Return what `__call__` promises from the windows of one input, each with its `logits` (classes,)."""
        aggregation = aggregation or getattr(self.model.config, "aggregation", None) or "mean"
        thresholds = self.resolve_thresholds(thresholds)
        logits = torch.stack([window["logits"] for window in windows])
        scores = aggregate(logits, aggregation)
        ranked = sorted(range(len(scores)), key=lambda index: -scores[index])
        if top_k is not None:
            ranked = ranked[:top_k]
        elif not all_labels:
            ranked = [index for index in ranked if scores[index] >= thresholds[index]]
        instruments = [{"label": self.labels[index], "score": float(scores[index])} for index in ranked]
        if not (return_timeline or return_activity):
            return instruments

        rate = self.feature_extractor.sampling_rate
        edges, moment_scores = moments(windows, logits, normalise=aggregation == "s2")
        edges = edges / rate
        result = {"duration_seconds": float(edges[-1]), "instruments": instruments}
        result["timeline"] = merge_moments(edges, moment_scores, self.labels, thresholds)
        if return_activity:
            by_label = {label: moment_scores[:, index].tolist() for index, label in enumerate(self.labels)}
            result["activity"] = {"edges_seconds": edges.tolist(), "scores": by_label}
        return result


def separation_of(name: str | None) -> Callable[[np.ndarray, int], np.ndarray] | None:
    """Return the function that finds the part of the music that a model was trained on; None where that is all of it.

    Raises ValueError where librosa is needed and missing, and for a part that librosa alone does not give.
    """
    if name in (None, "none"):
        return None
    if name not in ("harmonic", "percussive"):
        raise ValueError(
            f"This model hears only the {name} part of the music: pass `separate`, a function of samples and rate that "
            "finds it, such as this project's irmas_dataset.separation.Separation, or use `irmas predict`."
        )
    try:
        import librosa
    except ImportError as error:
        raise ValueError(f"This model hears only the {name} part of the music; run `pip install librosa`.") from error
    effect = getattr(librosa.effects, name)

    def separate(waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
        padded = np.pad(waveform, (0, max(2048 - len(waveform), 0)))  # librosa returns NaN for less than its one frame
        return effect(padded).astype(np.float32)[: len(waveform)]

    return separate


def separate_blocks(blocks: Iterable[np.ndarray], rate: int, separate: Callable) -> Iterator[np.ndarray]:
    """Yield the wanted part of mono blocks (samples,) in pieces of PIECE_SECONDS."""
    length, buffer = PIECE_SECONDS * rate, np.zeros(0, np.float32)
    for block in blocks:
        buffer = np.concatenate([buffer, block])
        while len(buffer) >= length:
            yield separate(buffer[:length], rate)
            buffer = buffer[length:]
    if len(buffer):
        yield separate(buffer, rate)


def check_protocol(config: Any) -> None:
    """Raise ValueError where what a run stored in its configuration, beside the weights, cannot be."""
    thresholds = getattr(config, "thresholds", None)
    if thresholds is not None and not (
        isinstance(thresholds, (list, tuple))
        and len(thresholds) == config.num_labels
        and all(isinstance(value, (int, float)) and 0 <= value <= 1 for value in thresholds)
    ):
        raise ValueError(f"`thresholds` must hold a number from 0 to 1 for each of its {config.num_labels} labels.")
    window, hop = (getattr(config, name, None) for name in ("window_seconds", "hop_seconds"))
    for name, value in (("window_seconds", window), ("hop_seconds", hop)):
        if value is not None and not (isinstance(value, (int, float)) and 0 < value <= MAX_WINDOW_SECONDS):
            raise ValueError(f"`{name}` must lie above 0 and at most at {MAX_WINDOW_SECONDS} s, not {value!r}.")
    if hop and hop > (window or 10.0):
        raise ValueError(f"`hop_seconds` is {hop}, longer than the window of {window or 10.0} s.")
    if (aggregation := getattr(config, "aggregation", None)) not in (None, *AGGREGATIONS):
        raise ValueError(f"`aggregation` {aggregation!r} is not one of {', '.join(AGGREGATIONS)}.")


def longest_window_seconds(feature_extractor: Any) -> float:
    """Return how much audio the extractor keeps: AST's cuts at `max_length` frames of 25 ms every 10 ms, silently."""
    if type(feature_extractor).__name__ != "ASTFeatureExtractor":
        return math.inf
    return (feature_extractor.max_length * 10 + 25) / 1000


def moments(windows: list[dict], logits: torch.Tensor, normalise: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges (moments + 1,) in samples between which the covering windows are the same, and their scores.

    The scores (moments, classes) are the mean of the sigmoids of the windows that cover a moment; with `normalise`
    they are divided by the largest class-wise mean over the clip, as strategy s2 does.
    """
    starts = np.array([window["start"] for window in windows])
    stops = np.array([window["stop"] for window in windows])
    edges = np.unique(np.concatenate([starts, stops]))
    probabilities = torch.sigmoid(logits.double()).numpy()
    # What a window adds where it starts it takes away where it stops; the running sum is the sum of those that cover.
    steps = np.zeros((len(edges), probabilities.shape[1] + 1))
    counted = np.concatenate([probabilities, np.ones((len(windows), 1))], axis=1)
    np.add.at(steps, np.searchsorted(edges, starts), counted)
    np.add.at(steps, np.searchsorted(edges, stops), -counted)
    covering = np.cumsum(steps, axis=0)[:-1]
    scores = covering[:, :-1] / covering[:, -1:]
    if normalise:
        scores = scores / max(probabilities.mean(axis=0).max(), np.finfo(float).tiny)
    return edges, np.clip(scores, 0, 1)


def merge_moments(
    edges_seconds: np.ndarray, scores: np.ndarray, labels: list[str], thresholds: list[float]
) -> list[dict]:
    """Return the stretches in which a label's moments reach its threshold, by start, each with its mean score."""
    durations = np.diff(edges_seconds)
    timeline = []
    for index, label in enumerate(labels):
        active = np.concatenate([[False], scores[:, index] >= thresholds[index], [False]])
        changes = np.flatnonzero(active[1:] != active[:-1])
        for first, after_last in zip(changes[::2], changes[1::2], strict=True):
            part = slice(first, after_last)
            timeline.append(
                {
                    "label": label,
                    "start_seconds": float(edges_seconds[first]),
                    "end_seconds": float(edges_seconds[after_last]),
                    "score": float(np.average(scores[part, index], weights=durations[part])),
                }
            )
    return sorted(timeline, key=lambda segment: (segment["start_seconds"], -segment["score"]))


def cut_windows(blocks: Iterable[np.ndarray], window: int, hop: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield start, stop and samples (window,) of the windows at `window_starts`, holding little more than one window.

    Audio shorter than the window is padded with zeros, and its `stop` is where it ends; audio without samples yields
    nothing.
    """
    buffer, buffer_start, next_start = np.zeros(0, np.float32), 0, 0
    for block in blocks:
        buffer = np.concatenate([buffer, block])
        while next_start + window <= buffer_start + len(buffer):
            offset = next_start - buffer_start
            yield next_start, next_start + window, buffer[offset : offset + window]
            next_start += hop
        unneeded = min(next_start - buffer_start, len(buffer) - window)  # the last window may begin before the next
        if unneeded > 0:
            buffer, buffer_start = buffer[unneeded:], buffer_start + unneeded
    num_samples = buffer_start + len(buffer)
    if 0 < num_samples < window:
        yield 0, num_samples, np.pad(buffer, (0, window - num_samples))
    elif num_samples > window and next_start - hop + window < num_samples:
        yield num_samples - window, num_samples, buffer[-window:]


def read_blocks(audio: Any, sampling_rate: int | None = None) -> tuple[int, Iterator[np.ndarray]]:
    """Return the sampling rate in Hz of any input of the pipeline, and its mono float32 blocks (samples,) one by one.

    Raises FileNotFoundError or ValueError, at once or while the blocks are read.
    """
    if isinstance(audio, dict):
        sampling_rate = audio.get("sampling_rate", sampling_rate)
        present = [key for key in ("array", "raw", "bytes", "path") if audio.get(key) is not None]
        if not present:
            raise ValueError(
                "A dictionary of audio needs `array` or `raw` with `sampling_rate`, or `path`, or `bytes`."
            )
        audio = audio[present[0]]
    if isinstance(audio, (str, os.PathLike)):
        rate, blocks = _read_path(os.fspath(audio))
    elif isinstance(audio, (bytes, bytearray)):
        rate, blocks = _read_sound_file(_open_sound_file(io.BytesIO(audio), "the bytes given"), "the bytes given")
    elif isinstance(audio, (np.ndarray, torch.Tensor)):
        if not sampling_rate or sampling_rate <= 0:
            raise ValueError("An array of audio needs its `sampling_rate` in Hz.")
        rate, blocks = sampling_rate, _array_blocks(audio)
    else:
        raise ValueError(f"Audio must be a path, bytes, an array or a dictionary, not {type(audio).__name__}.")
    return int(rate), _finite(blocks, _name(audio))


def resample_blocks(blocks: Iterable[np.ndarray], rate: int, new_rate: int) -> Iterator[np.ndarray]:
    """Yield mono blocks (samples,) at `new_rate`, the same as if all were resampled at once.

    soxr does it where it is installed, else torchaudio; both are band-limited and differ by less than 1 % of the
    signal's level.
    """
    if rate == new_rate:
        yield from blocks
    elif soxr is None:
        yield from _resample_with_torchaudio(blocks, rate, new_rate)
    else:
        stream = soxr.ResampleStream(rate, new_rate, 1, dtype="float32")
        for block in blocks:
            yield stream.resample_chunk(block)
        yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _resample_with_torchaudio(blocks: Iterable[np.ndarray], rate: int, new_rate: int) -> Iterator[np.ndarray]:
    divisor = math.gcd(rate, new_rate)
    step, new_step = rate // divisor, new_rate // divisor  # `new_step` samples come out for `step` that go in
    reach = math.ceil(6 * step / (min(step, new_step) * 0.99))  # of torchaudio's filter, to either side
    if (2 * reach + step) * new_step > MAX_KERNEL_SIZE:
        raise ValueError(f"Resampling {rate} Hz to {new_rate} Hz needs soxr; run `pip install soxr`.")
    resample = torchaudio.transforms.Resample(rate, new_rate)
    margin = math.ceil((reach + step) / step) * step
    steps_at_once = max(1, BLOCK_FRAMES // step) * step
    buffer, read, written = np.zeros(margin, np.float32), 0, 0

    def resampled(usable: int) -> np.ndarray:
        around = torch.from_numpy(buffer[: 2 * margin + usable])
        return resample(around)[margin // step * new_step :][: usable // step * new_step].numpy()

    for block in blocks:
        buffer, read = np.concatenate([buffer, block]), read + len(block)
        while len(buffer) >= 2 * margin + steps_at_once:
            yield resampled(steps_at_once)
            buffer, written = buffer[steps_at_once:], written + steps_at_once // step * new_step
    rest = math.ceil((len(buffer) - margin) / step) * step  # what is left after the past that was kept
    buffer = np.pad(buffer, (0, rest + 2 * margin - len(buffer)))
    if rest > 0:
        yield resampled(rest)[: math.ceil(read * new_step / step) - written]


def read_ahead(items: Iterable, depth: int) -> Iterator:
    """Yield the items while a thread fetches up to `depth` more; an error there is raised here, in its place."""
    fetched, abandoned = queue.Queue(maxsize=depth), threading.Event()

    def put(kind: str, value: Any = None) -> None:
        while not abandoned.is_set():
            try:
                return fetched.put((kind, value), timeout=0.1)
            except queue.Full:
                continue

    def fetch() -> None:
        try:
            for item in items:
                put("item", item)
                if abandoned.is_set():
                    return
            put("end")
        except BaseException as error:
            put("error", error)

    threading.Thread(target=fetch, daemon=True).start()
    try:
        while True:
            kind, value = fetched.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        abandoned.set()


def _name(audio: Any) -> str:
    if isinstance(audio, dict):
        audio = audio.get("path") or "the audio"
    return os.fspath(audio) if isinstance(audio, (str, os.PathLike)) else "the audio"


def _finite(blocks: Iterable[np.ndarray], name: str) -> Iterator[np.ndarray]:
    for block in blocks:
        if not np.isfinite(block).all():
            raise ValueError(f"{name} holds samples that are not numbers (NaN or infinity); export it again.")
        if len(block) and np.abs(block).max() > MAX_LEVEL:
            raise ValueError(
                f"{name} holds samples of more than {MAX_LEVEL} times full scale, which is 1; export it again."
            )
        yield block


def _array_blocks(array: np.ndarray | torch.Tensor) -> Iterator[np.ndarray]:
    array = array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else array
    if array.ndim not in (1, 2):
        raise ValueError(f"An array of audio has one or two dimensions, not {array.ndim}.")
    if array.dtype.kind not in "iuf":
        raise ValueError(f"An array of audio holds integers or floating-point numbers, not {array.dtype}.")
    if array.size == 0:
        raise ValueError("The array holds no samples.")
    if array.ndim == 2 and array.shape[0] < array.shape[1]:
        array = array.T
    for start in range(0, len(array), BLOCK_FRAMES):
        block = array[start : start + BLOCK_FRAMES]
        if block.dtype.kind == "u":  # as 8-bit wav files have it: 128 is silence
            half = 2.0 ** (8 * block.dtype.itemsize - 1)
            block = (block.astype(np.float64) - half) / half
        elif block.dtype.kind == "i":
            block = block / -float(np.iinfo(block.dtype).min)
        block = block.astype(np.float32)
        yield block if block.ndim == 1 else block.mean(axis=1)


def _read_path(path: str) -> tuple[int, Iterator[np.ndarray]]:
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no file {path}.")
    if os.path.isdir(path):
        raise ValueError(f"{path} is a folder; pass the files in it.")
    if os.path.getsize(path) == 0:
        raise ValueError(f"{path} is an empty file.")
    try:
        # As bytes, since a name that is not valid UTF-8 cannot be encoded again.
        file = _open_sound_file(os.fsencode(path) if os.name == "posix" else path, path)
    except ValueError:
        if shutil.which("ffmpeg") is None:
            raise
        return 48_000, _ffmpeg_blocks(path, 48_000)
    return _read_sound_file(file, path)


def _open_sound_file(source: Any, name: str) -> soundfile.SoundFile:
    try:
        return soundfile.SoundFile(source)
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: headerless files, as *.raw
        raise ValueError(
            f"{name} is no wav, flac, ogg or mp3 file that soundfile can read; install the ffmpeg program, or convert it."
        ) from error


def _read_sound_file(file: soundfile.SoundFile, name: str) -> tuple[int, Iterator[np.ndarray]]:
    def blocks() -> Iterator[np.ndarray]:
        with file:
            while True:
                try:
                    block = file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
                except soundfile.SoundFileError as error:
                    raise ValueError(f"{name} is damaged: {error}") from error
                if not len(block):
                    return
                yield block.mean(axis=1)

    return file.samplerate, blocks()


def _ffmpeg_blocks(path: str, rate: int) -> Iterator[np.ndarray]:
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", path, "-vn", "-ac", "1", "-ar", str(rate), "-f", "f32le", "-"]
    with (
        tempfile.TemporaryFile() as messages,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages) as process,
    ):
        try:
            while data := process.stdout.read(4 * BLOCK_FRAMES):
                yield np.frombuffer(data[: len(data) // 4 * 4], dtype="<f4")
            code = process.wait()
        finally:
            process.kill()  # where the reader stopped early; after its end it does nothing
        if code != 0:
            messages.seek(0)
            first = (messages.read().decode(errors="replace").strip().splitlines() or ["no reason given"])[0]
            said = first.rpartition("] ")[2]  # without the part of ffmpeg that says it
            raise ValueError(f"{path} cannot be read as audio; ffmpeg says: {said}")


def attach_pipeline(folder: str | os.PathLike) -> None:
    """Store the pipeline in a saved model's folder: this file, and its entry `custom_pipelines` in config.json.

    `pipeline("audio-classification", model=folder)` works as before, without remote code where the model needs none.
    """
    folder = Path(folder)
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise FileNotFoundError(f"{folder} holds no saved model: it has no config.json.")
    config = json.loads(config_file.read_text(encoding="utf-8"))
    implementation = f"{Path(__file__).stem}.{InstrumentRecognitionPipeline.__name__}"
    config.setdefault("custom_pipelines", {})[TASK] = {
        "impl": implementation,
        "pt": ["AutoModelForAudioClassification"],
        "type": "audio",
    }
    config_file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if Path(__file__).resolve() != (folder / Path(__file__).name).resolve():
        shutil.copyfile(__file__, folder / Path(__file__).name)
