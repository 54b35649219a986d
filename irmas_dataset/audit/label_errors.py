"""Finding labels that are probably wrong or missing, and measuring what a leaky split would show.

The method is confident learning (Northcutt, Jiang and Chuang, JAIR 2021) as implemented by cleanlab, on scores of
classifiers that were not trained on the clip's recording. Everything here works on arrays, one row per clip.
"""

import warnings
from collections.abc import Iterator, Sequence
from itertools import compress

import numpy as np
import pandas as pd
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from tqdm import tqdm

from irmas_dataset.errors import UserError

FOLDS = 5
TREES = 300
LEAST_SECOND_SCORE = 0.5  # of the average score of clips labelled with the instrument
LEAST_EXCESS = 2.0  # standard deviations
LEAST_DEVIATION = 0.02  # of a score, for classes with almost constant scores


def require_cleanlab() -> None:
    """Raise UserError if cleanlab is not installed, before any work starts."""
    try:
        import cleanlab  # noqa: F401
    except ImportError:
        raise UserError(
            "Checking labels needs cleanlab, which is not installed: run `pip install cleanlab==2.9.0`, "
            "or skip this part with --no_label_errors."
        ) from None


def out_of_fold_scores(
    timbres: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray | None,
    seed: int = 0,
    known: np.ndarray | None = None,
) -> np.ndarray | None:
    """Return scores (clips, classes) from extremely randomised trees that were not trained on the clip.

    timbres: (clips, features). labels: multi-hot, (clips, classes). groups: (clips,), never split between training and
    scoring; None splits by clip, as a leaky split does. The trees average the labels of similar clips, so the scores of
    clips with one label sum to one. known: (clips, classes), where labels were judged; others stand for their class's
    frequency. Returns None for fewer than two groups.
    """
    strata = labels.argmax(axis=1)
    folds = min(FOLDS, len(np.unique(groups)) if groups is not None else len(labels))
    if folds < 2:
        return None
    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    scores = np.zeros(labels.shape)
    if known is not None and not known.all():
        labels = np.where(known, labels, labels.sum(axis=0) / np.maximum(known.sum(axis=0), 1))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        parts = list(_divide(splitter, folds, seed, strata, groups))
    how = "by clip" if groups is None else "by recording"
    for fold, (train, held_out) in enumerate(tqdm(parts, desc=f"Scoring labels, split {how}", unit="fold")):
        trees = ExtraTreesRegressor(TREES, min_samples_leaf=2, max_features="sqrt", n_jobs=-1, random_state=seed + fold)
        scores[held_out] = trees.fit(timbres[train], labels[train]).predict(timbres[held_out])
    return scores


