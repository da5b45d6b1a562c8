"""Scores of validation outputs inside a worker: calibrated where the metric reads probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adanet_py.calibration import cross_fitted, fit_temperature, followed_loss
from adanet_py.intervals import standard_errors
from adanet_py.metrics import Metric, get_metric, score, to_error
from adanet_py.outputs import in_own_unit, predictions
from adanet_py.tasks import is_regression


@dataclass(frozen=True)
class Scorer:
    """The run's metric on some rows, in the target's own unit.

    `y` [N] are class codes or standardised values, `weight` [N] or None; `mean` and `scale` undo
    the standardisation of a regression target. With several targets `y` is [N, T], and `mean` and
    `scale` are [T].
    """

    metric: Metric
    task: str
    y: np.ndarray
    weight: np.ndarray | None = None
    mean: float | np.ndarray = 0.0
    scale: float | np.ndarray = 1.0

    @classmethod
    def make(
        cls,
        metric: str,
        task: str,
        y: np.ndarray,
        weight: np.ndarray | None,
        target: tuple[Any, Any],
    ) -> Scorer:
        """A scorer for the metric called `metric`; `target` is (mean, scale), lists for several."""
        mean, scale = (np.asarray(v) if isinstance(v, list | tuple) else v for v in target)
        return cls(get_metric(metric), task, y, weight, mean, scale)

    def __call__(self, outputs: np.ndarray, temperature: float | np.ndarray = 1.0) -> float:
        """The metric of outputs [N, n_outputs]; NaN where they are not finite."""
        if not np.isfinite(outputs).all():
            return float("nan")
        if self.metric.needs == "label" and self.task == "multiclass":
            # The likeliest class has the largest logit at any temperature.
            return score(self.metric, self.y, outputs, self.weight)
        found = predictions(self.task, outputs, temperature, self.mean, self.scale)
        y = in_own_unit(self.y, self.mean, self.scale) if is_regression(self.task) else self.y
        return score(self.metric, y, found, self.weight)

    def temperature(self, outputs: np.ndarray, start: float = 1.0) -> float:
        """The temperature fitted on these rows; 1 for regression."""
        if is_regression(self.task) or not np.isfinite(outputs).all():
            return 1.0
        return fit_temperature(outputs, self.y, self.weight, start)

    def cross_fitted(self, outputs: np.ndarray) -> float:
        """The metric with each row's temperature fitted on the other rows."""
        if is_regression(self.task) or not np.isfinite(outputs).all():
            return self(outputs)
        return self(outputs, cross_fitted(outputs, self.y, self.weight))

    def track(self, outputs: np.ndarray, start: float = 1.0) -> tuple[float, float]:
        """Value and temperature for early stopping and rungs.

        The one temperature is fitted on the scored rows themselves, which is cheap and moves the
        value by far less than the differences that matter there.
        """
        if not self.metric.calibrated:
            return self(outputs, start), start
        if self.metric.name == "log_loss" and np.isfinite(outputs).all():
            return followed_loss(outputs, self.y, self.weight, start)
        t = self.temperature(outputs, start)
        return self(outputs, t), t

    def doubt(self, outputs: Sequence[np.ndarray], temperatures: Sequence[float]) -> float:
        """The standard error of the difference of two errors, the median of all to the first.

        Of one model alone its own. 0 where it is not known.
        """
        found = [
            predictions(self.task, o, t, self.mean, self.scale)
            for o, t in zip(outputs, temperatures, strict=True)
        ]
        y = in_own_unit(self.y, self.mean, self.scale) if is_regression(self.task) else self.y
        if not found:
            return 0.0
        errors = standard_errors(self.metric, y, found, self.weight)
        value = score(self.metric, y, found[0], self.weight)
        other = value + float(np.median(errors[1:] if len(errors) > 1 else errors))
        doubt = abs(self.error(other) - self.error(value))
        return doubt if np.isfinite(doubt) else 0.0

    def gain(self, before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
        """By how much the second outputs [N, C] have less error, and its standard error.

        Each row's temperature is fitted on the other rows; the difference is paired by row. NaN
        where it is not known.
        """
        if not (np.isfinite(before).all() and np.isfinite(after).all()):
            return float("nan"), float("nan")
        y = in_own_unit(self.y, self.mean, self.scale) if is_regression(self.task) else self.y
        found = []
        for outputs in (before, after):
            temperature: float | np.ndarray = 1.0
            if not is_regression(self.task):
                temperature = cross_fitted(outputs, self.y, self.weight)
            found.append(predictions(self.task, outputs, temperature, self.mean, self.scale))
        first, second = (score(self.metric, y, p, self.weight) for p in found)
        doubt = float(standard_errors(self.metric, y, found, self.weight)[1])
        gain = to_error(self.metric, first) - to_error(self.metric, second)
        return gain, abs(to_error(self.metric, first + doubt) - to_error(self.metric, first))

    def error(self, value: float) -> float:
        """Lower-is-better form of a value; infinite where it is not a number."""
        error = to_error(self.metric, value)
        return error if np.isfinite(error) else float("inf")
