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
LANES = 16  # rows that a loss is computed for at once
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
def _softmax_rows(z, members, target, weight, rows, share, knobs, block):
    """`batch_loss` of the cross-entropy with nothing else, in place.

    Exponentials are taken of LANES rows at once, for few classes do not fill the processor's
    registers; and without weights one logarithm, of the product of their sums. Plain indices are
    quicker here than a view for every row.
    """
    real = z.dtype.type
    units = rows.size * members
    c = z.size // units
    smoothing = knobs[SMOOTHING]
    whole, label, other = share / members, 1.0 - smoothing, smoothing / c
    by, each, own = whole, real(whole * other), real(whole * label)
    total = 0.0
    for start in range(0, units, LANES):
        count = min(LANES, units - start)
        part = z[start * c : (start + count) * c]
        raised = block[: count * c]
        for i in range(count):
            at = i * c
            top = part[at]
            for j in range(1, c):
                top = part[at + j] if part[at + j] > top else top
            for j in range(c):
                part[at + j] -= top
        for k in range(part.size):
            raised[k] = exp(part[k])
        product = 1.0
        for i in range(count):
            # A division of whole numbers takes as long as a row of few classes.
            row = rows[start + i if members == 1 else (start + i) // members]
            at = i * c
            place = at + int(target[row, 0])
            sums = real(0)
            for j in range(c):
                sums += raised[at + j]
            if weight.size:
                by = whole * weight[row]
                each, own = real(by * other), real(by * label)
                total += by * math.log(sums)
            else:
                product *= sums
            total -= by * label * part[place]
            if smoothing > 0.0:
                mean = real(0)
                for j in range(c):
                    mean += part[at + j]
                total -= by * other * mean
            inverse = real(by) / sums
            for j in range(c):
                part[at + j] = raised[at + j] * inverse - each
            part[place] -= own
        if weight.size == 0:
            total += whole * math.log(product)
    return total


@kernel
def _binary_rows(z, target, rows, share, knobs, block):
    """`batch_loss` of the binary cross-entropy with nothing else, in place.

    The loss of a row is max(z, 0) - label z + log(1 + exp -|z|); the logarithm is taken of the
    product over LANES rows.
    """
    real = z.dtype.type
    one, by = real(1), real(share)
    smoothing = knobs[SMOOTHING]
    label, decay = block[:LANES], block[LANES : 2 * LANES]
    total = 0.0
    for start in range(0, rows.size, LANES):
        count = min(LANES, rows.size - start)
        part = z[start : start + count]
        for i in range(count):
            y = float(target[rows[start + i], 0])
            label[i] = real(y * (1.0 - smoothing) + 0.5 * smoothing)
        for i in range(count):
            decay[i] = exp(-abs(part[i]))
        product, sums = 1.0, 0.0
        for i in range(count):
            x = part[i]
            product *= 1.0 + float(decay[i])
            sums += float((x if x > 0 else real(0)) - label[i] * x)
        for i in range(count):
            p = one / (one + decay[i])
            p = decay[i] * p if part[i] < 0 else p
            part[i] = by * (p - label[i])
        total += share * (sums + math.log(product))
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
    kind, z, members, target, weight, offset, balance, ratio, rows, own, share, knobs, row, block
):
    """The weighted sum of the losses of z [B, M, C] times `share`; z becomes its gradient.

    `rows` [B] are places in target [N, T], weight and offset ([N] or empty). With `own` < 1 a row
    is held to the target of the row before it too, as in `training.mixing`. `row` [M C] and `block`
    [LANES max(2, M C)] are scratch.
    """
    total, size = 0.0, row.size
    plain = own == 1.0 and target.shape[1] == 1 and balance.size == 0
    if plain and kind == SOFTMAX and size > members:
        return _softmax_rows(z, members, target, weight, rows, share, knobs, block)
    if plain and kind == BINARY and size == 1 and weight.size == 0 and offset.size == 0:
        return _binary_rows(z, target, rows, share, knobs, block)
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
