"""Every test runs offline, with a datasets cache of its own that goes away with the test session."""

import os
import tempfile

# Before any test imports datasets or huggingface_hub, which read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("HF_DATASETS_CACHE", tempfile.mkdtemp(prefix="irmas-test-cache-"))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Two processes that compile the same functions at once, or one that is killed, can leave a cache that crashes its readers.
for variable in ("NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
    os.environ[variable] = os.path.join(
        os.environ["HF_DATASETS_CACHE"], variable.lower(), os.environ.get("PYTEST_XDIST_WORKER", "alone")
    )


def pytest_collection_modifyitems(items):
    """Skip what needs a GPU where there is none."""
    if not any(item.get_closest_marker("gpu") for item in items):
        return
    import pytest
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_unconfigure(config):
    import shutil

    is_worker = hasattr(config, "workerinput")  # the others still use it
    if not is_worker and os.path.basename(os.environ["HF_DATASETS_CACHE"]).startswith("irmas-test-cache-"):
        shutil.rmtree(os.environ["HF_DATASETS_CACHE"], ignore_errors=True)
