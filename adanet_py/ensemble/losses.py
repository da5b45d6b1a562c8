"""Convex losses of combined outputs z [n, C], with gradient and curvature; numpy only.

Each is a function of z and the encoded target, per row, so that F(w) is convex in the mixture
weights: z is linear in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from adanet_py.training.losses.regression import HIGHEST, LEAST

Floats = npt.NDArray[np.float64]
Target = npt.NDArray[np.generic]


class Parts(NamedTuple):
    """Of rows: loss [..., n], gradient and curvature by the outputs [..., n, C]."""

    rows: Floats
    gradient: Floats
    curvature: Floats


class Convex(NamedTuple):
    """A loss of z [..., n, C] and the target [n] or [n, T]: `parts(z, y)`, and `rows(z, y)` alone.

    `coupled`: whether the Hessian of a row is diag(p) - p p^T with p the curvature, else diag(p).
    `level` is that of a loss linear on both sides of the target, which has no curvature: `unit`
    times max(level e, (level - 1) e) of e = y - z, the mean over the columns.
    """

    parts: Callable[[Floats, Target], Parts]
    rows: Callable[[Floats, Target], Floats]
    coupled: bool = False
    level: float | None = None
    unit: float = 1.0


def _codes(z: Floats, y: Target) -> npt.NDArray[np.int64]:
    """The true class of each row, as indices along the last axis of z [..., n, C]."""
    return np.broadcast_to(y.astype(np.int64)[:, None], (*z.shape[:-1], 1))


def _columns(y: Target) -> Floats:
    """The target as [n, T]."""
    return np.asarray(y, dtype=np.float64).reshape(len(y), -1)


def _cross_entropy(z: Floats, y: Target) -> Floats:
    """log sum_c exp(z_c) - z_y."""
    top = z.max(axis=-1)
    total = top + np.log(np.exp(z - top[..., None]).sum(axis=-1))
    return np.asarray(total - np.take_along_axis(z, _codes(z, y), axis=-1)[..., 0])


def _cross_entropy_parts(z: Floats, y: Target) -> Parts:
    codes = _codes(z, y)
    top = z.max(axis=-1, keepdims=True)
    p = np.exp(z - top)
    total = p.sum(axis=-1, keepdims=True)
    p /= total
    rows = (np.log(total) + top - np.take_along_axis(z, codes, axis=-1))[..., 0]
    gradient = p.copy()
    np.put_along_axis(gradient, codes, np.take_along_axis(p, codes, axis=-1) - 1.0, axis=-1)
    return Parts(rows, gradient, p)


def _logistic(z: Floats, y: Target) -> Floats:
    """log(1 + exp(z)) - y z, the mean over the columns."""
    return np.asarray((np.logaddexp(0.0, z) - _columns(y) * z).mean(axis=-1))


def _logistic_parts(z: Floats, y: Target) -> Parts:
    target, count = _columns(y), z.shape[-1]
    e = np.exp(-np.abs(z))
    p = np.where(z > 0, 1.0, e) / (1.0 + e)
    rows = (np.log1p(e) + np.maximum(z, 0.0) - target * z).mean(axis=-1)
    return Parts(rows, (p - target) / count, p * (1.0 - p) / count)


def _squared(z: Floats, y: Target) -> Floats:
    """(z - y)^2, the mean over the columns."""
    return np.asarray(((z - _columns(y)) ** 2).mean(axis=-1))


def _squared_parts(z: Floats, y: Target) -> Parts:
    apart, count = z - _columns(y), z.shape[-1]
    rows = (apart**2).mean(axis=-1)
    return Parts(rows, 2.0 / count * apart, np.full(z.shape, 2.0 / count))


def _exp(z: Floats) -> tuple[Floats, Floats, Floats]:
    """exp z, from `HIGHEST` on its tangent there, with its two derivatives."""
    top = np.exp(np.minimum(z, HIGHEST))
    return top * (1.0 + np.maximum(z - HIGHEST, 0.0)), top, np.where(z < HIGHEST, top, 0.0)


def _in_means(y: Target, ratio: Floats, least: float) -> Floats:
    """Standardised targets in units of their means: u = 1 + y / r."""
    return np.maximum(1.0 + _columns(y) / ratio, least)


def _poisson_parts(z: Floats, y: Target, ratio: Floats) -> Parts:
    """2 (u log u - u z - u + exp z), the mean over the columns; z are logs of means."""
    u, count = _in_means(y, ratio, 0.0), z.shape[-1]
    mean, slope, bend = _exp(z)
    own = u * np.log(np.where(u > 0.0, u, 1.0)) - u
    rows = 2.0 * (own - u * z + mean).mean(axis=-1)
    return Parts(rows, 2.0 / count * (slope - u), 2.0 / count * bend)


def _gamma_parts(z: Floats, y: Target, ratio: Floats) -> Parts:
    """2 (z - log u + u exp(-z) - 1), the mean over the columns; z are logs of means."""
    u, count = _in_means(y, ratio, LEAST), z.shape[-1]
    inverse, slope, bend = _exp(-z)
    rows = 2.0 * (z - np.log(u) + u * inverse - 1.0).mean(axis=-1)
    return Parts(rows, 2.0 / count * (1.0 - u * slope), 2.0 / count * u * bend)


def _pinball(z: Floats, y: Target, level: float, unit: float) -> Floats:
    """unit max(q e, (q - 1) e), e = y - z, the mean over the columns."""
    apart = _columns(y) - z
    return np.asarray(unit * np.maximum(level * apart, (level - 1.0) * apart).mean(axis=-1))


def _pinball_parts(z: Floats, y: Target, level: float, unit: float) -> Parts:
    apart, count = _columns(y) - z, z.shape[-1]
    slope = np.where(apart > 0.0, -level, 1.0 - level) * (apart != 0.0)
    rows = _pinball(z, y, level, unit)
    return Parts(rows, unit / count * slope, np.zeros(z.shape))


def _smooth(parts: Callable[[Floats, Target, Floats], Parts], ratio: Sequence[float]) -> Convex:
    r = np.asarray(ratio, np.float64)
    return Convex(lambda z, y: parts(z, y, r), lambda z, y: parts(z, y, r).rows)


def _kinked(level: float, unit: float) -> Convex:
    return Convex(
        lambda z, y: _pinball_parts(z, y, level, unit),
        lambda z, y: _pinball(z, y, level, unit),
        level=level,
        unit=unit,
    )


SOFTMAX = Convex(_cross_entropy_parts, _cross_entropy, coupled=True)
LOGISTIC = Convex(_logistic_parts, _logistic)
SQUARED = Convex(_squared_parts, _squared)

LOSSES: dict[str, Convex] = {
    "binary": LOGISTIC,
    "multiclass": SOFTMAX,
    "multilabel": LOGISTIC,
    "regression": SQUARED,
    "multioutput": SQUARED,
}

# Losses beside those of the tasks: of the quantile level and mean / scale of every target.
OTHERS: dict[str, Callable[[float, Sequence[float]], Convex]] = {
    "mean_absolute": lambda level, ratio: _kinked(0.5, 2.0),
    "quantile": lambda level, ratio: _kinked(level, 1.0),
    "poisson": lambda level, ratio: _smooth(_poisson_parts, ratio),
    "gamma": lambda level, ratio: _smooth(_gamma_parts, ratio),
}
LOG_LINK = ("poisson", "gamma")  # outputs are logs of means
