"""How sure a ranking is: bootstrap intervals of a metric and groups of what cannot be told apart.

Every model is scored on the same resamples of the validation rows, so that differences between two
models are paired: rows that are hard for both cancel (Efron & Tibshirani 1993, chapter 13).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from adanet_py.metrics import Metric, for_several, inputs, per_row_loss

_DRAWS = 1000
# Where every resample costs an evaluation of the metric; half that if over all rows.
_DRAWS_SLOW = 200
_DRAWS_SLOWEST = 50  # where an evaluation costs milliseconds
_BLOCK = 1_000_000  # numbers of a block of resamples: 8 MB
_LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """95 % intervals of one model on the validation rows; percentiles of the resamples.

    `low`, `high`: of the metric, in its natural unit. `worse_low`, `worse_high`: of by how much it
    is worse than the first model (positive is worse, whatever the metric's direction). `tie`: 1 for
    the first model and all whose difference to it may be 0 or better; the next best of the others
    leads group 2, and so on.
    """

    low: float
    high: float
    worse_low: float
    worse_high: float
    tie: int


def bootstrap(
    metric: Metric,
    y: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    weight: np.ndarray | None = None,
    *,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return an `Interval` for every model, best first in `predictions`.

    y [N] or [N, T]: codes or numbers; predictions as `metrics.score` takes them; weight [N] >= 0.
    The same arguments give the same answer. Models whose predictions are not all finite are left
    out.
    """
    sound = {name: p for name, p in predictions.items() if np.isfinite(p).all()}
    if not sound or len(y) == 0:
        return {}
    pairs = [_statistic(metric, y, p, weight) for p in sound.values()]
    draws, statistics = pairs[0][0], [statistic for _, statistic in pairs]
    values = np.concatenate(
        [
            np.stack([statistic(block) for statistic in statistics])
            for block in _resamples(len(y), draws, weight, seed)
        ],
        axis=1,
    )
    errors = -values if metric.greater_is_better else values
    ties = _tie_groups(errors)
    out = {}
    for i, name in enumerate(sound):
        low, high = _percentiles(values[i])
        worse_low, worse_high = _percentiles(errors[i] - errors[0])
        out[name] = Interval(low, high, worse_low, worse_high, ties[i])
    return out


def standard_errors(
    metric: Metric,
    y: np.ndarray,
    predictions: Sequence[np.ndarray],
    weight: np.ndarray | None = None,
) -> np.ndarray:
    """Return the standard error of the first model's metric, and of the others' difference to it.

    [K]; the differences are paired, row by row.
    Arguments as in `bootstrap`. Where the metric is a function of a mean over rows, or the area
    under the ROC curve, by the influence of each row (the delta method; Efron & Tibshirani 1993,
    chapter 21): sqrt(sum w^2 (d - mean d)^2) / sum w, d the difference of the influences; else
    by a few resamples. NaN where the metric is not defined.
    """
    rows = [_influence(metric, y, p, weight) for p in predictions]
    if rows[0] is not None:
        w = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=np.float64)
        first = np.asarray(rows[0])
        parts = np.stack([first, *(np.asarray(r) - first for r in rows[1:])])
        parts -= (parts @ w / w.sum())[:, None]
        return np.asarray(np.sqrt((w * parts) ** 2 @ np.ones(len(y))) / w.sum())
    functions = [_statistic(metric, y, p, weight)[1] for p in predictions]
    blocks = [
        np.stack([function(block) for function in functions])
        for block in _resamples(len(y), _DRAWS_SLOWEST, weight, 0)
    ]
    values = np.concatenate(blocks, axis=1)
    return np.asarray(np.std([values[0], *(values[1:] - values[0])], axis=1, ddof=1))


def _influence(
    metric: Metric, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray | None
) -> np.ndarray | None:
    """Return by how much each row moves the metric [n], per unit of weight; None if not known."""
    loss = per_row_loss(metric, y, prediction)
    if loss is not None:
        of_mean = (for_several(metric) if np.ndim(y) == 2 else metric).of_mean
        mean, h = np.average(loss, axis=0, weights=weight), 1e-4
        return np.asarray((of_mean(mean + h * (loss - mean)) - of_mean(mean)) / h)
    if metric.name == "roc_auc":
        truth = inputs(for_several(metric) if np.ndim(y) == 2 else metric, y, prediction)[0]
        return _auc_influence(truth, prediction, weight)[1]
    return None