def _divide(
    splitter: type[StratifiedKFold | StratifiedGroupKFold],
    folds: int,
    seed: int,
    strata: np.ndarray,
    groups: np.ndarray | None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows of each fold, stratified by the first label if one class has enough clips for that."""
    if np.bincount(strata).max() < folds:
        strata = np.zeros_like(strata)
    return splitter(folds, shuffle=True, random_state=seed).split(strata, strata, groups)


def doubt_labels(
    scores: np.ndarray, labels: np.ndarray, classes: Sequence[str], known: np.ndarray | None = None
) -> pd.DataFrame:
    """Judge the labels of every clip by the scores of a classifier that was not trained on it.

    scores: (clips, classes), in [0, 1]. labels: multi-hot, (clips, classes). If every clip has one label, the scores are
    treated as a distribution over the classes, otherwise each class is judged alone. known: (clips, classes); what nobody
    has judged scores 0, and has the usual score of an absent class where that is compared. Returns one row per clip: suspicion
    in [0, 1], flagged (confident learning considers the label wrong), suggested (a tuple of the classes that the scores
    support). Raises UserError if cleanlab is not installed.
    """
    require_cleanlab()
    from cleanlab import filter as single
    from cleanlab import multilabel_classification as multi
    from cleanlab import rank

    if len(labels) == 0:
        return pd.DataFrame({"suspicion": [], "flagged": [], "suggested": []})
    if (labels.sum(axis=1) == 1).all():
        used = np.flatnonzero(labels.any(axis=0))
        distribution = scores[:, used] + 1e-6
        distribution /= distribution.sum(axis=1, keepdims=True)
        given = labels[:, used].argmax(axis=1)
        quality = rank.get_label_quality_scores(given, distribution, method="self_confidence")
        flagged = np.zeros(len(labels), dtype=bool)
        if len(used) > 1:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="May not flag all label issues in class")
                flagged = single.find_label_issues(given, distribution, n_jobs=1)
        suggested = [(classes[label],) for label in used[distribution.argmax(axis=1)]]
    else:
        given = [np.flatnonzero(row).tolist() for row in labels]
        judged = np.ones(labels.shape, dtype=bool) if known is None else known
        absent = judged & (labels == 0)
        usual_of_absent = np.where(absent.any(axis=0), usual_scores(scores, absent), 0.0)
        clipped = np.clip(np.where(judged, scores, usual_of_absent), 1e-6, 1 - 1e-6)
        quality = multi.get_label_quality_scores(given, clipped)
        flagged = multi.filter.find_label_issues(given, clipped, n_jobs=1)
        expected = np.minimum(0.5, usual_scores(scores, labels))
        suggested = [tuple(compress(classes, row)) for row in scores >= expected]
    return pd.DataFrame({"suspicion": 1 - quality, "flagged": flagged, "suggested": suggested})


def usual_scores(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the mean score of each class over its own clips, (classes,), 1 without clips: confident learning's threshold."""
    counts = labels.sum(axis=0)
    return np.where(counts > 0, (scores * labels).sum(axis=0) / np.maximum(counts, 1), 1.0)


def missing_labels(
    scores: np.ndarray, labels: np.ndarray, flagged: np.ndarray, known: np.ndarray | None = None
) -> pd.DataFrame:
    """Return the second instruments that clips seem to have beside their labels, most likely first.

    scores, labels: (clips, classes). flagged: (clips,), whether the clip's own label is probably wrong.
    known: (clips, classes); what nobody has judged is not missing, and no clip is compared with it.
    A class is missing if its score is at least half of the usual score of its own clips, and `LEAST_EXCESS` standard
    deviations above that of other clips with the same (first) label, since some instruments are easily confused; and if
    the clip is not flagged. Columns: row, label (class id), strength (that excess).
    """
    relative = scores / np.maximum(usual_scores(scores, labels), 1e-6)
    excess, judged = np.zeros(scores.shape), np.ma.array(scores, mask=False if known is None else ~known)
    for own in np.unique(labels.argmax(axis=1)):
        alike = labels.argmax(axis=1) == own
        of_alike = judged[alike]
        excess[alike] = ((of_alike - of_alike.mean(axis=0)) / (of_alike.std(axis=0) + LEAST_DEVIATION)).filled(0)
    is_missing = (labels == 0) & (relative >= LEAST_SECOND_SCORE) & (excess >= LEAST_EXCESS) & ~flagged[:, None]
    rows, missing = np.nonzero(is_missing)
    found = pd.DataFrame({"row": rows, "label": missing, "strength": excess[rows, missing]})
    return found.sort_values("strength", ascending=False, kind="stable", ignore_index=True)


def split_figures(scores: np.ndarray, labels: np.ndarray, known: np.ndarray | None = None) -> dict[str, float]:
    """Return accuracy (how often the top class is one of the clip's labels) and mAP over the classes that occur.

    scores, labels, known: (clips, classes); where `known` is False, nobody has judged the label, and it takes no part.
    """
    known = np.ones(labels.shape, dtype=bool) if known is None else known
    right = labels[np.arange(len(labels)), np.where(known, scores, -1).argmax(axis=1)]
    used = np.flatnonzero(labels.any(axis=0))
    precisions = [average_precision_score(labels[known[:, i], i], scores[known[:, i], i]) for i in used]
    return {"accuracy": float(right.mean()), "map": float(np.mean(precisions))}
