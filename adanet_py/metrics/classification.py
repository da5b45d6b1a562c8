"""Metrics of classes: of probabilities [N, C] and of labels [N], in plain numpy.

Each value equals scikit-learn's (tested); where scikit-learn raises or is undefined, the docstring
of the function says what happens here instead.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from adanet_py.metrics.metric import CLASSIFICATION, Metric, mean_metric, mean_of

_Score = Callable[[np.ndarray, np.ndarray, np.ndarray | None], float]

# ---------------------------------------------------------------- probabilities


def row_log_loss(y: np.ndarray, proba: np.ndarray) -> np.ndarray:
    """Minus the log of the true class's probability, clipped like scikit-learn's by dtype."""
    eps = np.finfo(proba.dtype).eps
    return -np.log(np.clip(proba[np.arange(len(y)), y], eps, 1 - eps))


def row_brier(y: np.ndarray, proba: np.ndarray) -> np.ndarray:
    """Squared distance to the one-hot truth; halved for two classes, as in the literature."""
    truth = np.zeros_like(proba)
    truth[np.arange(len(y)), y] = 1
    distance: np.ndarray = ((proba - truth) ** 2).sum(axis=1)
    return distance / 2 if proba.shape[1] == 2 else distance


def _curve(
    positive: np.ndarray, value: np.ndarray, weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Weight of true and of false positives at each distinct threshold, from strict to lenient."""
    order = np.argsort(value)[::-1]  # ties end at the same threshold, whatever their order
    value, hit = value[order], positive[order].astype(np.float64)
    w = np.ones(len(hit)) if weight is None else weight[order].astype(np.float64)
    last = np.r_[np.flatnonzero(np.diff(value)), len(value) - 1]
    return np.cumsum(hit * w)[last], np.cumsum((1 - hit) * w)[last]


def area_under_roc(positive: np.ndarray, value: np.ndarray, weight: np.ndarray | None) -> float:
    """Area under the ROC curve; NaN where rows of one side have no weight."""
    true, false = _curve(positive, value, weight)
    if true[-1] <= 0 or false[-1] <= 0:
        return float("nan")
    height, width = np.r_[0.0, true], np.diff(np.r_[0.0, false])
    return float(width @ (height[1:] + height[:-1]) / 2 / (true[-1] * false[-1]))


def average_precision_of(
    positive: np.ndarray, value: np.ndarray, weight: np.ndarray | None
) -> float:
    """Mean precision over the steps of recall; NaN where positive rows have no weight."""
    true, false = _curve(positive, value, weight)
    if true[-1] <= 0:
        return float("nan")
    flagged = true + false
    precision = np.divide(true, flagged, out=np.zeros_like(true), where=flagged > 0)
    return float(np.sum(np.diff(np.r_[0.0, true / true[-1]]) * precision))


def _one_vs_rest(
    one: Callable[[np.ndarray, np.ndarray, np.ndarray | None], float],
    y: np.ndarray,
    proba: np.ndarray,
    weight: np.ndarray | None,
) -> float:
    """Score of class 1 for two classes, else the plain mean over the classes present in `y`.

    Classes without a row are left out (scikit-learn: undefined); NaN where no class can be scored.
    """
    if proba.shape[1] == 2:
        return one(y == 1, proba[:, 1], weight)
    scores = [one(y == c, proba[:, c], weight) for c in range(proba.shape[1]) if (y == c).any()]
    known = [s for s in scores if not np.isnan(s)]
    return float(np.mean(known)) if known else float("nan")


def _roc_auc(y: np.ndarray, proba: np.ndarray, weight: np.ndarray | None) -> float:
    return _one_vs_rest(area_under_roc, y, proba, weight)


def roc_auc_by_size(y: np.ndarray, proba: np.ndarray, weight: np.ndarray | None) -> float:
    """Mean of the one-against-the-rest areas, weighted by the weight of each class's rows.

    Classes without weight are left out (scikit-learn: NaN), as their share is 0.
    """
    if proba.shape[1] == 2:
        return area_under_roc(y == 1, proba[:, 1], weight)
    size = np.bincount(y, weights=weight, minlength=proba.shape[1])
    there = np.flatnonzero(size)
    areas = [area_under_roc(y == c, proba[:, c], weight) for c in there]
    return float(np.average(areas, weights=size[there]))


def roc_auc_of_pairs(
    y: np.ndarray, proba: np.ndarray, weight: np.ndarray | None, by_size: bool = False
) -> float:
    """Mean over the pairs of classes of the area of one against the other (Hand & Till 2001).

    A pair's area is the mean of those by either's probability; `by_size` weighs pairs by their
    rows. Of two classes the usual area. Classes without rows are left out; several take no weights.
    """
    if proba.shape[1] == 2:
        return area_under_roc(y == 1, proba[:, 1], weight)
    there = np.unique(y)
    if len(there) < 2:
        return float("nan")
    areas, sizes = [], []
    for i, a in enumerate(there):
        for b in there[i + 1 :]:
            rows = (y == a) | (y == b)
            first, second = (area_under_roc(y[rows] == c, proba[rows, c], None) for c in (a, b))
            areas.append((first + second) / 2)
            sizes.append(rows.mean())
    return float(np.average(areas, weights=sizes if by_size else None))


