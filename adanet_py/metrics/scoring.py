"""The value of a metric, the losses of its rows and its lower-is-better form."""

from __future__ import annotations

import numpy as np

from adanet_py.metrics.metric import Metric
from adanet_py.metrics.names import get_metric
from adanet_py.metrics.several import for_several


def _get(metric: str | Metric) -> Metric:
    return metric if isinstance(metric, Metric) else get_metric(metric)


def _fitting(metric: str | Metric, y_true: np.ndarray) -> Metric:
    """The metric; that of several targets where `y_true` is [N, T]."""
    return for_several(_get(metric)) if np.ndim(y_true) == 2 else _get(metric)


def inputs(
    metric: Metric, y_true: np.ndarray, prediction: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Truth as int64 codes or float64 values, prediction as the metric needs it.

    Labels are the likeliest class, or of several labels [N, T] those likelier than not.
    """
    prediction = np.asarray(prediction)
    if metric.needs == "value":
        return np.asarray(y_true, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    y = np.asarray(y_true).astype(np.int64)
    if metric.needs == "label":
        return y, (prediction > 0.5).astype(np.int64) if y.ndim == 2 else prediction.argmax(axis=1)
    return y, prediction if prediction.dtype.kind == "f" else prediction.astype(np.float64)


def score(
    metric: str | Metric,
    y_true: np.ndarray,
    prediction: np.ndarray,
    weight: np.ndarray | None = None,
) -> float:
    """The metric in its natural sign and unit.

    `y_true` [N]: class codes 0..C-1, or numbers. `prediction`: probabilities [N, C] (two columns
    for a binary task; labels are their argmax), or numbers [N]. With several targets both are
    [N, T], probabilities those of code 1 (several.py). `weight` [N] >= 0.
    NaN where a prediction is not finite, all weights are 0, or the metric is undefined (one class
    only, say).
    """
    metric = _fitting(metric, y_true)
    y, p = inputs(metric, y_true, prediction)
    if len(y) == 0 or not np.isfinite(prediction).all():
        return float("nan")
    if weight is not None and not np.any(weight):
        return float("nan")
    return metric.function(y, p, None if weight is None else np.asarray(weight, np.float64))


def per_row_loss(
    metric: str | Metric, y_true: np.ndarray, prediction: np.ndarray
) -> np.ndarray | None:
    """Loss of each row [N], lower is better, or None where the metric is no mean over rows.

    The weighted mean of the rows orders models as the metric does, which is `of_mean` of it. With
    several targets they are [N, T] or [N, 1], and `of_mean` is that of `for_several`.
    """
    metric = _fitting(metric, y_true)
    if metric.rows is None:
        return None
    return metric.rows(*inputs(metric, y_true, prediction)).astype(np.float64)


def to_error(metric: str | Metric, value: float) -> float:
    """Lower-is-better form: the value itself, 1 - value where greater is better, or its own."""
    metric = _get(metric)
    if metric.error is not None:
        return metric.error(value)
    return 1 - value if metric.greater_is_better else value
