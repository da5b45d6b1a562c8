"""The policies of a search, trained by replaying its history: one of programs, each rewarded by the
best of its settings so far, and one of settings for a given program."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import is_
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from adanet_py.controllers.columns import columns_of
from adanet_py.controllers.parzen import prior
from adanet_py.controllers.policy import PARTS, Codes, Floats, Head, Heads, Policy
from adanet_py.controllers.policy_gradient import Learner, beginner, remember, window
from adanet_py.records import History, Result, Status
from adanet_py.space import Decision, SearchSpace

Step = Callable[[Learner, Floats, float], Learner]

BLOCK = 8  # results between two steps
MOST_LAG = 8  # blocks between a decision and its results that are told apart
SEGMENT, OVERLAP = 128, 32  # blocks after which a replay begins anew, so many before
KEPT = 8  # latest blocks whose state is kept, for results may come out of order


class Layout:
    """How the decisions of a space become heads: those of the program first."""

    def __init__(self, decisions: Sequence[Decision], program: Sequence[int]) -> None:
        others = [j for j in range(len(decisions)) if j not in program]
        self.order = np.array([*program, *others], dtype=np.intp)
        self.decisions = [decisions[j] for j in self.order]
        at = {d.name: place for place, d in enumerate(self.decisions)}
        heads = [_head(d, at, self.decisions) for d in self.decisions]
        self.programs = Heads(heads[: len(program)])
        self.settings = Heads(heads, len(program))
        self._counts = np.array([len(h.base) for h in heads])
        self._is_choice = np.array([d.kind == "choice" for d in self.decisions])

    def encode(self, points: Floats) -> Codes:
        """Cells [m, D] of points [m, D] in the order of the space's columns."""
        ordered = points[:, self.order]
        active = ~np.isnan(ordered)
        known = np.where(active, ordered, 0.0)
        parts = np.minimum((known * self._counts).astype(np.intp), self._counts - 1)
        codes = np.where(self._is_choice, known.astype(np.intp), parts)
        return np.where(active, codes, -1)

    def decode(self, codes: Codes, rng: np.random.Generator) -> Floats:
        """Points [m, D] in the order of the space's columns, drawn evenly within the cells."""
        inside = (codes + rng.random(codes.shape)) / self._counts
        out = np.empty(codes.shape)
        values = np.where(self._is_choice, codes, inside)
        out[:, self.order] = np.where(codes >= 0, values, np.nan)
        return out


def _head(decision: Decision, at: Mapping[str, int], decisions: Sequence[Decision]) -> Head:
    parents = tuple(
        (at[name], np.array([v in values for v in decisions[at[name]].domain]))
        for name, values in decision.when
    )
    if decision.kind == "choice":
        return Head(np.log(prior(decision)), decision.ordered, parents)
    count = int(min(PARTS, decision.size))
    return Head(np.full(count, -math.log(count)), True, parents)


class Policies(NamedTuple):
    """Of programs, and of settings for a given program."""

    programs: Policy
    settings: Policy


@dataclass(frozen=True, eq=False)
class _State:
    """What is known after some results."""

    programs: Learner
    settings: Learner
    best: Mapping[str, float]  # family and best score of each past program
    scores: tuple[float, ...] = ()  # of the past settings
    before: tuple[Policies, ...] = ()  # after the blocks before, the latest last

    @cached_property
    def policies(self) -> Policies:
        return Policies(self.programs.policy, self.settings.policy)


class _Kept(NamedTuple):
    """Results, and the states after whole blocks of them."""

    results: Sequence[Result]
    states: Mapping[int, _State]


_Key = tuple[Step, int, int]  # and the lag, and the block where the replay begins
_KEPT: WeakKeyDictionary[SearchSpace, dict[_Key, _Kept]] = WeakKeyDictionary()
_LAYOUTS: WeakKeyDictionary[SearchSpace, Layout] = WeakKeyDictionary()


def layout_of(space: SearchSpace) -> Layout:
    """The layout of a space, made once."""
    if space not in _LAYOUTS:
        _LAYOUTS[space] = Layout(space.decisions, columns_of(space).programs())
    return _LAYOUTS[space]


