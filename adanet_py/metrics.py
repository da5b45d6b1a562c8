"""Metrics: every score a run can be judged by, in plain numpy so that workers need no scikit-learn.

Each value equals scikit-learn's (tested); where scikit-learn raises or is undefined, the docstring
of the function says what happens here instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from adanet_py.errors import ConfigError, DataError, nearest

CLASSIFICATION = ("binary", "multiclass")
REGRESSION = ("regression",)
TASKS = (*CLASSIFICATION, *REGRESSION)

_ROUNDING = 1e-6  # relative; y comes from standardised float32
_Function = Callable[[np.ndarray, np.ndarray, np.ndarray | None], float]


@dataclass(frozen=True)
class Metric:
    """One metric: its direction, what it reads and the tasks it is for.

    `needs` is "proba" (probabilities [N, C]), "label" (codes [N]) or "value" (numbers [N]).
    `function` takes (y_true [N], that prediction, weight [N] or None).
    """

    name: str
    greater_is_better: bool
    needs: str
    tasks: tuple[str, ...]
    summary: str
    function: _Function


def _mean(values: np.ndarray, weight: np.ndarray | None) -> float:
    if values.size == 0:
        return float("nan")
    return float(np.average(values, weights=weight))


# ---------------------------------------------------------------- classification: probabilities


def _row_log_loss(y: np.ndarray, proba: np.ndarray) -> np.ndarray:
    """Minus the log of the true class's probability, clipped like scikit-learn's by dtype."""
    eps = np.finfo(proba.dtype).eps
    return -np.log(np.clip(proba[np.arange(len(y)), y], eps, 1 - eps))


def _row_brier(y: np.ndarray, proba: np.ndarray) -> np.ndarray:
    """Squared distance to the one-hot truth; halved for two classes, as in the literature."""
    truth = np.zeros_like(proba)
    truth[np.arange(len(y)), y] = 1
    distance: np.ndarray = ((proba - truth) ** 2).sum(axis=1)
    return distance / 2 if proba.shape[1] == 2 else distance


def _log_loss(y: np.ndarray, proba: np.ndarray, weight: np.ndarray | None) -> float:
    return _mean(_row_log_loss(y, proba), weight)


def _brier(y: np.ndarray, proba: np.ndarray, weight: np.ndarray | None) -> float:
    return _mean(_row_brier(y, proba), weight)


def _curve(
    positive: np.ndarray, value: np.ndarray, weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Weight of true and of false positives at each distinct threshold, from strict to lenient."""
    order = np.argsort(value, kind="stable")[::-1]
    value, hit = value[order], positive[order].astype(np.float64)
    w = np.ones(len(hit)) if weight is None else weight[order].astype(np.float64)
    last = np.r_[np.flatnonzero(np.diff(value)), len(value) - 1]
    return np.cumsum(hit * w)[last], np.cumsum((1 - hit) * w)[last]


def _auc(positive: np.ndarray, value: np.ndarray, weight: np.ndarray | None) -> float:
    true, false = _curve(positive, value, weight)
    if true[-1] <= 0 or false[-1] <= 0:
        return float("nan")
    height, width = np.r_[0.0, true], np.diff(np.r_[0.0, false])
    return float(width @ (height[1:] + height[:-1]) / 2 / (true[-1] * false[-1]))


def _ap(positive: np.ndarray, value: np.ndarray, weight: np.ndarray | None) -> float:
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
    return _one_vs_rest(_auc, y, proba, weight)


def _average_precision(y: np.ndarray, proba: np.ndarray, weight: np.ndarray | None) -> float:
    return _one_vs_rest(_ap, y, proba, weight)


# ---------------------------------------------------------------- classification: labels


