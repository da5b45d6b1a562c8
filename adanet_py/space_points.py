"""Points of a search space: draw, change, check, and map to the unit cube.

A point is an *assignment*: the value of every active decision by name. A decision is active when
the decisions it hangs on have the values it asks for. Whatever is not decided takes the value in
`SearchSpace.fixed`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from adanet_py.records import Candidate, Scalar
from adanet_py.space_decision import Decision, neighbour

Assignment = dict[str, Scalar]


@dataclass(frozen=True, eq=False)
class SearchSpace:
    """What may vary, and what it is otherwise.

    `decisions` are in an order in which every condition comes before what hangs on it. `fixed` is
    the value of every knob that is not decided, by the same dotted names. `knobs` names the knobs
    of an architecture (static and numeric), an optimizer, a schedule, and "general". `start` is
    tried first. `text` is the YAML the space was read from.
    """

    name: str
    summary: str
    decisions: tuple[Decision, ...]
    fixed: Mapping[str, Scalar]
    knobs: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]  # section.entry: static, numeric
    start: tuple[Candidate, ...] = ()
    text: str = field(default="", repr=False)
    _beside: dict[tuple[str, ...], Sequence[Decision]] = field(
        default_factory=dict, init=False, repr=False
    )

    @cached_property
    def by_name(self) -> Mapping[str, Decision]:
        """Decisions by name."""
        return {d.name: d for d in self.decisions}

    def beside(self, *entries: str) -> Sequence[Decision]:
        """The decisions that may be active with this architecture, optimizer and schedule, which
        are most often a small part of all."""
        if entries not in self._beside:
            given = dict(zip(("architecture", "optimizer", "schedule"), entries, strict=True))
            self._beside[entries] = [
                d
                for d in self.decisions
                if all(given[name] in values for name, values in d.when if name in given)
            ]
        return self._beside[entries]


def is_active(decision: Decision, assignment: Mapping[str, Scalar]) -> bool:
    """Whether `decision` matters, given the decisions before it."""
    for name, values in decision.when:  # a plain loop: this runs for every decision of every draw
        if name not in assignment or assignment[name] not in values:
            return False
    return True


def fill(space: SearchSpace, given: Mapping[str, Scalar], rng: np.random.Generator) -> Assignment:
    """A whole assignment: what is `given` where it is active, the rest drawn."""
    out: Assignment = {}
    for decision in space.decisions:
        if is_active(decision, out):
            if decision.name in given:
                out[decision.name] = given[decision.name]
            else:
                out[decision.name] = decision.at(rng.random())
    return out


def assemble(
    space: SearchSpace,
    assignment: Mapping[str, Scalar],
    seed: int,
    parent: str | None = None,
    move: str | None = None,
) -> Candidate:
    """The candidate an assignment stands for."""
    entries = {
        "architectures": str(assignment["architecture"]),
        "optimizers": str(assignment["optimizer"]),
        "schedules": str(assignment["schedule"]),
        "general": "",
    }
    static: dict[str, Scalar] = {}
    numeric: dict[str, Any] = {}
    for section, entry in entries.items():
        prefix = f"{section}.{entry}" if entry else section
        for names, values in zip(space.knobs[prefix], (static, numeric), strict=True):
            for knob in names:
                name = f"{prefix}.{knob}"
                values[knob] = assignment[name] if name in assignment else space.fixed[name]
    return Candidate(
        architecture=entries["architectures"],
        static=static,
        optimizer=entries["optimizers"],
        schedule=entries["schedules"],
        numeric=numeric,
        seed=seed,
        parent=parent,
        move=move,
    )


def value_of(decision: Decision, candidate: Candidate) -> Scalar:
    """What a candidate has where `decision` decides; None where it has nothing of that name."""
    if len(decision.path) == 1:
        return str(getattr(candidate, decision.path[0]))
    knob = decision.path[-1]
    return candidate.static[knob] if knob in candidate.static else candidate.numeric.get(knob)


def project(space: SearchSpace, candidate: Candidate) -> Assignment | None:
    """The assignment of `candidate`, numbers moved into their ranges.

    None where that is impossible: a word or a knob that the space does not have. So a candidate
    from elsewhere (a start outside the ranges, a refinement) can still be learned from.
    """
    entries = candidate.architecture, candidate.optimizer, candidate.schedule
    out: Assignment = {}
    for decision in space.beside(*entries):
        if is_active(decision, out):
            value = decision.closest(value_of(decision, candidate))
            if value is None:
                return None
            out[decision.name] = value
    return out


def draw_seed(rng: np.random.Generator) -> int:
    """A seed for a candidate."""
    return int(rng.integers(2**31))


def sample(space: SearchSpace, rng: np.random.Generator) -> Candidate:
    """A candidate drawn at random: choices by their prior, ranges evenly in their scale."""
    return assemble(space, fill(space, {}, rng), draw_seed(rng))


def mutate_assignment(
    space: SearchSpace,
    assignment: Mapping[str, Scalar],
    rng: np.random.Generator,
    among: Collection[str] | None = None,
) -> tuple[Assignment, str | None]:
    """Change one active decision (one of `among`, if given) that has another value.

    Decisions that become active are drawn, those that no longer are fall away, the rest stays. What
    the prior leaves open is changed more often than what it all but settles (`Decision.freedom`).
    Returns the new assignment and the name of the changed decision, None if nothing could change.
    """
    movable = [
        d
        for d in space.decisions
        if d.name in assignment and d.size > 1 and (among is None or d.name in among)
    ]
    if not movable:
        return dict(assignment), None
    ends = np.cumsum([d.freedom for d in movable])
    decision = movable[int(np.searchsorted(ends, rng.random() * ends[-1], side="right"))]
    changed = dict(assignment)
    changed[decision.name] = neighbour(decision, assignment[decision.name], rng)
    return fill(space, changed, rng), decision.name


def mutate(space: SearchSpace, candidate: Candidate, rng: np.random.Generator) -> Candidate:
    """A child of `candidate` in the space that differs in one decision (and what hangs on it).

    A candidate that has no place in the space gives a sample instead.
    """
    assignment = project(space, candidate)
    if assignment is None:
        return sample(space, rng)
    changed, move = mutate_assignment(space, assignment, rng)
    return assemble(space, changed, draw_seed(rng), parent=candidate.id, move=f"change {move}")


def contains(space: SearchSpace, candidate: Candidate) -> str | None:
    """None if `candidate` is inside the space, else the reason why not, a sentence."""
    assignment: Assignment = {}
    for decision in space.decisions:
        if not is_active(decision, assignment):
            continue
        value = value_of(decision, candidate)
        if not decision.allows(value):
            ends = list(decision.domain)
            wanted = f"one of {ends}" if decision.kind == "choice" else f"{ends[0]} to {ends[-1]}"
            return f"{decision.name} is {value!r}; expected {wanted}."
        assignment[decision.name] = value
    inside = assemble(space, assignment, candidate.seed)
    for kind in ("static", "numeric"):
        expected, found = getattr(inside, kind), getattr(candidate, kind)
        for knob in sorted(expected.keys() | found.keys()):
            if knob not in found:
                return f"{kind} {knob!r} is missing."
            if knob not in expected:
                return f"{kind} {knob!r} is not a knob of this architecture, optimizer or schedule."
            if expected[knob] != found[knob]:
                return f"{knob} is {found[knob]!r}; the space keeps it at {expected[knob]!r} here."
    return None


def encode(space: SearchSpace, candidate: Candidate) -> npt.NDArray[np.float64]:
    """The candidate's place in the unit cube: [D], one number per decision, inactive ones 0.5."""
    assignment = project(space, candidate)
    if assignment is None:
        raise ValueError(f"candidate {candidate.id} has no place in the space {space.name!r}")
    return encode_assignment(space, assignment)


