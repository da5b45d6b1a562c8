"""Losses of one row and their gradients; the formulas are those of `training.losses`."""

from __future__ import annotations

import math

from adanet_py.training.engines.native.arithmetic import exp
from adanet_py.training.engines.native.compiling import kernel

CODES: dict[str, int] = {
    name: code
    for code, name in enumerate(
        (
            "binary_cross_entropy",
            "cross_entropy",
            "focal",
            "mean_squared_error",
            "half_squared_error",
            "mean_absolute",
            "huber",
            "quantile",
            "poisson",
            "gamma",
        )
    )
}
BINARY, SOFTMAX, FOCAL, SQUARED, HALF, ABSOLUTE, HUBER, PINBALL, POISSON, GAMMA = range(10)
SMOOTHING, FOCUS, DELTA, QUANTILE = range(4)  # places in `knobs`
_HIGHEST, _LEAST = 20.0, 1e-6  # as in `training.losses.regression`


@kernel
def _softplus(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


@kernel
def _of_value(kind, z, y, ratio, knobs):
    """(loss, dloss/dz) of one output z against one target y, in double precision."""
    if kind == BINARY:
        s = knobs[SMOOTHING]
        label = y * (1.0 - s) + 0.5 * s
        return _softplus(z) - label * z, 1.0 / (1.0 + math.exp(-z)) - label
    if kind == FOCAL:
        # l = -q^gamma log p with log p = -softplus(-t), log q = -softplus(t), t the margin.
        sign = 2.0 * y - 1.0
        gamma = knobs[FOCUS]
        log_p, log_q = -_softplus(-sign * z), -_softplus(sign * z)
        p, scale = math.exp(log_p), math.exp(gamma * log_q)
        return -scale * log_p, sign * scale * (gamma * p * log_p - math.exp(log_q))
    e = z - y
    if kind == SQUARED:
        return e * e, 2.0 * e
    if kind == HALF:
        return 0.5 * e * e, e
    if kind == ABSOLUTE:
        return abs(e), float((e > 0.0) - (e < 0.0)) + 0.0 * e
    if kind == HUBER:
        delta = knobs[DELTA]
        size = abs(e)
        if size > delta:
            return delta * (size - 0.5 * delta), delta if e > 0.0 else -delta
        return 0.5 * e * e, e
    if kind == PINBALL:
        q = knobs[QUANTILE]
        if e == 0.0:
            return 0.0, 0.5 * ((1.0 - q) - q)
        return ((1.0 - q) * e, 1.0 - q) if e > 0.0 else (-q * e, -q + 0.0 * e)
    u = 1.0 + y / ratio
    if kind == POISSON:
        u = max(u, 0.0)
        value, slope = _open_exp(z)
        logs = u * math.log(u) if u > 0.0 else 0.0
        return 2.0 * (logs - u * z - u + value), 2.0 * (slope - u)
    u = max(u, _LEAST)
    value, slope = _open_exp(-z)
    return 2.0 * (z - math.log(u) + u * value - 1.0), 2.0 * (1.0 - u * slope)


@kernel
def _open_exp(z):
    """exp z and its derivative, from `_HIGHEST` on those of its tangent there."""
    if z > _HIGHEST:
        top = math.exp(_HIGHEST)
        return top * (1.0 + z - _HIGHEST), top
    value = math.exp(z)
    return value, value


@kernel
def _of_class(kind, z, dz, label, offset, share, knobs):
    """Loss of the logits z [C]; adds share times its gradient to dz [C]."""
    real = z.dtype.type
    highest = z[0]
    for c in range(z.size):
        highest = z[c] if z[c] > highest else highest
    total, mean = real(0), real(0)
    for c in range(z.size):
        total += exp(z[c] - highest)
        mean += z[c] - highest
    log_total = math.log(total)
    mean = mean / real(z.size) - log_total
    log_p = z[label] - highest - log_total
    if kind == SOFTMAX:
        s = knobs[SMOOTHING]
        each, own = real(share * s / z.size), real(share * (1.0 - s))
        inverse = real(share) / total
        for c in range(z.size):
            dz[c] += exp(z[c] - highest) * inverse - each
        dz[label] -= own
        return -(1.0 - s) * log_p - s * mean
    gamma = knobs[FOCUS]
    others = 0.0  # sum of the others' exp
    for c in range(z.size):
        if c != label:
            others += exp(z[c] - highest)
    p = math.exp(log_p)
    log_q = math.log(others) - log_total if others > 0.0 else -math.inf
    scale = math.exp(gamma * log_q) if gamma > 0.0 else 1.0
    # d log p / dz_c = [c = label] - p_c; d log q / dz_c = p_c / q - p_c for the others, -p for it.
    q = others / total
    for c in range(z.size):
        each = exp(z[c] - highest) / total
        if c == label:
            to_p, to_q = 1.0 - p, -p
        else:
            to_p, to_q = -each, (each / q if q > 0.0 else 1.0) - each
        # With gamma = 0 the factor q^0 has no slope, whatever log q is.
        bend = gamma * log_p * to_q if gamma > 0.0 and scale > 0.0 else 0.0
        dz[c] -= real(share * scale * (bend + to_p))
    return -scale * log_p


@kernel
def row_loss(kind, z, dz, members, y, balance, ratio, offset, share, knobs):
    """Mean loss of z [M, C] over members and targets; adds share times its gradient to dz.

    y [1 or T] is the target, or a class code. `balance` (empty, or [T, 2]) weighs each label by its
    value; `offset` is added to every output.
    """
    c = z.size // members
    if c > 1 and y.size == 1 and (kind == SOFTMAX or kind == FOCAL):
        total = 0.0
        for m in range(members):
            one, gradient = z[m * c : (m + 1) * c], dz[m * c : (m + 1) * c]
            total += _of_class(kind, one, gradient, int(y[0]), offset, share / members, knobs)
        return total / members
    total, each = 0.0, 1.0 / (members * c)
    for m in range(members):
        for t in range(c):
            label = float(y[t])
            factor = each
            if balance.size:
                factor *= balance[2 * t] + (balance[2 * t + 1] - balance[2 * t]) * label
            loss, slope = _of_value(
                kind, float(z[m * c + t]) + offset, label, ratio[t % ratio.size], knobs
            )
            total += factor * loss
            dz[m * c + t] += z.dtype.type(share * factor * slope)
    return total


@kernel
def _softmax_rows(z, members, target, weight, rows, share, knobs):
    """`batch_loss` of the cross-entropy with nothing else, row by row in place."""
    real = z.dtype.type
    size = z.size // rows.size
    c = size // members
    smoothing = knobs[SMOOTHING]
    total = 0.0
    for r in range(rows.size):
        part = share / members * (weight[rows[r]] if weight.size else 1.0)
        label = int(target[rows[r], 0])
        each, own = real(part * smoothing / c), real(part * (1.0 - smoothing))
        for m in range(members):
            one = z[r * size + m * c : r * size + (m + 1) * c]
            highest = one[0]
            for j in range(c):
                highest = one[j] if one[j] > highest else highest
            picked, mean, sums = one[label] - highest, real(0), real(0)
            for j in range(c):
                mean += one[j] - highest
                one[j] = exp(one[j] - highest)
                sums += one[j]
            logs = math.log(sums)
            inverse = real(part) / sums
            for j in range(c):
                one[j] = one[j] * inverse - each
            one[label] -= own
            total -= part * (1.0 - smoothing) * (picked - logs)
            total -= part * smoothing * (mean / c - logs)
    return total


@kernel
def _value_rows(kind, z, target, weight, offset, ratio, rows, share, knobs):
    """`batch_loss` of one output a row with nothing else, in place."""
    total = 0.0
    for r in range(rows.size):
        part = share * (weight[rows[r]] if weight.size else 1.0)
        moved = float(offset[rows[r]]) if offset.size else 0.0
        loss, slope = _of_value(kind, float(z[r]) + moved, float(target[rows[r], 0]), ratio, knobs)
        total += part * loss
        z[r] = z.dtype.type(part * slope)
    return total


@kernel
def batch_loss(
    kind, z, members, target, weight, offset, balance, ratio, rows, own, share, knobs, row
):
    """The weighted sum of the losses of z [B, M, C] times `share`; z becomes its gradient.

    `rows` [B] are places in target [N, T], weight and offset ([N] or empty). With `own` < 1 a row
    is held to the target of the row before it too, as in `training.mixing`. `row` [M C] is scratch.
    """
    total, size = 0.0, row.size
    plain = own == 1.0 and target.shape[1] == 1 and balance.size == 0
    if plain and kind == SOFTMAX and size > members:
        return _softmax_rows(z, members, target, weight, rows, share, knobs)
    if plain and kind != SOFTMAX and size == 1:
        return _value_rows(kind, z, target, weight, offset, ratio[0], rows, share, knobs)
    for r in range(rows.size):
        one = z[r * size : (r + 1) * size]
        for j in range(size):
            row[j] = z.dtype.type(0)
        for turn in range(2):
            part = own if turn == 0 else 1.0 - own
            if turn == 1 and own == 1.0:
                break
            at = rows[r] if turn == 0 else rows[r - 1 if r else rows.size - 1]
            part *= share * (weight[at] if weight.size else 1.0)
            moved = float(offset[at]) if offset.size else 0.0
            total += part * row_loss(
                kind, one, row, members, target[at], balance, ratio, moved, part, knobs
            )
        for j in range(size):
            one[j] = row[j]
    return total
