"""The exact minimum of F for losses that are linear on both sides of the target.

For the quantile level q, rows with weights v_i > 0 and penalties Gamma_j,

    F(w) = sum_i v_i rho_q(y_i - x_i w) + sum_j Gamma_j |w_j|,  rho_q(e) = max(q e, (q - 1) e).

As Gamma |w| = rho_q(Gamma w) + rho_q(-Gamma w), the penalties are two more rows each, and F is that
of a plain quantile regression: a linear program, which an interior-point method solves in a few
dozen weighted least squares (Portnoy & Koenker 1997, The Gaussian hare and the Laplacian tortoise,
sections 3 and 5: the Frisch-Newton method, a predictor-corrector of Mehrotra's on its dual).
"""

from __future__ import annotations

import numpy as np

from adanet_py.ensemble.weights import Floats

_STEPS = 200
_TOLERANCE = 1e-11  # of the gap between F and the dual, as a share of F
_BACK = 0.9995  # of the way to the border
_RIDGE = 1e-13
_ZERO = 1e-7  # of the largest weight: what may be exactly zero is tried to be


def quantile_fit(x: Floats, y: Floats, weight: Floats, penalty: Floats, level: float) -> Floats:
    """The w [d] of the least F, for columns x [n, d], targets y [n], v [n] and Gamma [d]."""
    paid = np.flatnonzero(penalty > 0)
    extra = np.zeros((2 * len(paid), x.shape[1]))
    at = np.arange(len(paid))
    extra[at, paid], extra[len(paid) + at, paid] = penalty[paid], -penalty[paid]
    rows = np.concatenate([x * weight[:, None], extra])
    target = np.concatenate([y * weight, np.zeros(len(extra))])
    size = np.abs(rows).sum() / rows.size or 1.0  # rho is homogeneous: any unit will do
    w = _frisch_newton(rows / size, target / size, level)

    def value(v: Floats) -> float:
        return _total(rows, target, v, level)

    best = value(w)
    for j in np.argsort(np.abs(w)):
        if abs(w[j]) > _ZERO * max(1.0, float(np.abs(w).max())):
            break
        tried = w.copy()
        tried[j] = 0.0
        if value(tried) <= best + 1e-10 * max(1e-12, abs(best)):
            w = tried
    return w


def _total(rows: Floats, target: Floats, w: Floats, level: float) -> float:
    apart = target - rows @ w
    return float(np.maximum(level * apart, (level - 1.0) * apart).sum())


def _frisch_newton(rows: Floats, target: Floats, level: float) -> Floats:
    """The w of the least sum_i rho(target_i - rows_i w).

    Its dual: the most target a over 0 <= a <= 1 with rows^T a = (1 - q) rows^T 1. x is a, s is
    1 - a, z and w their multipliers and -y the coefficients.
    """
    n = len(target)
    x: Floats = np.full(n, 1.0 - level)
    s = 1.0 - x
    y = -np.linalg.lstsq(rows, target, rcond=None)[0]
    bound = rows.T @ x
    r = -target - rows @ y
    r = np.where(r == 0.0, 1e-3, r)
    floor = 1e-3 * float(np.abs(r).mean())
    z, w = np.maximum(r, 0.0) + floor, np.maximum(-r, 0.0) + floor
    for _ in range(_STEPS):
        gap = float(-target @ x - y @ bound + w.sum())
        scale = max(1e-300, float(np.abs(target @ x) + np.abs(y @ bound)))
        if gap <= _TOLERANCE * scale:
            break
        q = 1.0 / (z / x + w / s)
        r = -target - rows @ y  # what z - w is to be
        e = r - (z - w)
        # Predictor: straight to complementarity.
        g = z - w + e
        normal = rows.T @ (rows * q[:, None])
        normal[np.diag_indices_from(normal)] += _RIDGE * max(1e-300, float(np.diag(normal).max()))
        lack = bound - rows.T @ x
        dy = np.linalg.solve(normal, rows.T @ (q * g) + lack)
        dx = q * (rows @ dy - g)
        dz, dw = -z * (1.0 + dx / x), -w * (1.0 - dx / s)
        primal, dual = _far(x, dx, s), min(_room(z, dz), _room(w, dw))
        if min(primal, dual) < 1.0:
            mu = float(z @ x + w @ s)
            ahead = float((z + dual * dz) @ (x + primal * dx) + (w + dual * dw) @ (s - primal * dx))
            mu *= (ahead / mu) ** 3 / (2 * n)
            xi = mu * (1.0 / x - 1.0 / s) - dx * dz / x - dx * dw / s
            dy = np.linalg.solve(normal, rows.T @ (q * (g - xi)) + lack)
            old_x, old_z, old_w = dx, dz, dw
            dx = q * (rows @ dy + xi - g)
            dz = (mu - old_x * old_z) / x - z - z / x * dx
            dw = (mu + old_x * old_w) / s - w + w / s * dx
            primal, dual = _far(x, dx, s), min(_room(z, dz), _room(w, dw))
        x, s = x + primal * dx, s - primal * dx
        y, z, w = y + dual * dy, z + dual * dz, w + dual * dw
    return np.asarray(-y, np.float64)


def _room(value: Floats, step: Floats) -> float:
    """How much of a step leaves all values above 0; at most 1."""
    falling = step < 0
    far = float((-value[falling] / step[falling]).min(initial=np.inf))
    return min(1.0, _BACK * far)


def _far(x: Floats, dx: Floats, s: Floats) -> float:
    return min(_room(x, dx), _room(s, -dx))


def best_on_lines(
    apart: Floats, slopes: Floats, share: Floats, penalty: Floats, level: float
) -> Floats:
    """For each of k lines the u with the least sum_i v_i rho(e_i - u h_i) + Gamma |u|: [k].

    e `apart` [n], h `slopes` [k, n], v `share` [n], Gamma `penalty` [k]. F is linear between the
    points e_i / h_i and 0; its slope rises at each by v_i |h_i|, at 0 by 2 Gamma.
    """
    k = len(slopes)
    moving = slopes != 0.0
    safe = np.where(moving, slopes, 1.0)
    points = np.concatenate([apart / safe, np.zeros((k, 1))], axis=1)
    jumps = np.concatenate([share * np.abs(slopes), 2.0 * penalty[:, None]], axis=1)
    # Far to the left every row with h > 0 has e - u h > 0 and the slope -q h, others (1 - q) |h|.
    first = np.where(slopes > 0, -level * slopes, (1.0 - level) * slopes)
    start = (share * first).sum(axis=1) - penalty
    order = np.argsort(points, axis=1)
    slope = start[:, None] + np.take_along_axis(jumps, order, 1).cumsum(axis=1)
    # Where the slope is first 0 or more; of a level stretch the end nearer to 0 would do as well.
    at = np.argmax(slope >= -1e-15, axis=1)
    return np.asarray(np.take_along_axis(points, order, 1)[np.arange(k), at])
