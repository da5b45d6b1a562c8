"""What a metric is: its direction, what it reads, the tasks it is for and how it is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

CLASSIFICATION = ("binary", "multiclass")
REGRESSION = ("regression",)

_Function = Callable[[np.ndarray, np.ndarray, np.ndarray | None], float]
_Rows = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Domain(NamedTuple):
    """The numbers a metric is defined for: above `low`, or `low` itself too."""

    low: float
    closed: bool

    def __str__(self) -> str:
        return f"{self.low:g} or more" if self.closed else f"more than {self.low:g}"

    def holds(self, y: np.ndarray) -> np.ndarray:
        """Whether each number of `y` is one of them."""
        return np.asarray(y >= self.low if self.closed else y > self.low)


@dataclass(frozen=True)
class Metric:
    """One metric.

    `needs` is "proba" (probabilities [N, C]), "label" (codes [N]) or "value" (numbers [N]).
    `function` takes (y_true [N], that prediction, weight [N] or None) and gives the value in its
    natural sign and unit.

    `rows` takes (y_true, prediction) and gives the loss of each row [N], lower is better, where the
    metric is `of_mean` of their weighted mean. `error` is the lower-is-better form of a value, 0 or
    more: by default the value itself, or 1 - value where greater is better. `calibrated`: whether
    a temperature of the probabilities changes it. `unweighted`: tasks in which it takes no weights.
    `slow`: whether a call costs milliseconds however few rows there are.
    `domain`: the targets it is defined for, any number where None. `quantile`: the level of the
    quantile that is the best constant prediction, None where that is the mean or no quantile.
    """

    name: str
    greater_is_better: bool
    needs: str
    tasks: tuple[str, ...]
    summary: str
    function: _Function
    rows: _Rows | None = None
    of_mean: Callable[[np.ndarray], np.ndarray] = np.asarray
    error: Callable[[float], float] | None = None
    calibrated: bool = False
    unweighted: tuple[str, ...] = ()
    slow: bool = False
    domain: Domain | None = None
    quantile: float | None = None


def mean_of(values: np.ndarray, weight: np.ndarray | None) -> float:
    """Weighted mean of `values` [N]; NaN where there are none."""
    if values.size == 0:
        return float("nan")
    return float(np.average(values, weights=weight))


def mean_metric(
    name: str,
    needs: str,
    tasks: tuple[str, ...],
    summary: str,
    rows: _Rows,
    of_mean: Callable[[np.ndarray], np.ndarray] = np.asarray,
    *,
    greater_is_better: bool = False,
    calibrated: bool = False,
    domain: Domain | None = None,
    quantile: float | None = None,
) -> Metric:
    """The metric that is `of_mean` of the weighted mean of the row losses `rows`."""

    def function(y: np.ndarray, prediction: np.ndarray, weight: np.ndarray | None) -> float:
        return float(of_mean(np.asarray(mean_of(rows(y, prediction), weight))))

    return Metric(
        name, greater_is_better, needs, tasks, summary, function, rows, of_mean,
        calibrated=calibrated, domain=domain, quantile=quantile,
    )  # fmt: skip


def weighted_median(values: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Median of `values` [N]; with weights, the mean of the two middle values where they tie."""
    return weighted_quantile(values, 0.5, weight)


def weighted_quantile(values: np.ndarray, level: float, weight: np.ndarray | None = None) -> float:
    """The least of `values` [N] that a share `level` of the weight does not exceed.

    The mean of two neighbours where the share is met exactly between them. NaN without weight.
    """
    if weight is None:
        return float(np.quantile(values, level, method="averaged_inverted_cdf"))
    order = np.argsort(values, kind="stable")
    order = order[weight[order] > 0]
    if order.size == 0:
        return float("nan")
    cumulative = np.cumsum(weight[order], dtype=np.float64)
    share = cumulative[-1] * level
    low = min(int(np.searchsorted(cumulative, share)), len(order) - 1)
    if cumulative[low] - share <= np.finfo(np.float64).eps and low + 1 < len(order):
        return float((values[order[low]] + values[order[low + 1]]) / 2)
    return float(values[order[low]])
