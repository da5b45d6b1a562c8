"""One step of one member from its gradient: weight decay and the optimizer's update.

Formulas and order are those of `training.optimizers`; each is one pass over the parameters.
Numbers that are the same for all parameters are computed in double precision.
"""

from __future__ import annotations

import math

import numpy as np

from adanet_py.training.engines.native.compiling import kernel
from adanet_py.training.engines.native.constraints import (
    ALPHA,
    BETA1,
    BETA2,
    BIAS_DECAY,
    DAMPENING,
    DECAY,
    EPS,
    MAX_NORM,
    MU,
    MU_DECAY,
    NORM_LIMIT,
    RHO,
    VALUE_LIMIT,
    add_decay,
    bound_units,
    clip_value,
    constrain,
    norm_of,
    scale,
)

# Optimizers that are one pass here; others are updated by their own transforms.
NAMES = (
    "sgd", "momentum", "nesterov", "averaged_momentum", "value_clipped_momentum",
    "norm_clipped_momentum", "adagrad", "adadelta", "rmsprop", "rmsprop_centered", "adam",
    "amsgrad", "adamw", "adamw_amsgrad", "nadam", "radam", "adamax", "lion",
    "schedule_free_adamw",
)  # fmt: skip
(SGD, MOMENTUM, NESTEROV, AVERAGED, VALUE_CLIPPED, NORM_CLIPPED, ADAGRAD, ADADELTA, RMSPROP,
 CENTERED, ADAM, AMSGRAD, ADAMW, ADAMW_AMSGRAD, NADAM, RADAM, ADAMAX, LION,
 SCHEDULE_FREE) = range(19)  # fmt: skip
CODES: dict[str, int] = {name: code for code, name in enumerate(NAMES)}


@kernel
def _descend(w, g, lr):
    by = w.dtype.type(lr)
    for i in range(w.size):
        w[i] -= by * g[i]


@kernel
def _momentum(w, g, v, lr, mu, fresh, look):
    """v <- mu v + fresh g; w <- w - lr (look g + [mu if look else 1] v)."""
    real = w.dtype.type
    by, keep, new = real(lr), real(mu), real(fresh)
    if look:
        for i in range(w.size):
            moved = keep * v[i] + new * g[i]
            v[i] = moved
            w[i] -= by * (g[i] + keep * moved)
    else:
        for i in range(w.size):
            moved = keep * v[i] + new * g[i]
            v[i] = moved
            w[i] -= by * moved


@kernel
def _adagrad(w, g, square, lr, eps):
    by, e = w.dtype.type(lr), w.dtype.type(eps)
    for i in range(w.size):
        square[i] += g[i] * g[i]
        w[i] -= by * g[i] / (np.sqrt(square[i]) + e)


@kernel
def _adadelta(w, g, square, moved, lr, rho, eps):
    real = w.dtype.type
    by, new, e = real(lr), real(1.0 - rho), real(eps)
    for i in range(w.size):
        square[i] += new * (g[i] * g[i] - square[i])
        d = g[i] / np.sqrt(square[i] + e) * np.sqrt(moved[i] + e)
        moved[i] += new * (d * d - moved[i])
        w[i] -= by * d


@kernel
def _rms(w, g, square, velocity, lr, alpha, eps, mu):
    real = w.dtype.type
    by, new, e, keep = real(lr), real(1.0 - alpha), real(eps), real(mu)
    for i in range(w.size):
        square[i] += new * (g[i] * g[i] - square[i])
        moved = keep * velocity[i] + g[i] / (np.sqrt(square[i]) + e)
        velocity[i] = moved
        w[i] -= by * moved


@kernel
def _rms_centered(w, g, square, mean, velocity, lr, alpha, eps, mu):
    real = w.dtype.type
    by, new, e, keep, zero = real(lr), real(1.0 - alpha), real(eps), real(mu), real(0)
    for i in range(w.size):
        square[i] += new * (g[i] * g[i] - square[i])
        mean[i] += new * (g[i] - mean[i])
        variance = square[i] - mean[i] * mean[i]
        variance = zero if variance < zero else variance
        moved = keep * velocity[i] + g[i] / (np.sqrt(variance) + e)
        velocity[i] = moved
        w[i] -= by * moved


@kernel
def _adam(w, g, mean, square, lr, decay, pull, beta1, beta2, eps, t):
    """`decay` shrinks the weights, `pull` joins the gradient."""
    real = w.dtype.type
    by, keep = real(lr / (1.0 - beta1**t)), real(1.0 - lr * decay)
    new1, new2, e = real(1.0 - beta1), real(1.0 - beta2), real(eps)
    rest, add = real(1.0 / (1.0 - beta2**t)), real(pull)
    if pull > 0.0:
        for i in range(w.size):
            d = g[i] + add * w[i]
            m = mean[i] + new1 * (d - mean[i])
            v = square[i] + new2 * (d * d - square[i])
            mean[i] = m
            square[i] = v
            w[i] = keep * w[i] - by * m / (np.sqrt(v * rest) + e)
    else:
        for i in range(w.size):
            m = mean[i] + new1 * (g[i] - mean[i])
            v = square[i] + new2 * (g[i] * g[i] - square[i])
            mean[i] = m
            square[i] = v
            w[i] = keep * w[i] - by * m / (np.sqrt(v * rest) + e)


