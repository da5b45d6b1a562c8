"""A forest of regression trees, all grown at once with matrix products.

Every split is on one bit of a point: whether a feature is above a threshold, which are quantiles of
what was seen. The gains of all bits in all nodes of a level are two matrix products of the bits
with where the points are, so that a forest takes milliseconds. Trees are grown from bootstrap
samples, with `BITS` of the bits each: half of them the best at the root, half drawn (Breiman 2001;
Hutter et al. 2011, "Sequential model-based optimization for general algorithm configuration", for
what a forest believes of a point).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from adanet_py.controllers.columns import Bools, Floats

TREES = 20
DEPTH = 6  # splits on the way to a leaf, at most
BITS = 32  # that a tree may split on
LEAST = 2.0  # points of a leaf, at least
THRESHOLDS = 8  # of a feature, at most
UPWARD = 0.5  # points of the mean of a leaf's parent in that of the leaf

Ints = npt.NDArray[np.intp]


class Forest:
    """Trees grown from features [n, F] and rewards [n]."""

    def __init__(self, features: Floats, rewards: Floats, rng: np.random.Generator) -> None:
        self._feature, self._threshold = _bits(features)
        bits = self._bits_of(features)
        n = len(features)
        times = rng.multinomial(n, np.full(n, 1.0 / n), size=TREES).astype(np.float64)  # [T, n]
        seen = _chosen(bits.astype(np.float64), rewards, times, rng)  # [T, B]
        of_tree = bits.T[seen].transpose(0, 2, 1).astype(np.float64)  # [T, n, B]
        nodes = 2 ** (DEPTH + 1) - 1  # the children of node i are 2 i + 1 and 2 i + 2
        self._split = np.full((TREES, nodes), -1, dtype=np.intp)  # bit of a node, -1: leaf
        self._mean, self._variance = np.zeros((TREES, nodes)), np.zeros((TREES, nodes))
        at = np.zeros((TREES, n), dtype=np.intp)  # node of each point
        above = (times @ rewards / n)[:, None]
        for level in range(DEPTH + 1):
            first, wide = 2**level - 1, 2**level
            inside = np.zeros((TREES, wide, n))
            rows, points = np.nonzero(at >= first)
            inside[rows, at[rows, points] - first, points] = times[rows, points]
            count, total = inside.sum(axis=2), inside @ rewards
            mean = (total + UPWARD * above) / (count + UPWARD)
            some = np.maximum(count, 1.0)
            spread = inside @ (rewards * rewards) / some - (total / some) ** 2
            here = slice(first, first + wide)
            self._mean[:, here], self._variance[:, here] = mean, np.maximum(spread, 0.0)
            if level == DEPTH:
                break
            right, above_right = inside @ of_tree, (inside * rewards) @ of_tree  # [T, nodes, B]
            gain = _gain(count[..., None], total[..., None], right, above_right)
            best = gain.argmax(axis=2)
            able = np.take_along_axis(gain, best[..., None], axis=2)[..., 0] > -np.inf
            self._split[:, here] = np.where(able, np.take_along_axis(seen, best, axis=1), -1)
            above = np.repeat(mean, 2, axis=1)
            at = self._down(at, bits)
        # For the way to a leaf all nodes of all trees are numbered through. Of each its bit, and
        # where it leads: two places per node, which are the node itself where it is a leaf.
        own = np.arange(TREES * nodes)
        inner = self._split.ravel() >= 0
        step = 2 * (own % nodes) + 1 + own // nodes * nodes
        self._bit = np.where(inner, self._split.ravel(), 0)
        self._next = np.where(inner[:, None], step[:, None] + [0, 1], own[:, None]).ravel()
        self._roots = (np.arange(TREES) * nodes)[:, None]

    def leaves(self, features: Floats) -> Ints:
        """The leaf [T, m] of points with features [m, F] in every tree."""
        bits = self._bits_of(features)
        if not bits.size:
            return np.zeros((TREES, len(features)), dtype=np.intp)
        first = np.arange(len(bits)) * bits.shape[1]  # of a point's bits among all
        flat, at = bits.ravel(), np.repeat(self._roots, len(bits), axis=1)
        for _ in range(DEPTH):
            at = self._next.take(2 * at + flat.take(first + self._bit.take(at)))
        return at - self._roots

    def at(self, leaves: Ints) -> tuple[Floats, Floats]:
        """Means and variances [m] of points in `leaves` [T, m]: of the mixture of the trees."""
        trees = np.arange(TREES)[:, None]
        means = self._mean[trees, leaves]
        return means.mean(axis=0), means.var(axis=0) + self._variance[trees, leaves].mean(axis=0)

    def _bits_of(self, features: Floats) -> Bools:
        """Bits [m, B] of points."""
        out: Bools = features[:, self._feature] > self._threshold
        return out

    def _down(self, at: Ints, bits: Bools) -> Ints:
        """The next nodes [T, m] of points with `bits` [m, B]."""
        bit = self._split[np.arange(TREES)[:, None], at]
        right = bits[np.arange(len(bits)), bit]
        return np.where(bit >= 0, 2 * at + 1 + right, at)


def _bits(features: Floats) -> tuple[Ints, Floats]:
    """Which feature and threshold each bit is of; none of a feature that is always the same."""
    ranked = np.sort(features, axis=0)
    rows = np.linspace(0, len(ranked), THRESHOLDS, endpoint=False).astype(np.intp)
    quantiles = ranked[rows].T  # [F, thresholds]
    new = quantiles < ranked[-1][:, None]
    new[:, 1:] &= quantiles[:, 1:] > quantiles[:, :-1]
    owners, _ = np.nonzero(new)
    return owners, quantiles[new]


def _gain(count: Floats, total: Floats, right: Floats, total_right: Floats) -> Floats:
    """How much less the squared error is after a split, but for a constant; -inf: too few points.

    With n points and a sum s the least squared error is sum y^2 - s^2 / n.
    """
    left, total_left = count - right, total - total_right
    able = (left >= LEAST) & (right >= LEAST)
    gain = total_left**2 / np.maximum(left, 1.0) + total_right**2 / np.maximum(right, 1.0)
    return np.where(able, gain, -np.inf)


def _chosen(bits: Floats, rewards: Floats, times: Floats, rng: np.random.Generator) -> Ints:
    """The bits of every tree, [T, `BITS`] or all: half the best at the root, half drawn."""
    count, total = times.sum(axis=1)[:, None], (times @ rewards)[:, None]
    gain = _gain(count, total, times @ bits, (times * rewards) @ bits)
    lot = rng.random(gain.shape)
    best = np.argsort(-gain, axis=1, kind="stable")[:, : BITS // 2]
    np.put_along_axis(lot, best, -1.0, axis=1)
    return np.sort(np.argsort(lot, axis=1, kind="stable")[:, :BITS], axis=1)
