"""Stopwatches for the CPU and for a GPU, races in which the machine's noise hits all contestants alike, and memory."""

import ctypes
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

RACE_SECONDS = 150  # a race of two or more rounds ends after this long
REST = "the rest"
GRAPH = "forward and backward, one CUDA graph"


class Clock:
    """Times work on a device, waiting for a GPU to finish before and after."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wait(self) -> None:
        """Wait until a GPU has finished what was queued."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, task: Callable[[], object]) -> float:
        """Return how long one call takes."""
        self.wait()
        start = time.perf_counter()
        task()
        self.wait()
        return time.perf_counter() - start

    def race(
        self, contestants: dict[str, Callable[[], object]], repeats: int, before: Callable[[], object] | None = None
    ) -> dict[str, list[float]]:
        """Return the seconds of `repeats` calls of each, taken in turns, so that the machine's noise hits all alike.

        The caller warms up. `before` is called before every round and not timed. A race that takes long ends after two
        rounds.
        """
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        start = time.perf_counter()
        for round_number in range(repeats):
            if round_number >= 2 and time.perf_counter() - start > RACE_SECONDS:
                break
            if before:
                before()
            for name, task in contestants.items():
                seconds[name].append(self.seconds(task))
        return seconds


class Stages:
    """Adds up the time spent in watched functions; on a GPU by its own events, which do not slow it down."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.spans: list[tuple[str, Any, Any]] = []

    def watch(self, name: str, function: Callable) -> Callable:
        """Return the function with its time counted under `name`."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            start = self._now()
            result = function(*args, **kwargs)
            self.spans.append((name, start, self._now()))
            return result

        return watched

    def _now(self) -> Any:
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def take(self) -> dict[str, float]:
        """Return the seconds of each name since the last call."""
        if self.on_gpu:
            torch.cuda.synchronize()
        total: dict[str, float] = defaultdict(float)
        for name, start, end in self.spans:
            total[name] += start.elapsed_time(end) / 1000 if self.on_gpu else end - start
        self.spans = []
        return dict(total)


def speed(seconds: list[float], clips: int) -> dict:
    """Return the median of repeated measurements of `clips` clips as a rate and as a time, with every measurement."""
    median = statistics.median(seconds)
    return {
        "clips_per_second": clips / median,
        "ms_per_clip": 1000 * median / clips,
        "clips": clips,
        "seconds": [round(value, 6) for value in seconds],
    }


def stages_of_step(step: dict) -> dict[str, float]:
    """Return the milliseconds per clip of each stage of a measured step; together they are its `ms_per_clip`.

    What no stage was measured for is `REST`. Stages are means over the repeats and a step's own time is their median, so
    the stages are scaled to it.
    """
    stages, mean = step["stages_ms_per_clip"], 1000 * statistics.fmean(step["seconds"]) / step["clips"]
    stages = stages | {REST: max(0.0, mean - sum(stages.values()))}
    scale = step["ms_per_clip"] / sum(stages.values())
    return {stage: milliseconds * scale for stage, milliseconds in stages.items()}


def added_memory(device: torch.device, task: Callable[[], object]) -> int | None:
    """Return how many bytes a call needs at its peak, beyond those in use before; None where the system cannot tell.

    On a GPU this counts what torch allocates, on Linux the process's resident memory.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        task()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    try:
        ctypes.CDLL(None).malloc_trim(0)  # returns freed memory, which would hide what the task takes
        Path("/proc/self/clear_refs").write_text("5")  # resets the recorded peak
    except (OSError, AttributeError):  # no Linux, or another C library
        task()
        return None
    before = psutil.Process().memory_info().rss
    task()
    return max(0, resident_peak() - before)


def resident_peak() -> int:
    """Return this process's recorded peak of resident memory in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def matrix_rates(device: torch.device, repeats: int = 3) -> dict[str, float]:
    """Return the FLOP/s of a large matrix product in fp32 and in bf16, as torch computes it here."""
    size = 8192 if device.type == "cuda" else 2048
    clock, rates = Clock(device), {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        multiply = partial(torch.matmul, *(torch.randn(size, size, device=device).to(dtype) for _ in range(2)))
        clock.seconds(multiply)
        seconds = [clock.seconds(multiply) for _ in range(repeats)]
        rates[name] = 2 * size**3 / statistics.median(seconds)
    return rates


def load_average() -> list[float] | None:
    """Return the system's load over 1, 5 and 15 minutes, None where it does not tell."""
    return [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None
