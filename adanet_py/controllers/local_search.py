"""Local search: hill climbing with restarts (White et al. 2021, "Exploring the Loss Landscape in
Neural Architecture Search", arXiv 2005.02960), a batch at a time.

The incumbent is the best result none of whose neighbours is known to be better and not all of whose
neighbours were tried: a better neighbour takes its place as soon as it is known, and when its
neighbourhood is exhausted it is a local optimum. Every local optimum asks for `STARTS` more random
candidates before the next climb, which begins at the best of what is not climbed yet.

A neighbour differs in one decision: another word, the next choice or integer, a range moved by one
of `STEPS`. What becomes active beside it takes the value of the best result that has one. Members
of a family share the program of the first neighbour chosen and differ from each other in one number
(in more where these are used up).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from adanet_py.controllers.columns import Columns, Floats, columns_of
from adanet_py.controllers.families import Proposal, propose_family_by_family
from adanet_py.controllers.ledger import ledger_of
from adanet_py.records import Candidate, Hashes, History, Scalar
from adanet_py.space import Assignment, Decision, SearchSpace, fill, mutate_assignment

STARTS = 8  # random candidates before each climb
STEPS = (0.25, 0.08, 0.025)  # by which a range moves, in the unit interval
LOOKED_AT = 128  # best results among which the incumbent is looked for


class _Known(NamedTuple):
    """Usable results, best first: the point [D] of each and its candidate's id."""

    points: Sequence[Floats]
    ids: Sequence[str]


class _Move(NamedTuple):
    """A neighbour of an incumbent, its parent, and the decision in which they differ."""

    assignment: Assignment
    parent: str
    name: str


def propose(
    space: SearchSpace, history: History, n: int, rng: np.random.Generator
) -> list[Candidate]:
    """Untried neighbours of the incumbent; see the module."""
    columns = columns_of(space)
    known, tried = _read(space, columns, history)
    moves = _moves(space, columns, known, tried, _random_ones(space, history), rng)
    around: dict[tuple[tuple[str, Scalar], ...], Iterator[Assignment]] = {}
    chosen: _Move | None = None

    def draw(program: Mapping[str, Scalar] | None, anchor: Mapping[str, Scalar] | None) -> Proposal:
        nonlocal chosen
        if program is None:
            chosen = next(moves, None)
            if chosen is None:
                return fill(space, {}, rng), None, None
            return chosen.assignment, chosen.parent, f"change {chosen.name}"
        if anchor is not None:
            base, parent, move = anchor, None, None
        elif chosen is not None:
            base, parent, move = chosen.assignment, chosen.parent, "change numbers"
        else:
            return fill(space, program, rng), None, None
        key = tuple(program.items())
        if key not in around:
            around[key] = _numbers(space, columns, {**base, **program}, rng)
        return next(around[key]), parent, move

    return propose_family_by_family(space, history, n, rng, draw)


def _random_ones(space: SearchSpace, history: History) -> int:
    """How many were proposed from nothing."""
    ledger = ledger_of(space, history)
    orphans = ledger.column("orphans", lambda some: [r.candidate.parent is None for r in some])
    known = np.count_nonzero(np.array(orphans, dtype=bool) & ledger.networks)
    return int(known) + sum([c.parent is None for c in history.pending])


def _read(space: SearchSpace, columns: Columns, history: History) -> tuple[_Known, Hashes]:
    """The best results, best first, and every point that was proposed."""
    ledger = ledger_of(space, history)
    places, scores = ledger.places(space), ledger.scores
    waiting = columns.places(space, history.pending)
    tried = Hashes(ledger.keys(space), [place.key for place in waiting if place is not None])
    points, ids = [], []
    usable = int(np.count_nonzero(~np.isnan(scores)))
    for i in np.argsort(-scores, kind="stable")[:usable].tolist():
        place = places[i]
        if place is not None:
            points.append(place.point)
            ids.append(ledger.results[i].candidate.id)
        if len(ids) == LOOKED_AT:
            break
    return _Known(points, ids), tried


def _moves(
    space: SearchSpace,
    columns: Columns,
    known: _Known,
    tried: Hashes,
    random_ones: int,
    rng: np.random.Generator,
) -> Iterator[_Move]:
    """Untried neighbours of the incumbents, one incumbent after the other.

    It ends where random candidates are wanted: at first and after every local optimum.
    """
    ranks = {point.tobytes(): rank for rank, point in reversed([*enumerate(known.points)])}
    habits = _habits(columns, known.points)
    wanted = STARTS
    for rank, point in enumerate(known.points):
        if random_ones < wanted:
            return
        if ranks[point.tobytes()] < rank:
            continue  # the same experiment, seen before
        near = list(_neighbours(columns, point, habits))
        keys = [row.tobytes() for _, row in near]
        if any(ranks.get(key, rank) < rank for key in keys):
            continue  # on the way up to a better one
        open_ones = [i for i, key in enumerate(keys) if key not in tried]
        for i in rng.permutation(open_ones):
            j, row = near[int(i)]
            yield _Move(columns.decode(row), known.ids[rank], columns.decisions[j].name)
        if not open_ones:
            wanted += STARTS


def _habits(columns: Columns, points: Sequence[Floats]) -> Floats:
    """For each decision its value in the best result that has one, else the middle: [D]."""
    known = np.array([*points, columns.middles])
    first = np.argmin(np.isnan(known), axis=0)  # the last row has everything
    out: Floats = known[first, np.arange(known.shape[1])]
    return out


def _neighbours(columns: Columns, point: Floats, habits: Floats) -> Iterator[tuple[int, Floats]]:
    """Every point [D] that differs in one active decision, with that decision's column."""
    for j in np.flatnonzero(~np.isnan(point)):
        for value in _others(columns.decisions[j], float(point[j])):
            row = point.copy()
            row[j] = value
            yield int(j), columns.complete(int(j), row, habits)


def _others(d: Decision, x: float) -> list[float]:
    """The neighbours of a value, all as they stand in a point."""
    if d.kind == "choice":
        last = len(d.domain) - 1
        near = (
            range(max(0, int(x) - 1), min(last, int(x) + 1) + 1) if d.ordered else range(last + 1)
        )
        return [float(i) for i in near if i != x]
    if d.size <= 1:
        return []
    steps = [s for step in STEPS for s in (-step, step)]
    if d.kind == "int":
        steps += [-1.0 / d.size, 1.0 / d.size]
    found = {d.unit(d.at(min(max(x + s, 0.0), 1.0))) for s in steps}
    return sorted(found - {x})


def _numbers(
    space: SearchSpace, columns: Columns, base: Mapping[str, Scalar], rng: np.random.Generator
) -> Iterator[Assignment]:
    """Settings around `base`: one number changed, all in random order; then more and more."""
    base = fill(space, base, rng)  # a start may leave some open
    point, names = columns.encode(base), {d.name for d in space.decisions if not d.static}
    habits = _habits(columns, [point])
    near = [
        row for j, row in _neighbours(columns, point, habits) if columns.decisions[j].name in names
    ]
    for i in rng.permutation(len(near)):
        yield columns.decode(near[i])
    while True:
        changed, _ = mutate_assignment(space, base, rng, names)
        while rng.random() < 0.7:
            changed, _ = mutate_assignment(space, changed, rng, names)
        yield changed
