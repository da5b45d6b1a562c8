"""A search space as columns of numbers, for controllers that compute on many points at once.

Column `j` of a point is decision `j` of the space: the position of a choice, the place in the unit
interval of a range (`Decision.unit`), NaN where the decision is not active.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from adanet_py.records import Candidate, Scalar
from adanet_py.space import Assignment, Decision, SearchSpace, project

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_REMEMBERED = 8192  # candidates whose place in a space is kept, so that each is read once


class Place(NamedTuple):
    """Where a candidate is in a space: its assignment, and as a point [D]; not to be changed.

    `key` are the bytes of the point: equal where the points are.
    """

    assignment: Mapping[str, Scalar]
    point: Floats
    key: bytes


class Columns:
    """The decisions of one space, compiled; made by `columns_of`."""

    def __init__(self, decisions: tuple[Decision, ...]) -> None:
        self.decisions = decisions
        self._at: Mapping[str, int] = {d.name: j for j, d in enumerate(decisions)}
        # Of each column: its parents and which of a parent's choices [C] make it active.
        self._conditions: list[list[tuple[int, Bools]]] = [
            [(self._at[name], self._among(name, values)) for name, values in d.when]
            for d in decisions
        ]
        self._lets = [[(p, a.tolist()) for p, a in of] for of in self._conditions]
        self._hanging: dict[int, list[int]] = {}  # what hangs on a column, directly or not
        for j, conditions in enumerate(self._conditions):
            parents = {p for p, _ in conditions}
            for p, below in [(p, self._hanging.setdefault(p, [])) for p in range(j)]:
                if p in parents or parents.intersection(below):
                    below.append(j)
        self._places: dict[str, Place | None] = {}

    def _among(self, name: str, values: tuple[Scalar, ...]) -> Bools:
        return np.array([v in values for v in self.decisions[self._at[name]].domain])

    def place_of(self, space: SearchSpace, candidate: Candidate) -> Place | None:
        """Where a candidate is in `space`, that of these columns; None if nowhere. Read once."""
        places = self._places
        try:
            return places[candidate.id]
        except KeyError:
            assignment = project(space, candidate)
            place = None
            if assignment is not None:
                point = self.encode(assignment)
                place = Place(assignment, point, point.tobytes())
        if len(places) >= _REMEMBERED:
            self._places = places = {}  # a new one, for searches in other threads may read the old
        places[candidate.id] = place
        return place

    def places(self, space: SearchSpace, candidates: Iterable[Candidate]) -> list[Place | None]:
        """As `place_of`, of many."""
        return [self.place_of(space, c) for c in candidates]

    def encode(self, assignment: Mapping[str, Scalar]) -> Floats:
        """The point of an assignment: [D]."""
        row = np.full(len(self.decisions), np.nan)
        for name, value in assignment.items():
            d = self.decisions[self._at[name]]
            row[self._at[name]] = d.domain.index(value) if d.kind == "choice" else d.unit(value)
        return row

    def decode(self, row: Floats) -> Assignment:
        """The assignment of a point [D]."""
        out: Assignment = {}
        for j in np.flatnonzero(~np.isnan(row)):
            d, x = self.decisions[j], float(row[j])
            out[d.name] = d.domain[int(x)] if d.kind == "choice" else d.at(x)
        return out

    def complete(self, changed: int, row: Floats, habits: Floats) -> Floats:
        """`row` [D] made whole, in place, after its column `changed` was: what becomes active takes
        its value in `habits` [D], what no longer is falls away.
        """
        below = self._hanging.get(changed, ())
        values = row.tolist() if below else []  # numbers of Python: there are thousands to look at
        for j in below:
            for p, allowed in self._lets[j]:
                code = values[p]
                if code != code or not allowed[int(code)]:  # NaN: the parent is not active
                    row[j] = values[j] = math.nan
                    break
            else:
                if values[j] != values[j]:  # was not active
                    row[j] = values[j] = float(habits[j])
        return row

    @cached_property
    def middles(self) -> Floats:
        """Of each decision the value in the middle, as in a point: [D]."""
        return np.array([_middle(d) for d in self.decisions])

    def programs(self) -> list[int]:
        """The columns that decide the program."""
        out: list[int] = []
        for j, d in enumerate(self.decisions):
            if d.static and all(self._at[name] in out for name, _ in d.when):
                out.append(j)
        return out

    def settings(self, program: Mapping[str, Scalar]) -> list[int]:
        """The columns that may be active beside the given program."""
        out: list[int] = []
        for j, d in enumerate(self.decisions):
            possible = all(
                program[name] in values if name in program else self._at[name] in out
                for name, values in d.when
            )
            if d.name not in program and possible:
                out.append(j)
        return out

    def deactivate(self, points: Floats, columns: Iterable[int]) -> None:
        """Put NaN into `points` [m, D], in place, where one of `columns` is not active."""
        for j in columns:
            for parent, allowed in self._conditions[j]:
                codes = points[:, parent]
                active = ~np.isnan(codes)
                active &= allowed[np.where(active, codes, 0.0).astype(np.intp)]
                points[~active, j] = np.nan


def _middle(d: Decision) -> float:
    return float(d.domain.index(d.at(0.5))) if d.kind == "choice" else d.unit(d.at(0.5))


_COMPILED: WeakKeyDictionary[SearchSpace, Columns] = WeakKeyDictionary()


def columns_of(space: SearchSpace) -> Columns:
    """The columns of a space, compiled once."""
    if space not in _COMPILED:
        _COMPILED[space] = Columns(space.decisions)
    return _COMPILED[space]
