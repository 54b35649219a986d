"""Late fusion: the scores of several runs become one. Pure functions on arrays.

`scores` is (runs, clips, classes) in [0, 1] throughout. What is fitted is fitted on validation clips only.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from irmas_recipe.commands.ensemble.arguments import METHODS

FOLDS = 5
SMALLEST_SCORE = 1e-6


@dataclass(frozen=True)
class Fusion:
    """Fused scores (clips, classes) of the test and validation clips (None where there are none).

    `weights` (runs,) where the method has them.
    """

    test: np.ndarray
    validation: np.ndarray | None
    weights: np.ndarray | None = None


def fuse(
    method: str, test: np.ndarray, validation: np.ndarray | None, labels: np.ndarray | None, thresholds: np.ndarray
) -> Fusion:
    """Fuse the runs' scores.

    Args:
        method: one of METHODS; those in FITTED need validation scores.
        test, validation: (runs, clips, classes); the validation clips' labels are `labels` (clips, classes).
        thresholds: each run's own (runs, classes), by which it votes.
    """
    if method == "mean":
        return Fusion(test.mean(axis=0), None if validation is None else validation.mean(axis=0))
    if method == "voting":
        return Fusion(votes(test, thresholds), None if validation is None else votes(validation, thresholds))
    if method == "weights":
        weights = fit_weights(validation, labels)
        return Fusion(np.tensordot(weights, test, axes=1), np.tensordot(weights, validation, axes=1), weights)
    if method == "stacking":
        return Fusion(*stack(test, validation, labels))
    raise ValueError(f"Unknown method '{method}'; choose one of {', '.join(METHODS)}.")


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
    flat, labels = scores.reshape(runs, -1), np.asarray(labels).reshape(-1).astype(bool)

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


def stack(test: np.ndarray, validation: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return test and validation scores of one logistic regression a class on the runs' logits.

    It reads the class's own logits, or those of all classes (which can tell what is taken for what, but needs many
    validation clips), whichever has the smaller out-of-fold cross-entropy; the penalty is cross-validated too. The
    validation scores are out of fold, so that thresholds tuned on them do not believe scores learnt by heart. A class
    with fewer than `FOLDS` clips on either side keeps the mean score.
    """
    test_logits, validation_logits = logits(test), logits(validation)
    fused_test, fused_validation = test.mean(axis=0), validation.mean(axis=0)
    runs, _, classes = test.shape
    for column, present in enumerate(np.asarray(labels).T.astype(bool)):
        if min(present.sum(), (~present).sum()) < FOLDS:
            continue
        own = [run * classes + column for run in range(runs)]
        tried = []
        for inputs in (own, list(range(runs * classes))):
            model, out_of_fold = regress(validation_logits[:, inputs], present)
            tried.append((log_loss(present, out_of_fold), inputs, model, out_of_fold))
        _, inputs, model, fused_validation[:, column] = min(tried, key=lambda one: one[0])
        fused_test[:, column] = model.predict_proba(test_logits[:, inputs])[:, 1]
    return fused_test, fused_validation


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


def logits(scores: np.ndarray) -> np.ndarray:
    """Return the log-odds of scores (runs, clips, classes) as (clips, runs * classes)."""
    scores = np.clip(scores, SMALLEST_SCORE, 1 - SMALLEST_SCORE)
    return np.moveaxis(np.log(scores / (1 - scores)), 0, 1).reshape(scores.shape[1], -1)
