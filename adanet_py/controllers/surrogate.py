"""Expected improvement (acquisition.py) by a forest of regression trees (forest.py).

As SMAC has it (Hutter et al. 2011, "Sequential model-based optimization for general algorithm
configuration"). A forest needs no smoothness and does not mind decisions that do not matter. Two
points are alike, for what is pending and within a batch, as far as they share leaves: the variance
of a point is that of the forest times one minus the squared share of trees in which it is in the
leaf of an assumed one.

At most `REMEMBERED` results are used. The first lie far apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adanet_py.controllers.acquisition import (
    STARTS,
    Effort,
    Search,
    explore,
    propose_by,
    tried,
)
from adanet_py.controllers.columns import Floats, columns_of
from adanet_py.controllers.features import Features, features_of
from adanet_py.controllers.forest import Forest, Ints
from adanet_py.records import Candidate, History
from adanet_py.space import SearchSpace

REMEMBERED = 100  # results a forest is grown from
EFFORT = Effort(drawn=100, bases=8, rounds=2, nearest=5, changes=10)
_LEAST = 1e-6  # variance of a point


def propose(
    space: SearchSpace, history: History, n: int, rng: np.random.Generator
) -> list[Candidate]:
    """The points of largest expected improvement, a program and its settings; see the module."""
    columns = columns_of(space)
    known = tried(space, history, REMEMBERED)
    done = ~np.isnan(known.rewards)
    features = features_of(columns)
    x = features(known.points[done])
    if len(x) < STARTS or (x == x[0]).all():  # nothing to split on
        return explore(space, history, n, rng)
    forest = Forest(x, known.rewards[done], rng)
    means, _ = forest.at(forest.leaves(x))
    model = Trees(features, forest, forest.leaves(x[:0]))
    return propose_by(Search(columns, model, known, means, EFFORT, rng), space, history, n, rng)


@dataclass(frozen=True)
class Trees:
    """A forest as a model of points; `assumed` are the leaves [T, k] of what is pending."""

    features: Features
    forest: Forest
    assumed: Ints

    def at(self, points: Floats) -> Shared:
        """Beliefs about `points` [m, D]."""
        leaves = self.forest.leaves(self.features(points))
        mean, variance = self.forest.at(leaves)
        out = Shared(leaves, mean, np.maximum(variance, _LEAST))
        for leaf in self.assumed.T:
            out.share(leaf)
        return out

    def assume(self, points: Floats) -> Trees:
        """The same means, with the variances after measuring `points` [m, D]."""
        leaves = self.forest.leaves(self.features(points))
        return Trees(self.features, self.forest, np.hstack([self.assumed, leaves]))


class Shared:
    """Beliefs about points in `leaves` [T, m]."""

    def __init__(self, leaves: Ints, mean: Floats, variance: Floats) -> None:
        self._leaves, self.mean, self.variance = leaves, mean, variance

    def join(self, others: Sequence[Shared]) -> Shared:
        """Beliefs of the same forest about the points of all."""
        every = [self, *others]
        return Shared(
            np.hstack([b._leaves for b in every]),
            np.concatenate([b.mean for b in every]),
            np.concatenate([b.variance for b in every]),
        )

    def assume(self, place: int) -> None:
        """Change the variances as if the point at `place` had been measured at its mean."""
        self.share(self._leaves[:, place])

    def share(self, leaf: Ints) -> None:
        """As `assume`, of a point in `leaf` [T]."""
        shared = (self._leaves == leaf[:, None]).mean(axis=0)
        self.variance = np.maximum(self.variance * (1.0 - shared**2), _LEAST)
