"""What a released AudioSet checkpoint answers: IRMAS's instruments or all of AudioSet's, by thresholds that were measured.

AudioSet's head has 527 classes, most of them no instruments, and its scores for instruments in a mixture are far below
0.5. `python -m experiments.released_thresholds` measures the thresholds and writes them to released_thresholds.json.
"""

import json
import logging
from pathlib import Path

from transformers import PreTrainedModel

from irmas_dataset.errors import UserError
from irmas_dataset.labels import AUDIOSET_LABELS
from irmas_recipe.models.audioset import musical_instruments
from irmas_recipe.training.head import missing_labels, start_head
from irmas_recipe.training.released import Released

logger = logging.getLogger(__name__)

FILE = Path(__file__).with_name("released_thresholds.json")
PROTOCOL = {"window_seconds": 3.0, "hop_seconds": 1.5, "aggregation": "mean"}
"""How the checkpoints listen, in the measurement and afterwards."""


def answer_with(model: PreTrainedModel, released: Released, classes: str) -> None:
    """Give a checkpoint, in place, the classes that it answers with, and their thresholds.

    Args:
        classes: `irmas`, the eleven instruments, or `all`: AudioSet's classes of instruments and its singing.

    Raises:
        UserError: the checkpoint does not know the classes.
    """
    labels = list(AUDIOSET_LABELS) if classes == "irmas" else [*musical_instruments(), AUDIOSET_LABELS["voice"]]
    if missing := missing_labels(model, labels):
        raise UserError(
            f"{released.path} ({released.trained_on}) has no output for {missing[0]} and {len(missing) - 1} more: start a "
            "recipe from it first, or name another model."
        )
    start_head(model, labels, "labels")
    model.config.problem_type = "multi_label_classification"
    model.config.update(PROTOCOL | {"thresholds": thresholds_of(released, labels)})


def thresholds_of(released: Released, labels: list[str]) -> list[float] | None:
    """Return the measured threshold of each label, in order; None, with a warning, where nothing was measured.

    AudioSet's other classes take the single threshold that was best for the measured ones.
    """
    measured = read_measurements().get(released.name)
    if measured is None:
        logger.warning(
            "No thresholds have been measured for %s: 0.5 is used, which is too high for most music; give --threshold.",
            released.path,
        )
        return None
    own = measured["thresholds"]
    by_label = own | {AUDIOSET_LABELS[label]: threshold for label, threshold in own.items()}
    return [by_label.get(label, measured["single_threshold"]) for label in labels]


def read_measurements() -> dict[str, dict]:
    """Return the name of each measured checkpoint -> its thresholds, and what they were measured on."""
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
