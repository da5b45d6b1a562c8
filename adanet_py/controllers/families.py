"""How every controller here proposes: one program, many settings for it.

A call asks for the candidates of one group. They share what decides the program (architecture,
static knobs, optimizer) and differ in the numbers and the schedule, so that they can be trained
fused. What a controller adds is a `Draw`: how to choose a program and how to choose settings.

Where a program has fewer settings than are wanted, only one if every decision is static, the draw
is asked for another program, and again, so that all proposals are the controller's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice
from math import inf, prod

import numpy as np

from adanet_py.controllers.columns import columns_of
from adanet_py.records import Candidate, Hashes, History, Scalar
from adanet_py.space import Assignment, SearchSpace, assemble, every_assignment, fill, project
from adanet_py.space_points import draw_seed

Controller = Callable[[SearchSpace, History, int, np.random.Generator], list[Candidate]]
# draw(program, anchor) -> (assignment, parent id, move): `program` is the static part to keep, None
# asks for a new one; `anchor` is an assignment worth staying near (a start of this program).
Proposal = tuple[Assignment, str | None, str | None]
Draw = Callable[[Mapping[str, Scalar] | None, Mapping[str, Scalar] | None], Proposal]

LARGEST = 16  # candidates of one program in one call; a larger call is split evenly
_TRIES = 20  # draws per wanted candidate before settings are looked for elsewhere
_ENUMERATED = 20_000  # spaces up to this many settings are listed to find what is left


def propose_family_by_family(
    space: SearchSpace, history: History, n: int, rng: np.random.Generator, draw: Draw
) -> list[Candidate]:
    """`n` new candidates, fewer only when the space is exhausted; starts of the space first."""
    taken = history.experiments()
    out: list[Candidate] = []
    families = max(1, -(-n // LARGEST))
    for index in range(families):
        wanted = (n - len(out)) // (families - index)
        out += _family(space, wanted, rng, draw, taken)
    out += _leftovers(space, n - len(out), rng, taken)
    return out


def program_of(space: SearchSpace, assignment: Mapping[str, Scalar]) -> Assignment:
    """The part of an assignment that decides the program."""
    return {k: v for k, v in assignment.items() if space.by_name[k].static}


def has_one_setting(space: SearchSpace) -> bool:
    """Whether everything that is to be decided decides the program."""
    return all(d.static or d.size <= 1 for d in space.decisions)


def sees_children(controller: Controller) -> bool:
    """Whether a controller looks at children, as refiners and mixtures with one do.

    Others are shown a history without them.
    """
    return bool(getattr(controller, "sees_children", False))


def count_settings(space: SearchSpace, program: Mapping[str, Scalar]) -> float:
    """How many settings a program has at most: 1 where nothing beside it is to be decided."""
    columns = columns_of(space)
    return prod(columns.decisions[j].size for j in columns.settings(program))


def _family(
    space: SearchSpace, n: int, rng: np.random.Generator, draw: Draw, taken: Hashes
) -> list[Candidate]:
    out: list[Candidate] = []
    waiting = [c for c in space.start if c.experiment not in taken]
    first = waiting[0] if waiting else None
    for candidate in waiting:
        if first is not None and candidate.family == first.family and len(out) < n:
            taken.add(candidate.experiment)
            out.append(replace(candidate, seed=draw_seed(rng)))
    anchor = project(space, first) if first is not None else None
    program = program_of(space, anchor) if anchor is not None else None
    room = inf if program is None else count_settings(space, program)
    met: set[str] = set()  # experiments of the program
    for _ in range(_TRIES * n):
        if len(out) == n:
            break
        if len(met) >= room:
            program = anchor = first = None
        assignment, parent, move = draw(program, anchor)
        if program is None:
            program, met = program_of(space, assignment), set()
            room = count_settings(space, program)
        candidate = assemble(space, assignment, draw_seed(rng), parent, move)
        if first is not None and anchor is not None:
            # A start may lie outside the ranges; its companions must share its program exactly.
            candidate = replace(candidate, static=first.static)
        met.add(candidate.experiment)
        if candidate.experiment not in taken:
            taken.add(candidate.experiment)
            out.append(candidate)
    return out


def _leftovers(
    space: SearchSpace, n: int, rng: np.random.Generator, taken: Hashes
) -> list[Candidate]:
    """Up to `n` new candidates of any program: where the chosen ones had no new settings left."""
    out: list[Candidate] = []
    for _ in range(_TRIES * n):
        candidate = assemble(space, fill(space, {}, rng), draw_seed(rng))
        if candidate.experiment not in taken and len(out) < n:
            taken.add(candidate.experiment)
            out.append(candidate)
    if len(out) < n:
        listed = list(islice(every_assignment(space), _ENUMERATED))
        for index in rng.permutation(len(listed)):
            candidate = assemble(space, listed[index], draw_seed(rng))
            if candidate.experiment not in taken and len(out) < n:
                taken.add(candidate.experiment)
                out.append(candidate)
    return out
