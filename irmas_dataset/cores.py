"""How many processor cores there are to work with."""

import os


def usable_cores() -> int:
    """Return how many cores this process may use; on a shared machine that can be fewer than it has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
