"""Bayesian optimisation with a Gaussian process (process.py) and expected improvement
(acquisition.py).

The process is fitted to the normal quantiles of the ranks of the rewards. The first results lie far
apart. A call costs the same however long the history is: at most `REMEMBERED` results are used.
Hyperparameters are fitted when there are 5, 6, 7 ... 20, 22, 24, 26 ... results, each number a
tenth more than the last, and hold until the next.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
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
from adanet_py.controllers.features import Features, features_of
from adanet_py.controllers.process import Beliefs, Kernel, Posterior, fit
from adanet_py.records import Candidate, History
from adanet_py.space import SearchSpace

REMEMBERED = 256  # results a posterior is computed from
FITTED = 200  # results hyperparameters are fitted to
GROWTH = 1.1  # of the number of results at which hyperparameters are fitted anew
EFFORT = Effort(drawn=300, bases=20, rounds=3, nearest=10, changes=15)
_KEPT = 64  # kernels remembered of a space

_KERNELS: WeakKeyDictionary[SearchSpace, OrderedDict[bytes, Kernel]] = WeakKeyDictionary()


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
    model = Process(features, Posterior(kernel_of(space, history), x, known.rewards[done]))
    return propose_by(Search(columns, model, known, EFFORT, rng), space, history, n, rng)


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


def kernel_of(space: SearchSpace, history: History) -> Kernel:
    """The kernel fitted to the first results, see the module; a memory of it saves time only."""
    m = STARTS
    while (more := max(m + 1, int(m * GROWTH))) <= len(history.results):
        m = more
    first = history.results[:m]
    digest = hashlib.sha256(np.array([r.score for r in first]).tobytes())
    digest.update("".join([r.candidate.id for r in first]).encode())
    kernels = _KERNELS.setdefault(space, OrderedDict())
    key = digest.digest()
    if key not in kernels:
        known, features = tried(space, History(first), FITTED), features_of(columns_of(space))
        kernels[key] = fit(features, features(known.points), known.rewards)
        while len(kernels) > _KEPT:
            kernels.popitem(last=False)
    return kernels[key]
