"""Metrics of numbers [N], in plain numpy.

Each value equals scikit-learn's (tested); where scikit-learn raises or is undefined, the docstring
of the function says what happens here instead.
"""

from __future__ import annotations

import numpy as np

from adanet_py.errors import ConfigError
from adanet_py.metrics.metric import (
    REGRESSION,
    Domain,
    Metric,
    mean_metric,
    mean_of,
    weighted_median,
)

_ROUNDING = 1e-6  # relative; y comes from standardised float32
_EPS = float(np.finfo(np.float64).eps)


def _row_squared(y: np.ndarray, value: np.ndarray) -> np.ndarray:
    return np.asarray((y - value) ** 2)


def _row_absolute(y: np.ndarray, value: np.ndarray) -> np.ndarray:
    return np.abs(y - value)


def _row_percentage(y: np.ndarray, value: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(y - value) / np.maximum(np.abs(y), _EPS))


def _row_squared_log(y: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Squared difference of log(1 + x).

    Predictions of -1 and less count as just above it (scikit-learn raises). NaN where the target
    has such a value (`check_values` says so before a search).
    """
    if (y <= -1).any():
        return np.full(len(y), np.nan)
    return np.asarray((np.log1p(y) - np.log1p(np.maximum(value, _EPS - 1))) ** 2)


def _row_poisson(y: np.ndarray, value: np.ndarray) -> np.ndarray:
    """2 (y log(y / v) - y + v), with 0 log 0 = 0 (McCullagh & Nelder 1989, section 2.3).

    Predictions of 0 and less count as just above it (scikit-learn raises), so that a network with
    one of them can still be told from a worse one. NaN where the target has a value below 0
    (`check_values` says so before a search); the dust that a round trip through float32 leaves of a
    0 is a 0.
    """
    largest = np.abs(y).max(initial=0.0)
    if (y < -_ROUNDING * largest).any():
        return np.full(len(y), np.nan)
    y, value = np.maximum(y, 0.0), _above_zero(y, value)
    log = np.log(np.divide(y, value, out=np.ones_like(value), where=y > 0))
    return np.asarray(2 * (y * log - y + value))


def _row_gamma(y: np.ndarray, value: np.ndarray) -> np.ndarray:
    """2 (log(v / y) + y / v - 1) (McCullagh & Nelder 1989, section 2.3).

    Predictions of 0 and less as for Poisson. NaN where the target has a value of 0 or less, but for
    what a round trip through float32 can have made of one just above it.
    """
    dust = _ROUNDING * np.abs(y).max(initial=0.0)
    if (y < -dust).any() or not (y > 0).any():
        return np.full(len(y), np.nan)
    y, value = np.where(y > 0, y, dust), _above_zero(y, value)
    return np.asarray(2 * (np.log(value / y) + y / value - 1))


def _above_zero(y: np.ndarray, value: np.ndarray) -> np.ndarray:
    return np.maximum(value, _EPS * (np.abs(y).mean() or 1.0))


def _median_ae(y: np.ndarray, value: np.ndarray, weight: np.ndarray | None) -> float:
    return weighted_median(_row_absolute(y, value), weight)


def _r2(y: np.ndarray, value: np.ndarray, weight: np.ndarray | None) -> float:
    left = mean_of(_row_squared(y, value), weight)
    spread = mean_of((y - np.average(y, weights=weight)) ** 2, weight)
    if spread == 0:
        return 1.0 if left == 0 else 0.0
    return 1 - left / spread


def pinball(level: float, name: str | None = None) -> Metric:
    """The metric that a forecast of the quantile `level`, 0 < level < 1, minimises.

    Mean of level (y - v) where the truth y is above the value v, else (1 - level) (v - y) (Koenker
    & Bassett 1978). Half the mean absolute error at level 0.5. Raises ConfigError for other levels.
    """
    if not 0 < level < 1:
        raise ConfigError(
            f"The metric pinball: expected a level between 0 and 1, such as pinball:0.9, found "
            f"{level:g}."
        )

    def rows(y: np.ndarray, value: np.ndarray) -> np.ndarray:
        return np.maximum(level * (y - value), (level - 1) * (y - value))

    name = f"pinball:{level!r}" if name is None else name
    summary = f"pinball loss of the quantile {level:g}"
    return mean_metric(name, "value", REGRESSION, summary, rows, quantile=level)


# ---------------------------------------------------------------- the metrics

_R = REGRESSION

METRICS: tuple[Metric, ...] = (
    mean_metric("rmse", "value", _R, "root mean squared error", _row_squared, np.sqrt),
    mean_metric("mse", "value", _R, "mean squared error", _row_squared),
    mean_metric("mae", "value", _R, "mean absolute error", _row_absolute, quantile=0.5),
    Metric(
        "median_ae", False, "value", _R, "median absolute error", _median_ae, quantile=0.5
    ),
    Metric("r2", True, "value", _R, "share of variance explained", _r2),
    mean_metric("mape", "value", _R, "mean absolute error as a share of truth", _row_percentage),
    mean_metric(
        "rmsle", "value", _R, "root mean squared error of log(1 + x)", _row_squared_log, np.sqrt,
        domain=Domain(-1, False),
    ),
    mean_metric(
        "msle", "value", _R, "mean squared error of log(1 + x)", _row_squared_log,
        domain=Domain(-1, False),
    ),
    mean_metric(
        "poisson_deviance", "value", _R, "mean Poisson deviance, for counts", _row_poisson,
        domain=Domain(0, True),
    ),
    mean_metric(
        "gamma_deviance", "value", _R, "mean Gamma deviance, for amounts above 0", _row_gamma,
        domain=Domain(0, False),
    ),
    pinball(0.5, "pinball"),
)  # fmt: skip
