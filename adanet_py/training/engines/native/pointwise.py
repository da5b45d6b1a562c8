"""Bias, nonlinearity and dropout of a layer in one pass over its units.

In training the pass leaves the local derivative dy/dz in the place of z, mask and scale of dropout
included, so that the backward pass is one product whatever the nonlinearity: dz = dy * local.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import register_jitable

from adanet_py.training.engines.native.arithmetic import exp, normal, sigmoid, tanh
from adanet_py.training.engines.native.columns import (
    column_sums,
    multiply_and_sum,
    rectify_and_sum,
    repeat,
    rows_at_once,
)
from adanet_py.training.engines.native.compiling import kernel

NOISE_SIZE = 1 << 19  # as in `architectures.perturbations`
FLAT = 1e-6  # as in `training.probe`
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717


# Each gives (value, derivative) of one number; constants are of its own type, or float32 would be
# computed in float64.
@register_jitable
def _relu(x):
    real = type(x)
    return (real(0), real(0)) if x <= 0 else (x, real(1))


@register_jitable
def _leaky_relu(x):
    real = type(x)
    slope = real(0.01)
    return (x, real(1)) if x > 0 else (slope * x, slope)


@register_jitable
def _gelu(x):
    cdf, density = normal(x)
    return x * cdf, cdf + x * density


@register_jitable
def _silu(x):
    s = sigmoid(x)
    return x * s, s * (type(x)(1) + x * (type(x)(1) - s))


@register_jitable
def _mish(x):
    # tanh(softplus(x)) = (u^2 + 2 u) / (u^2 + 2 u + 2) with u = exp x; 1 from x = 15 on.
    one, two = type(x)(1), type(x)(2)
    u = exp(x if x < type(x)(15) else type(x)(15))
    n = u * (u + two)
    t = n / (n + two)
    s = u / (u + one)
    if x >= type(x)(15):
        return x, one
    return x * t, t + x * s * (one - t * t)


@register_jitable
def _elu(x):
    real = type(x)
    e = exp(x if x < 0 else real(0))
    return (x, real(1)) if x > 0 else (e - real(1), e)


@register_jitable
def _selu(x):
    real = type(x)
    scale, negative = real(_SELU_SCALE), real(_SELU_SCALE * _SELU_ALPHA)
    e = negative * exp(x if x < 0 else real(0))
    return (scale * x, scale) if x > 0 else (e - negative, e)


@register_jitable
def _tanh(x):
    y = tanh(x)
    return y, type(x)(1) - y * y


@register_jitable
def _sigmoid(x):
    y = sigmoid(x)
    return y, y * (type(x)(1) - y)


PLAIN: dict[str, Any] = {
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "gelu": _gelu,
    "silu": _silu,
    "mish": _mish,
    "elu": _elu,
    "selu": _selu,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
}
GATES = {"glu": "sigmoid", "geglu": "gelu", "reglu": "relu", "swiglu": "silu"}
CODES: dict[str, int] = {name: code for code, name in enumerate(PLAIN)}
CODES |= {name: CODES[gate] for name, gate in GATES.items()}


@register_jitable
def window_start(place: int, rows: int, each: int):
    """Where a window of `rows` x `each` bytes begins, and the distance of its rows.

    As `Noisy.window` in `architectures.perturbations`; indices are to be taken modulo NOISE_SIZE.
    """
    stride = min(each, max(1, (NOISE_SIZE // 2 - each) // max(1, rows - 1)))
    span = (rows - 1) * stride + each
    length = NOISE_SIZE * ((span + NOISE_SIZE - 1) // NOISE_SIZE)
    return place % max(1, length - span), stride


@register_jitable
def kept_factor(share: float) -> float:
    """What dropout multiplies by what it keeps, so that the mean stays."""
    return 256.0 / (256.0 - min(np.round(share * 256.0), 255.0))


@kernel
def mask_row(noise, start, share, mask):
    """Dropout's factors for one row: 0 for a share of the bytes, else what keeps the mean at 1."""
    real = mask.dtype.type
    dropped = min(np.round(share * 256.0), 255.0)
    limit, kept, none = np.uint8(dropped), real(kept_factor(share)), real(0)
    if start + mask.size <= NOISE_SIZE:
        row = noise[start : start + mask.size]
        for j in range(mask.size):
            mask[j] = kept if row[j] >= limit else none
    else:
        for j in range(mask.size):
            mask[j] = kept if noise[(start + j) % NOISE_SIZE] >= limit else none