def _statistic(
    metric: Metric, y: np.ndarray, prediction: np.ndarray, weight: np.ndarray | None
) -> tuple[int, Callable[[np.ndarray], np.ndarray]]:
    """Return how often to resample and a model's metric as a function of row weights [b, n].

    Means over rows and what depends on the confusion matrix only are exact; the area under the ROC
    curve is linear in the weights around the sample (its DeLong components), as is its usual
    interval; the rest is evaluated resample by resample.
    """
    loss = per_row_loss(metric, y, prediction)
    metric = for_several(metric) if np.ndim(y) == 2 else metric
    if loss is not None:
        return _DRAWS, lambda weights: metric.of_mean(_weighted_mean(weights, loss))
    truth, values = inputs(metric, y, prediction)
    draws = _DRAWS_SLOWEST if metric.slow else _DRAWS_SLOW
    draws_all = min(draws, _DRAWS_SLOW // 2)  # where an evaluation is over all rows
    if weight is None and metric.unweighted:
        return draws_all, lambda counts: np.array(
            [_repeated(metric, truth, values, c.astype(np.int64)) for c in counts]
        )
    if metric.name == "roc_auc":
        area, influence = _auc_influence(truth, prediction, weight)
        return _DRAWS, lambda weights: area + _weighted_mean(weights, influence)
    if metric.needs == "label":
        classes = prediction.shape[1]
        if truth.ndim == 2:
            cells, cell = np.unique(np.hstack([truth, values]), axis=0, return_inverse=True)
            true, guess, cell = cells[:, :classes], cells[:, classes:], cell.reshape(-1)
        else:
            cells, cell = np.unique(truth * classes + values, return_inverse=True)
            true, guess = cells // classes, cells % classes
        return draws, lambda weights: np.array(
            [metric.function(true, guess, np.bincount(cell, weights=w)) for w in weights]
        )
    # Rows in the order of what will be sorted inside the metric: sorting them again costs little.
    key = np.abs(truth - values) if values.ndim == 1 else values[:, -1]
    order = np.argsort(key)
    truth, values = truth[order], values[order]
    return draws_all, lambda weights: np.array(
        [metric.function(truth, values, w[order]) for w in weights]
    )


def _repeated(metric: Metric, y: np.ndarray, values: np.ndarray, counts: np.ndarray) -> float:
    """A metric that takes no weights, of rows that occur as often as `counts` [n] says."""
    rows = np.repeat(np.arange(len(y)), counts)
    return metric.function(y[rows], values[rows], None)


def _auc_influence(
    y: np.ndarray, proba: np.ndarray, weight: np.ndarray | None
) -> tuple[float, np.ndarray]:
    """Return the area under the ROC curve and each row's influence on it [n], of weighted mean 0.

    For several classes the mean over one-against-the-rest areas of the classes that occur, for
    several labels [n, T] the mean over those with rows of both values. After DeLong, DeLong &
    Clarke-Pearson 1988: a row's component is the share of rows on the other side that it is ordered
    rightly with, ties counting half.
    """
    weight = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=np.float64)
    if y.ndim == 2:
        both = [t for t, codes in enumerate(y.T) if np.ptp(codes[weight > 0])]
        sides = [(y[:, t] == 1, proba[:, t]) for t in both or [0]]
    else:
        sides = [(y == c, proba[:, c]) for c in ([1] if proba.shape[1] == 2 else np.unique(y))]
    areas, influences = [], []
    for positive, score in sides:
        component = np.empty(len(y))
        for side in (True, False):
            others = score[positive != side]
            order = np.argsort(others)
            below = np.concatenate([[0.0], np.cumsum(weight[positive != side][order])])
            own = score[positive == side]
            left = below[np.searchsorted(others[order], own, "left")]
            right = below[np.searchsorted(others[order], own, "right")]
            share = (left + right) / 2 / below[-1] if below[-1] > 0 else np.full(len(own), np.nan)
            component[positive == side] = share if side else 1 - share
        total = weight[positive].sum()
        area = (weight * component)[positive].sum() / total if total > 0 else np.nan
        factor = np.where(positive, total, weight.sum() - total) / weight.sum()
        areas.append(area)
        influences.append(np.divide(component - area, factor, where=factor > 0, out=0 * factor))
    return float(np.mean(areas)), np.mean(influences, axis=0)


def _resamples(n: int, draws: int, weight: np.ndarray | None, seed: int) -> Iterator[np.ndarray]:
    """Yield blocks [b, n]: how often each row is in each of b resamples, times the row's weight.

    Of more than 20,000 rows fewer resamples are drawn, down to a fifth: time is bounded by rows.
    """
    draws = min(draws, max(draws // 5, draws * 20_000 // n))
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK // n)
    for start in range(0, draws, step):
        size = min(step, draws - start)
        drawn = rng.integers(0, n, size=(size, n))
        drawn += np.arange(size)[:, None] * n
        counts = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)
        yield counts if weight is None else counts * weight


def _weighted_mean(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Means [b] of rows [n], or [b, T] of rows [n, T]."""
    total = weights.sum(axis=1).reshape(-1, *[1] * (rows.ndim - 1))
    sums = weights @ rows
    return np.divide(sums, total, out=np.full(sums.shape, np.nan), where=total > 0)


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    values = values[np.isfinite(values)]  # a resample with one class only has no AUC
    if values.size == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def _tie_groups(errors: np.ndarray) -> list[int]:
    ties = [0] * len(errors)
    group = 0
    while 0 in ties:
        group += 1
        leader = ties.index(0)
        for i in range(leader, len(errors)):
            if ties[i] == 0 and not _percentiles(errors[i] - errors[leader])[0] > 0:
                ties[i] = group
    return ties
