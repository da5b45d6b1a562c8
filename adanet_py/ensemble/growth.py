"""How an ensemble grows: rounds of AdaNet over frozen members (Cortes et al. 2017, sec. 5).

Round t offers subnetworks as deep as the ensemble's deepest and one layer deeper. For each the
weight u with the least F(w, u) is found, all other weights as they are; the one that lowers F most
is taken in, F is minimised over all weights, and so on until no offer lowers F. As the outputs of
members are at hand, nothing is trained: hundreds of offers are weighed in a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from adanet_py.ensemble.kinked import best_on_lines
from adanet_py.ensemble.losses import LOSSES, Convex, Floats, Parts
from adanet_py.ensemble.objective import Kind, Objective, minimise, row_shares
from adanet_py.ensemble.weights import Weights

STRATEGIES: dict[str, str] = {
    "grow": "the best offer of a round joins the ensemble",
    "solo": "the best offer of a round, alone, takes the ensemble's place",
    "all": "all offers of a round join; what is of no use gets the weight 0",
}
LEAST_FALL = 1e-6  # of F, as a share of it, that is worth another member
_STEPS = 60
_BLOCK = 200_000  # numbers of outputs looked at together: they stay in the cache


@dataclass(frozen=True)
class Member:
    """A trained subnetwork: its outputs on the rows that weights are fitted on [n, C].

    `depth` counts hidden layers, `complexity` is r(h), 0 or more.
    """

    name: str
    outputs: Floats
    depth: int
    complexity: float


@dataclass(frozen=True)
class Offer:
    """What became of a member offered in a round: a row of ensemble.csv.

    `loss` and `penalty` are the two sums of F with it in the ensemble, the other weights as they
    were; `weight` is u and `change` the change of F.
    """

    round: int
    name: str
    depth: int
    complexity: float
    loss: float
    penalty: float
    weight: float
    change: float
    accepted: bool
    why: str


@dataclass(frozen=True)
class Ensemble:
    """Members with their weights, F on the rows they were fitted on, and how it came to be."""

    names: tuple[str, ...]
    weights: Weights
    value: float
    offers: tuple[Offer, ...] = ()


@dataclass(frozen=True)
class Setting:
    """What an ensemble is grown for: the task, its rows and the penalty.

    `y` and `weight` are of the rows of the members' outputs. Gamma_j = lambda_ r_j + beta. `phi` is
    the loss where it is not that of the task. `most` bounds the members, and so the rounds; none
    begins where in the seconds `left()` the longest so far would not end.
    """

    task: str
    y: npt.NDArray[np.generic]
    weight: Floats | None = None
    lambda_: float = 0.0
    beta: float = 0.0
    kind: Kind = "scalar"
    bias: bool = False
    strategy: str = "grow"
    most: int = 16
    phi: Convex | None = None
    left: Callable[[], float] = field(default=lambda: math.inf, repr=False, compare=False)

    @property
    def loss(self) -> Convex:
        """Phi."""
        return self.phi or LOSSES[self.task]

    def gamma(self, members: Sequence[Member]) -> Floats:
        """The penalty of each member's weights [k]."""
        return np.array([self.lambda_ * m.complexity + self.beta for m in members])

    def objective(self, members: Sequence[Member]) -> Objective:
        """F over these members."""
        outputs = np.stack([m.outputs for m in members]).astype(np.float64)
        gamma = self.gamma(members)
        of = (outputs, self.y, self.task, gamma, self.weight, self.kind, self.bias, self.phi)
        return Objective(*of)

    def fit(self, members: Sequence[Member], known: Weights | None = None) -> Ensemble:
        """These members with the weights of the least F; those of weight 0 are left out.

        `known`, the weights of the first of them before the others came, only save time.
        """
        objective = self.objective(members)
        start = objective.start()
        if known is not None:
            start.mixture[: len(known.mixture)] = known.mixture
            start = replace(start, bias=known.bias)
        weights = minimise(objective, start)
        used = weights.sizes() > 0
        names = tuple(m.name for m, u in zip(members, used, strict=True) if u)
        kept = replace(weights, mixture=weights.mixture[used])
        return Ensemble(names, kept, objective.value(weights))

    def taken(self, rows: npt.NDArray[np.intp]) -> Setting:
        """The same on some of the rows."""
        weight = None if self.weight is None else self.weight[rows]
        return replace(self, y=self.y[rows], weight=weight)