def _rows(function: Any) -> Callable[..., None]:
    @kernel
    def forward(z, bias, y, count, tile):
        """y [count, d] = f(z + bias) of the last d columns of z; the derivative takes their place.

        Not in an array of its own, which could be z too: two names of one array keep the compiler
        from vectorising. Rows that are narrow and whole are taken several at once.
        """
        units, d = z.size // count, y.size // count
        each = rows_at_once(d, count, tile) if units == d else 1
        shift = bias[units - d : units]
        if each > 1:
            repeat(shift, tile, each)
            shift = tile[: each * d]
        for r in range(0, count, each):
            n, at = min(each, count - r) * d, (r + 1) * units - d
            x, out, by = z[at : at + n], y[r * d : r * d + n], shift[:n]
            for j in range(n):
                out[j], x[j] = function(x[j] + by[j])

    return forward


(_relu_row, _leaky_relu_row, _gelu_row, _silu_row, _mish_row, _elu_row, _selu_row, _tanh_row,
 _sigmoid_row) = (_rows(function) for function in PLAIN.values())  # fmt: skip


@kernel
def _all_rows(code, z, bias, y, count, tile):
    # Compiled code cannot index a tuple of different functions; the order is that of PLAIN.
    if code == 0:
        _relu_row(z, bias, y, count, tile)
    elif code == 1:
        _leaky_relu_row(z, bias, y, count, tile)
    elif code == 2:
        _gelu_row(z, bias, y, count, tile)
    elif code == 3:
        _silu_row(z, bias, y, count, tile)
    elif code == 4:
        _mish_row(z, bias, y, count, tile)
    elif code == 5:
        _elu_row(z, bias, y, count, tile)
    elif code == 6:
        _selu_row(z, bias, y, count, tile)
    elif code == 7:
        _tanh_row(z, bias, y, count, tile)
    else:
        _sigmoid_row(z, bias, y, count, tile)