@kernel
def _amsgrad(w, g, mean, square, largest, lr, decay, beta1, beta2, eps, t):
    real = w.dtype.type
    by, keep = real(lr / (1.0 - beta1**t)), real(1.0 - lr * decay)
    new1, new2, e = real(1.0 - beta1), real(1.0 - beta2), real(eps)
    rest = real(1.0 / (1.0 - beta2**t))
    for i in range(w.size):
        m = mean[i] + new1 * (g[i] - mean[i])
        v = square[i] + new2 * (g[i] * g[i] - square[i])
        u = largest[i] if v <= largest[i] else v
        mean[i] = m
        square[i] = v
        largest[i] = u
        w[i] = keep * w[i] - by * m / (np.sqrt(u * rest) + e)


@kernel
def _nadam(w, g, mean, square, lr, beta1, beta2, eps, t, of_mean, of_new):
    real = w.dtype.type
    old, now = real(lr * of_mean), real(lr * of_new)
    new1, new2, e = real(1.0 - beta1), real(1.0 - beta2), real(eps)
    rest = real(1.0 / (1.0 - beta2**t))
    for i in range(w.size):
        m = mean[i] + new1 * (g[i] - mean[i])
        v = square[i] + new2 * (g[i] * g[i] - square[i])
        mean[i] = m
        square[i] = v
        w[i] -= (old * m + now * g[i]) / (np.sqrt(v * rest) + e)


@kernel
def _radam(w, g, mean, square, lr, beta1, beta2, eps, t):
    real = w.dtype.type
    new1, new2, e = real(1.0 - beta1), real(1.0 - beta2), real(eps)
    rest = 1.0 - beta2**t
    longest = 2.0 / (1.0 - beta2) - 1.0
    length = longest - 2.0 * t * beta2**t / rest
    by = lr / (1.0 - beta1**t)
    known = length > 5.0
    if known:
        by *= math.sqrt(
            (length - 4.0) * (length - 2.0) * longest
            / ((longest - 4.0) * (longest - 2.0) * length) * rest
        )  # fmt: skip
    rate, one = real(by), real(1)
    for i in range(w.size):
        m = mean[i] + new1 * (g[i] - mean[i])
        v = square[i] + new2 * (g[i] * g[i] - square[i])
        mean[i] = m
        square[i] = v
        w[i] -= rate * m / ((np.sqrt(v) + e) if known else one)


@kernel
def _adamax(w, g, mean, largest, lr, beta1, beta2, eps, t):
    real = w.dtype.type
    by, new, keep, e = real(lr / (1.0 - beta1**t)), real(1.0 - beta1), real(beta2), real(eps)
    for i in range(w.size):
        m = mean[i] + new * (g[i] - mean[i])
        old, fresh = keep * largest[i], abs(g[i]) + e
        u = old if fresh <= old else fresh
        mean[i] = m
        largest[i] = u
        w[i] -= by * m / u


@kernel
def _lion(w, g, mean, lr, decay, beta1, beta2):
    real = w.dtype.type
    by, keep, zero = real(lr), real(1.0 - lr * decay), real(0)
    new1, new2 = real(1.0 - beta1), real(1.0 - beta2)
    for i in range(w.size):
        c = mean[i] + new1 * (g[i] - mean[i])
        mean[i] += new2 * (g[i] - mean[i])
        step = by if c > zero else (-by if c < zero else c)  # NaN stays NaN
        w[i] = keep * w[i] - step


@kernel
def _schedule_free(w, g, square, ahead, scalars, lr, decay, beta1, beta2, eps, t, matrices, bias):
    """See `training.optimizers.schedule_free`; scalars [2]: largest rate, sum of its squares."""
    real = w.dtype.type
    scalars[0] = max(scalars[0], real(lr))
    weight = float(scalars[0]) ** 2
    scalars[1] += real(weight)
    share = weight / float(scalars[1]) if scalars[1] > 0 else 0.0
    rest, new, e = real(1.0 / (1.0 - beta2**t)), real(1.0 - beta2), real(eps)
    pull, left, by = real(share * beta1), real(1.0 - share), real(lr)
    step = real(lr * (1.0 - beta1 * (1.0 - share)))
    for part in range(2):
        a, b = (0, matrices) if part == 0 else (matrices, w.size)
        add = real(decay if part == 0 else decay * bias)
        w_, g_, v_, z_ = w[a:b], g[a:b], square[a:b], ahead[a:b]
        for i in range(w_.size):
            v = v_[i] + new * (g_[i] * g_[i] - v_[i])
            v_[i] = v
            d = g_[i] / (np.sqrt(v * rest) + e) + add * w_[i]
            z = z_[i]
            w_[i] += pull * z - step * d
            z_[i] = left * (z - by * d)


