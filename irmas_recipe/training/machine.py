"""What a figure of time or memory was measured on."""

import platform
import resource
from pathlib import Path

import torch


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory that was in use: on a GPU allocated by torch, else this process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def free_memory_bytes(device: torch.device) -> int:
    """Return how much of a GPU's memory is free."""
    return torch.cuda.mem_get_info(device)[0]


def windows_at_once(device: torch.device) -> int:
    """Return how many windows a network is to hear at once: on a CPU few, whose layers' values stay in its caches."""
    return 32 if device.type == "cuda" else 8


def device_name(device: torch.device) -> str:
    """Return the device in words, with the number of CPU threads where it is the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu_name()}, {torch.get_num_threads()} threads"


def cpu_name() -> str:
    """Return the processor's model name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
