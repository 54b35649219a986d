"""The fitted system in its run folder, `classifiers.skops`: a file that is loaded without running code from it."""

import zipfile
from pathlib import Path

import numpy as np
from sklearn.pipeline import Pipeline
from skops.io import dump, load
from skops.io.exceptions import UntrustedTypesFoundException

from irmas_dataset.errors import UserError
from irmas_recipe.baselines.classical.classifiers import CalibratedClassifiers, L1Selection, OneVsRestOfKnown

FILE = "classifiers.skops"
METRICS = (
    "BrayCurtis", "Canberra", "Chebyshev", "Euclidean", "Hamming", "Jaccard", "Manhattan", "Minkowski", "SEuclidean",
)  # fmt: skip
TRUSTED = [
    *(f"{kind.__module__}.{kind.__qualname__}" for kind in (L1Selection, OneVsRestOfKnown)),
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.multiclass._ConstantPredictor",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.tree._tree.Tree",
    *(f"sklearn.metrics._dist_metrics.{name}Distance64" for name in METRICS),
]
"""What our systems are made of, besides scikit-learn's estimators and arrays, which skops trusts by itself.

No file of these types alone can run code. One made to do harm can still end the process: scikit-learn follows the
indices inside its trees without checking them.
"""


def save_classifiers(system: CalibratedClassifiers, folder: Path) -> None:
    """Write what a fitted system needs to answer."""
    content = {"classifiers": system.classifiers, "slopes": system.slopes, "offsets": system.offsets}
    dump(content, folder / FILE, compression=zipfile.ZIP_DEFLATED)


def load_classifiers(run: Path, columns: int, classes: int) -> CalibratedClassifiers:
    """Return the fitted system of a run.

    columns, classes: how many the run's features and scores have.

    Raises:
        UserError: the file is missing or damaged, is not of this run, or has an object of a type that is not TRUSTED.
    """
    file, again = run / FILE, "train the run again with --overwrite_output_dir true."
    if not file.is_file():
        raise UserError(f"{file} is missing, which holds the fitted classifiers (earlier versions wrote none): {again}")
    try:
        content = load(file, trusted=TRUSTED)
        system = CalibratedClassifiers(content["classifiers"], content["slopes"], content["offsets"])
    except UntrustedTypesFoundException as error:
        raise UserError(f"{file} has objects that no run of this project has, and is not loaded: {again}") from error
    except Exception as error:  # whatever a damaged file does to its reader
        raise UserError(f"{file} is damaged: {again}") from error
    if not fits(system, columns, classes):
        raise UserError(f"{file} does not hold the classifiers of {run}: {again}")
    return system


def fits(system: CalibratedClassifiers, columns: int, classes: int) -> bool:
    """Return whether what was loaded is a system for so many columns and classes."""
    if not isinstance(system.classifiers, Pipeline) or list(system.classifiers.named_steps) != ["scaling", "classes"]:
        return False
    calibration = (system.slopes, system.offsets)
    return (
        all(isinstance(part, np.ndarray) and part.shape == (classes,) for part in calibration)
        and system.classifiers.n_features_in_ == columns
        and len(system.classifiers["classes"].estimators_) == classes
    )
