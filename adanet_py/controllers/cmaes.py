"""CMA-ES (Hansen 2016, "The CMA Evolution Strategy: A Tutorial", arXiv 1604.00772) by the package
`cmaes`, which Optuna's sampler wraps too; needs the extra `cmaes`.

The strategy moves a normal distribution over numbers in the unit interval: one for each range, int
and choice of rising numbers, and for other choices one per word, of which the largest counts. The
results are told in their order, a generation at a time, whoever proposed them; a decision that was
not active is told as the mean, which says nothing about it. The latest `GENERATIONS` are told, so
a call costs the same however long the history is. Above `FULL` numbers the covariance is kept
diagonal (Ros and Hansen 2008), which learns quicker and costs less.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from adanet_py.controllers.columns import Floats, columns_of
from adanet_py.controllers.families import Proposal, propose_family_by_family
from adanet_py.controllers.ledger import ledger_of
from adanet_py.controllers.scored import scored
from adanet_py.errors import ConfigError
from adanet_py.records import Candidate, History, Scalar
from adanet_py.space import Assignment, SearchSpace, fill, mutate_assignment
from adanet_py.space_points import is_active

GENERATIONS = 24  # that are told again at every call
FULL = 20  # numbers up to which the covariance is a full matrix
SPREAD = 0.3  # standard deviation at first, of the unit interval
_NARROWEST = 0.02  # at which a strategy that is begun in the middle starts
_CHANGES = 8  # to a point that was tried before
_RESAMPLED = 4  # times a point outside is drawn again before it is moved inside


def propose(
    space: SearchSpace, history: History, n: int, rng: np.random.Generator
) -> list[Candidate]:
    """Draws from the distribution that the history led to; see the module.

    Raises ConfigError where the package `cmaes` is not installed.
    """
    strategy = _Strategy(space, history, int(rng.integers(1, 2**31)))
    columns, names = columns_of(space), {d.name for d in space.decisions}
    places = columns.places(space, history.pending)
    known = ledger_of(space, history).keys(space)
    met = {place.key for place in places if place is not None}

    def draw(program: Mapping[str, Scalar] | None, anchor: Mapping[str, Scalar] | None) -> Proposal:
        given = program or {}
        drawn = strategy.draw(given)
        for _ in range(_CHANGES):  # a narrow distribution over words repeats itself
            key = columns.encode(drawn).tobytes()
            if key not in known and key not in met:
                met.add(key)
                break
            drawn, _ = mutate_assignment(space, drawn, rng, names - given.keys())
        return drawn, None, None

    return propose_family_by_family(space, history, n, rng, draw)


class _Strategy:
    """The distribution after the history; `draw` gives an assignment."""

    def __init__(self, space: SearchSpace, history: History, seed: int) -> None:
        self._space, self._columns = space, columns_of(space)
        self._rng = np.random.default_rng(seed)
        free = [j for j, d in enumerate(space.decisions) if d.size > 1]
        widths = [1 if space.decisions[j].ordered else len(space.decisions[j].domain) for j in free]
        ends = np.cumsum([0, *widths])
        # Of each free column its numbers in a point of the strategy.
        self._parts = {j: slice(a, b) for j, a, b in zip(free, ends[:-1], ends[1:], strict=True)}
        self._strategy = self._told(history, max(2, int(ends[-1])), seed)

    def _told(self, history: History, size: int, seed: int) -> Any:
        cmaes = _package()
        kind = cmaes.CMA if size <= FULL else cmaes.SepCMA
        population = 4 + int(3 * np.log(size))
        rows = scored(self._space, history)
        done = np.flatnonzero(~np.isnan(rows.rewards))
        latest = done[-GENERATIONS * population :]
        places = self._columns.places(self._space, [rows.candidates[i] for i in latest])
        found = [i for i, place in enumerate(places) if place is not None]
        points = np.array([place.point for place in places if place is not None])
        told = self._encode(points.reshape(len(found), len(self._space.decisions)), size)
        losses = -rows.rewards[latest[found]]
        mean, spread = np.full(size, 0.5), SPREAD
        if len(latest) < len(done) and found:  # begun in the middle: where the first ones are
            first = np.where(np.isnan(told[:population]), mean, told[:population])
            mean, spread = first.mean(axis=0), max(_NARROWEST, float(first.std(axis=0).mean()))
        strategy = kind(
            mean=mean,
            sigma=spread,
            bounds=np.tile([0.0, 1.0], (size, 1)),
            population_size=population,
            n_max_resampling=_RESAMPLED,
            seed=seed,
        )
        for start in range(0, len(found) - population + 1, population):
            part = told[start : start + population]
            part = np.where(np.isnan(part), strategy.mean, part)
            strategy.tell(list(zip(part, losses[start : start + population], strict=True)))
        return strategy

    def _encode(self, points: Floats, size: int) -> Floats:
        """Points [m, D] of the space as some of the strategy [m, size]; NaN: nothing to say."""
        out = np.full((len(points), size), np.nan)
        for j, part in self._parts.items():
            d, x = self._columns.decisions[j], points[:, j, None]
            if not d.ordered:
                x = np.where(np.isnan(x), np.nan, x == np.arange(len(d.domain)))
            elif d.kind == "choice":
                x = (x + 0.5) / len(d.domain)
            out[:, part] = x
        return out

    def draw(self, given: Mapping[str, Scalar]) -> Assignment:
        """What is `given` where it is active, the rest from a point of the strategy.

        From the prior before the first generation is there.
        """
        if self._strategy.generation == 0:
            return fill(self._space, given, self._rng)
        x = self._strategy.ask()
        out: Assignment = {}
        for j, d in enumerate(self._space.decisions):
            if not is_active(d, out):
                continue
            if d.name in given:
                out[d.name] = given[d.name]
            elif d.size <= 1:
                out[d.name] = d.domain[0]
            elif not d.ordered:
                out[d.name] = d.domain[int(np.argmax(x[self._parts[j]]))]
            elif d.kind == "choice":
                u = float(x[self._parts[j]][0])
                out[d.name] = d.domain[min(int(u * len(d.domain)), len(d.domain) - 1)]
            else:
                out[d.name] = d.at(float(x[self._parts[j]][0]))
        return out


def _package() -> Any:
    try:
        import cmaes
    except ImportError:
        raise ConfigError(
            "The controller cmaes needs the package cmaes, which is not installed. Install it "
            '(pip install "adanet_py[cmaes]") or choose another --controller.'
        ) from None
    return cmaes
