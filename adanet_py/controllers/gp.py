"""Bayesian optimisation with a Gaussian process (process.py) and expected improvement.

Rewards are replaced by the normal quantiles of their ranks, the process is fitted to them, and of
many points the one with the largest expected improvement is proposed:

- What is improved on is the largest posterior mean at a point already tried, not the largest
  reward, which noise flatters (Letham et al. 2019, arXiv 1706.07094, call it the plug-in).
- What is pending or was chosen in this batch counts as measured at its posterior mean: the
  improvement near it shrinks, so that a batch spreads (the kriging believer; Ginsbourger et al.
  2010, "Kriging is well-suited to parallelize optimization").
- The points are draws from the prior, changes of the best points tried, and in rounds changes of
  the best points so far: a local search that can take any kind of decision.

The first results come from `quasi_random`. A call costs the same however long the history is: at
most `REMEMBERED` results are used. Hyperparameters are fitted to the first 5, 6, 7, 8, 9, 11 ...
results, each number a tenth more than the last, and remembered until the next is reached.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from adanet_py.controllers import quasi_random
from adanet_py.controllers.columns import Columns, Floats, columns_of
from adanet_py.controllers.families import Proposal, propose_family_by_family
from adanet_py.controllers.features import Features, features_of
from adanet_py.controllers.improvement import log_expected_improvement
from adanet_py.controllers.points import Places, points_of
from adanet_py.controllers.process import Beliefs, Kernel, Posterior, fit
from adanet_py.controllers.scored import scored
from adanet_py.records import Candidate, History, Scalar
from adanet_py.space import SearchSpace, fill

STARTS = 5  # usable results before there is a model
REMEMBERED = 400  # results a posterior is computed from
FITTED = 200  # results hyperparameters are fitted to
DRAWN = 300  # points drawn from the prior
BASES = 20  # best points that are changed
CHANGES = 15  # changes of each
ROUNDS = 3  # of local search
NEAREST = 10  # best points of a round, each changed CHANGES times
GROWTH = 1.1  # of the number of results at which hyperparameters are fitted anew
_KEPT = 64  # kernels remembered

_KERNELS: OrderedDict[bytes, Kernel] = OrderedDict()


def propose(
    space: SearchSpace, history: History, n: int, rng: np.random.Generator
) -> list[Candidate]:
    """The points of largest expected improvement, a program and its settings; see the module."""
    columns = columns_of(space)
    rows = scored(history)
    found = [(columns.place_of(space, c), y) for c, y in zip(*rows, strict=True)]
    known = [(place.point, y) for place, y in found if place is not None]
    tried = np.array([point for point, _ in known]).reshape(len(known), len(space.decisions))
    rewards = np.array([y for _, y in known])
    if np.isfinite(rewards).sum() < STARTS:
        return quasi_random.propose(space, history, n, rng)
    search = Search(columns, tried, rewards, rng)

    def draw(program: Mapping[str, Scalar] | None, anchor: Mapping[str, Scalar] | None) -> Proposal:
        point = search.next(columns.encode(program or {}))
        if point is None:
            return fill(space, program or {}, rng), None, None
        return columns.decode(point), None, None

    return propose_family_by_family(space, history, n, rng, draw)


class Search:
    """The next points to try, given points `tried` [n, D] and `rewards` [n], NaN while pending."""

    def __init__(
        self, columns: Columns, tried: Floats, rewards: Floats, rng: np.random.Generator
    ) -> None:
        self._points, self._features, self._rng = points_of(columns), features_of(columns), rng
        self._taken = set(self._points.keys(tried).tolist())
        done = np.isfinite(rewards)
        kernel = kernel_of(self._features, tried[done], rewards[done])
        kept = remembered(rewards[done], REMEMBERED)
        bases, x = tried[done][kept], self._features(tried[done][kept])
        self._posterior = Posterior(kernel, x, transformed(rewards[done])[kept])
        mean = self._posterior.at(x).mean
        self._best = float(mean.max())
        self._bases = bases[np.argsort(-mean, kind="stable")[:BASES]]
        self._assumed = tried[~done]
        self._pools: dict[bytes, _Pool] = {}

    def next(self, given: Floats) -> Floats | None:
        """The best new point [D] with what is not NaN of `given` [D]; None if none was found."""
        key = given.tobytes()
        if key not in self._pools:
            self._pools[key] = self._pool(given)
        pool = self._pools[key]
        for place in np.argsort(-pool.score(self._best), kind="stable"):
            if pool.keys[place] not in self._taken:
                break
        else:
            return None
        self._taken.add(pool.keys[place])
        pool.beliefs.assume(place)
        self._assumed = np.vstack([self._assumed, pool.points[place]])
        return pool.points[place]

    def _pool(self, given: Floats) -> _Pool:
        """Points that have what is `given`, with beliefs about them."""
        points, rng = self._points, self._rng
        posterior = self._posterior.assume(self._features(self._assumed))

        def pool_of(found: Floats) -> _Pool:
            keys, first = np.unique(points.keys(found), return_index=True)
            found = found[first]
            return _Pool(found, keys, posterior.at(self._features(found)))

        bases = points.move_to(given, self._bases, rng)
        near = points.change(np.repeat(bases, CHANGES, axis=0), given, rng)
        pool = pool_of(np.vstack([points.draw(DRAWN, given, rng), near]))
        for _ in range(ROUNDS):
            top = pool.points[np.argsort(-pool.score(self._best), kind="stable")[:NEAREST]]
            near = points.change(np.repeat(top, CHANGES, axis=0), given, rng)
            pool += pool_of(near[~np.isin(points.keys(near), pool.keys)])
        return pool


class _Pool(NamedTuple):
    points: Floats  # [m, D]
    keys: Floats  # [m]
    beliefs: Beliefs

    def score(self, best: float) -> Floats:
        return log_expected_improvement(self.beliefs.mean, self.beliefs.variance, best)

    def __add__(self, other: _Pool) -> _Pool:  # type: ignore[override]
        return _Pool(
            np.vstack([self.points, other.points]),
            np.append(self.keys, other.keys),
            self.beliefs + other.beliefs,
        )


def transformed(rewards: Floats) -> Floats:
    """The normal quantiles of the ranks of rewards [n], with mean 0 and variance 1.

    So the worst, of which there is no end where networks diverge, cannot hide what is near the best
    (Salinas et al. 2020, "A quantile-based approach for hyperparameter transfer learning").
    """
    from scipy.special import ndtri
    from scipy.stats import rankdata

    y = ndtri((rankdata(rewards) - 0.5) / len(rewards))
    return (y - y.mean()) / max(float(y.std()), 1e-12)


def remembered(rewards: Floats, most: int) -> Places:
    """Places of at most `most` of `rewards` [n]: the best half, the latest quarter, some others."""
    n = len(rewards)
    if n <= most:
        return np.arange(n)
    kept = np.zeros(n, dtype=bool)
    kept[np.argsort(-rewards, kind="stable")[: most // 2]] = True
    kept[np.flatnonzero(~kept)[-(most // 4) :]] = True
    rest = np.flatnonzero(~kept)
    evenly = np.linspace(0, len(rest) - 1, most - int(kept.sum())).round().astype(np.intp)
    kept[rest[evenly]] = True
    return np.flatnonzero(kept)


def kernel_of(features: Features, tried: Floats, rewards: Floats) -> Kernel:
    """The kernel of the first of the results [n], see the module; a memory saves time only."""
    m = STARTS
    while (following := max(m + 1, int(m * GROWTH))) <= len(rewards):
        m = following
    kept = remembered(rewards[:m], FITTED)
    content = tried[:m][kept].tobytes() + rewards[:m].tobytes() + features.factor.tobytes()
    key = hashlib.sha256(content).digest()
    if key not in _KERNELS:
        x, y = features(tried[:m][kept]), transformed(rewards[:m])[kept]
        _KERNELS[key] = fit(features, x, y)
        while len(_KERNELS) > _KEPT:
            _KERNELS.popitem(last=False)
    return _KERNELS[key]
