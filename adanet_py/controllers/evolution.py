"""Regularised evolution (Real et al. 2019, "Regularized Evolution for Image Classifier
Architecture Search", arXiv 1802.01548), in families.

The population is the last results, so that everybody dies of age and a lucky score does not live
for ever. A tournament chooses the parent of a whole family; its program changes in at most one
decision, and each member changes the numbers of a good relative.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from math import isnan
from typing import NamedTuple

import numpy as np

from adanet_py.controllers.columns import columns_of
from adanet_py.controllers.failures import drawn_elsewhere, likely_failures
from adanet_py.controllers.families import (
    Controller,
    Proposal,
    has_one_setting,
    propose_family_by_family,
)
from adanet_py.records import Candidate, History, Scalar
from adanet_py.space import Assignment, SearchSpace, fill, mutate_assignment

POPULATION = 64  # the last results that can be parents
TOURNAMENT = 24  # of which so many are compared, at most a quarter
WARM_UP = 16  # fewer usable results than this: random programs half of the time
_NEW_PROGRAM = 0.7  # share of families whose program differs from their parent's
_SECOND_CHANGE = 0.6  # chance of one more changed number, again and again


class _Parent(NamedTuple):
    assignment: Mapping[str, Scalar]
    reward: float
    id: str


def evolve(crossover: float = 0.0) -> Controller:
    """Regularised evolution in which a share `crossover` of families has two parents.

    The second gives each of its values with probability a half; what hangs on a value of one parent
    alone comes from that one. Half of these children change no further.
    """

    def propose(
        space: SearchSpace, history: History, n: int, rng: np.random.Generator
    ) -> list[Candidate]:
        return _propose(space, history, n, rng, crossover)

    return propose


def propose(
    space: SearchSpace, history: History, n: int, rng: np.random.Generator
) -> list[Candidate]:
    """Children of tournament winners, with one parent each; see the module and `evolve`."""
    return _propose(space, history, n, rng, 0.0)


def _propose(
    space: SearchSpace, history: History, n: int, rng: np.random.Generator, crossover: float
) -> list[Candidate]:
    population = _population(space, history)
    numbers = {d.name for d in space.decisions if not d.static}
    programs = {d.name for d in space.decisions if d.static}
    one_setting, fails = has_one_setting(space), likely_failures(space, history)

    def draw(program: Mapping[str, Scalar] | None, anchor: Mapping[str, Scalar] | None) -> Proposal:
        if program is None:
            return drawn_elsewhere(_new_family, lambda family: family[0], fails, rng)
        if anchor is not None:
            base, parent = dict(anchor), None
        else:
            relatives = _relatives(population, program)
            if not relatives:
                return fill(space, program, rng), None, None
            winner = _tournament(relatives, rng)
            base, parent = dict(winner.assignment), winner.id
        # The program is the family's; numbers that mean the same in the relative are inherited.
        child = fill(space, {**base, **program}, rng)
        changed: list[str] = []
        while not changed or rng.random() < _SECOND_CHANGE:
            child, move = mutate_assignment(space, child, rng, numbers)
            if move is None:
                break
            changed.append(move)
        return child, parent, _move(changed)

    def _new_family() -> Proposal:
        if not population or (len(population) < WARM_UP and rng.random() < 0.5):
            return fill(space, {}, rng), None, None
        parent = _tournament(population, rng)
        child, changed = dict(parent.assignment), []
        if crossover and rng.random() < crossover:
            other = _tournament(population, rng)
            child = _cross(space, child, other.assignment, rng)
            if child != parent.assignment and rng.random() < 0.5:
                return child, parent.id, f"cross with {other.id}"
        if one_setting or rng.random() < _NEW_PROGRAM:
            child, move = mutate_assignment(space, child, rng, programs)
            changed = [move] if move else []
        if not changed:
            child, move = mutate_assignment(space, child, rng, numbers)
            changed = [move] if move else []
        return child, parent.id, _move(changed)

    return propose_family_by_family(space, history, n, rng, draw)


def _population(space: SearchSpace, history: History) -> list[_Parent]:
    """The last usable results that have a place in the space, oldest first."""
    out: list[_Parent] = []
    columns = columns_of(space)
    usable = (r for r in reversed(history.results) if not isnan(r.score))
    for result in islice(usable, POPULATION):
        place = columns.place_of(space, result.candidate)
        if place is not None:
            out.append(_Parent(place.assignment, result.reward, result.candidate.id))
    return out[::-1]


def _relatives(population: Sequence[_Parent], program: Mapping[str, Scalar]) -> list[_Parent]:
    """Those who share the optimizer, whose numbers matter most; of the same program if two do."""
    same = [p for p in population if p.assignment.items() >= program.items()]
    if len(same) >= 2:
        return same
    near = [p for p in population if p.assignment["optimizer"] == program["optimizer"]]
    nearest = [p for p in near if p.assignment["architecture"] == program["architecture"]]
    return nearest or near


def _tournament(population: Sequence[_Parent], rng: np.random.Generator) -> _Parent:
    size = min(TOURNAMENT, max(2, len(population) // 4), len(population))
    chosen = rng.choice(len(population), size=size, replace=False)
    return max((population[i] for i in chosen), key=lambda p: p.reward)


def _cross(
    space: SearchSpace,
    one: Mapping[str, Scalar],
    other: Mapping[str, Scalar],
    rng: np.random.Generator,
) -> Assignment:
    """Each decision of one of the two parents at random; where only one has it, of that one."""
    genes = {**other, **one}
    for name in [d.name for d in space.decisions if d.name in one and d.name in other]:
        genes[name] = (one, other)[int(rng.integers(2))][name]
    return fill(space, genes, rng)


def _move(changed: Sequence[str]) -> str | None:
    return "change " + ", ".join(changed) if changed else None
