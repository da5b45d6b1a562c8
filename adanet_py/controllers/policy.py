"""A stochastic policy over decisions, one after another: pi(x) = prod_j pi(x_j | x_1 .. x_{j-1}).

Every decision is a softmax over its cells: a choice has its options, a range equal parts of the
unit interval, within which a value is drawn evenly. The logits of the cells of decision j are

    L_j(x) = log prior_j + sum_i k_j(x, x_i) A_ij G_j,    k_j(x, z) = 1 + SHARING s_j(x, z) / D.

This is the dual form of a linear policy with a bias for every cell (the 1) and a term for every
pair of cells of two decisions (s_j: how alike x and z are in the decisions before j, each 0 to 1;
D: how many decisions are active on average). SHARING shrinks the pairs against the biases, so that
dependence is learned only where it shows. Training changes the coefficients A of the past points
x_i. G_j lets neighbouring cells of a range learn from each other. A decision that is not active is
not drawn, moves no logit and gets no gradient.

With the residual e_j(x) = onehot(x_j) - pi_j(. | x), the gradient of log pi(x) with respect to A_ij
is k_j(x, x_i) e_j(x) G_j, and the scalar product of the scores of two points, in the coordinates
of the linear policy, is sum_j k_j(x, z) e_j(x) G_j e_j(z).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.intp]  # the cell of every decision, -1 where it is not active

PARTS = 16  # cells of a range
SHARING = 1.5  # of pairs of decisions, against 1 of every decision alone
_WIDTH = 0.1  # deviation of the likeness of neighbours, in units of the range


@dataclass(frozen=True, eq=False)
class Head:
    """How one decision is drawn: logarithm of the prior [C]; `ordered`: neighbours are alike.

    `parents`: earlier heads, and which of their cells [C'] make this one active.
    """

    base: Floats
    ordered: bool = False
    parents: tuple[tuple[int, npt.NDArray[np.bool_]], ...] = ()

    @cached_property
    def likeness(self) -> Floats:
        """G [C, C]: 1 on the diagonal; of neighbours by a normal kernel, of words 0."""
        count = len(self.base)
        if not self.ordered:
            return np.eye(count)
        middles = (np.arange(count) + 0.5) / count
        gaps = (middles[:, None] - middles) / _WIDTH
        likeness: Floats = np.exp(-0.5 * gaps**2)
        return likeness

    @cached_property
    def padded(self) -> Floats:
        """G with a last row and column of zeros, for what is not active: [C + 1, C + 1]."""
        return np.pad(self.likeness, (0, 1))

    @cached_property
    def allowing(self) -> list[tuple[int, npt.NDArray[np.bool_]]]:
        """`parents`, with one more cell that does not: that of code -1, not active."""
        return [(parent, np.append(allowed, False)) for parent, allowed in self.parents]


@dataclass(frozen=True, eq=False)
class Heads:
    """The decisions in the order in which they are drawn; those before `first` are given."""

    all: Sequence[Head]
    first: int = 0

    @cached_property
    def borders(self) -> list[int]:
        """Where the cells of each head begin among all, and the end: [D + 1]."""
        return [0, *np.cumsum([len(h.base) for h in self.all]).tolist()]

    @cached_property
    def depth(self) -> float:
        """How many decisions between options are active on average, by the priors; at least 1."""
        active: list[float] = []
        for head in self.all:
            share = 1.0
            for parent, allowed in head.parents:
                share *= active[parent] * float(np.exp(self.all[parent].base)[allowed].sum())
            active.append(share)
        return max(1.0, sum(a for a, h in zip(active, self.all, strict=True) if len(h.base) > 1))

    def cells(self, j: int) -> slice:
        """The cells of head `j` among all."""
        return slice(self.borders[j], self.borders[j + 1])

    def is_active(self, j: int, points: Codes) -> npt.NDArray[np.bool_]:
        """Of each of `points` [m, D], known up to `j`: whether head `j` takes part, [m]."""
        parents = self.all[j].allowing
        if not parents:
            return np.ones(len(points), dtype=bool)
        first, allowed = parents[0]
        out = allowed.take(points[:, first])
        for parent, allowed in parents[1:]:
            out &= allowed.take(points[:, parent])
        return out

    @cached_property
    def weighted(self) -> list[Floats]:
        """What a cell adds to the kernels of later heads if a past point has another: see `_walk`.

        SHARING G / D of each head, padded.
        """
        return [SHARING / self.depth * head.padded for head in self.all]


@dataclass(frozen=True, eq=False)
class Policy:
    """Past points [n, D] and their coefficients [n, F] over all F cells."""

    heads: Heads
    points: Codes
    coefficients: Floats

    def logits(self, j: int, shared: Floats) -> Floats:
        """Of head `j`: [m, C], where `shared` [m, n] is k_j to the past points."""
        head = self.heads.all[j]
        learned = shared @ self.coefficients[:, self.heads.cells(j)]
        out: Floats = head.base + (learned @ head.likeness if head.ordered else learned)
        return out


class Scores(NamedTuple):
    """Of the past points: log pi_j [n, D], residuals e [n, F], products of the scores [n, n].

    Where a decision is not active both are 0.
    """

    log_probabilities: Floats
    residuals: Floats
    products: Floats


Kernel = tuple[int, npt.NDArray[np.intp], Floats]  # a head j, the rows [r] that have it, k_j [r, n]


class Kernels:
    """Every head that some of the past points have with its kernel, and where their cells are.

    The logits of all heads, [r, C] of each, are one array after the other: of the P pairs of a head
    and a row that has it, pair p has `sizes[p]` cells from `starts[p]` on and code `chosen[p]`.
    """

    def __init__(self, policy: Policy) -> None:
        heads, points = policy.heads, policy.points
        # The walk goes on in its array, so what is all of it is copied.
        self.of_heads = [(j, rows, shared.copy()) for j, rows, shared in _walk(policy, points)]
        counts = [len(rows) for _, rows, _ in self.of_heads]
        self.heads = np.repeat([j for j, _, _ in self.of_heads], counts).astype(np.intp)
        self.rows = np.concatenate([np.empty(0, np.intp), *(rows for _, rows, _ in self.of_heads)])
        borders = np.array(heads.borders)
        self.sizes = np.diff(borders)[self.heads]
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.chosen = self.starts + points[self.rows, self.heads]
        # Of each cell its place among the residuals [n, F].
        first = self.rows * borders[-1] + borders[self.heads] - self.starts
        self.places = np.repeat(first, self.sizes) + np.arange(self.sizes.sum())


def untrained(heads: Heads) -> Policy:
    """The policy that follows the priors."""
    points = np.empty((0, len(heads.all)), dtype=np.intp)
    return Policy(heads, points, np.empty((0, heads.borders[-1])))


def log_probability(policy: Policy, points: Codes) -> Floats:
    """log pi of `points` [m, D]: [m]. Within the cells of ranges the density is left out."""
    out = np.zeros(len(points))
    for j, rows, shared in _walk(policy, points):
        logs = log_softmax(policy.logits(j, shared))
        out[rows] += logs[np.arange(len(logs)), points[rows, j]]
    return out


def scores(policy: Policy) -> Scores:
    """The scores of the past points; see the module."""
    points, heads, known = policy.points, policy.heads, Kernels(policy)
    n = len(points)
    logs, residuals = np.zeros(points.shape), np.zeros((n, heads.borders[-1]))
    products = np.zeros((n, n))
    logs[known.rows, known.heads], residuals.ravel()[known.places] = residuals_of(policy, known)
    for j, rows, shared in known.of_heads:
        head, e = heads.all[j], residuals[:, heads.cells(j)]
        if len(rows) == n:
            products += shared * ((e @ head.likeness if head.ordered else e) @ e.T)
        else:
            e = e[rows]
            pairs = (e @ head.likeness if head.ordered else e) @ e.T
            products[rows[:, None], rows] += shared[:, rows] * pairs
    return Scores(logs, residuals, products)


def residuals_of(policy: Policy, known: Kernels) -> tuple[Floats, Floats]:
    """log pi_j of the pairs [P] of `known`, which may be of other coefficients, and the residuals
    of all their cells."""
    if not known.of_heads:
        return np.empty(0), np.empty(0)
    logits = np.concatenate([policy.logits(j, k).ravel() for j, _, k in known.of_heads])
    shifted = logits - np.repeat(np.maximum.reduceat(logits, known.starts), known.sizes)
    p = np.exp(shifted)
    total = np.add.reduceat(p, known.starts)
    residuals = -p / np.repeat(total, known.sizes)
    residuals[known.chosen] += 1.0
    return shifted[known.chosen] - np.log(total), residuals


def draw(
    policy: Policy,
    given: Codes,
    count: int,
    rng: np.random.Generator,
    temperature: float = 1.0,
) -> Codes:
    """`count` points [count, D] beside the `given` codes [first] of the decisions before."""
    heads = policy.heads
    out = np.full((count, len(heads.all)), -1, dtype=np.intp)
    out[:, : heads.first] = given
    for j, rows, shared in _walk(policy, out, drawing=True):
        logits = policy.logits(j, shared) / temperature
        out[rows, j] = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return out


def conditional(policy: Policy, j: int, point: Codes) -> Floats:
    """pi_j(. | x) of head `j`, given what `point` [D] has before it: [C]."""
    before = np.where(np.arange(len(point)) < j, point, -1)
    before[j] = 0  # whichever: what is asked is what comes before
    logits = policy.heads.all[j].base[None]
    for at, _, shared in _walk(policy, before[None]):
        if at == j:
            logits = policy.logits(j, shared)
    out: Floats = np.exp(log_softmax(logits))[0]
    return out


def _walk(policy: Policy, points: Codes, drawing: bool = False) -> Iterator[Kernel]:
    """Every head j from the first in order, the rows [r] of `points` with it, and k_j [r, n].

    While `drawing`, the conditions say who has it, and `points` are filled on the way: a head is
    read when the next one is asked for.
    """
    heads, past = policy.heads, policy.points
    shared = np.ones((len(points), len(past)))
    present, known = points >= 0, past >= 0
    counts, known_counts = present.sum(axis=0).tolist(), known.sum(axis=0).tolist()
    everyone = np.arange(len(points))
    for j, head in enumerate(heads.all):
        active, count = present[:, j], counts[j]
        if drawing and j >= heads.first:
            count = len(points)
            if head.parents:
                active = heads.is_active(j, points)
                count = np.count_nonzero(active)
        if not count:
            continue
        everywhere = count == len(points)
        rows = everyone if everywhere else active.nonzero()[0]
        if j >= heads.first:
            yield j, rows, shared if everywhere else shared[rows]
        if len(head.base) == 1 or not known_counts[j]:
            continue
        # Code -1, not active, takes the last row or column, which are 0: it adds nothing.
        shared += heads.weighted[j].take(past[:, j], axis=1).take(points[:, j], axis=0)


def log_softmax(logits: Floats) -> Floats:
    """Over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    out: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return out
