"""Late fusion: the scores of several runs become one. Pure functions on arrays.

`scores` is (runs, clips, classes) in [0, 1] throughout. What is fitted is fitted on validation clips only.
"""

from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

FOLDS = 5
SAME_MOMENT_SECONDS = 1e-3  # members at other sampling rates end their windows up to a sample apart
SMALLEST_SCORE = 1e-6


@dataclass(frozen=True)
class Fusion:
    """A fitted way to fuse scores, in plain numbers, so that results.json can keep it.

    thresholds: each run's own (runs, classes), by which it votes.
    weights: of the runs, (runs,).
    regressions: by class, `coefficients` of all runs' log-odds (runs * classes,) and `intercept`; None keeps the mean.
    """

    method: str
    thresholds: list[list[float]] | None = None
    weights: list[float] | None = None
    regressions: list[dict | None] | None = None

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Return fused scores (clips, classes)."""
        if self.method == "voting":
            return votes(scores, np.array(self.thresholds))
        if self.method == "weights":
            return np.tensordot(np.array(self.weights), scores, axes=1)
        fused, inputs = scores.mean(axis=0), logits(scores)
        for column, found in enumerate(self.regressions or ()):
            if found is not None:
                fused[:, column] = expit(inputs @ np.array(found["coefficients"]) + found["intercept"])
        return fused


def fit(
    method: str, validation: np.ndarray | None, labels: np.ndarray | None, thresholds: np.ndarray
) -> tuple[Fusion, np.ndarray | None]:
    """Return the fusion, and the fused scores (clips, classes) of the validation clips (None where there are none).

    Args:
        method: one of METHODS; those in FITTED need validation scores.
        validation: (runs, clips, classes); the clips' labels are `labels` (clips, classes).
        thresholds: each run's own (runs, classes).
    """
    if method == "stacking":
        return stack(validation, labels)
    if method == "weights":
        fusion = Fusion(method, weights=fit_weights(validation, labels).tolist())
    else:
        fusion = Fusion(method, thresholds=thresholds.tolist() if method == "voting" else None)
    return fusion, None if validation is None else fusion(validation)


def votes(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return (votes + mean score) / (runs + 1): ranked by votes, then by the mean; 0.5 is a majority.

    A run votes for a class where its score is at least its own threshold. With an even number of runs a tie is decided
    by whether the mean score is at least 0.5.
    """
    count = (scores >= thresholds[:, None, :]).sum(axis=0)
    return (count + scores.mean(axis=0)) / (len(scores) + 1)


def fit_weights(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the runs' weights (runs,), none negative, that sum to 1 and give the smallest cross-entropy.

    The weighted mean is linear in the weights and the cross-entropy convex in it, so there is one best set.
    """
    runs = len(scores)
    known = np.asarray(labels).reshape(-1) >= 0
    flat, labels = scores.reshape(runs, -1)[:, known], np.asarray(labels).reshape(-1)[known] == 1

    def loss_and_gradient(weights: np.ndarray) -> tuple[float, np.ndarray]:
        mean = np.clip(weights @ flat, SMALLEST_SCORE, 1 - SMALLEST_SCORE)
        likelihood = np.where(labels, mean, 1 - mean)
        slope = np.where(labels, -1, 1) / likelihood
        return float(-np.log(likelihood).mean()), flat @ slope / flat.shape[1]

    sum_to_one = {"type": "eq", "fun": lambda weights: weights.sum() - 1, "jac": np.ones_like}
    found = minimize(
        loss_and_gradient, np.full(runs, 1 / runs), jac=True, method="SLSQP", bounds=[(0, 1)] * runs,
        constraints=[sum_to_one], options={"ftol": 1e-10, "maxiter": 200},
    )  # fmt: skip
    weights = np.clip(found.x, 0, None)
    return weights / weights.sum()


def stack(validation: np.ndarray, labels: np.ndarray) -> tuple[Fusion, np.ndarray]:
    """Return one logistic regression per class on the runs' logits, and the fused validation scores.

    It reads the class's own logits, or those of all classes (which can tell what is taken for what, but needs many
    validation clips), whichever has the smaller out-of-fold cross-entropy; the penalty is cross-validated too. The
    validation scores are out of fold, so that thresholds tuned on them do not believe scores learnt by heart. A class
    with fewer than `FOLDS` clips on either side keeps the mean score.
    """
    inputs, fused = logits(validation), validation.mean(axis=0)
    runs, _, classes = validation.shape
    regressions: list[dict | None] = [None] * classes
    for column, of_class in enumerate(np.asarray(labels).T):
        known = of_class >= 0
        present = of_class[known] == 1
        if min(present.sum(), (~present).sum()) < FOLDS:
            continue
        own = [run * classes + column for run in range(runs)]
        tried = []
        for read in (own, list(range(runs * classes))):
            model, out_of_fold = regress(inputs[known][:, read], present)
            tried.append((log_loss(present, out_of_fold), read, model, out_of_fold))
        _, read, model, fused[known, column] = min(tried, key=itemgetter(0))
        regressions[column] = as_numbers(model, read, runs * classes)
    return Fusion("stacking", regressions=regressions), fused


def regress(inputs: np.ndarray, present: np.ndarray) -> tuple[Pipeline, np.ndarray]:
    """Return a logistic regression fitted on all clips, and its out-of-fold probabilities (clips,)."""
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    search = LogisticRegressionCV(
        Cs=np.logspace(-4, 1, 6), cv=folds, scoring="neg_log_loss", max_iter=500, l1_ratios=(0,),
        use_legacy_attributes=False,
    )  # fmt: skip
    penalty = make_pipeline(StandardScaler(), search).fit(inputs, present)[-1].C_
    model = make_pipeline(StandardScaler(), LogisticRegression(C=float(np.squeeze(penalty)), max_iter=500))
    out_of_fold = cross_val_predict(model, inputs, present, cv=folds, method="predict_proba")[:, 1]
    return model.fit(inputs, present), out_of_fold


def as_numbers(model: Pipeline, read: list[int], inputs: int) -> dict:
    """Return the coefficients (inputs,) and the intercept of a scaled logistic regression that reads some inputs."""
    scaler, regression = model
    slopes = regression.coef_[0] / scaler.scale_
    coefficients = np.zeros(inputs)
    coefficients[read] = slopes
    return {"coefficients": coefficients.tolist(), "intercept": float(regression.intercept_[0] - slopes @ scaler.mean_)}


def logits(scores: np.ndarray) -> np.ndarray:
    """Return the log-odds of scores (runs, clips, classes) as (clips, runs * classes)."""
    scores = np.clip(scores, SMALLEST_SCORE, 1 - SMALLEST_SCORE)
    return np.moveaxis(np.log(scores / (1 - scores)), 0, 1).reshape(scores.shape[1], -1)


def on_common_edges(timelines: list[tuple[ArrayLike, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges (moments + 1,) in seconds of all members' moments, and their scores (members, moments, classes).

    timelines: each member's edges and scores (moments, classes).
    """
    edges = np.unique(np.concatenate([own for own, _ in timelines]))
    apart = np.append(np.diff(edges[1:]) > SAME_MOMENT_SECONDS, True)
    edges = np.append(edges[0], edges[1:][apart])
    middles = (edges[:-1] + edges[1:]) / 2
    return edges, np.stack([scores[np.searchsorted(own[1:-1], middles, side="right")] for own, scores in timelines])
