"""Scores of validation outputs inside a worker: calibrated where the metric reads probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adanet_py.calibration import cross_fitted, fit_temperature, probabilities
from adanet_py.metrics import Metric, get_metric, score, to_error


@dataclass(frozen=True)
class Scorer:
    """The run's metric on some rows, in the target's own unit.

    `y` [N] are class codes or standardised values, `weight` [N] or None; `mean` and `scale` undo
    the standardisation of a regression target.
    """

    metric: Metric
    task: str
    y: np.ndarray
    weight: np.ndarray | None = None
    mean: float = 0.0
    scale: float = 1.0

    @classmethod
    def make(
        cls,
        metric: str,
        task: str,
        y: np.ndarray,
        weight: np.ndarray | None,
        target: tuple[float, float],
    ) -> Scorer:
        """A scorer for the metric called `metric`; `target` is (mean, scale)."""
        return cls(get_metric(metric), task, y, weight, *target)

    def __call__(self, outputs: np.ndarray, temperature: float | np.ndarray = 1.0) -> float:
        """The metric of outputs [N, n_outputs]; NaN where they are not finite."""
        if not np.isfinite(outputs).all():
            return float("nan")
        if self.task == "regression":
            values = outputs[:, 0].astype(np.float64) * self.scale + self.mean
            y = self.y.astype(np.float64) * self.scale + self.mean
            return score(self.metric, y, values, self.weight)
        return score(self.metric, self.y, probabilities(outputs, temperature), self.weight)

    def temperature(self, outputs: np.ndarray, start: float = 1.0) -> float:
        """The temperature fitted on these rows; 1 for regression."""
        if self.task == "regression" or not np.isfinite(outputs).all():
            return 1.0
        return fit_temperature(outputs, self.y, self.weight, start)

    def cross_fitted(self, outputs: np.ndarray) -> float:
        """The metric with each row's temperature fitted on the other rows."""
        if self.task == "regression" or not np.isfinite(outputs).all():
            return self(outputs)
        return self(outputs, cross_fitted(outputs, self.y, self.weight))

    def track(self, outputs: np.ndarray, start: float = 1.0) -> tuple[float, float]:
        """Value and temperature for early stopping and rungs.

        The one temperature is fitted on the scored rows themselves, which is cheap and moves the
        value by far less than the differences that matter there.
        """
        t = self.temperature(outputs, start) if self.metric.calibrated else start
        return self(outputs, t), t

    def error(self, value: float) -> float:
        """Lower-is-better form of a value; infinite where it is not a number."""
        error = to_error(self.metric, value)
        return error if np.isfinite(error) else float("inf")
