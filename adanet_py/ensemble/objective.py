"""The objective of AdaNet and its exact minimum (Cortes et al. 2017, arXiv 1607.01097).

For frozen members h_1 ... h_k with outputs on n rows,

    F(w) = sum_i v_i Phi(y_i, sum_j w_j h_j(x_i) + b) + sum_j Gamma_j |w_j|_1,
    Gamma_j = lambda r(h_j) + beta,

with row weights v of sum 1, a convex loss Phi, the complexity r(h_j) of a member and no penalty on
the bias b. w_j is a number, one number per output, or a matrix from outputs to outputs; |.|_1 adds
up the sizes of all its entries. F is convex, so its minimum is found, not approached: proximal
Newton steps (Lee, Sun & Saunders 2014), each solved by coordinate descent, in which weights become
exactly zero; or where there are too many weights for a Hessian, an accelerated proximal gradient
(Beck & Teboulle 2009) with restarts (O'Donoghue & Candes 2015); for the losses that are linear on
both sides of the target a linear program (see kinked.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from adanet_py.ensemble.kinked import quantile_fit
from adanet_py.ensemble.losses import LOSSES, Convex, Floats, Parts
from adanet_py.ensemble.weights import Weights
from adanet_py.errors import ConfigError, check_known

Kind = Literal["scalar", "vector", "matrix"]
KINDS: tuple[Kind, ...] = ("scalar", "vector", "matrix")
TOLERANCE = 1e-9  # of the optimality conditions
_NEWTON = 600  # weights up to which a Hessian is made
_STEPS = 100
_GRADIENT_STEPS = 20_000
_SWEEPS = 1_000  # of coordinate descent in a step
_SOLVED = 4  # sweeps between two attempts to solve for the weights that are not zero
_FLAT = 1e-13  # of F: a promised fall below it is lost in the rounding of F
_RIDGE = 1e-9  # times the mean of the Hessian's diagonal: members may be copies of each other


@dataclass(frozen=True)
class Objective:
    """F for given members.

    `outputs` [k, n, C] float64, `y` encoded as the task has it ([n] or [n, T]), `gamma` [k],
    `weight` [n] or None for equal rows. `phi` is the loss where it is not that of the task.
    """

    outputs: Floats
    y: npt.NDArray[np.generic]
    task: str
    gamma: Floats
    weight: Floats | None = None
    kind: Kind = "scalar"
    bias: bool = False
    phi: Convex | None = None
    share: Floats = field(init=False, repr=False)  # of each row [n]

    def __post_init__(self) -> None:
        check_known("kind of mixture weights", self.kind, KINDS, ConfigError)
        check_known("task", self.task, LOSSES, ConfigError)
        k, n, _ = self.outputs.shape
        if self.gamma.shape != (k,) or not (self.gamma >= 0).all():
            raise ConfigError(
                f"Expected a penalty of 0 or more for each of {k} members, found {self.gamma}."
            )
        object.__setattr__(self, "share", row_shares(n, self.weight))

    @property
    def loss(self) -> Convex:
        """Phi."""
        return self.phi or LOSSES[self.task]

    def start(self) -> Weights:
        """No member has a weight."""
        k, _, c = self.outputs.shape
        shape = {"scalar": (k,), "vector": (k, c), "matrix": (k, c, c)}[self.kind]
        return Weights(np.zeros(shape), np.zeros(c))

    def uniform(self) -> Weights:
        """The mean of the members."""
        k, _, c = self.outputs.shape
        w = self.start()
        one = np.eye(c) if self.kind == "matrix" else 1.0
        return Weights(np.broadcast_to(one / k, w.mixture.shape).copy(), w.bias)

    def data_loss(self, weights: Weights) -> float:
        """The first sum of F."""
        rows = self.loss.rows(weights.combine(self.outputs), self.y)
        return float(self.share @ rows)

    def penalty(self, weights: Weights) -> float:
        """The second sum of F."""
        return float(self.gamma @ weights.sizes())

    def value(self, weights: Weights) -> float:
        """F(w)."""
        return self.data_loss(weights) + self.penalty(weights)


def row_shares(rows: int, weight: Floats | None) -> Floats:
    """What each row counts for in a mean [n]: its weight, or the same for all; the sum is 1."""
    return np.full(rows, 1.0 / rows) if weight is None else weight / weight.sum()


@dataclass(frozen=True)
class _Flat:
    """F over a vector v: z_c = columns[c] v[places[c]], |v| weighed by `penalty`."""

    objective: Objective
    columns: tuple[Floats, ...]  # of each output c [n, d]
    places: tuple[npt.NDArray[np.intp], ...]
    penalty: Floats

    def combine(self, v: Floats) -> Floats:
        pairs = zip(self.columns, self.places, strict=True)
        return np.stack([x @ v[at] for x, at in pairs], axis=1)

    def value(self, v: Floats) -> float:
        o = self.objective
        return float(o.share @ o.loss.rows(self.combine(v), o.y) + self.penalty @ np.abs(v))

    def parts(self, v: Floats) -> Parts:
        return self.objective.loss.parts(self.combine(v), self.objective.y)

    def gradient(self, parts: Parts) -> Floats:
        slope = parts.gradient * self.objective.share[:, None]
        out = np.zeros(len(self.penalty))
        for c, (x, at) in enumerate(zip(self.columns, self.places, strict=True)):
            out[at] += x.T @ slope[:, c]
        return out

    def hessian(self, parts: Parts) -> Floats:
        o, p, size = self.objective, parts.curvature, len(self.penalty)
        out = np.zeros((size, size))
        mean = np.zeros((len(p), size)) if o.loss.coupled else None
        for c, (x, at) in enumerate(zip(self.columns, self.places, strict=True)):
            out[np.ix_(at, at)] += x.T @ (x * (o.share * p[:, c])[:, None])
            if mean is not None:
                mean[:, at] += x * p[:, c : c + 1]
        if mean is not None:
            out -= mean.T @ (mean * o.share[:, None])
        return out

    def violation(self, v: Floats, gradient: Floats) -> float:
        """How far v is from the conditions of a minimum: 0 is in the subdifferential of F."""
        moved = np.abs(gradient + self.penalty * np.sign(v))
        still = np.maximum(np.abs(gradient) - self.penalty, 0.0)
        return float(np.where(v != 0, moved, still).max(initial=0.0))


def _flatten(objective: Objective) -> _Flat:
    k, n, c = objective.outputs.shape
    bias = np.ones((n, int(objective.bias)))
    columns, places = [], []
    own = {"scalar": k, "vector": k * c, "matrix": k * c * c}[objective.kind]
    for output in range(c):
        if objective.kind == "matrix":
            x = objective.outputs.transpose(1, 0, 2).reshape(n, k * c)
            # Of w [k, to, from] those to this output.
            at = (np.arange(k)[:, None] * c * c + output * c + np.arange(c)).reshape(-1)
        else:
            x = objective.outputs[:, :, output].T
            at = np.arange(k) if objective.kind == "scalar" else np.arange(k) * c + output
        columns.append(np.ascontiguousarray(np.concatenate([x, bias], axis=1)))
        places.append(np.append(at, own + output) if objective.bias else at)
    penalty = np.repeat(objective.gamma, own // k)
    return _Flat(
        objective,
        tuple(columns),
        tuple(places),
        np.append(penalty, np.zeros(c)) if objective.bias else penalty,
    )


def minimise(objective: Objective, start: Weights | None = None) -> Weights:
    """The weights with the smallest F, from `start` (of the same shape) or none.

    The optimality conditions hold to `TOLERANCE`, or to rounding where F is too flat for that.
    """
    flat, begin = _flatten(objective), start or objective.start()
    if objective.loss.level is not None:
        v = _linear_program(flat, objective.loss.level)
        own = begin.mixture.size
        bias = v[own:] if objective.bias else begin.bias
        return Weights(v[:own].reshape(begin.mixture.shape), bias)
    v = begin.mixture.reshape(-1)
    v = np.append(v, begin.bias) if objective.bias else v.copy()
    v = _newton(flat, v) if len(v) <= _NEWTON else _accelerated(flat, v)
    own = begin.mixture.size
    bias = v[own:] if objective.bias else begin.bias
    return Weights(v[:own].reshape(begin.mixture.shape), bias)


def _linear_program(flat: _Flat, level: float) -> Floats:
    """The minimum where the loss is linear on both sides of the target."""
    o = flat.objective
    y = np.asarray(o.y, np.float64).reshape(len(o.y), -1)
    rows = np.zeros((len(flat.columns), len(y), len(flat.penalty)))
    for c, (x, at) in enumerate(zip(flat.columns, flat.places, strict=True)):
        rows[c][:, at] = x
    each = np.tile(o.share * o.loss.unit / len(rows), len(rows))
    flattened = rows.reshape(-1, rows.shape[2])
    return quantile_fit(flattened, y.T.reshape(-1), each, flat.penalty, level)


def _newton(flat: _Flat, v: Floats) -> Floats:
    """Proximal Newton steps with a line search.

    Where F is too flat to tell points apart a whole step is taken as long as it halves the
    violation of the conditions; a line search there would look at noise.
    """
    value, before, kept = flat.value(v), np.inf, v
    for _ in range(_STEPS):
        parts = flat.parts(v)
        gradient = flat.gradient(parts)
        off = flat.violation(v, gradient)
        if off > 0.5 * before:
            return kept
        if off <= TOLERANCE:
            break
        step = _descend(flat.hessian(parts), gradient, flat.penalty, v) - v
        # What the penalised linear model promises (Lee, Sun & Saunders 2014, eq. 2.11).
        gain = gradient @ step + flat.penalty @ (np.abs(v + step) - np.abs(v))
        if -gain <= _FLAT * abs(value):
            before, kept, v = off, v, v + step
            continue
        before, size = np.inf, 1.0
        while size > 1e-10:
            new = v + size * step
            found = flat.value(new)
            if found <= value + 1e-4 * size * gain:
                break
            size /= 2.0
        else:
            break  # no smaller value can be told from this one
        v, value = new, found
    return v


def _descend(hessian: Floats, gradient: Floats, penalty: Floats, v: Floats) -> Floats:
    """The x with the least g (x - v) + (x - v) H (x - v) / 2 + penalty |x|.

    By coordinate descent, which finds out which weights are zero and is slow to settle the rest, as
    members are much alike; so every few sweeps the rest is solved for, and that is the answer if it
    keeps all signs.
    """
    h = hessian + _RIDGE * max(float(np.diag(hessian).mean()), 1e-12) * np.eye(len(v))
    x, slope = v.copy(), gradient.copy()  # of the quadratic at x
    diagonal = np.diag(h).copy()
    for sweep in range(1, _SWEEPS + 1):
        largest = 0.0
        for j in range(len(x)):
            at = x[j] - slope[j] / diagonal[j]
            new = np.sign(at) * max(abs(at) - penalty[j] / diagonal[j], 0.0)
            change = new - x[j]
            if change != 0.0:
                x[j] = new
                slope += h[j] * change
                largest = max(largest, abs(change) * diagonal[j])
        if largest <= 0.01 * TOLERANCE:
            break
        if sweep % _SOLVED == 0 and (exact := _solve(h, gradient, penalty, v, x)) is not None:
            return exact
    return x


def _solve(h: Floats, gradient: Floats, penalty: Floats, v: Floats, x: Floats) -> Floats | None:
    """The minimum of the quadratic of `_descend` if its signs are those of x, else None."""
    on = (x != 0) | (penalty == 0)
    signs = np.sign(x)
    linear = h @ v - gradient - penalty * signs
    exact = np.zeros(len(x))
    exact[on] = np.linalg.solve(h[np.ix_(on, on)], linear[on])
    slope = gradient + h @ (exact - v)
    kept = (np.sign(exact) == signs) | (penalty == 0)
    still = on | (np.abs(slope) <= penalty)
    return exact if kept.all() and still.all() else None


def _accelerated(flat: _Flat, v: Floats) -> Floats:
    """Accelerated proximal gradient with backtracking, restarted where F rises."""
    ahead, momentum, rate = v.copy(), 1.0, 1.0
    value, o = flat.value(v), flat.objective
    for _ in range(_GRADIENT_STEPS):
        parts = flat.parts(ahead)
        gradient, smooth = flat.gradient(parts), float(o.share @ parts.rows)
        while True:
            at = ahead - rate * gradient
            new = np.sign(at) * np.maximum(np.abs(at) - rate * flat.penalty, 0.0)
            step = new - ahead
            found = float(o.share @ o.loss.rows(flat.combine(new), o.y))
            if found <= smooth + gradient @ step + step @ step / (2 * rate) + 1e-15:
                break
            rate /= 2.0
        total = found + float(flat.penalty @ np.abs(new))
        if total > value and momentum > 1.0:
            ahead, momentum = v.copy(), 1.0
            continue
        following = (1.0 + np.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
        ahead = new + (momentum - 1.0) / following * (new - v)
        v, value, momentum = new, min(total, value), following
        if flat.violation(v, flat.gradient(flat.parts(v))) <= TOLERANCE:
            break
        rate *= 1.1
    return v
