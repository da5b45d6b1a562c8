"""How much better the winner looks than it is: on audit rows, and by resampling the choice.

A search chooses what is best on the validation rows, so that score is too good. Audit rows, which
no choice sees, tell by how much; where there are none, resampling the choice does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from adanet_py.intervals import _resamples, _statistic, standard_errors
from adanet_py.metrics import Metric, per_row_loss, score, to_error

_DRAWS = 200  # fewer of many rows
_FEWEST = 20  # resamples in which a score is defined, below which nothing is said


class Scored(NamedTuple):
    """Truth, predictions and weights of some rows, as `metrics.score` takes them."""

    y: np.ndarray
    prediction: np.ndarray
    weight: np.ndarray | None = None


def optimism_interval(metric: Metric, validation: Scored, audit: Scored) -> tuple[float, float]:
    """95 % interval of the error on the audit rows less that on the validation rows.

    In the metric's unit, positive where audit rows are worse: the difference and 1.96 times its
    standard error, sqrt(a^2 + b^2) with those of the two, for they have no row in common.
    """
    errors = [float(standard_errors(metric, s.y, [s.prediction], s.weight)[0]) for s in
              (validation, audit)]  # fmt: skip
    names = ("validation", "audit")
    values = {n: score(metric, *s) for n, s in zip(names, (validation, audit), strict=True)}
    middle, half = optimism(metric, values), 1.96 * math.hypot(*errors)
    return middle - half, middle + half


def corrected(
    metric: Metric,
    y: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    handicaps: Mapping[str, float],
    weight: np.ndarray | None = None,
    seed: int = 0,
) -> float:
    """What the metric of the chosen one is expected to be on new rows; NaN where that is unknown.

    The bootstrap bias correction of Tsamardinos, Greasidou & Borboudakis 2018 (Bootstrapping the
    out-of-sample predictions for efficient and accurate cross-validation): on every resample of the
    rows the best of all is chosen, and scored on the rows that were not drawn; the mean. Only those
    whose `predictions` are given are chosen from, so that it corrects for them alone. For metrics
    that are means over rows, and the area under the ROC curve.
    `handicaps`: what is added to the error of each, in the metric's unit, before it is compared.
    """
    sound = {name: p for name, p in predictions.items() if np.isfinite(p).all()}
    linear = metric.name == "roc_auc" or all(
        per_row_loss(metric, y, p) is not None for p in sound.values()
    )
    if len(sound) < 2 or not linear:  # an evaluation for every resample and model takes too long
        return float("nan")
    functions = [_statistic(metric, y, p, weight)[1] for p in sound.values()]
    extra = np.array([handicaps.get(name, 0.0) for name in sound])[:, None]
    found: list[np.ndarray] = []
    for counts in _resamples(len(y), _DRAWS, None, seed):
        rows = np.ones(len(y)) if weight is None else weight
        drawn, left = counts * rows, (counts == 0.0) * rows
        inside = np.stack([f(drawn) for f in functions])
        outside = np.stack([f(left) for f in functions])
        errors = (-inside if metric.greater_is_better else inside) + extra
        errors = np.where(np.isfinite(errors), errors, np.inf)
        found.append(outside[errors.argmin(axis=0), np.arange(errors.shape[1])])
    values = np.concatenate(found)
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) >= _FEWEST else float("nan")


def wilcoxon(metric: Metric, y: np.ndarray, first: np.ndarray, other: np.ndarray) -> float:
    """P-value of the signed-rank test that the losses of rows differ between two models.

    Wilcoxon 1945, two-sided, for metrics that are functions of a mean over rows; NaN for others.
    """
    from scipy import stats

    losses = [per_row_loss(metric, y, p) for p in (first, other)]
    if losses[0] is None or losses[1] is None or np.ndim(losses[0]) != 1:
        return float("nan")
    difference = losses[1] - losses[0]
    if not np.isfinite(difference).all():
        return float("nan")
    if not difference.any():
        return 1.0
    return float(stats.wilcoxon(difference, method="approx").pvalue)


def optimism(metric: Metric, metrics: Mapping[str, float]) -> float:
    """Error on the audit rows less that on the validation rows; NaN where there are none."""
    if "audit" not in metrics or "validation" not in metrics:
        return float("nan")
    return to_error(metric, metrics["audit"]) - to_error(metric, metrics["validation"])
