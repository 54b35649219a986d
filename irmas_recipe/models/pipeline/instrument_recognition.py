"""Which instruments are heard in audio of any length, and when: the `instrument-recognition` pipeline.

This file and those that it imports are stored beside every saved model, so they import nothing else of this repository:

    from transformers import pipeline
    recognise = pipeline("instrument-recognition", model=FOLDER_OR_HUB_ID, trust_remote_code=True)
    recognise("clip.flac")                          # [{"label": "piano", "score": 0.93, "confidence": 0.97}, ...]
    recognise("song.flac", return_timeline=True)    # and when each is heard
"""

import dataclasses
import difflib
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from transformers.pipelines.base import ChunkPipeline

from .audio_blocks import name_of, read_ahead, read_blocks, resample_blocks, rounded_to_16_bits
from .decoding_processes import can_fork, windows_by_processes
from .separation import separate_blocks, separation_of
from .windows import (
    AGGREGATIONS,
    LONGEST_CLIP_SECONDS,
    TimelineRules,
    aggregate,
    confidence,
    cut_windows,
    energy_of,
    merge_moments,
    moments,
)

TASK = "instrument-recognition"
DEFAULT_WINDOW_SECONDS = 10.0  # of a model whose configuration says nothing; the hop is half a window
MAX_WINDOW_SECONDS = 600
PREPROCESSING = ("sampling_rate", "window_seconds", "hop_seconds", "skip_unreadable")
POSTPROCESSING = (
    "aggregation", "longest_clip_seconds", "thresholds", "all_labels", "top_k", "return_timeline", "return_activity", "return_windows",
)  # fmt: skip
"""Options of a call: those that say how audio is cut, and those that say what is made of the logits."""
PER_LABEL = {
    "thresholds": (1, 1), "window_thresholds": (1, 1),
    "confidence_slopes": (2, math.inf), "window_confidence_slopes": (2, math.inf),
}  # fmt: skip
"""What a configuration has for each label: how many numbers, and the highest that they can be."""
CANCELLED_WARNING = (
    "the channels cancel each other out, and their mean, which the model hears, is next to silence; invert one."
)

logger = logging.getLogger(__name__)


