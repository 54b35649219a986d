"""Store the pipeline beside a saved model; this file itself stays here."""

import inspect
import json
import os
import shutil
from pathlib import Path

from transformers.dynamic_module_utils import get_relative_import_files

from .instrument_recognition import TASK, InstrumentRecognitionPipeline


def attach_pipeline(folder: str | os.PathLike) -> None:
    """Copy the pipeline's files into a saved model's folder and name it in config.json under `custom_pipelines`.

    `pipeline("audio-classification", model=folder)` works as before, without remote code where the model needs none.

    Raises:
        FileNotFoundError: the folder has no saved model.
    """
    folder = Path(folder)
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise FileNotFoundError(f"{folder} has no saved model: there is no config.json in it.")
    for file in pipeline_files():
        shutil.copyfile(file, folder / file.name)
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config.setdefault("custom_pipelines", {})[TASK] = {
        "impl": f"{pipeline_files()[0].stem}.{InstrumentRecognitionPipeline.__name__}",
        "pt": ["AutoModelForAudioClassification"],
        "type": "audio",
    }
    config_file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def pipeline_files() -> list[Path]:
    """Return the file of the pipeline's class and those that it imports, as transformers finds them on the Hub."""
    first = Path(inspect.getfile(InstrumentRecognitionPipeline))
    return [first, *map(Path, get_relative_import_files(first))]