@kernel
def _decoupled(kind):
    return kind == ADAMW or kind == ADAMW_AMSGRAD or kind == LION


@kernel
def _part(kind, w, g, s0, s1, s2, hp, lr, decay, pull, t, of_mean, of_new):
    """The update of parameters that have the same decay; `pull` is Adam's."""
    if kind == SGD:
        _descend(w, g, lr)
    elif kind == MOMENTUM:
        damped = t > 1 and hp[MU] > 0.0
        _momentum(w, g, s0, lr, hp[MU], 1.0 - hp[DAMPENING] if damped else 1.0, False)
    elif kind == NESTEROV:
        _momentum(w, g, s0, lr, hp[MU], 1.0, True)
    elif kind == AVERAGED or kind == VALUE_CLIPPED or kind == NORM_CLIPPED:
        _momentum(w, g, s0, lr, hp[MU], 1.0 - hp[MU], False)
    elif kind == ADAGRAD:
        _adagrad(w, g, s0, lr, hp[EPS])
    elif kind == ADADELTA:
        _adadelta(w, g, s0, s1, lr, hp[RHO], hp[EPS])
    elif kind == RMSPROP:
        _rms(w, g, s0, s1, lr, hp[ALPHA], hp[EPS], hp[MU])
    elif kind == CENTERED:
        _rms_centered(w, g, s0, s1, s2, lr, hp[ALPHA], hp[EPS], hp[MU])
    elif kind == ADAM or kind == ADAMW:
        _adam(w, g, s0, s1, lr, decay, pull, hp[BETA1], hp[BETA2], hp[EPS], t)
    elif kind == AMSGRAD or kind == ADAMW_AMSGRAD:
        _amsgrad(w, g, s0, s1, s2, lr, decay, hp[BETA1], hp[BETA2], hp[EPS], t)
    elif kind == NADAM:
        _nadam(w, g, s0, s1, lr, hp[BETA1], hp[BETA2], hp[EPS], t, of_mean, of_new)
    elif kind == RADAM:
        _radam(w, g, s0, s1, lr, hp[BETA1], hp[BETA2], hp[EPS], t)
    elif kind == ADAMAX:
        _adamax(w, g, s0, s1, lr, hp[BETA1], hp[BETA2], hp[EPS], t)
    elif kind == LION:
        _lion(w, g, s0, lr, decay, hp[BETA1], hp[BETA2])


@kernel
def update(kind, w, g, slots, scalars, parts, matrices, hp, lr, t):
    """Step number t (from 1) of one member: w, g [P], slots [S, P], scalars [s]; g is lost."""
    constrain(g, w, parts, matrices, hp, lr)
    if kind == VALUE_CLIPPED:
        clip_value(g, hp[VALUE_LIMIT])
    if kind == NORM_CLIPPED:
        factor = hp[NORM_LIMIT] / (norm_of(g) + 1e-6)
        if not factor >= 1.0:
            scale(g, factor)
    if kind == SCHEDULE_FREE:
        _schedule_free(
            w, g, slots[0], slots[1], scalars, lr, hp[DECAY], hp[BETA1], hp[BETA2], hp[EPS], t,
            matrices, hp[BIAS_DECAY],
        )  # fmt: skip
    else:
        of_mean, of_new = 0.0, 0.0
        if kind == NADAM:
            mu = hp[BETA1] * (1.0 - 0.5 * 0.96 ** (t * hp[MU_DECAY]))
            following = hp[BETA1] * (1.0 - 0.5 * 0.96 ** ((t + 1.0) * hp[MU_DECAY]))
            rest = float(scalars[0]) * mu + (1.0 - mu)
            scalars[0] = w.dtype.type(rest)
            of_mean = following / (rest * following + (1.0 - following))
            of_new = (1.0 - mu) / rest
        # Slots an optimizer has not are never touched: any row stands in for them.
        count = slots.shape[0]
        s0, s1, s2 = slots[0], slots[min(1, count - 1)], slots[min(2, count - 1)]
        for part in range(2):
            a, b = (0, matrices) if part == 0 else (matrices, w.size)
            if a == b:
                continue
            decay = hp[DECAY] if part == 0 else hp[DECAY] * hp[BIAS_DECAY]
            inside = not _decoupled(kind)
            if inside and decay > 0.0 and kind != ADAM:
                add_decay(g[a:b], w[a:b], decay)
            _part(
                kind, w[a:b], g[a:b], s0[a:b], s1[a:b], s2[a:b], hp, lr,
                0.0 if inside else decay, decay if kind == ADAM else 0.0, t, of_mean, of_new,
            )  # fmt: skip
    if hp[MAX_NORM] > 0.0:
        bound_units(w, parts, hp[MAX_NORM])
