"""Bayesian optimisation with a Gaussian process (process.py) and expected improvement
(acquisition.py).

The process is fitted to the normal quantiles of the ranks of the rewards. What is to be improved on
is the best of these, by a result with its noise (acquisition.py says why): on fifteen tables, 8
seeds, in batches of 16, this left a validation regret of .088 after 200 results, and the largest
mean of a point tried with the variance alone .117 (paired difference -.029 +- .011). One at a time
(eight tables, 5 seeds) 13 games were better and 6 worse, the mean the same.

The first results lie far apart. A call costs the same however long the history is: at most
`REMEMBERED` results are used.
Hyperparameters are fitted when there are 5, 6, 7, 8, 10, 12, 15 ... results, each number a quarter
more than the last, from where they were before, and hold until the next. So they are a function of
the history, and a search that is resumed finds the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import NamedTuple
from weakref import WeakKeyDictionary

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
from adanet_py.controllers.families import LARGEST
from adanet_py.controllers.features import Features, features_of
from adanet_py.controllers.ledger import common
from adanet_py.controllers.likelihood import fit, kernel_of
from adanet_py.controllers.process import Beliefs, Posterior, posterior_of
from adanet_py.records import Candidate, History, Result
from adanet_py.space import SearchSpace

REMEMBERED = 256  # results a posterior is computed from
FITTED = 200  # results hyperparameters are fitted to
GROWTH = 1.25  # of the number of results at which hyperparameters are fitted anew
ALONE = Effort(drawn=64, bases=8, rounds=1, nearest=8, changes=12)  # for one proposal
TOGETHER = Effort(drawn=300, bases=20, rounds=3, nearest=10, changes=15)  # that `LARGEST` share
_KEPT = 64  # fits remembered of a space


class _Fitted(NamedTuple):
    """Hyperparameters [P] fitted to the first results of some history."""

    results: tuple[Result, ...]
    theta: Floats


_FITTED: WeakKeyDictionary[SearchSpace, tuple[_Fitted, ...]] = WeakKeyDictionary()


def propose(
    space: SearchSpace, history: History, n: int, rng: np.random.Generator
) -> list[Candidate]:
    """The points of largest expected improvement, a program and its settings; see the module."""
    columns = columns_of(space)
    known = tried(space, history, REMEMBERED)
    done = ~np.isnan(known.rewards)
    if done.sum() < STARTS:
        return explore(space, history, n, rng)
    features = features_of(columns)
    x = features(known.points[done])
    kernel = kernel_of(features, hyperparameters(space, history))
    posterior = posterior_of(kernel, x, rewards := known.rewards[done])
    means, model = posterior.smoothed(rewards), Process(features, posterior)
    best = float(rewards.max())
    search = Search(columns, model, known, means, effort_of(n), rng, best, kernel.noise)
    return propose_by(search, space, history, n, rng)


def effort_of(n: int) -> Effort:
    """What `n` proposals of a call are worth, so that each costs about the same."""
    share = min(1.0, max(0, n - 1) / (LARGEST - 1))
    pairs = zip(astuple(ALONE), astuple(TOGETHER), strict=True)
    return Effort(*(round(a + share * (b - a)) for a, b in pairs))


class Process(NamedTuple):
    """The posterior as a model of points."""

    features: Features
    posterior: Posterior

    def at(self, points: Floats) -> Beliefs:
        """Beliefs about `points` [m, D]."""
        return self.posterior.at(self.features(points))

    def assume(self, points: Floats) -> Process:
        """The same means, with the variances after measuring `points` [m, D]."""
        return Process(self.features, self.posterior.assume(self.features(points)))


def hyperparameters(space: SearchSpace, history: History) -> Floats:
    """What was fitted last, see the module; a memory of it saves time only."""
    results, sizes = history.results, [STARTS]
    while (more := max(sizes[-1] + 1, int(sizes[-1] * GROWTH))) <= len(results):
        sizes.append(more)
    last, theta = _longest(_FITTED.get(space, ()), results, sizes)
    features = features_of(columns_of(space))
    for m in [m for m in sizes if m > last]:
        known = tried(space, History(results[:m]), FITTED)
        theta = fit(features, features(known.points), known.rewards, theta)
        _FITTED[space] = (_Fitted(results[:m], theta), *_FITTED.get(space, ())[: _KEPT - 1])
    assert theta is not None  # there is at least one size
    return theta


def _longest(
    fits: Sequence[_Fitted], results: Sequence[Result], sizes: Sequence[int]
) -> tuple[int, Floats | None]:
    """The largest of `sizes` that there is a fit of, with its hyperparameters; 0 if there is none.

    One of these results: the first `sizes[i]` of them are the same objects.
    """
    found: tuple[int, Floats | None] = 0, None
    for known in fits:
        m = len(known.results)
        if found[0] < m <= sizes[-1] and m in sizes and common(known.results, results) == m:
            found = m, known.theta
        if found[0] == sizes[-1]:
            break
    return found
