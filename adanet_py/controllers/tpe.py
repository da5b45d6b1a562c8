"""Tree-structured Parzen estimator (Bergstra et al. 2011; Watanabe 2023), a batch at a time.

The results are split into the good, the best share of them, and the rest; densities l of the good
and g of the rest are fitted (parzen.py), points are drawn from l, and of every `DRAWN` the one with
the largest l(x) / g(x) is proposed. What is pending or was chosen in this batch counts among the
rest, so that a batch spreads. There are two models: one of programs, each judged by the best of its
settings, and one of settings for the architecture and optimizer of the chosen program.

A call costs the same however long the history is: the good are few, and of the rest the latest are
taken and others evenly from all that came before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from adanet_py.controllers.columns import Columns, Floats, columns_of
from adanet_py.controllers.families import Proposal, has_one_setting, propose_family_by_family
from adanet_py.controllers.parzen import Parzen, log_sum
from adanet_py.controllers.scored import Scored, of_programs, of_settings, scored
from adanet_py.records import Candidate, History, Scalar
from adanet_py.space import Assignment, SearchSpace, fill

GOOD_SHARE = 0.15  # of the results that count as good
MOST_GOOD = 25
MOST_OTHERS = 100  # of the rest, half of them the latest
Places = npt.NDArray[np.intp]

STARTS = 5  # results needed before there is a model
DRAWN = 24  # points of which one is proposed


def propose(
    space: SearchSpace, history: History, n: int, rng: np.random.Generator
) -> list[Candidate]:
    """Members of the most promising program with its most promising settings; see the module."""
    columns = columns_of(space)
    rows = scored(space, history)
    batches: dict[tuple[tuple[str, Scalar], ...], Iterator[Assignment]] = {}
    programs: Iterator[Assignment] | None = None
    alone = has_one_setting(space)

    def draw(program: Mapping[str, Scalar] | None, anchor: Mapping[str, Scalar] | None) -> Proposal:
        nonlocal programs
        if program is None:
            if programs is None:
                # Where a program has one setting, all of them are different programs.
                few = n if alone else 1
                deciding = columns.programs()
                programs = _points(space, columns, of_programs(rows), {}, deciding, few, rng)
            program = next(programs)
        key = tuple(program.items())
        if key not in batches:
            near = of_settings(rows, program["architecture"], program["optimizer"], STARTS)
            active = columns.settings(program)
            batches[key] = _points(space, columns, near, program, active, n, rng)
        return next(batches[key]), None, None

    return propose_family_by_family(space, history, n, rng, draw)


def _points(
    space: SearchSpace,
    columns: Columns,
    rows: Scored,
    given: Mapping[str, Scalar],
    free: Sequence[int],
    batch: int,
    rng: np.random.Generator,
) -> Iterator[Assignment]:
    """Proposals without end, `given` with the `free` columns chosen; computed `batch` at a time."""
    if np.isfinite(rows.rewards).sum() < STARTS or not free:
        wanted = {*given, *(columns.decisions[j].name for j in free)}
        while True:
            filled = fill(space, given, rng)
            yield {name: value for name, value in filled.items() if name in wanted}
    decisions = [columns.decisions[j] for j in free]
    good, others = split(rows.rewards)
    better, worse = (
        Parzen(decisions, _known(space, columns, rows.take(part).candidates, free))
        for part in (good, others)
    )
    start = np.repeat(columns.encode(given)[None], batch * DRAWN, axis=0)
    while True:
        points = start.copy()
        points[:, free] = better.sample(len(points), rng)
        columns.deactivate(points, free)
        drawn = points[:, free]
        likely, unlikely = better.log_density(drawn), worse.log_density(drawn)
        crowd = worse.log_kernel(drawn, drawn)
        chosen: list[int] = []
        for first in range(0, len(points), DRAWN):
            part = slice(first, first + DRAWN)
            beside = np.column_stack([unlikely[part], crowd[part, chosen]])
            chosen.append(first + int(np.argmax(likely[part] - log_sum(beside))))
            yield columns.decode(points[chosen[-1]])
        worse.add(drawn[chosen])


def split(rewards: Floats) -> tuple[Places, Places]:
    """Places of the good and of a bounded part of the others, pending ones (NaN) among these."""
    done = int(np.isfinite(rewards).sum())
    ranked = np.argsort(-rewards, kind="stable")  # NaN come last
    good = np.sort(ranked[: min(math.ceil(GOOD_SHARE * done), MOST_GOOD)])
    is_good = np.zeros(len(rewards), dtype=bool)
    is_good[good] = True
    others = np.flatnonzero(~is_good)
    if len(others) > MOST_OTHERS:
        latest = MOST_OTHERS // 2
        older = others[:-latest]
        evenly = np.linspace(0, len(older) - 1, MOST_OTHERS - latest).round().astype(np.intp)
        others = np.concatenate([older[evenly], others[-latest:]])
    return good, others


def _known(
    space: SearchSpace, columns: Columns, candidates: Sequence[Candidate], free: Sequence[int]
) -> Floats:
    """The points of those candidates that have a place in the space: [n, F]."""
    places = [columns.place_of(space, c) for c in candidates]
    found = [place.point[list(free)] for place in places if place is not None]
    return np.array(found) if found else np.empty((0, len(free)))
