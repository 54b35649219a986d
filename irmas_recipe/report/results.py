"""The figures of a finished run, results.json, as one object."""

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from irmas_dataset.errors import UserError
from irmas_dataset.labels import readable_name
from irmas_dataset.openmic import TITLE as OPENMIC
from irmas_dataset.whole_file import write_json
from irmas_metric.calibration import reliability
from irmas_metric.openmic import openmic_figures
from irmas_metric.protocol import test_results
from irmas_metric.trivial import trivial_figures
from irmas_recipe.models.pipeline.windows import confidence
from irmas_recipe.report.provenance import provenance
from irmas_recipe.report.published import FULL_TEST_SET_CLIPS
from irmas_recipe.training.fields import THRESHOLDS_FROM
from irmas_recipe.training.released import is_released

FILE = "results.json"
FEW_VALIDATION_CLIPS = 10  # of a class: its confidence is then mostly that of all classes together
FIGURES = {"micro_f1": "micro-F1", "macro_f1": "macro-F1", "lrap": "LRAP", "map": "mAP"}
"""The headline figures: their names in results.json -> in print."""
REGIMES = {"tuned": "tuned thresholds", "fixed": "fixed threshold", "oracle": "oracle threshold"}


@dataclass(frozen=True)
class Results:
    """results.json: its parts in the file's own form, and what others ask of them."""

    recipe: dict
    seed: int
    dataset: dict
    protocol: dict
    trivial: dict
    test: dict
    commit: str | None = None
    versions: dict = field(default_factory=dict)
    origin: dict | None = None  # `started_from`, when it was measured; older files lack it
    train: dict = field(default_factory=dict)  # empty where nothing was trained: `evaluate`
    more: dict = field(default_factory=dict)  # what one kind of system adds, such as a search

    @classmethod
    def read(cls, run_dir: Path) -> "Results":
        """Read results.json of a run folder; raise UserError where it is missing or not a run's."""
        path = Path(run_dir) / FILE
        if not path.is_file():
            raise UserError(f"{path} is missing: {run_dir} is not a finished run; run its recipe first.")
        try:
            parts = json.loads(path.read_text(encoding="utf-8"))
            known = {name: parts.pop(name) for name in cls.__dataclass_fields__ if name in parts}
            return cls(**known, more=parts)
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is damaged ({error}): train or evaluate {run_dir} again.") from error

    @classmethod
    def measure(
        cls,
        *,
        recipe: dict,
        seed: int,
        dataset: dict,
        protocol: dict,
        labels: np.ndarray,
        scores: np.ndarray,
        songs: list,
        thresholds: np.ndarray | None,
        train: dict | None = None,
        training_counts: np.ndarray | None = None,
        slopes: np.ndarray | None = None,
        validation_positives: np.ndarray | None = None,
        more: dict | None = None,
    ) -> "Results":
        """Measure scores (clips, classes) against labels of the same shape, with intervals over `songs` (clips,).

        thresholds: tuned ones (classes,), or None where none could be tuned.
        training_counts: training clips per class, behind the trivial ranking by frequency.
        slopes: of the confidence (classes, 2), fitted on validation mixtures; None where it was not fitted.
        validation_positives: how many validation mixtures each class has, where known.
        """
        classes, resamples = dataset["classes"], protocol["bootstrap_resamples"]
        test = test_results(labels, scores, songs, classes, thresholds, resamples=resamples)
        if slopes is not None:
            confident = confidence(scores, thresholds, slopes)
            test["calibration"] = {
                "scores": reliability(labels, scores, songs, resamples=resamples),
                "confidence": reliability(labels, confident, songs, resamples=resamples),
            }
            if validation_positives is not None:
                few = validation_positives < FEW_VALIDATION_CLIPS
                test["calibration"]["few_validation_clips"] = [classes[place] for place in np.flatnonzero(few)]
        if (labels < 0).any():
            test["judged"] = openmic_figures(labels, scores)
        measured = cls(
            **provenance(recipe, seed),
            dataset=dataset,
            protocol=protocol,
            trivial=trivial_figures(labels, classes, training_counts),
            test=test,
            train=train or {},
            more=more or {},
        )
        return replace(measured, origin=measured.started_from)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of results.json."""
        parts = {name: getattr(self, name) for name in ("recipe", "commit", "seed", "versions", "dataset")}
        parts |= {"origin": self.origin} if self.origin is not None else {}
        parts |= {"train": self.train} if self.train else {}
        return parts | {"protocol": self.protocol, "trivial": self.trivial, "test": self.test} | self.more

    def write(self, run_dir: Path) -> None:
        """Write results.json into a run folder."""
        write_json(Path(run_dir) / FILE, self.as_dict())

    @property
    def classes(self) -> list[str]:
        """The data's class codes, in the order of the scores' columns."""
        return self.dataset["classes"]

    @property
    def names(self) -> list[str]:
        """The classes' readable names."""
        return [readable_name(code) for code in self.classes]

    @property
    def regime(self) -> str:
        """The threshold regime of the headline: tuned, or fixed where no thresholds could be tuned."""
        return "tuned" if "tuned" in self.test else "fixed"

    @property
    def decisions(self) -> dict:
        """The headline regime's figures."""
        return self.test[self.regime]

    @property
    def per_class(self) -> dict[str, dict]:
        """The headline regime's figures of each class."""
        return self.decisions["per_class"]

    @property
    def thresholds(self) -> np.ndarray:
        """The headline regime's thresholds (classes,)."""
        return np.array([self.per_class[code]["threshold"] for code in self.classes])

    @property
    def headline(self) -> dict[str, float]:
        """The figures of FIGURES; those that need decisions are the headline regime's."""
        return {name: (self.decisions | self.test)[name] for name in FIGURES}

    @property
    def intervals(self) -> dict[str, list[float]]:
        """The 95 % intervals of `headline`."""
        found = self.decisions["ci95"] | self.test["ci95"]
        return {name: found[name] for name in FIGURES}

    def as_config(self) -> dict[str, Any]:
        """Return labels, thresholds and protocol under the names that a network's configuration has for them.

        `more` has under "moments" what was tuned for the timeline.
        """
        stored = ("window_seconds", "hop_seconds", "aggregation", "separation")
        found = {name: self.protocol[name] for name in stored if name in self.protocol}
        found |= {"id2label": dict(enumerate(self.names)), "thresholds": self.thresholds.tolist()}
        return found | self.more.get("moments", {})

    def single_threshold(self, regime: str) -> float:
        """Return the threshold of a regime that has one for all classes."""
        return next(iter(self.test[regime]["per_class"].values()))["threshold"]

    @property
    def is_partly_known(self) -> bool:
        """Whether nobody has judged some classes in some test clips."""
        clips = self.dataset["clips"]["test"]
        return any(entry.get("known", clips) < clips for entry in self.per_class.values())

    @property
    def is_of_half(self) -> bool:
        """Whether half of the test set was measured, with thresholds tuned on the other half."""
        return self.protocol.get("thresholds_from") == THRESHOLDS_FROM["test_half"]

    @property
    def music(self) -> str:
        """What the run was measured on: "irmas", "part" (of IRMAS), "openmic", "synthetic" or "own"."""
        name = self.dataset["name"]
        by_title = name.startswith(("synthetic, ", "synthetic folder "))  # all that older files say of some
        if self.dataset.get("synthetic") or by_title:
            return "synthetic"
        if name == OPENMIC:
            return "openmic"
        if name == "IRMAS":
            return "irmas" if self.dataset["clips"]["test"] == FULL_TEST_SET_CLIPS else "part"
        return "part" if name.startswith("incomplete IRMAS") else "own"

    @property
    def started_from(self) -> dict[str, str]:
        """The fields of a recipe that name the first weights: the run's own, or those of the first run behind it; {} from scratch.

        `origin` keeps them, for the runs behind this one may be replaced later, even by one that starts from it.
        """
        if self.origin is not None:
            return self.origin
        start = self.recipe.get("model_name_or_path")
        if start and (run_of(start) / FILE).is_file():
            return Results.read(run_of(start)).started_from
        names = ("model_name_or_path", "backbone_name_or_path")
        return {name: self.recipe[name] for name in names if self.recipe.get(name)}

    @property
    def base_model(self) -> str | None:
        """The Hub id that the run started from, or that the first of the runs behind it did; None from scratch or from elsewhere."""
        name = self.started_from.get("model_name_or_path", "")
        may_be_id = not is_released(name) and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name)
        return name if may_be_id and not Path(name).parent.is_dir() else None  # a folder that is gone is no id either

    @property
    def test_set(self) -> str:
        """The test set in a line."""
        clips, songs = self.dataset["clips"]["test"], self.dataset["songs"]
        return f"{self.dataset['name']}: {clips:,} test clips, {songs:,} songs, {len(self.classes)} classes"


def run_of(start: str) -> Path:
    """Return the folder of the run that another starts from, of which it may name a checkpoint."""
    folder = Path(start)
    is_checkpoint = (folder / "trainer_state.json").is_file() and not (folder / FILE).is_file()
    return folder.parent if is_checkpoint else folder
