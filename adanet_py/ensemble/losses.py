"""Convex losses of combined outputs z [n, C], with gradient and curvature; numpy only.

Each is a function of z and the encoded target, per row, so that F(w) is convex in the mixture
weights: z is linear in them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

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
    """

    parts: Callable[[Floats, Target], Parts]
    rows: Callable[[Floats, Target], Floats]
    coupled: bool = False


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
