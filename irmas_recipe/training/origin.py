"""What a checkpoint was made from: data, processes, optimizer, so that a run is resumed with the same or not at all.

The seconds that went into it stand beside them, so that a resumed run counts all of its own.
"""

import hashlib
import json
from pathlib import Path

from datasets import Dataset, DatasetDict

from irmas_dataset.errors import UserError
from irmas_dataset.whole_file import write_json
from irmas_recipe.training.recipe import plain
from irmas_recipe.training.training_arguments import IrmasTrainingArguments

FILE = "origin.json"
"""Inside each checkpoint."""
OF_THE_OPTIMIZER = (
    "learning_rate", "weight_decay", "layer_decay", "optim", "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon",
    "one_cycle", "lr_scheduler_type",
)  # fmt: skip
"""Fields that a resumed run takes from the saved state of its optimizer and schedule, whatever its recipe says."""


def origin(prepared: DatasetDict, arguments: IrmasTrainingArguments) -> dict:
    """Return what a run depends on beyond its recipe: processes, clips per step, classes, and a digest of each split."""
    batch = arguments.train_batch_size * arguments.gradient_accumulation_steps
    of_optimizer = OF_THE_OPTIMIZER + (("num_train_epochs", "max_steps") if arguments.one_cycle else ())
    splits = {name: digest(split) for name, split in prepared.items() if name != "test" and isinstance(split, Dataset)}
    return {
        "processes": arguments.world_size,
        "clips per step": batch * arguments.world_size,
        "classes": prepared["validation"].features["instruments"].feature.names,
        "clips": {name: len(prepared[name]) for name in splits},
        "digests": splits,
        "optimizer": {name: plain(getattr(arguments, name)) for name in of_optimizer},
    }


def digest(split: Dataset) -> str:
    """Return a digest of a split's clips and labels, whatever their order and wherever the files are."""
    names = split.features["instruments"].feature.names
    clips = zip(split["md5"][:], split["instruments"][:], strict=True)
    lines = [f"{md5} {sorted(names[label] for label in labels)}" for md5, labels in clips]
    if "unknown" in split.features:
        lines = [f"{line} unknown {labels}" for line, labels in zip(lines, split["unknown"][:], strict=True)]
    lines.sort()
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def write_origin(checkpoint: Path, made_from: dict) -> None:
    """Write it into a checkpoint."""
    write_json(checkpoint / FILE, made_from)


def seconds_behind(checkpoint: Path | None) -> dict[str, float]:
    """Return the seconds of training and of validation up to a checkpoint; nothing where an earlier version wrote it."""
    if checkpoint is None or not (checkpoint / FILE).is_file():
        return {}
    made_from = json.loads((checkpoint / FILE).read_text(encoding="utf-8"))
    return {name: made_from[name] for name in ("seconds", "validation_seconds") if name in made_from}


def check_origin(checkpoint: Path | None, now: dict) -> None:
    """Raise UserError where a checkpoint to resume from was made from other data or by other processes."""
    if checkpoint is None or not (checkpoint / FILE).is_file():
        return
    then = json.loads((checkpoint / FILE).read_text(encoding="utf-8"))
    changes = [f"{name} {then[name]} then, {now[name]} now" for name in ("processes", "clips per step") if then[name] != now[name]]  # fmt: skip
    changes += [
        f"--{name} {value} then, {now['optimizer'].get(name)} now"
        for name, value in then.get("optimizer", {}).items()
        if value != now["optimizer"].get(name)
    ]
    if then["classes"] != now["classes"]:
        changes.append(f"the classes {', '.join(then['classes'])} then, {', '.join(now['classes'])} now")
    for name, before in then["digests"].items():
        if before != now["digests"].get(name):
            counts = f"{then['clips'][name]} then, {now['clips'].get(name, 0)} now"
            changes.append(f"other {name} clips or labels ({counts})")
    if changes:
        raise UserError(
            f"{checkpoint} cannot be resumed from: {'; '.join(changes)}. Start as then, name another --output_dir, or delete "
            f"the checkpoints to begin again; --model_name_or_path {checkpoint} starts from its weights alone."
        )
