"""Metrics of several targets: truth and prediction are [N, T].

Of numbers, every metric is the plain mean over the columns of its values for one
("uniform_average"). Of labels, `y` are codes 0 and 1 and `prediction` the probabilities of 1; a
label is predicted where its probability exceeds 1/2. Each value equals scikit-learn's for a
multilabel indicator or [N, T] numbers (tested), with `zero_division` 0; what it leaves undefined or
refuses (several deviances) is said here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np

from adanet_py.errors import ConfigError
from adanet_py.metrics.averages import KINDS, ratio
from adanet_py.metrics.classification import area_under_roc, average_precision_of
from adanet_py.metrics.metric import Metric, mean_of

_TASKS = ("multilabel",)
_ONE_OUTPUT = ("max_error",)  # no mean
_Curve = Callable[[np.ndarray, np.ndarray, np.ndarray | None], float]


@cache
def for_several(metric: Metric) -> Metric:
    """The metric of that name for targets [N, T]; its `rows` are [N, T] or [N, 1].

    `of_mean` then takes means [..., T] or [..., 1]. Raises ConfigError where there is none.
    """
    if metric.needs == "value":
        return _mean_of_columns(metric)
    if metric.name in MULTILABEL:
        return MULTILABEL[metric.name]
    if "multilabel" not in metric.tasks:
        raise ConfigError(
            f"Metric {metric.name!r}: expected one target column, found several. Use one of "
            f"{', '.join(MULTILABEL)}."
        )
    return metric


def extended(metric: Metric) -> Metric:
    """A metric of one target, marked as one of several where it is."""
    if metric.needs == "value":
        task, has = "multioutput", metric.name not in _ONE_OUTPUT
    else:
        task, has = "multilabel", metric.name in MULTILABEL
    return (
        replace(metric, tasks=(*metric.tasks, task)) if has and task not in metric.tasks else metric
    )


def _mean_of_columns(metric: Metric) -> Metric:
    rows = metric.rows

    def function(y: np.ndarray, value: np.ndarray, weight: np.ndarray | None) -> float:
        columns = zip(y.T, value.T, strict=True)
        return float(np.mean([metric.function(a, b, weight) for a, b in columns]))

    def each(y: np.ndarray, value: np.ndarray) -> np.ndarray:
        assert rows is not None
        return np.stack([rows(a, b) for a, b in zip(y.T, value.T, strict=True)], axis=1)

    return replace(
        metric,
        function=function,
        rows=None if rows is None else each,
        of_mean=lambda mean: metric.of_mean(mean).mean(-1),
    )


# ---------------------------------------------------------------- means over rows and labels


def _mean_metric(
    name: str,
    needs: str,
    summary: str,
    rows: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *,
    greater_is_better: bool = False,
    calibrated: bool = False,
) -> Metric:
    """The mean of the row losses `rows` [N, T] or [N, 1]; 1 minus it where greater is better."""

    def of_mean(mean: np.ndarray) -> np.ndarray:
        mean = np.asarray(mean).mean(-1)
        return np.asarray(1 - mean if greater_is_better else mean)

    def function(y: np.ndarray, prediction: np.ndarray, weight: np.ndarray | None) -> float:
        each = rows(y, prediction)
        return float(of_mean(np.array([mean_of(column, weight) for column in each.T])))

    return Metric(
        name, greater_is_better, needs, _TASKS, summary, function, rows, of_mean,
        calibrated=calibrated,
    )  # fmt: skip


def _log_loss(y: np.ndarray, proba: np.ndarray) -> np.ndarray:
    eps = np.finfo(proba.dtype).eps
    return -np.log(np.clip(np.where(y == 1, proba, 1 - proba), eps, 1 - eps))


def _brier(y: np.ndarray, proba: np.ndarray) -> np.ndarray:
    return np.asarray((proba - y) ** 2)


def _wrong(y: np.ndarray, label: np.ndarray) -> np.ndarray:
    return np.asarray(y != label, dtype=float)


def _any_wrong(y: np.ndarray, label: np.ndarray) -> np.ndarray:
    return np.asarray((y != label).any(axis=1, keepdims=True), dtype=float)


# ---------------------------------------------------------------- areas under curves


def _macro(one: _Curve) -> _Curve:
    """The plain mean of the labels' scores.

    Labels without rows of both values are left out (scikit-learn: undefined); NaN where none is
    left.
    """

    def function(y: np.ndarray, proba: np.ndarray, weight: np.ndarray | None) -> float:
        scores = [one(a == 1, p, weight) for a, p in zip(y.T, proba.T, strict=True)]
        known = [s for s in scores if not np.isnan(s)]
        return float(np.mean(known)) if known else float("nan")

    return function


# ---------------------------------------------------------------- counts of hits and misses

_AVERAGES = {
    "micro": "of all labels counted together",
    "macro": "mean over labels",
    "weighted": "mean over labels, weighted by their rows",
    "samples": "mean over rows",
}


def _counted(kind: str, average: str) -> Metric:
    name, summary = f"{kind}_{average}", f"{KINDS[kind][0]}, {_AVERAGES[average]}"

    def miss(y: np.ndarray, label: np.ndarray) -> np.ndarray:
        """1 - the score of each row, [N, 1]."""
        hits, alarms, misses = (part.sum(1, keepdims=True) for part in _parts(y, label))
        return 1 - ratio(kind, hits, alarms, misses)

    if average == "samples":
        return _mean_metric(name, "label", summary, miss, greater_is_better=True)

    def function(y: np.ndarray, label: np.ndarray, weight: np.ndarray | None) -> float:
        w = np.ones(len(y)) if weight is None else weight
        hits, alarms, misses = (w @ part for part in _parts(y, label))
        if average == "micro":
            return float(ratio(kind, hits.sum(), alarms.sum(), misses.sum()))
        scores, true = ratio(kind, hits, alarms, misses), hits + misses
        if average == "weighted":
            return float(np.average(scores, weights=true)) if true.any() else 0.0
        return float(scores.mean())

    return Metric(name, True, "label", _TASKS, summary, function)


def _parts(y: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits, false alarms and misses of each row and label, 0 or 1: [N, T] each."""
    true, flagged = np.asarray(y, dtype=bool), np.asarray(label, dtype=bool)
    hits, alarms, misses = true & flagged, ~true & flagged, true & ~flagged
    return hits.astype(float), alarms.astype(float), misses.astype(float)


HAMMING_LOSS = _mean_metric("hamming_loss", "label", "share of labels that are wrong", _wrong)
MULTILABEL: dict[str, Metric] = {
    m.name: m
    for m in (
        _mean_metric("log_loss", "proba", "cross-entropy, in nats", _log_loss, calibrated=True),
        _mean_metric(
            "accuracy", "label", "share of rows with every label right", _any_wrong,
            greater_is_better=True,
        ),
        HAMMING_LOSS,
        Metric("roc_auc", True, "proba", _TASKS, "area under ROC", _macro(area_under_roc)),
        Metric(
            "average_precision", True, "proba", _TASKS, "area under precision-recall",
            _macro(average_precision_of),
        ),
        _mean_metric(
            "brier", "proba", "squared error of the probabilities", _brier, calibrated=True
        ),
        *(_counted(kind, average) for kind in KINDS for average in _AVERAGES),
    )
}  # fmt: skip

# What a model of several labels is shown by.
COMMON = (
    "log_loss", "brier", "accuracy", "hamming_loss", "roc_auc", "average_precision", "f1_micro",
    "f1_macro", "f1_weighted", "f1_samples", "jaccard_samples",
)  # fmt: skip