def _confusion(y: np.ndarray, label: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """Weight of rows by (true, predicted) class: [C, C] over the codes up to the largest seen."""
    n = int(max(y.max(initial=0), label.max(initial=0))) + 1
    return np.bincount(y * n + label, weights=weight, minlength=n * n).reshape(n, n).astype(float)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, 0 where `whole` is 0 (scikit-learn warns and does the same)."""
    return np.divide(part, whole, out=np.zeros_like(part, dtype=float), where=whole > 0)


def _accuracy(y: np.ndarray, label: np.ndarray, weight: np.ndarray | None) -> float:
    return _mean((y == label).astype(float), weight)


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
    return _mean((y[flagged] == 1).astype(float), _at(weight, flagged)) if flagged.any() else 0.0


def _recall(y: np.ndarray, label: np.ndarray, weight: np.ndarray | None) -> float:
    true = y == 1
    return _mean((label[true] == 1).astype(float), _at(weight, true)) if true.any() else 0.0


def _at(weight: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if weight is None else weight[rows]


def _matthews(y: np.ndarray, label: np.ndarray, weight: np.ndarray | None) -> float:
    """Correlation of truth and prediction (Gorodkin 2004 for several classes); 0 if undefined."""
    counts = _confusion(y, label, weight)
    true, flagged, total = counts.sum(axis=1), counts.sum(axis=0), counts.sum()
    agreement = np.trace(counts) * total - true @ flagged
    spread = (total**2 - true @ true) * (total**2 - flagged @ flagged)
    return float(agreement / np.sqrt(spread)) if spread > 0 else 0.0


# ---------------------------------------------------------------- regression


def _row_squared(y: np.ndarray, value: np.ndarray) -> np.ndarray:
    return np.asarray((y - value) ** 2)


def _row_absolute(y: np.ndarray, value: np.ndarray) -> np.ndarray:
    return np.abs(y - value)


def _row_percentage(y: np.ndarray, value: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(y - value) / np.maximum(np.abs(y), np.finfo(np.float64).eps))


def _row_squared_log(y: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Squared difference of log(1 + x); predictions below 0 count as 0 (scikit-learn raises).

    NaN where the target has a value below 0 (`check_values` says so before a search); the dust
    that a round trip through float32 leaves of a 0 is a 0.
    """
    if (y < -_ROUNDING * np.abs(y).max(initial=0.0)).any():
        return np.full(len(y), np.nan)
    y = np.maximum(y, 0.0)
    return np.asarray((np.log1p(y) - np.log1p(np.maximum(value, 0))) ** 2)


def _mse(y: np.ndarray, value: np.ndarray, weight: np.ndarray | None) -> float:
    return _mean(_row_squared(y, value), weight)


def _rmse(y: np.ndarray, value: np.ndarray, weight: np.ndarray | None) -> float:
    return float(np.sqrt(_mean(_row_squared(y, value), weight)))


def _mae(y: np.ndarray, value: np.ndarray, weight: np.ndarray | None) -> float:
    return _mean(_row_absolute(y, value), weight)


def _mape(y: np.ndarray, value: np.ndarray, weight: np.ndarray | None) -> float:
    return _mean(_row_percentage(y, value), weight)


def _rmsle(y: np.ndarray, value: np.ndarray, weight: np.ndarray | None) -> float:
    return float(np.sqrt(_mean(_row_squared_log(y, value), weight)))


def _median_ae(y: np.ndarray, value: np.ndarray, weight: np.ndarray | None) -> float:
    return weighted_median(_row_absolute(y, value), weight)


def _r2(y: np.ndarray, value: np.ndarray, weight: np.ndarray | None) -> float:
    left = _mean(_row_squared(y, value), weight)
    spread = _mean((y - np.average(y, weights=weight)) ** 2, weight)
    if spread == 0:
        return 1.0 if left == 0 else 0.0
    return 1 - left / spread


def weighted_median(values: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Median of `values` [N]; with weights, the mean of the two middle values where they tie."""
    if weight is None:
        return float(np.median(values))
    order = np.argsort(values, kind="stable")
    order = order[weight[order] > 0]
    if order.size == 0:
        return float("nan")
    cumulative = np.cumsum(weight[order], dtype=np.float64)
    half = cumulative[-1] / 2
    low = min(int(np.searchsorted(cumulative, half)), len(order) - 1)
    if cumulative[low] - half <= np.finfo(np.float64).eps and low + 1 < len(order):
        return float((values[order[low]] + values[order[low + 1]]) / 2)
    return float(values[order[low]])


# ---------------------------------------------------------------- the registry

_BINARY = ("binary",)
_C, _R = CLASSIFICATION, REGRESSION

METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("log_loss", False, "proba", _C, "cross-entropy, in nats", _log_loss),
        Metric("accuracy", True, "label", _C, "share of rows classified right", _accuracy),
        Metric("balanced_accuracy", True, "label", _C, "mean recall", _balanced_accuracy),
        Metric("roc_auc", True, "proba", _C, "area under the ROC curve, one vs rest", _roc_auc),
        Metric(
            "average_precision",
            True,
            "proba",
            _C,
            "area under precision-recall",
            _average_precision,
        ),
        Metric("f1", True, "label", _BINARY, "F1 of the second class", _f1),
        Metric("f1_macro", True, "label", _C, "mean F1 of the classes", _f1_macro),
        Metric("f1_weighted", True, "label", _C, "F1 weighted by class size", _f1_weighted),
        Metric("precision", True, "label", _BINARY, "precision of the second class", _precision),
        Metric("recall", True, "label", _BINARY, "recall of the second class", _recall),
        Metric("matthews", True, "label", _C, "Matthews correlation coefficient", _matthews),
        Metric("brier", False, "proba", _C, "squared error of the probabilities", _brier),
        Metric("rmse", False, "value", _R, "root mean squared error", _rmse),
        Metric("mse", False, "value", _R, "mean squared error", _mse),
        Metric("mae", False, "value", _R, "mean absolute error", _mae),
        Metric("median_ae", False, "value", _R, "median absolute error", _median_ae),
        Metric("r2", True, "value", _R, "share of variance explained", _r2),
        Metric("mape", False, "value", _R, "mean absolute error as a share of truth", _mape),
        Metric("rmsle", False, "value", _R, "root mean squared error of log(1 + x)", _rmsle),
    )
}

_ROWS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "log_loss": _row_log_loss,
    "accuracy": lambda y, label: (y != label).astype(float),
    "brier": _row_brier,
    "rmse": _row_squared,
    "mse": _row_squared,
    "mae": _row_absolute,
    "mape": _row_percentage,
    "rmsle": _row_squared_log,
}

# Other spellings: those of scikit-learn's scorers and functions, and two common short names.
ALIASES: dict[str, str] = {
    "neg_log_loss": "log_loss",
    "roc_auc_ovr": "roc_auc",
    "auc": "roc_auc",
    "f1_binary": "f1",
    "matthews_corrcoef": "matthews",
    "mcc": "matthews",
    "brier_score": "brier",
    "brier_score_loss": "brier",
    "neg_brier_score": "brier",
    "root_mean_squared_error": "rmse",
    "neg_root_mean_squared_error": "rmse",
    "mean_squared_error": "mse",
    "neg_mean_squared_error": "mse",
    "mean_absolute_error": "mae",
    "neg_mean_absolute_error": "mae",
    "median_absolute_error": "median_ae",
    "neg_median_absolute_error": "median_ae",
    "mean_absolute_percentage_error": "mape",
    "neg_mean_absolute_percentage_error": "mape",
    "root_mean_squared_log_error": "rmsle",
    "neg_root_mean_squared_log_error": "rmsle",
}


def default_metric(task: str) -> str:
    """The metric a run is judged by where none is asked for: "rmse" or "log_loss"."""
    return "rmse" if task == "regression" else "log_loss"


def resolve_metric(name: str | None, task: str) -> Metric:
    """The metric called `name` (or its scikit-learn spelling), or the default of `task`.

    Raises ConfigError where there is none, or where it is not for `task`.
    """
    if name is None:
        return METRICS[default_metric(task)]
    key = name.strip().lower().replace("-", "_")
    metric = METRICS.get(ALIASES.get(key, key))
    fitting = ", ".join(m.name for m in METRICS.values() if task in m.tasks)
    if metric is None:
        hint = nearest(key, [*METRICS, *ALIASES])
        raise ConfigError(f"Unknown metric {name!r}.{hint} Metrics for a {task} task: {fitting}.")
    if task not in metric.tasks:
        raise ConfigError(
            f"Metric {metric.name!r} is for {' and '.join(metric.tasks)} tasks, "
            f"but this task is {task}. Metrics for it: {fitting}."
        )
    return metric


def check_values(metric: Metric, y: np.ndarray) -> None:
    """Raise DataError where the metric is not defined for the numbers `y` [N] of a target."""
    if metric.name == "rmsle" and (y < 0).any():
        raise DataError(
            f"Metric 'rmsle': expected a target of 0 or more, found {y.min():g}. Use another "
            "metric, such as rmse or mae."
        )


def _get(metric: str | Metric) -> Metric:
    return metric if isinstance(metric, Metric) else METRICS[ALIASES.get(metric, metric)]


def _inputs(
    metric: Metric, y_true: np.ndarray, prediction: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Truth as int64 codes or float64 values, prediction as the metric needs it."""
    prediction = np.asarray(prediction)
    if metric.needs == "value":
        return np.asarray(y_true, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    y = np.asarray(y_true).astype(np.int64)
    if metric.needs == "label":
        return y, prediction.argmax(axis=1)
    return y, prediction if prediction.dtype.kind == "f" else prediction.astype(np.float64)


def score(
    metric: str | Metric,
    y_true: np.ndarray,
    prediction: np.ndarray,
    weight: np.ndarray | None = None,
) -> float:
    """The metric in its natural sign and unit.

    `y_true` [N]: class codes 0..C-1, or numbers. `prediction`: probabilities [N, C] (two columns
    for a binary task; labels are their argmax), or numbers [N]. `weight` [N] >= 0.
    NaN where a prediction is not finite, all weights are 0, or the metric is undefined (one class
    only, say).
    """
    metric = _get(metric)
    y, p = _inputs(metric, y_true, prediction)
    if len(y) == 0 or not np.isfinite(prediction).all():
        return float("nan")
    if weight is not None and not np.any(weight):
        return float("nan")
    return metric.function(y, p, None if weight is None else np.asarray(weight, np.float64))


def per_row_loss(
    metric: str | Metric, y_true: np.ndarray, prediction: np.ndarray
) -> np.ndarray | None:
    """Loss of each row [N], lower is better, or None where the metric is no mean over rows.

    The weighted mean of the rows orders models as the metric does: it is the metric itself for
    log_loss, brier, mse, mae and mape, 1 - accuracy, and the square of rmse and of rmsle.
    """
    metric = _get(metric)
    rows = _ROWS.get(metric.name)
    return None if rows is None else rows(*_inputs(metric, y_true, prediction)).astype(np.float64)


def to_error(metric: str | Metric, value: float) -> float:
    """Lower-is-better form: the value itself, or 1 - value where greater is better."""
    return 1 - value if _get(metric).greater_is_better else value