def encode_assignment(
    space: SearchSpace, assignment: Mapping[str, Scalar]
) -> npt.NDArray[np.float64]:
    """As `encode`, of an assignment: [D]."""
    return np.array(
        [d.unit(assignment[d.name]) if d.name in assignment else 0.5 for d in space.decisions]
    )


def decode_assignment(space: SearchSpace, u: npt.ArrayLike) -> Assignment:
    """The assignment at a place in the unit cube [D]; inactive coordinates are ignored."""
    out: Assignment = {}
    for decision, x in zip(space.decisions, np.asarray(u, dtype=float), strict=True):
        if is_active(decision, out):
            out[decision.name] = decision.at(float(x))
    return out


def decode(space: SearchSpace, u: npt.ArrayLike, seed: int) -> Candidate:
    """The candidate at a place in the unit cube [D]."""
    return assemble(space, decode_assignment(space, u), seed)


def every_assignment(space: SearchSpace) -> Iterator[Assignment]:
    """All assignments of a finite space, one by one; a real range gives its low end only."""

    def walk(index: int, partial: Assignment) -> Iterator[Assignment]:
        if index == len(space.decisions):
            yield dict(partial)
            return
        decision = space.decisions[index]
        if not is_active(decision, partial):
            yield from walk(index + 1, partial)
            return
        values: Collection[Scalar] = decision.domain
        if decision.kind != "choice":
            low, high = decision.ends
            values = range(int(low), int(high) + 1) if decision.kind == "int" else (low,)
        for value in values:
            partial[decision.name] = value
            yield from walk(index + 1, partial)
        del partial[decision.name]

    return walk(0, {})