def grow(setting: Setting, pool: Sequence[Member]) -> Ensemble:
    """The ensemble AdaNet grows from `pool`; without members where none lowers F.

    F is that of the fitted rows in every decision, which is what the learning guarantee of the
    paper (theorem 1) is about.
    """
    found = nothing(setting, pool[0].outputs.shape[1])
    chosen: tuple[Member, ...] = ()
    offers: list[Offer] = []
    longest, left = 0.0, setting.left()
    for number in range(1, setting.most + 1):
        offered = _offered(pool, chosen)
        before, left = left, setting.left()
        longest = max(longest, before - left) if math.isfinite(left) else 0.0
        if not offered or left <= longest:
            break
        alone = setting.strategy == "solo"
        base = nothing(setting, pool[0].outputs.shape[1]) if alone else found
        weighed = weigh(setting, number, offered, () if alone else chosen, base, found.value)
        best = min(weighed, key=lambda o: o.change)
        joins = [o for o in weighed if o is best or setting.strategy == "all"]
        falls = best.change < -LEAST_FALL * abs(found.value)
        names = {o.name for o in joins} if falls else set()
        new = tuple(m for m in offered if m.name in names)
        offers += [
            replace(o, accepted=o.name in names, why=_why(o, best, falls, o.name in names))
            for o in weighed
        ]
        if not falls:
            break
        ensemble = setting.fit(new) if alone else setting.fit((*chosen, *new), found.weights)
        chosen = tuple(m for m in (*chosen, *new) if m.name in ensemble.names)
        found = ensemble
    return replace(found, offers=tuple(offers))


def nothing(setting: Setting, outputs: int) -> Ensemble:
    """No member: the bias alone, where there is one."""
    zero = Member("", np.zeros((len(setting.y), outputs)), 0, 0.0)
    objective = replace(setting, lambda_=0.0, beta=0.0).objective([zero])
    weights = minimise(objective)
    return Ensemble((), replace(weights, mixture=weights.mixture[:0]), objective.value(weights))


def _offered(pool: Sequence[Member], chosen: Sequence[Member]) -> list[Member]:
    """Members not in it, at most one step deeper than its deepest; steps are depths in the pool."""
    depths = sorted({m.depth for m in pool})
    at = depths.index(max(m.depth for m in chosen)) + 1 if chosen else 0
    limit = depths[min(at, len(depths) - 1)]
    names = {m.name for m in chosen}
    return [m for m in pool if m.depth <= limit and m.name not in names]