def train(space: SearchSpace, history: History, step: Step) -> Policies:
    """The policies after all results of `history`, taken in the order they have there.

    There is a `step` after every `BLOCK` results, and one in proportion for the rest. What is
    pending tells how old a decision is when its result comes in: the importance weights of a block
    refer to the policy of as many blocks before. Policies forget, so of a long history the replay
    begins anew `OVERLAP` blocks before the last whole `SEGMENT`, which bounds its cost. A pure
    function of its arguments; states after whole blocks are kept, so that a call costs no more
    than what is new.
    """
    layout, results = layout_of(space), history.results
    lag = min(MOST_LAG, -(-len(history.pending) // BLOCK))
    seen = _KEPT.setdefault(space, {})
    whole = len(results) // BLOCK
    begin = max(0, whole // SEGMENT * SEGMENT - OVERLAP)
    kept = seen.get((step, lag, begin), _Kept((), {}))
    same = _common(kept.results, results) // BLOCK
    states = {b: s for b, s in kept.states.items() if b <= same}
    first = max(states, default=begin)
    state = states.get(first)
    if state is None:
        state = _State(beginner(layout.programs), beginner(layout.settings), {})
    for block in range(first, whole):
        part = results[block * BLOCK : (block + 1) * BLOCK]
        state = states[block + 1] = _advance(space, state, part, step, lag)
        states.pop(block + 1 - KEPT, None)
    # A new record, for searches in other threads may read the old one.
    _KEPT[space] = {k: v for k, v in seen.items() if k[2] == begin}
    _KEPT[space][step, lag, begin] = _Kept(results[: whole * BLOCK], states)
    rest = results[whole * BLOCK :]
    return _advance(space, state, rest, step, lag).policies if rest else state.policies


def _common(known: Sequence[Result], results: Sequence[Result]) -> int:
    """How many results at the beginning are the same."""
    if len(known) <= len(results) and all(map(is_, known, results)):
        return len(known)
    for i, (a, b) in enumerate(zip(known, results, strict=False)):
        if a is not b and _told(a) != _told(b):
            return i
    return min(len(known), len(results))


def _told(result: Result) -> tuple[object, ...]:
    """All that training reads of a result."""
    return result.candidate.id, result.status is Status.BASELINE, repr(result.score)


def _advance(
    space: SearchSpace, state: _State, results: Sequence[Result], step: Step, lag: int
) -> _State:
    """Learn from a block of results."""
    layout, columns = layout_of(space), columns_of(space)
    before = (*state.before, state.policies)[-1 - MOST_LAG :]
    old = before[max(0, len(before) - 1 - lag)]
    networks = [r for r in results if r.status is not Status.BASELINE]
    found = [(r, columns.place_of(space, r.candidate)) for r in networks]
    known = [(r, place.point) for r, place in found if place is not None]
    if not known:
        return _State(state.programs, state.settings, state.best, state.scores, before)
    codes = layout.encode(np.array([point for _, point in known]))
    share = len(results) / BLOCK

    best, new = dict(state.best), []
    for (result, _), code in zip(known, codes, strict=True):
        family = result.candidate.family
        if family not in best:
            new.append(code[: layout.settings.first])
        best[family] = float(np.fmax(best.get(family, math.nan), result.score))
    best = dict([*best.items()][-window(layout.programs) :])
    programs = state.programs
    if new:
        programs = remember(programs, np.array(new), old.programs)
    programs = step(programs, rewards_of(best.values()), share)

    settings, scores = state.settings, state.scores
    if layout.settings.first < len(layout.settings.all):
        scores = (*scores, *(r.score for r, _ in known))[-window(layout.settings) :]
        settings = step(remember(settings, codes, old.settings), rewards_of(scores), share)
    return _State(programs, settings, best, scores, before)


def rewards_of(scores: Iterable[float]) -> Floats:
    """Failures are the worst: [n]."""
    rewards = np.array([*scores])
    return np.where(np.isnan(rewards), -math.inf, rewards)
