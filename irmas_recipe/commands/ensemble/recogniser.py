"""An ensemble as the pipeline that `predict` and the demo use: its members hear each file, and their scores are fused."""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from irmas_dataset.errors import UserError
from irmas_recipe.commands.ensemble.fusion import Fusion, on_common_edges
from irmas_recipe.commands.ensemble.members import find_members
from irmas_recipe.models.pipeline.instrument_recognition import InstrumentRecognitionPipeline
from irmas_recipe.report.results import Results
from irmas_recipe.training.recogniser import WithoutNetwork, build_recogniser

MEMBERS_OWN = ("aggregation", "window_seconds", "hop_seconds")


def copies(inputs: Iterable, count: int) -> list[Iterator]:
    """Return iterators that each give all inputs, whatever thread reads them.

    An input is held until the last has given it, so that any number of them needs little memory.
    """
    source, lock = iter(inputs), threading.Lock()
    waiting: list[deque] = [deque() for _ in range(count)]

    def copy(mine: deque) -> Iterator:
        while True:
            with lock:
                if not mine:
                    for read in islice(source, 1):
                        for queue in waiting:
                            queue.append(read)
                if not mine:
                    return
                item = mine.popleft()
            yield item

    return [copy(queue) for queue in waiting]


class EnsembleRecogniser(InstrumentRecognitionPipeline):
    """The pipeline of an ensemble: each moment of its members' timelines, fused, is a window of its own."""

    def __init__(self, members: list[InstrumentRecognitionPipeline], fusion: Fusion, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.members, self.fusion = members, fusion

    def get_iterator(
        self,
        inputs: Iterable,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict,
        forward_params: dict,
        postprocess_params: dict,
    ) -> Iterator[list[dict] | dict]:
        """Yield one result per input; every member hears it by its own windows, aggregation and rate."""
        asked = preprocess_params | {"all_labels": True, "return_activity": True, "batch_size": batch_size}
        streams = [
            member(audio, aggregation=own_aggregation(member), **asked)
            for member, audio in zip(self.members, copies(inputs, len(self.members)), strict=True)
        ]
        for heard in zip(*streams, strict=True):
            error = next((of_member["error"] for of_member in heard if "error" in of_member), None)
            yield {"error": error} if error else self.postprocess(self.fused(heard), **postprocess_params)

    def fused(self, heard: tuple[dict, ...]) -> list[dict]:
        """Return the fused moments of one input as windows, from what each member heard; the last has the clip's scores."""
        of_clip = [{entry["label"]: entry["score"] for entry in of_member["instruments"]} for of_member in heard]
        clip = np.array([[scores[label] for label in self.labels] for scores in of_clip])
        activities = [of_member["activity"] for of_member in heard]
        edges, moments = on_common_edges(
            [
                (of_one["edges_seconds"], np.array([of_one["scores"][name] for name in self.labels]).T)
                for of_one in activities
            ]
        )
        logits = torch.logit(torch.from_numpy(self.fusion(moments)), eps=1e-9)
        windows = [
            {"start": start, "stop": stop, "logits": row, "warning": None}
            for start, stop, row in zip(edges[:-1], edges[1:], logits, strict=True)
        ]
        warning = next((of_member["warning"] for of_member in heard if "warning" in of_member), None)
        windows[-1] |= {"warning": warning, "clip_scores": self.fusion(clip[:, None])[0]}
        return windows

    def clip_scores(self, windows: list[dict], logits: torch.Tensor, aggregation: str) -> np.ndarray:
        """Return the fused scores (classes,) of a clip, which its members' aggregations gave."""
        return windows[-1]["clip_scores"]


def own_aggregation(member: InstrumentRecognitionPipeline) -> str:
    """Return how a member makes one score of its windows, which to name makes it answer about a clip of any length."""
    return getattr(member.model.config, "aggregation", None) or "mean"


def load_ensemble(
    run: Path, load: Callable[..., InstrumentRecognitionPipeline], *, trust_remote_code: bool = False, **options: Any
) -> EnsembleRecogniser:
    """Return the pipeline of an ensemble.

    Args:
        load: returns the pipeline of any run, as `load_system` does.
        trust_remote_code, options: as of `load_recogniser`.

    Raises:
        UserError: the run is not finished, or a member is missing, has changed or cannot be loaded.
    """
    for name in MEMBERS_OWN:
        if options.get(name) is not None:
            raise UserError(f"--{name} is not for {run}, an ensemble whose members each have their own: remove it.")
    results = Results.read(run)
    folders = find_members(run, results)
    of_members = {name: options.get(name) for name in ("device", "batch_size")}
    try:
        members = [load(str(folder), trust_remote_code=trust_remote_code, **of_members) for folder in folders]
    except RecursionError as error:
        raise UserError(f"{run} is an ensemble that has itself among its runs: make another.") from error
    windows = [member.window_and_hop() for member in members]
    config = results.as_config() | {
        "aggregation": "mean",
        "window_seconds": max(window for window, _ in windows),
        "hop_seconds": min(hop for _, hop in windows),
    }
    kind = partial(EnsembleRecogniser, members, Fusion(**results.more["fusion"]))
    made_of = json.dumps([results.more["fusion"], [member["sha256"] for member in results.more["members"]]]).encode()
    in_seconds = SimpleNamespace(sampling_rate=1)  # where windows start and stop is counted in seconds here
    return build_recogniser(str(run), WithoutNetwork(config, made_of), in_seconds, kind=kind, **options)