def weigh(
    setting: Setting,
    number: int,
    offered: Sequence[Member],
    chosen: Sequence[Member],
    base: Ensemble,
    value: float,
) -> list[Offer]:
    """For every offer the u with the least F(w, u); `base` has the weights of `chosen`.

    `value` is F to be beaten.
    """
    z = np.broadcast_to(base.weights.bias, offered[0].outputs.shape)
    penalty = 0.0
    if chosen:
        objective = setting.objective(chosen)
        z, penalty = base.weights.combine(objective.outputs), objective.penalty(base.weights)
    share = row_shares(len(z), setting.weight)
    gamma = setting.gamma(offered)
    block = max(1, _BLOCK // z.size)
    out = []
    for first in range(0, len(offered), block):
        part = offered[first : first + block]
        outputs = np.stack([m.outputs for m in part]).astype(np.float64)
        u, loss = best_weights(setting, z, outputs, gamma[first : first + block], share)
        for m, size, fit, g in zip(part, u, loss, gamma[first:], strict=False):
            paid = penalty + g * abs(size)
            offer = (m.name, m.depth, m.complexity, float(fit), float(paid), float(size))
            out.append(Offer(number, *offer, float(fit + paid - value), False, ""))
    return out


def best_weights(
    setting: Setting, z: Floats, outputs: Floats, gamma: Floats, share: Floats
) -> tuple[Floats, Floats]:
    """For each of `outputs` [k, n, C] the u with the least F(u), and its loss: [k], [k].

    F(u) = sum_i share_i Phi(y_i, z_i + u h(x_i)) + gamma |u|, by Newton steps with a soft
    threshold, all members side by side.
    """
    if setting.loss.level is not None:
        return _best_by_points(setting, z, outputs, gamma, share)
    u = np.zeros(len(outputs))
    line = _along(setting, np.asarray(z), outputs, share)
    live = np.arange(len(outputs))
    fit, slope, bend = line(live, u)
    for _ in range(_STEPS):
        goal = u[live] - slope / bend
        goal = np.sign(goal) * np.maximum(np.abs(goal) - gamma[live] / bend, 0.0)
        step = goal - u[live]
        before = fit[live] + gamma[live] * np.abs(u[live])
        gain = slope * step + gamma[live] * (np.abs(goal) - np.abs(u[live]))
        on = np.flatnonzero(np.abs(gain) > 1e-14 * np.maximum(1.0, before))
        live, step, before, gain = live[on], step[on], before[on], gain[on]
        slope, bend = np.empty(len(live)), np.empty(len(live))
        todo, size = np.arange(len(live)), 1.0
        while len(todo) and size > 1e-9:  # all halve their steps until F falls enough for each
            at = live[todo]
            tried = u[at] + size * step[todo]
            value, first, second = line(at, tried)
            good = value + gamma[at] * np.abs(tried) <= before[todo] + 1e-4 * size * gain[todo]
            slope[todo[good]], bend[todo[good]] = first[good], second[good]
            u[at[good]], fit[at[good]] = tried[good], value[good]
            todo, size = todo[~good], size / 2.0
        moved = np.setdiff1d(np.arange(len(live)), todo)  # the others are where rounding begins
        live, slope, bend = live[moved], slope[moved], bend[moved]
        if len(live) == 0:
            break
    return u, fit


# Of members by position and the u of each: loss, first and second derivative by u, each [k].
_Line = Callable[[npt.NDArray[np.intp], Floats], tuple[Floats, Floats, Floats]]


def _along(setting: Setting, z: Floats, outputs: Floats, share: Floats) -> _Line:
    """The loss of z + u h for each h of `outputs` [k, n, C], as a function of u."""
    loss, y = setting.loss, setting.y
    if loss.coupled:
        return _along_softmax(z, outputs, y.astype(np.int64), share)

    def line(at: npt.NDArray[np.intp], u: Floats) -> tuple[Floats, Floats, Floats]:
        parts = loss.parts(z + u[:, None, None] * outputs[at], y)
        return parts.rows @ share, *_slopes(parts, outputs[at], share, loss.coupled)

    return line


def _along_softmax(z: Floats, outputs: Floats, y: npt.NDArray[np.int64], share: Floats) -> _Line:
    """Of a cross entropy: with p = softmax(z + u h), the mean of h_c and its variance under p.

    Classes come before rows, for numpy adds up many short rows slowly: about four times as fast
    as gradient and curvature of every class, with 4 classes and with 26.
    """
    rows = np.arange(len(y))
    h = np.ascontiguousarray(outputs.transpose(0, 2, 1))  # [k, C, n]
    base, right, picked = np.ascontiguousarray(z.T), z[rows, y], outputs[:, rows, y]

    def line(at: npt.NDArray[np.intp], u: Floats) -> tuple[Floats, Floats, Floats]:
        mine = h if len(at) == len(h) else h[at]
        p = mine * u[:, None, None]
        p += base
        top = p.max(axis=1)
        p -= top[:, None]
        np.exp(p, out=p)
        total = p.sum(axis=1)
        p *= mine
        mean = p.sum(axis=1) / total
        p *= mine
        square = p.sum(axis=1) / total
        found = np.log(total) + top - right - u[:, None] * picked[at]
        bend = (square - mean**2) @ share
        return found @ share, (mean - picked[at]) @ share, np.maximum(bend, 1e-12)

    return line


def _best_by_points(
    setting: Setting, z: Floats, outputs: Floats, gamma: Floats, share: Floats
) -> tuple[Floats, Floats]:
    """The same for a loss linear on both sides of the target."""
    loss, k = setting.loss, len(outputs)
    assert loss.level is not None
    apart = (np.asarray(setting.y, np.float64).reshape(len(z), -1) - z).reshape(-1)
    each = np.repeat(share * loss.unit / z.shape[1], z.shape[1])
    u = best_on_lines(apart, outputs.reshape(k, -1), each, gamma, loss.level)
    return u, loss.rows(z + u[:, None, None] * outputs, setting.y) @ share


def _slopes(parts: Parts, outputs: Floats, share: Floats, coupled: bool) -> tuple[Floats, Floats]:
    """First and second derivative of the loss along each of `outputs` [k, n, C]: [k], [k].

    `parts` are of the same shape, or [1, n, C] for all.
    """
    slope = np.einsum("knc,n->k", parts.gradient * outputs, share)
    weighed = parts.curvature * outputs
    bend = np.einsum("knc,knc,n->k", weighed, outputs, share)
    if coupled:
        bend -= weighed.sum(axis=-1) ** 2 @ share
    return slope, np.maximum(bend, 1e-12)


def _why(offer: Offer, best: Offer, falls: bool, accepted: bool) -> str:
    if accepted:
        return "F falls most" if offer is best else "all offers of the round join"
    if offer.weight == 0.0:
        return "its gain is less than its penalty"
    if not falls:
        return "F does not fall"
    return f"{best.name} lowers F more"
