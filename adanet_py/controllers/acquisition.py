"""Where a model of the rewards expects the largest improvement: a search over points.

What is improved on, and by what, is the model's to say. Of the forest it is the largest mean at a
point already tried, not the largest reward, which noise flatters (the plug-in; Picheny et al. 2013,
"A benchmark of kriging-based infill criteria for noisy optimization"). Of the process, which knows
how much noise there is, it is the largest reward itself, and what may surpass it is a result, noise
included: what a search keeps is the candidate of the best result, most of the noise is its own, and
no point is measured twice. The points are draws from the prior, changes of the best
points tried, and in rounds changes of the best points so far: a local search that can take any
kind of decision. Of a batch, each is chosen as if those before it, and what is pending, had been
measured at their means (the kriging believer; Ginsbourger et al. 2010, "Kriging is well-suited to
parallelize optimization"), so that a batch spreads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import numpy as np

from adanet_py.controllers.columns import Columns, Floats, columns_of
from adanet_py.controllers.families import Proposal, propose_family_by_family
from adanet_py.controllers.features import features_of
from adanet_py.controllers.improvement import log_expected_improvement
from adanet_py.controllers.points import Places, points_of
from adanet_py.controllers.scored import scored
from adanet_py.records import Candidate, History, Scalar
from adanet_py.space import SearchSpace, fill

STARTS = 5  # results before there is a model
DRAWN = 16  # points of which one is taken at the start


class Beliefs(Protocol):
    """Means and variances [m] of points."""

    mean: Floats
    variance: Floats

    def join(self, others: Sequence[Self]) -> Self:
        """Beliefs of the same model about the points of all."""

    def assume(self, place: int) -> None:
        """Change the variances as if the point at `place` had been measured at its mean."""


class Model(Protocol):
    """What is known of the reward of every point."""

    def at(self, points: Floats) -> Beliefs:
        """Beliefs about `points` [m, D]."""

    def assume(self, points: Floats) -> Model:
        """The same means, with the variances after measuring `points` [m, D]."""


@dataclass(frozen=True)
class Effort:
    """How many points are looked at."""

    drawn: int  # points drawn from the prior
    bases: int  # best points tried that are changed
    rounds: int  # of local search
    nearest: int  # best points of a round that are changed
    changes: int  # of each base or best point


class Tried(NamedTuple):
    """Points [n, D] that have a place in the space and their rewards [n], NaN while pending."""

    points: Floats
    rewards: Floats


def tried(space: SearchSpace, history: History, most: int) -> Tried:
    """What the history says of points of the space: `most` results, with rewards `transformed` as
    all of them are, and all that is pending."""
    columns = columns_of(space)
    rows = scored(space, history)
    rewards = transformed(rows.rewards)
    kept = np.append(remembered(rewards, most), np.flatnonzero(np.isnan(rewards)))
    places = [columns.place_of(space, rows.candidates[int(i)]) for i in kept]
    found = [i for i, place in zip(kept, places, strict=True) if place is not None]
    points = [place.point for place in places if place is not None]
    empty = np.empty((0, len(space.decisions)))
    return Tried(np.array(points) if points else empty, rewards[found])


def propose_by(
    search: Search, space: SearchSpace, history: History, n: int, rng: np.random.Generator
) -> list[Candidate]:
    """The best points of a search, as families."""
    columns = columns_of(space)

    def draw(program: Mapping[str, Scalar] | None, anchor: Mapping[str, Scalar] | None) -> Proposal:
        point = search.next(columns.encode(program or {}))
        if point is None:
            return fill(space, program or {}, rng), None, None
        return columns.decode(point), None, None

    return propose_family_by_family(space, history, n, rng, draw)


def explore(
    space: SearchSpace, history: History, n: int, rng: np.random.Generator
) -> list[Candidate]:
    """Points far from all tried: of `DRAWN` draws from the prior, and of the corners that nobody
    has, the one whose nearest is farthest. For the start, when there is no model.

    (Best-candidate sampling; Mitchell 1991, "Spectrally optimal sampling for distribution ray
    tracing".) Distances are those of features. A corner (see there) is a draw in which decisions
    between the same words all choose one of them, every operation of a cell the same: for what such
    decisions have in common, the shares of the words, the corners are the design that tells most
    (Scheffe 1958, "Experiments with mixtures"), and draws hardly ever come near them.
    """
    columns = columns_of(space)
    points, features = points_of(columns), features_of(columns)
    known = tried(space, history, STARTS).points
    seen = features(known)

    def draw(program: Mapping[str, Scalar] | None, anchor: Mapping[str, Scalar] | None) -> Proposal:
        nonlocal seen, known
        found = points.draw(DRAWN, rng)
        if program is None:
            corners = [corner for corner in features.corners if not _has(known, *corner)]
            extreme = points.draw(len(corners), rng)
            for i, place in enumerate(rng.permutation(len(corners))):  # the first of equals wins
                at, codes = corners[place]
                extreme[i, at] = codes
            found = np.vstack([extreme, found])
        found = points.finish(found, columns.encode(program or {}))
        x = features(found)
        gaps = ((x[:, None] - seen) ** 2).sum(axis=2).min(axis=1, initial=np.inf)
        place = int(np.argmax(gaps))
        seen, known = np.vstack([seen, x[place]]), np.vstack([known, found[place]])
        return columns.decode(found[place]), None, None

    return propose_family_by_family(space, history, n, rng, draw)


def _has(points: Floats, columns: Places, codes: Floats) -> bool:
    """Whether one of `points` [m, D] has these choices, as far as it has to choose there."""
    there = points[:, columns]
    same = there == codes
    return bool(((same | np.isnan(there)).all(axis=1) & same.any(axis=1)).any())


class Search:
    """The next points to try, by a model made of the points `known` whose rewards are.

    `means` are those of the model at these, in order. Improved on is `best` (default: the largest
    of these) by what has the variance `noise` beside that of the model.
    """

    def __init__(
        self,
        columns: Columns,
        model: Model,
        known: Tried,
        means: Floats,
        effort: Effort,
        rng: np.random.Generator,
        best: float | None = None,
        noise: float = 0.0,
    ) -> None:
        self._points, self._model, self._effort, self._rng = points_of(columns), model, effort, rng
        self._taken, self._known = self._points.keys(known.points), len(known.points)
        pending = np.isnan(known.rewards)
        done, self._assumed = known.points[~pending], known.points[pending]
        self._best, self._noise = float(means.max()) if best is None else best, noise
        self._bases = done[np.argsort(-means, kind="stable")[: effort.bases]]
        self._pools: dict[bytes, _Pool] = {}

    def next(self, given: Floats) -> Floats | None:
        """The best new point [D] with what is not NaN of `given` [D]; None if none was found."""
        key = given.tobytes()
        if key not in self._pools:
            self._pools[key] = self._pool(given)
        while (point := self._pools[key].next()) is not None:
            name = self._points.keys(point[None])
            if name not in self._taken[self._known :]:  # of another pool
                self._taken = np.append(self._taken, name)
                self._assumed = np.vstack([self._assumed, point])
                break
        return point

    def _pool(self, given: Floats) -> _Pool:
        """New points that have what is `given`, with beliefs about them."""
        points, rng, effort = self._points, self._rng, self._effort
        model = self._model.assume(self._assumed) if len(self._assumed) else self._model
        drawn = points.draw(effort.drawn, rng)
        pool, met = _Pool(self._best, self._noise), self._taken

        def add(found: Floats) -> bool:
            nonlocal met
            keys, first = np.unique(np.concatenate([met, points.keys(found)]), return_index=True)
            new = first[first >= len(met)] - len(met)
            met = keys
            if len(new):
                pool.add(found[new], model.at(found[new]))
            return len(new) > 0

        def near(bases: Floats) -> Floats:
            return points.change(np.repeat(bases, effort.changes, axis=0), given, drawn, rng)

        bases = points.move_to(given, self._bases, drawn)
        more = add(np.vstack([points.finish(drawn.copy(), given), near(bases)]))
        for _ in range(effort.rounds):
            more = more and add(near(pool.top(effort.nearest)))
        return pool


class _Pool:
    """Points with beliefs about them, ranked by their expected improvement on `best`; `noise` is
    variance beside that of the beliefs."""

    def __init__(self, best: float, noise: float) -> None:
        self._best, self._noise, self._points = best, noise, np.empty((0, 0))
        self._beliefs: list[Beliefs] = []  # of the points in order
        self._scores: Floats = np.empty(0)
        self._last: int | None = None  # what was chosen, and is to be assumed before the next

    def add(self, points: Floats, beliefs: Beliefs) -> None:
        """More points [m, D], before any is chosen."""
        self._points = np.vstack([self._points, points]) if self._beliefs else points
        self._beliefs.append(beliefs)
        self._scores = np.append(self._scores, self._score(beliefs))

    def top(self, count: int) -> Floats:
        """The best so many points."""
        return self._points[np.argsort(-self._scores, kind="stable")[:count]]

    def next(self) -> Floats | None:
        """The best point [D] as if those before had been measured at their means; None: no more."""
        if self._last is not None:
            gone = np.isneginf(self._scores)
            joined = self._beliefs[0].join(self._beliefs[1:])
            joined.assume(self._last)
            self._beliefs, self._scores = [joined], self._score(joined)
            self._scores[gone] = -np.inf
        place = int(self._scores.argmax()) if len(self._scores) else 0
        if place == len(self._scores) or self._scores[place] == -np.inf:
            return None
        self._last = place
        self._scores[place] = -np.inf  # not again
        point: Floats = self._points[place]
        return point

    def _score(self, beliefs: Beliefs) -> Floats:
        variance = beliefs.variance + self._noise
        return log_expected_improvement(beliefs.mean, variance, self._best)


def transformed(rewards: Floats) -> Floats:
    """The normal quantiles of the ranks of rewards [n], with mean 0 and variance 1; NaN stays.

    So the worst, of which there is no end where networks diverge, cannot hide what is near the best
    (Salinas et al. 2020, "A quantile-based approach for hyperparameter transfer learning").
    """
    done = ~np.isnan(rewards)
    out = np.full(len(rewards), np.nan)
    if not done.any():  # the first proposals of a search need no scipy, which takes time to load
        return out
    from scipy.special import ndtri

    _, place, count = np.unique(rewards[done], return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - 0.5 * (count - 1))[place]  # equal ones share their mean rank
    y = ndtri((ranks - 0.5) / done.sum())
    out[done] = (y - y.mean()) / max(float(y.std()), 1e-12)
    return out


def remembered(rewards: Floats, most: int) -> Places:
    """Places of at most `most` of rewards [n], no NaN: the best half, the latest, some others."""
    done = np.flatnonzero(~np.isnan(rewards))
    n = len(done)
    if n <= most:
        return done
    kept = np.zeros(n, dtype=bool)
    kept[np.argsort(-rewards[done], kind="stable")[: most // 2]] = True
    kept[np.flatnonzero(~kept)[-(most // 4) :]] = True
    rest = np.flatnonzero(~kept)
    evenly = np.linspace(0, len(rest) - 1, most - int(kept.sum())).round().astype(np.intp)
    kept[rest[evenly]] = True
    return done[kept]