@kernel
def activate(code, z, y, bias, mask, noise, place, share, rows, members, gated, tile):
    """y [rows, M, d] = activation(z + bias) with dropout; z [rows, M, d or 2 d] becomes dy/dz.

    `mask` [d] and `tile` are scratch. With M > 1 bias is 0.
    """
    count = rows * members
    units, d = z.size // count, y.size // count
    _all_rows(code, z, bias, y, count, tile)
    if gated:
        shift = bias[:d]
        for r in range(count):
            out, left = y[r * d : (r + 1) * d], z[r * units : r * units + d]
            slope = z[r * units + d : (r + 1) * units]
            for j in range(d):
                value = left[j] + shift[j]
                left[j] = out[j]
                slope[j] *= value
                out[j] *= value
    if share > 0.0:
        start, stride = window_start(place, rows, members * d)
        factors = mask[:d]
        for r in range(count):
            mask_row(noise, start + (r // members) * stride + (r % members) * d, share, factors)
            out, slope = y[r * d : (r + 1) * d], z[r * units : (r + 1) * units]
            for j in range(d):
                out[j] *= factors[j]
            for part in range(units // d):
                side = slope[part * d : (part + 1) * d]
                for j in range(d):
                    side[j] *= factors[j]


@kernel
def rectify(y, bias, mask, noise, place, share, rows, members, tile):
    """y [rows, M, d] = max(y + bias, 0) with dropout, in place: the slope is told by the value.

    A third less goes through the caches than by `activate`.
    """
    count, d = rows * members, bias.size
    each = rows_at_once(d, count, tile)
    shift = bias
    if each > 1:
        repeat(bias, tile, each)
        shift = tile[: each * d]
    none = y.dtype.type(0)
    for r in range(0, count, each):
        n = min(each, count - r) * d
        part, by = y[r * d : r * d + n], shift[:n]
        for j in range(n):
            x = part[j] + by[j]
            part[j] = none if x <= 0 else x
    if share > 0.0:
        start, stride = window_start(place, rows, members * d)
        factors = mask[:d]
        for r in range(count):
            mask_row(noise, start + (r // members) * stride + (r % members) * d, share, factors)
            out = y[r * d : (r + 1) * d]
            for j in range(d):
                out[j] *= factors[j]


@kernel
def rectify_backward(y, dy, share, count, db, tile):
    """y [count, d] of `rectify` becomes dL/dz; the sum over rows is added to db (may be empty)."""
    rectify_and_sum(y, dy, dy.dtype.type(kept_factor(share)), count, db, tile)


@kernel
def activate_backward(z, dy, count, gated, db, tile):
    """z [count, d or 2 d]: dy/dz becomes dL/dz; the sum over rows is added to db (may be empty)."""
    if not gated:
        multiply_and_sum(z, dy, dy.dtype.type(1), count, db, tile)
        return
    d = dy.size // count
    for r in range(count):
        g = dy[r * d : (r + 1) * d]
        left = z[2 * r * d : (2 * r + 1) * d]
        for j in range(d):
            left[j] *= g[j]
        right = z[(2 * r + 1) * d : 2 * (r + 1) * d]
        for j in range(d):
            right[j] *= g[j]
    if db.size:
        column_sums(z, count, db, tile)


@kernel
def dead_units(y, rows, low, high, found):
    """Add to found [2] how many units of y [rows, d] are dead, as in `training.probe`, and d.

    NaN where a value is not finite. `low` and `high` [d] are scratch.
    """
    d = y.size // rows
    for j in range(d):
        low[j] = y[j]
        high[j] = y[j]
    sound = True
    for r in range(rows):
        row = y[r * d : (r + 1) * d]
        for j in range(d):
            low[j] = row[j] if row[j] < low[j] else low[j]
            high[j] = row[j] if row[j] > high[j] else high[j]
            sound = sound and np.isfinite(row[j])
    scale = y.dtype.type(0)
    for j in range(d):
        scale = max(scale, max(abs(low[j]), abs(high[j])))
    dead = 0
    for j in range(d):
        dead += (high[j] - low[j]) <= y.dtype.type(FLAT) * scale
    found[0] += float(dead) if sound else np.nan
    found[1] += d


@kernel
def add_branch(x, u, y, noise, place, share, rows):
    """y [rows, d] = x + u, u with stochastic depth: one byte decides for a row. May be in place."""
    start, stride = window_start(place, rows, 1)
    real = u.dtype.type
    dropped = min(np.round(share * 256.0), 255.0)
    kept = real(256.0 / (256.0 - dropped))
    d = u.size // rows
    for r in range(rows):
        here, there, out = x[r * d : (r + 1) * d], u[r * d : (r + 1) * d], y[r * d : (r + 1) * d]
        factor = kept if noise[(start + r * stride) % NOISE_SIZE] >= dropped else real(0)
        for j in range(d):
            out[j] = here[j] + factor * there[j]


@kernel
def branch_backward(dy, du, noise, place, share, rows):
    """du [rows, d] = dy for the rows that `add_branch` kept, scaled as there."""
    start, stride = window_start(place, rows, 1)
    real = du.dtype.type
    dropped = min(np.round(share * 256.0), 255.0)
    kept = real(256.0 / (256.0 - dropped))
    d = du.size // rows
    for r in range(rows):
        factor = kept if noise[(start + r * stride) % NOISE_SIZE] >= dropped else real(0)
        g, out = dy[r * d : (r + 1) * d], du[r * d : (r + 1) * d]
        for j in range(d):
            out[j] = factor * g[j]


@kernel
def copy(x, y):
    """y = x, as long as x."""
    out = y[: x.size]
    for j in range(x.size):
        out[j] = x[j]


@kernel
def add(x, u, y):
    """y = x + u, as long as u."""
    here, out = x[: u.size], y[: u.size]
    for j in range(u.size):
        out[j] = here[j] + u[j]