class InstrumentRecognitionPipeline(ChunkPipeline):
    """Recognise instruments in audio of any length, rate and number of channels with a multi-label model.

    The audio is cut into windows, and two rules make an answer of the windows' logits. A clip of up to
    `longest_clip_seconds` (30) is answered as in an evaluation: the logits are aggregated into one score per label, and
    the labels whose score reaches their threshold are returned. In longer audio an instrument that plays for a while
    would vanish in such an average, so that the answer comes from the timeline: the labels that reach their threshold
    for long enough (see `TimelineRules`), those heard longest first. Windows, aggregation, thresholds and rules come from
    the model's configuration and can be overridden in each call.
    A thread decodes files block by block while the model computes, so that files of hours need little memory; windows
    of neighbouring files share a batch.
    """

    _load_feature_extractor = True
    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_tokenizer = False

    def __init__(
        self,
        *args: Any,
        batch_size: int = 8,
        separate: Callable[[np.ndarray, int], np.ndarray] | None = None,
        features: Callable[[torch.Tensor], torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """Make a pipeline of a model and its feature extractor.

        Args:
            features: what makes the model's input of waveforms (windows, samples) on its device; by default the feature
                extractor, of which transformers' own work window by window on the CPU.
            separate: for a model that hears only a part of the music (`separation` in its configuration), the function
                that separates this part: (mono float32 samples, rate) -> as many samples.

        Raises:
            ValueError: the model cannot be used as it is.
        """
        super().__init__(*args, batch_size=batch_size, **kwargs)
        config = self.model.config
        if self.feature_extractor is None:
            raise ValueError(f"{TASK} needs the model's feature extractor: pass `feature_extractor`.")
        if config.problem_type == "single_label_classification":
            raise ValueError(f"{TASK} needs a multi-label model, but this one was trained to choose a single label.")
        check_protocol(config)
        for name, tensor in self.model.state_dict().items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise ValueError(f"The model has weights that are not finite, in {name}: use another one.")
        self.separate = separate or separation_of(getattr(config, "separation", None))
        self.features = features or getattr(self.feature_extractor, "extract", None)
        self.embeds: torch.nn.Module | None = None
        """The output layer, where `return_windows` shall also give what comes into it: each window's embedding."""

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Return the instruments of one input, or a list of those for a list of inputs.

        Each is {"label", "score", "confidence", "rule"}, and by the rule "timeline" also "seconds" and "share" of the
        audio; clips (the rule "clip") have the best score first. The score is what the thresholds are about: a clip's
        aggregated one, or the highest that the label keeps up for `min_heard_seconds`. The confidence is the same for
        people: 0.5 at the threshold.

        An input is a path, the bytes of a file, an array, torchcodec's AudioDecoder (as `datasets` gives it), or a
        dictionary with `array` (or `raw`) and `sampling_rate`, or with `path` or `bytes`, or a function without arguments
        that fetches one of these where it is decoded. An array may be (samples,),
        (samples, channels) or (channels, samples): the smaller dimension is taken as the channels. Integer arrays are
        scaled to [-1, 1]; what is louder is clipped, as in training. A generator of inputs gives a generator of results.

        Options, here or when the pipeline is made:
        - `sampling_rate`: of bare arrays, in Hz.
        - `window_seconds`, `hop_seconds`; `aggregation` (mean, energy, max, mean_probability, s1, s2), which also makes the rule
          "clip" that of audio of any length; `longest_clip_seconds`.
        - `threshold`: one number for all labels; `thresholds`: one per label in the order of the label ids, or a
          dictionary label -> number.
        - `top_k`: the best k labels, whatever their threshold; `top_k=None` or `all_labels=True`: every label.
        - `return_timeline=True`: a dictionary with `duration_seconds`, `rule`, `instruments` (as above, each with its
          seconds and share), their `thresholds` and `timeline`, the list of {"label", "start_seconds", "end_seconds", "score",
          "confidence"} in which a label is heard; `return_activity=True`: also `activity`, the scores behind it as
          {"edges_seconds": (moments + 1), "scores", "confidences": {label: (moments)}, "thresholds": {label: number}}; and
          `return_windows=True`: `windows`, what the model said of each. A file that is not heard as it sounds has its
          `warning` here; elsewhere it is logged.
        - `batch_size`: how many windows the model sees at once; `num_workers`: how many processes decode (Linux; 0, the
          default, is one thread).
        - `skip_unreadable=True`: an input that cannot be read gives {"error": sentence}, and the others go on.

        Raises:
            FileNotFoundError, ValueError: an input cannot be read, or an option is impossible, in one sentence.
        """
        if isinstance(inputs, (list, tuple)):
            inputs = list(inputs)
            if not inputs:
                return []
            if all(isinstance(value, (int, float)) for value in inputs):
                raise ValueError("A list is a list of inputs: pass samples as an array (numpy.asarray) instead.")
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(self, **given: Any) -> tuple[dict, dict, dict]:
        known = (*PREPROCESSING, *POSTPROCESSING, "threshold")
        for name in given:
            if name not in known:
                raise TypeError(f"{TASK} has no option `{name}`; {nearest_of(name, known) or 'see its __call__.'}")
        if "top_k" in given and given["top_k"] is None:  # as in transformers' own pipelines
            given["all_labels"] = True
        given = {name: value for name, value in given.items() if value is not None}
        if given.get("aggregation", "mean") not in AGGREGATIONS:
            raise ValueError(f"Unknown aggregation '{given['aggregation']}': choose one of {', '.join(AGGREGATIONS)}.")
        if given.get("top_k", 1) < 1:
            raise ValueError(f"top_k={given['top_k']} asks for no label: give 1 or more.")
        if "threshold" in given:
            if "thresholds" in given:
                raise ValueError("threshold and thresholds were both given: give one of them.")
            given["thresholds"] = float(given.pop("threshold"))
            if not 0 <= given["thresholds"] <= 1:
                raise ValueError(f"threshold={given['thresholds']} is not a score: give a number from 0 to 1.")
        if "thresholds" in given:
            self.resolve_thresholds(given["thresholds"])  # checked here; what a dictionary leaves out differs by rule
        if "window_seconds" in given or "hop_seconds" in given:
            self.window_and_hop(given.get("window_seconds"), given.get("hop_seconds"))
        if given.get("all_labels"):
            given.setdefault("top_k", None)  # not the one with which the pipeline was made
        return (
            {name: given[name] for name in PREPROCESSING if name in given},
            {},
            {name: given[name] for name in POSTPROCESSING if name in given},
        )

    @property
    def labels(self) -> list[str]:
        """Names of the labels in the order of their ids, which may not be the order in which JSON lists `id2label`."""
        config = self.model.config
        return [config.id2label[index] for index in range(config.num_labels)]

    def resolve_thresholds(
        self, thresholds: float | list[float] | dict[str, float] | None = None, *, of_moments: bool = False
    ) -> list[float]:
        """Return one threshold per label, in the order of the label ids: those given, else the configuration's, else 0.5.

        of_moments: those of the timeline, which a model may have apart from those of clips.
        """
        labels, config = self.labels, self.model.config
        stored = getattr(config, "thresholds", None)
        stored = (getattr(config, "window_thresholds", None) or stored) if of_moments else stored
        stored = [0.5] * len(labels) if stored is None else list(stored)
        if thresholds is None:
            return stored
        if isinstance(thresholds, dict):
            unknown = sorted(set(thresholds) - set(labels))
            if unknown:
                hint = nearest_of(unknown[0], labels) or f"it has {', '.join(labels)}."
                raise ValueError(f"The model has no label `{unknown[0]}` to set a threshold for; {hint}")
            return [float(thresholds.get(label, value)) for label, value in zip(labels, stored, strict=True)]
        if isinstance(thresholds, (int, float)):
            return [float(thresholds)] * len(labels)
        if len(thresholds) != len(labels):
            raise ValueError(f"{len(thresholds)} thresholds were given for a model of {len(labels)} labels.")
        return [float(value) for value in thresholds]

    def slopes(self, of_moments: bool) -> list[list[float]]:
        """Return the slopes of each label's confidence below and above its threshold: the configuration's, else 1."""
        name = "window_confidence_slopes" if of_moments else "confidence_slopes"
        return getattr(self.model.config, name, None) or [[1.0, 1.0]] * len(self.labels)

    @property
    def longest_clip_seconds(self) -> float:
        """How long audio is answered as a clip."""
        stored = getattr(self.model.config, "longest_clip_seconds", None)
        return LONGEST_CLIP_SECONDS if stored is None else stored

    @property
    def rules(self) -> TimelineRules:
        """How moments become a timeline: as the configuration says."""
        stored = {
            field.name: getattr(self.model.config, field.name, None) for field in dataclasses.fields(TimelineRules)
        }
        return TimelineRules(**{name: value for name, value in stored.items() if value is not None})

    def window_and_hop(
        self, window_seconds: float | None = None, hop_seconds: float | None = None
    ) -> tuple[float, float]:
        """Return window and hop in seconds: those given, else the configuration's, else 10 s and half a window.

        A window given without a hop keeps the configuration's ratio of the two.
        """
        stored_window = getattr(self.model.config, "window_seconds", None) or DEFAULT_WINDOW_SECONDS
        stored_hop = getattr(self.model.config, "hop_seconds", None) or stored_window / 2
        window = stored_window if window_seconds is None else window_seconds
        hop = window / stored_window * stored_hop if hop_seconds is None else hop_seconds
        if not 0 < hop <= window:
            raise ValueError(f"hop_seconds must be above 0 and at most window_seconds, not {hop} for {window}.")
        if window > MAX_WINDOW_SECONDS:
            raise ValueError(f"window_seconds={window} is longer than {MAX_WINDOW_SECONDS} s: choose a shorter one.")
        longest = longest_window_seconds(self.feature_extractor)
        if window > 1.1 * longest:  # losing a few frames of the window does not matter
            raise ValueError(f"window_seconds={window} is longer than the {longest:.2f} s that the model looks at.")
        return window, hop

    def preprocess(
        self,
        audio: Any,
        sampling_rate: int | None = None,
        window_seconds: float | None = None,
        hop_seconds: float | None = None,
    ) -> Iterator[dict]:
        """Yield the windows of one input: `waveform` (samples,), its `energy`, `start` and `stop` in samples, and `is_last`."""
        window_seconds, hop_seconds = self.window_and_hop(window_seconds, hop_seconds)
        rate, mono = read_blocks(audio, sampling_rate)
        own_rate = self.feature_extractor.sampling_rate
        window, hop = round(window_seconds * own_rate), max(1, round(hop_seconds * own_rate))
        held_back = None  # which window is the last is known only when the audio has ended
        blocks = resample_blocks(mono, rate, own_rate)
        if self.separate is not None:
            blocks = separate_blocks(blocks, own_rate, self.separate)
        for start, stop, waveform in cut_windows(map(rounded_to_16_bits, blocks), window, hop):
            if held_back is not None:
                yield held_back
            cut = {"waveform": waveform, "energy": energy_of(waveform), "start": start, "stop": stop}
            held_back = cut | {"is_last": False}
        if held_back is None:
            raise ValueError(f"{name_of(audio)} has no samples.")
        warning = f"{name_of(audio)}: {CANCELLED_WARNING}" if mono.is_cancelled else None
        yield {**held_back, "is_last": True, "warning": warning}

    def get_iterator(
        self,
        inputs: Iterable,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict,
        forward_params: dict,
        postprocess_params: dict,
    ) -> Iterator[list[dict] | dict]:
        """Yield one result per input, in their order; `num_workers` processes decode, or one thread where it is 0."""
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} is too small: give 1 or more.")
        if isinstance(inputs, torch.utils.data.Dataset):
            inputs = map(inputs.__getitem__, range(len(inputs)))
        windows_of = partial(self._windows_of, **preprocess_params)
        if num_workers and can_fork():
            windows_of = partial(windows_of, skip_unreadable=True)  # an error would end the process
            placed = windows_by_processes(inputs, windows_of, num_workers)
        else:
            placed = ((place, window) for place, audio in enumerate(inputs) for window in windows_of(audio))
        windows, of_input, results, due = read_ahead(placed, depth=2 * batch_size), {}, {}, 0
        while batch := list(islice(windows, batch_size)):
            sound = [window for _, window in batch if "error" not in window]
            if sound:
                waveforms = np.stack([window.pop("waveform") for window in sound])
                answers = self.forward({"waveforms": waveforms}, **forward_params)
                for index, window in enumerate(sound):
                    window |= {name: rows[index] for name, rows in answers.items()}
            for place, window in batch:
                of_input.setdefault(place, []).append(window)
                if window["is_last"]:
                    error, heard = window.get("error"), of_input.pop(place)
                    if error and not preprocess_params.get("skip_unreadable"):
                        raise ValueError(error)
                    results[place] = {"error": error} if error else self.postprocess(heard, **postprocess_params)
            while due in results:
                yield results.pop(due)
                due += 1

    def _windows_of(self, audio: Any, skip_unreadable: bool = False, **preprocess_params: Any) -> Iterator[dict]:
        try:
            yield from self.preprocess(audio, **preprocess_params)
        except Exception as error:  # whatever an input does to a decoder must cost only that input
            if not skip_unreadable:
                raise
            is_sentence = isinstance(error, (OSError, ValueError))
            said = str(error) if is_sentence else f"{name_of(audio)}: {type(error).__name__}: {error}"
            yield {"error": said, "is_last": True}

    def _forward(self, model_inputs: dict) -> dict:
        """Return `logits` (windows, classes) of `waveforms` (windows, samples), and `embedding` (windows, size) if wanted."""
        extractor, waveforms = self.feature_extractor, model_inputs["waveforms"]
        if self.features is not None:
            main = getattr(self.model, "main_input_name", "input_values")
            features = {main: self.features(torch.from_numpy(waveforms).to(self.device))}
        else:
            features = extractor(list(waveforms), sampling_rate=extractor.sampling_rate, return_tensors="pt")
        features = {
            name: value.to(self.device, self.model.dtype if value.is_floating_point() else None)
            for name, value in features.items()
        }
        if self.embeds is None:
            return {"logits": self.model(**features).logits.float()}
        seen: list[torch.Tensor] = []
        hook = self.embeds.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            logits = self.model(**features).logits.float()
        finally:
            hook.remove()
        tokens = seen[-1].float()  # (windows, size), or (windows, tokens, size) where the logits are averaged
        return {"logits": logits, "embedding": tokens.flatten(1, -2).mean(dim=1) if tokens.ndim > 2 else tokens}

    def postprocess(
        self,
        windows: list[dict],
        aggregation: str | None = None,
        longest_clip_seconds: float | None = None,
        thresholds: float | list[float] | dict[str, float] | None = None,
        all_labels: bool = False,
        top_k: int | None = None,
        return_timeline: bool = False,
        return_activity: bool = False,
        return_windows: bool = False,
    ) -> list[dict] | dict:
        """Return one input's result as `__call__` describes it, from its windows, each with its `logits` (classes,)."""
        config = self.model.config
        logits = torch.stack([window["logits"] for window in windows])
        how = aggregation or getattr(config, "aggregation", None) or "mean"
        edges, of_moment = moments(windows, logits, how)
        edges = edges / self.feature_extractor.sampling_rate
        longest = self.longest_clip_seconds if longest_clip_seconds is None else longest_clip_seconds
        is_clip = aggregation is not None or edges[-1] <= longest
        of_moments = self.resolve_thresholds(thresholds, of_moments=True)
        timeline = merge_moments(edges, of_moment, self.labels, of_moments, self.rules)
        if is_clip:
            scores, chosen = self.clip_scores(windows, logits, how), self.resolve_thresholds(thresholds)
        else:
            scores, chosen = [self.rules.sustained_score(edges, column) for column in of_moment.T], of_moments
        bars = dict(zip(self.labels, chosen, strict=True))
        answer = self.answer(scores, chosen, timeline, float(edges[-1]), is_clip)
        if top_k is not None:
            answer = answer[:top_k]
        elif not all_labels:
            answer = [entry for entry in answer if entry["score"] >= bars[entry["label"]]]
        warning = windows[-1]["warning"]
        if not (return_timeline or return_activity or return_windows):
            if warning:
                logger.warning(warning)
            return answer if not is_clip else [without_times(entry) for entry in answer]

        timeline = [entry | {"confidence": self.sureness(entry, of_moments, True)} for entry in timeline]
        result = {"duration_seconds": float(edges[-1]), "rule": "clip" if is_clip else "timeline"}
        result |= {"instruments": answer, "thresholds": bars, "timeline": timeline}
        result |= {"warning": warning} if warning else {}
        if return_activity:
            result["activity"] = self.activity(edges, of_moment, of_moments)
        if return_windows:
            result["windows"] = self.window_scores(windows, logits)
        return result

    def clip_scores(self, windows: list[dict], logits: torch.Tensor, aggregation: str) -> np.ndarray:
        """Return one score per label (classes,) from the logits (windows, classes) of a clip's windows."""
        return aggregate(logits, aggregation, [window["energy"] for window in windows])

    def activity(self, edges: np.ndarray, scores: np.ndarray, thresholds: list[float]) -> dict:
        """Return the scores over time as `__call__` describes them, from those of all labels (moments, classes)."""
        confidences = confidence(scores, thresholds, self.slopes(of_moments=True))
        return {
            "edges_seconds": edges.tolist(),
            "scores": {label: scores[:, index].tolist() for index, label in enumerate(self.labels)},
            "confidences": {label: confidences[:, index].tolist() for index, label in enumerate(self.labels)},
            "thresholds": dict(zip(self.labels, thresholds, strict=True)),
        }

    def window_scores(self, windows: list[dict], logits: torch.Tensor) -> dict:
        """Return what the model said of each window: `start_seconds`, `end_seconds` and `scores` of each label."""
        rate, probabilities = self.feature_extractor.sampling_rate, torch.sigmoid(logits.double())
        embedded = "embedding" in windows[0]
        more = {"embeddings": torch.stack([window["embedding"] for window in windows]).numpy()} if embedded else {}
        return more | {
            "start_seconds": [window["start"] / rate for window in windows],
            "end_seconds": [window["stop"] / rate for window in windows],
            "scores": {label: probabilities[:, index].tolist() for index, label in enumerate(self.labels)},
        }

    def answer(
        self, scores: Iterable[float], thresholds: list[float], timeline: list[dict], duration: float, is_clip: bool
    ) -> list[dict]:
        """Return every label with its score, confidence, seconds and share: the longest or, of a clip, the best first."""
        seconds = dict.fromkeys(self.labels, 0.0)
        for segment in timeline:
            seconds[segment["label"]] += segment["end_seconds"] - segment["start_seconds"]
        entries = [{"label": label, "score": float(score)} for label, score in zip(self.labels, scores, strict=True)]
        for entry in entries:
            entry["confidence"] = self.sureness(entry, thresholds, of_moments=not is_clip)
            entry["rule"] = "clip" if is_clip else "timeline"
            entry["seconds"] = seconds[entry["label"]]
            entry["share"] = entry["seconds"] / duration
        return sorted(entries, key=lambda entry: (0 if is_clip else -entry["seconds"], -entry["score"]))

    def sureness(self, entry: dict, thresholds: list[float], of_moments: bool) -> float:
        """Return the confidence of an entry, which has a label and a score."""
        place = self.labels.index(entry["label"])
        return float(confidence(entry["score"], thresholds[place], self.slopes(of_moments)[place]))


def nearest_of(name: str, known: Iterable[str]) -> str:
    """Return which known name was probably meant, as the end of a sentence; empty where none is near."""
    return "".join(f"did you mean `{near}`?" for near in difflib.get_close_matches(name, list(known), n=1))


def without_times(entry: dict) -> dict:
    """Return an entry of a clip's answer, which its timeline had no part in."""
    return {name: value for name, value in entry.items() if name not in ("seconds", "share")}


def check_protocol(config: Any) -> None:
    """Raise ValueError if what a run stored in its configuration about scores and time is impossible."""
    for name, (count, highest) in PER_LABEL.items():
        stored = getattr(config, name, None)
        if stored is not None and not are_numbers(stored, config.num_labels, count, highest):
            of_one = f"a number from 0 to {highest}" if count == 1 else "two numbers from 0"
            raise ValueError(f"`{name}` must be {of_one} for each of the {config.num_labels} labels.")
    for name in ("longest_clip_seconds", *(field.name for field in dataclasses.fields(TimelineRules))):
        value = getattr(config, name, None)
        if value is not None and not (is_number(value) and 0 <= value < math.inf):
            raise ValueError(f"`{name}` must be a number of seconds, not {value!r}.")
    window, hop = (getattr(config, name, None) for name in ("window_seconds", "hop_seconds"))
    for name, value in (("window_seconds", window), ("hop_seconds", hop)):
        if value is not None and not (isinstance(value, (int, float)) and 0 < value <= MAX_WINDOW_SECONDS):
            raise ValueError(f"`{name}` must be above 0 and at most {MAX_WINDOW_SECONDS} s, not {value!r}.")
    window = window or DEFAULT_WINDOW_SECONDS
    if hop and hop > window:
        raise ValueError(f"`hop_seconds` is {hop}, longer than the window of {window} s.")
    if (aggregation := getattr(config, "aggregation", None)) not in (None, *AGGREGATIONS):
        raise ValueError(f"`aggregation` {aggregation!r} is not one of {', '.join(AGGREGATIONS)}.")


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def are_numbers(stored: Any, labels: int, count: int, highest: float) -> bool:
    """Return whether `stored` has `count` numbers from 0 to `highest` for each label."""
    if not isinstance(stored, (list, tuple)) or len(stored) != labels:
        return False
    rows = [[row] if count == 1 else row for row in stored]
    return all(
        isinstance(row, (list, tuple)) and len(row) == count and all(is_number(v) and 0 <= v <= highest for v in row)
        for row in rows
    )


def longest_window_seconds(feature_extractor: Any) -> float:
    """Return how much audio the extractor keeps: AST's `max_length` frames of 25 ms every 10 ms, PaSST's `max_frames`, Whisper's 30 s."""
    if type(feature_extractor).__name__ == "ASTFeatureExtractor":
        return (feature_extractor.max_length * 10 + 25) / 1000
    if seconds := getattr(feature_extractor, "max_length_seconds", None):  # BEATs
        return seconds
    samples = getattr(feature_extractor, "n_samples", None) or getattr(feature_extractor, "nb_max_samples", None)
    if frames := getattr(feature_extractor, "max_frames", None):
        samples = frames * feature_extractor.hop_length
    return samples / feature_extractor.sampling_rate if samples else math.inf