def explained_share(rows: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> _Score:
    """1 - the mean of a row loss / its mean where every row gets the shares of the classes."""

    def function(y: np.ndarray, proba: np.ndarray, weight: np.ndarray | None) -> float:
        shares = np.bincount(y, weights=weight, minlength=proba.shape[1]).astype(np.float64)
        null = np.tile(shares / shares.sum(), (len(y), 1))
        unit = mean_of(rows(y, null), weight)
        return 1 - mean_of(rows(y, proba), weight) / unit if unit > 0 else float("nan")

    return function


def _average_precision(y: np.ndarray, proba: np.ndarray, weight: np.ndarray | None) -> float:
    return _one_vs_rest(average_precision_of, y, proba, weight)


# ---------------------------------------------------------------- labels


def _confusion(y: np.ndarray, label: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """Weight of rows by (true, predicted) class: [C, C] over the codes up to the largest seen."""
    n = int(max(y.max(initial=0), label.max(initial=0))) + 1
    return np.bincount(y * n + label, weights=weight, minlength=n * n).reshape(n, n).astype(float)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, 0 where `whole` is 0 (scikit-learn warns and does the same)."""
    return np.divide(part, whole, out=np.zeros_like(part, dtype=float), where=whole > 0)


def _row_wrong(y: np.ndarray, label: np.ndarray) -> np.ndarray:
    return np.asarray(y != label, dtype=float)


def _balanced_accuracy(y: np.ndarray, label: np.ndarray, weight: np.ndarray | None) -> float:
    counts = _confusion(y, label, weight)
    rows = counts.sum(axis=1)
    return float(np.mean(np.diagonal(counts)[rows > 0] / rows[rows > 0]))


def _f1_per_class(
    y: np.ndarray, label: np.ndarray, weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """F1 [C], weight of true rows [C], and which classes occur in truth or prediction [C]."""
    counts = _confusion(y, label, weight)
    true, flagged = counts.sum(axis=1), counts.sum(axis=0)
    present = np.bincount(np.r_[y, label], minlength=len(counts)) > 0
    return _ratio(2 * np.diagonal(counts), true + flagged), true, present


def _f1(y: np.ndarray, label: np.ndarray, weight: np.ndarray | None) -> float:
    scores = _f1_per_class(y, label, weight)[0]
    return float(scores[1]) if len(scores) > 1 else 0.0


def _f1_macro(y: np.ndarray, label: np.ndarray, weight: np.ndarray | None) -> float:
    scores, _, present = _f1_per_class(y, label, weight)
    return float(scores[present].mean())


def _f1_weighted(y: np.ndarray, label: np.ndarray, weight: np.ndarray | None) -> float:
    scores, true, _ = _f1_per_class(y, label, weight)
    return float(np.average(scores, weights=true))


def _precision(y: np.ndarray, label: np.ndarray, weight: np.ndarray | None) -> float:
    flagged = label == 1
    return mean_of((y[flagged] == 1).astype(float), _at(weight, flagged)) if flagged.any() else 0.0


def _recall(y: np.ndarray, label: np.ndarray, weight: np.ndarray | None) -> float:
    true = y == 1
    return mean_of((label[true] == 1).astype(float), _at(weight, true)) if true.any() else 0.0


def _at(weight: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if weight is None else weight[rows]


def _matthews(y: np.ndarray, label: np.ndarray, weight: np.ndarray | None) -> float:
    """Correlation of truth and prediction (Gorodkin 2004 for several classes); 0 if undefined."""
    counts = _confusion(y, label, weight)
    true, flagged, total = counts.sum(axis=1), counts.sum(axis=0), counts.sum()
    agreement = np.trace(counts) * total - true @ flagged
    spread = (total**2 - true @ true) * (total**2 - flagged @ flagged)
    return float(agreement / np.sqrt(spread)) if spread > 0 else 0.0


# ---------------------------------------------------------------- the metrics

_BINARY = ("binary",)
_C = CLASSIFICATION

METRICS: tuple[Metric, ...] = (
    mean_metric("log_loss", "proba", _C, "cross-entropy, in nats", row_log_loss, calibrated=True),
    mean_metric(
        "accuracy", "label", _C, "share of rows classified right", _row_wrong,
        lambda mean: 1 - mean, greater_is_better=True,
    ),
    Metric("balanced_accuracy", True, "label", _C, "mean recall", _balanced_accuracy),
    Metric("roc_auc", True, "proba", _C, "area under the ROC curve, one vs rest", _roc_auc),
    Metric(
        "average_precision", True, "proba", _C, "area under precision-recall", _average_precision
    ),
    Metric("f1", True, "label", _BINARY, "F1 of the second class", _f1),
    Metric("f1_macro", True, "label", _C, "mean F1 of the classes", _f1_macro),
    Metric("f1_weighted", True, "label", _C, "F1 weighted by class size", _f1_weighted),
    Metric("precision", True, "label", _BINARY, "precision of the second class", _precision),
    Metric("recall", True, "label", _BINARY, "recall of the second class", _recall),
    Metric("matthews", True, "label", _C, "Matthews correlation coefficient", _matthews),
    mean_metric(
        "brier", "proba", _C, "squared error of the probabilities", row_brier, calibrated=True
    ),
)  # fmt: skip
