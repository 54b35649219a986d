"""Whether the Hub can be reached, asked once."""

from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_url, is_offline_mode, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

TIMEOUT_SECONDS = 10


def reach_hub(model: str, revision: str | None = None) -> None:
    """Raise ConnectionError where a model lies neither in a folder nor in the Hub's local cache and the Hub is silent.

    `from_pretrained` and `hf_hub_download` would ask six times more: half a minute without a network, six minutes
    behind a firewall that swallows their questions.
    """
    try:
        if is_offline_mode() or Path(model).is_dir() or try_to_load_from_cache(model, "config.json", revision=revision):
            return
        get_hf_file_metadata(hf_hub_url(model, "config.json", revision=revision), timeout=TIMEOUT_SECONDS)
    except (HfHubHTTPError, HFValidationError):
        pass  # the Hub answers, or the name is none of its own: whoever loads the model says so
    except Exception as error:  # of whatever library carries the question
        raise ConnectionError(f"the Hub cannot be reached: {error}") from error
