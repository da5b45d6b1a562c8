"""A long history read once: what controllers look at of every result, kept from call to call.

Memory saves time only. What is asked of a history is a function of its results; those at the
beginning that are the same objects as at the last call are not looked at again. A ledger is never
changed where another thread could see it: a longer history gets a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from operator import is_
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from adanet_py.controllers.columns import Bools, Floats, Place, columns_of
from adanet_py.records import History, Result, Status
from adanet_py.space import SearchSpace

Of = Callable[[Sequence[Result]], Sequence[Any]]  # something of each result
Best = Callable[[Sequence[Result]], Sequence[Result]]  # some of the results
KEPT = 4  # ledgers of a space: some controllers see children, and others do not


class Ledger:
    """Results in order, and of each [n]: its score, NaN where it has none; whether it is of a
    network (not of a baseline)."""

    def __init__(
        self, results: tuple[Result, ...] = (), known: Ledger | None = None, same: int = 0
    ) -> None:
        new = results[same:]
        scores, networks = np.array([r.score for r in new]), [_is_network(r) for r in new]
        self.results = results
        self._columns: Mapping[Hashable, Sequence[Any]] = {}
        self._sets: Mapping[Hashable, tuple[int, frozenset[Any]]] = {}
        self._chosen: Mapping[Hashable, tuple[int, Sequence[Result]]] = {}
        self.scores: Floats = scores.astype(np.float64)
        self.networks: Bools = np.array(networks, dtype=bool)
        if known is not None:
            self.scores = np.append(known.scores[:same], self.scores)
            self.networks = np.append(known.networks[:same], self.networks)
            self._columns = {k: v[:same] for k, v in known._columns.items()}
            self._sets = {k: v for k, v in known._sets.items() if v[0] <= same}
            self._chosen = {k: v for k, v in known._chosen.items() if v[0] <= same}

    def column(self, name: Hashable, of: Of) -> Sequence[Any]:
        """What `of` says of every result, asked once about each."""
        have = self._columns.get(name, [])
        if len(have) < len(self.results):
            have = [*have, *of(self.results[len(have) :])]
            self._columns = {**self._columns, name: have}
        return have

    def values(self, name: Hashable, of: Of) -> frozenset[Any]:
        """The different ones of the `column`, but None."""
        all_of = self.column(name, of)
        count, have = self._sets.get(name, (0, frozenset()))
        if count < len(all_of):
            have = have.union(all_of[count:]) - {None}
            self._sets = {**self._sets, name: (len(all_of), have)}
        return have

    def chosen(self, name: Hashable, of: Best) -> Sequence[Result]:
        """What `of` chooses among the results.

        It must be so that of(A + B) = of(of(A) + B), as of the best few: each is looked at once.
        """
        count, have = self._chosen.get(name, (0, ()))
        if count < len(self.results):
            have = of([*have, *self.results[count:]])
            self._chosen = {**self._chosen, name: (len(self.results), have)}
        return have

    def places(self, space: SearchSpace) -> Sequence[Place | None]:
        """Where each result is in the space of this ledger; None: nowhere."""
        columns = columns_of(space)
        return self.column("places", lambda some: columns.places(space, _candidates(some)))

    def keys(self, space: SearchSpace) -> frozenset[bytes]:
        """The `Place.key` of all that have a place."""
        columns = columns_of(space)

        def of(some: Sequence[Result]) -> list[bytes | None]:
            places = columns.places(space, _candidates(some))
            return [None if place is None else place.key for place in places]

        return self.values("keys", of)


_KEPT: WeakKeyDictionary[SearchSpace, tuple[Ledger, ...]] = WeakKeyDictionary()


def ledger_of(space: SearchSpace, history: History) -> Ledger:
    """The ledger of the results of `history`."""
    results, kept = history.results, _KEPT.get(space, ())
    for known in kept:
        if known.results is results:
            return known
    found, same = Ledger(), 0
    for known in kept:
        shared = common(known.results, results)
        if shared > same:
            found, same = known, shared
    new = Ledger(results, found, same)
    # One that holds no more than what is now known again need not be kept.
    others = [k for k in kept if k is not found or same < len(k.results)]
    _KEPT[space] = (new, *others[: KEPT - 1])
    return new


def common(known: Sequence[Result], results: Sequence[Result]) -> int:
    """How many results at the beginning are the same objects."""
    end = min(len(known), len(results))
    if end and known[0] is not results[0]:
        return 0
    if all(map(is_, known, results)):
        return end
    return [*map(is_, known, results)].index(False)


def _is_network(result: Result) -> bool:
    return result.status is not Status.BASELINE


def _candidates(results: Sequence[Result]) -> list[Any]:
    return [r.candidate for r in results]
