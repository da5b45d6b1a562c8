"""What bounds a step of one member beside its optimizer: penalties, clipping, norms, held zeros.

Formulas and order are those of `training.constraints` and `training.sparsity`.
"""

# ruff: noqa: D103 - the names say what they are

from __future__ import annotations

import math

from adanet_py.training.engines.native.compiling import kernel

# Hyperparameters, by their place in `hp`.
HYPERPARAMETERS = (
    "weight_decay", "bias_decay", "l1", "clip_value", "clip_norm", "agc", "decoupled_decay",
    "max_norm", "momentum", "dampening", "value_limit", "norm_limit", "eps", "rho", "alpha",
    "beta1", "beta2", "momentum_decay",
)  # fmt: skip
(DECAY, BIAS_DECAY, L1, CLIP_VALUE, CLIP_NORM, AGC, DECOUPLED, MAX_NORM, MU, DAMPENING, VALUE_LIMIT,
 NORM_LIMIT, EPS, RHO, ALPHA, BETA1, BETA2, MU_DECAY) = range(18)  # fmt: skip

# Columns of the table of matrices: units lie along rows (1) or columns (0) of [n, rows, columns].
START, COUNT, ROWS, COLS, BY_ROW, HEAD = range(6)


@kernel
def norm_of(g):
    """The Euclidean norm, summed in blocks so that float32 keeps its digits."""
    total = 0.0
    for start in range(0, g.size, 1024):
        part = g[start : start + 1024]
        square = g.dtype.type(0)
        for i in range(part.size):
            square += part[i] * part[i]
        total += square
    return math.sqrt(total)


@kernel
def clip_value(g, limit):
    most = g.dtype.type(limit)
    for i in range(g.size):
        x = g[i]
        x = most if x > most else x
        g[i] = -most if x < -most else x


@kernel
def scale(g, factor):
    by = g.dtype.type(factor)
    for i in range(g.size):
        g[i] *= by


@kernel
def add_decay(g, w, decay):
    by = g.dtype.type(decay)
    for i in range(g.size):
        g[i] += by * w[i]


@kernel
def add_sign(g, w, l1):
    by, zero = g.dtype.type(l1), g.dtype.type(0)
    for i in range(g.size):
        g[i] += by if w[i] > zero else (-by if w[i] < zero else by * w[i])


@kernel
def _unit_norm(x, row, at, n, rows, cols, by_row):
    """Norm of unit `at` of x [n, rows, cols]: a row of a matrix, or a column."""
    total = 0.0
    if by_row:
        for j in range(cols):
            total += x[(row + at) * cols + j] * x[(row + at) * cols + j]
    else:
        for i in range(rows):
            total += x[(row + i) * cols + at] * x[(row + i) * cols + at]
    return math.sqrt(total)


@kernel
def _scale_unit(x, row, at, rows, cols, by_row, factor):
    if by_row:
        for j in range(cols):
            x[(row + at) * cols + j] *= factor
    else:
        for i in range(rows):
            x[(row + i) * cols + at] *= factor


@kernel
def clip_units(g, w, parts, share):
    """Adaptive gradient clipping of every unit of the hidden matrices."""
    for p in range(parts.shape[0]):
        part = parts[p]
        if part[HEAD]:
            continue
        rows, cols, by_row = part[ROWS], part[COLS], part[BY_ROW] != 0
        size = part[COUNT] * rows * cols
        gp, wp = g[part[START] : part[START] + size], w[part[START] : part[START] + size]
        for n in range(part[COUNT]):
            for u in range(rows if by_row else cols):
                weights = max(_unit_norm(wp, n * rows, u, n, rows, cols, by_row), 1e-3)
                norm = _unit_norm(gp, n * rows, u, n, rows, cols, by_row)
                if norm > share * weights:
                    by = g.dtype.type(share * weights / norm)
                    _scale_unit(gp, n * rows, u, rows, cols, by_row, by)


@kernel
def bound_units(w, parts, limit):
    """Scale every unit's incoming weights down to the norm `limit`."""
    for p in range(parts.shape[0]):
        part = parts[p]
        rows, cols, by_row = part[ROWS], part[COLS], part[BY_ROW] != 0
        wp = w[part[START] : part[START] + part[COUNT] * rows * cols]
        for n in range(part[COUNT]):
            for u in range(rows if by_row else cols):
                norm = _unit_norm(wp, n * rows, u, n, rows, cols, by_row)
                if norm > limit:
                    _scale_unit(wp, n * rows, u, rows, cols, by_row, w.dtype.type(limit / norm))


@kernel
def constrain(g, w, parts, matrices, hp, lr):
    """What `Constraints` does before the optimizer; the norm of the gradient as it came in + l1."""
    if hp[L1] > 0.0:
        add_sign(g[:matrices], w[:matrices], hp[L1])
    norm = 0.0
    if hp[CLIP_VALUE] > 0.0:
        clip_value(g, hp[CLIP_VALUE])
    if hp[CLIP_NORM] > 0.0:
        norm = norm_of(g)
        factor = hp[CLIP_NORM] / (norm + 1e-6)
        if not factor >= 1.0:  # NaN is kept
            scale(g, factor)
    if hp[AGC] > 0.0:
        clip_units(g, w, parts, hp[AGC])
    if hp[DECOUPLED] > 0.0:
        scale(w[:matrices], 1.0 - lr * hp[DECOUPLED])


@kernel
def hold(x, held):
    """Zero what belongs to weights that stay zero."""
    zero = x.dtype.type(0)
    for i in range(held.size):
        if held[i]:
            x[i] = zero
