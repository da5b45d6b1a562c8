"""What is trained next: candidates are asked for, and as many as fit become a group."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from adanet_py.config import SearchConfig
from adanet_py.controllers import Controller, name_of
from adanet_py.fidelity import Rung, Seen
from adanet_py.memory import fitting
from adanet_py.own import engine_for
from adanet_py.plan import (
    Workload,
    make_group,
    measured_speed,
    size_group,
    too_costly,
)
from adanet_py.proposing import ask, with_failures
from adanet_py.records import Candidate, Group, History, Result, Status
from adanet_py.refine.bandit import share_of_children
from adanet_py.refine.refiner import Refiner
from adanet_py.space import SearchSpace
from adanet_py.state import State

PROPOSALS = 8  # that may be too costly for the time left before none is made
FRUITLESS = 400  # candidates in a row that break a bound, after which a count is given up
SPARED = 0.5  # of the children's part, which no group of the controller may take
LAG = 4  # with a count of candidates, a proposal sees the groups up to this many before its own


@dataclass
class Grouper:
    """Makes the groups of a search, one after the other, from the state of its journal.

    `left()` says how many seconds training may still take, `dense()` which engine dense networks
    are for; `journal(kind, data)` and `note(message, once=...)` tell what was decided. `first` is
    the first group of a refinement, which trains children alone; None in a search.
    """

    config: SearchConfig
    state: State
    space: SearchSpace
    controller: Controller
    refiner: Refiner
    load: Workload
    seen: Seen
    left: Callable[[], float]
    dense: Callable[[], str]
    journal: Callable[[str, Any], None]
    note: Callable[..., None]
    first: int | None = None
    refused: tuple[Candidate, ...] = ()  # proposed, but too costly for the time left
    late: bool = False  # that nothing proposed fits into the time left
    early: bool = False  # that children's part has begun before its time, for want of others
    warned: bool = False  # that the controller mixes families
    _settled: int = 0  # groups at the beginning that are looked at no more, for they have ended ...
    _early: Sequence[Result] = ()  # ... and those of their results that a later child may need

    @property
    def counted(self) -> bool:
        """Whether a number of candidates bounds the search: then no clock enters a decision."""
        return self.config.candidates is not None

    def next(self) -> Group | None:
        """The next group, decided by what a replay knows too; None when nothing fits now."""
        if self.late:
            return None
        index = len(self.state.groups)
        before = self._before(index) if self.counted else None
        if any(i not in self.state.results for i in range(before or 0)):
            return None
        history = self.state.history(before)
        if self.config.time is None and fruitless(history):
            self.note(f"The last {FRUITLESS} candidates break a bound: the search ends here.")
            self.journal("exhausted", {})
            return None
        rng = np.random.default_rng([self.config.seed, index])
        self.load = replace(self.load, dense=self.dense())
        refined = self._children(index, before, rng)
        if refined is not None or self.first is not None:
            return refined
        group = self._candidates(index, before, history, rng)
        if group is None and self.late and self._kept_for_children() and not self.early:
            # Nothing of the controller ends before the children's part begins: it begins now.
            self.early, self.late = True, False
            return self._children(index, before, rng)
        return group

    def left_for(self, group: Group) -> float:
        """Seconds until training of a group must end, here or where it is submitted again.

        One of the controller's that takes longer than was thought leaves children `SPARED` of their
        part.
        """
        spared = 0.0 if group.candidates[0].inherits else SPARED * self._kept_for_children()
        return self.left() - spared

    def _kept_for_children(self) -> float:
        """Seconds at the end that are not the controller's."""
        share, time = self.config.share_of_children, self.config.time
        if self.first is not None or self.counted or time is None or isinstance(share, str):
            return 0.0
        return share * time

    def _candidates(
        self, index: int, before: int | None, history: History, rng: np.random.Generator
    ) -> Group | None:
        """A group of what the controller proposes."""
        for _ in range(PROPOSALS):
            refused = [c for c in self.refused if not c.inherits]
            seen, most = with_failures(history, refused), self._most(before)
            wanted = min(self.load.members_of(index), most)
            asked = ask(self.controller, self.space, seen, wanted, rng, self.load)
            candidates = asked.candidates
            if asked.too_large:
                self.note(f"Not trained: {asked.too_large}", once="too large")
            if asked.other and not self.warned:
                self.warned = True
                self.note(
                    f"The controller proposed candidates of several programs at once; {asked.other}"
                    f" of {asked.other + len(candidates)} differ from the first one's and are not "
                    "trained."
                )
            if not candidates:
                if asked.too_large:
                    self.note("The controller proposes nothing smaller: the search ends here.")
                if asked.too_large or not self.refused:
                    self.journal("exhausted", {})
                return None
            kept = self._kept_for_children()
            members, epochs, speed = self._size(index, candidates, self.load, history, most, kept)
            denied = too_costly(candidates[0], self.load, speed, members, epochs)
            if denied:
                self.note(denied, once=candidates[0].family)
            if members:
                names = [c.by or name_of(self.controller) for c in candidates[:members]]
                bars = partial(self._bars, before)
                engine = engine_for(candidates[0], self.load.own, dense=self.load.dense)
                group = candidates[:members]
                return make_group(index, group, names, epochs, self.load, engine, bars)
            self.refused += tuple(candidates)  # a cheaper one may still fit
        self.late = True
        return None

    def _children(self, index: int, before: int | None, rng: np.random.Generator) -> Group | None:
        """A group of children, if it is time for them and there is any; never cut by others."""
        history = self.state.history(before)
        share = self._share_of_children(index, before, history)
        if not share:
            return None
        # A group may take as large a part of the time for children as others of that for all.
        seconds = None if self.load.seconds is None else share * self.load.seconds
        load = replace(self.load, seconds=seconds)
        most = min(self.load.members, self._most(before))
        for _ in range(PROPOSALS):
            seen = with_failures(history, self.refused)
            candidates = ask(self.refiner, self.space, seen, most, rng, load).candidates
            if not candidates:
                if self.first is not None and not self.refused:
                    self.note("No move is left to try: the refinement ends here.")
                    self.journal("exhausted", {})
                return None
            members, epochs, _ = self._size(index, candidates, load, history, most)
            if members:
                group = candidates[:members]
                engine = engine_for(candidates[0], load.own, dense=load.dense)
                return make_group(index, group, [c.by for c in group], epochs, load, engine)
            self.refused += tuple(candidates)
        self.late = self.first is not None
        return None

    def _share_of_children(self, index: int, before: int | None, history: History) -> float:
        """The part of the time that children may take, if it is their turn; else 0."""
        config, share = self.config, self.config.share_of_children
        if self.first is not None:
            return 1.0
        if isinstance(share, str):  # auto
            # A generator of its own: what is proposed anew is the same with and without children.
            lot = np.random.default_rng([config.seed, index, 1]).random()
            left = None if self.counted else self.left()
            return 1.0 if lot < share_of_children(history, left) else 0.0
        if self.counted:
            due = self.state.proposed(before) >= (1.0 - share) * (config.candidates or 0)
        else:
            due = self.early or self.left() <= share * (config.time or 0.0)
        return share if due else 0.0

    def _size(
        self,
        index: int,
        candidates: Sequence[Candidate],
        load: Workload,
        history: History,
        most: int,
        kept: float = 0.0,
    ) -> tuple[int, float, float]:
        """How many of the candidates are trained, for how many epochs, and the speed measured.

        `kept`: seconds of those left that they may not take.
        """
        left = None if self.counted else self.left() - kept
        speed = 1.0 if self.counted else measured_speed(history, load, candidates[0])
        most = min(most, fitting(candidates[0], load))
        members, epochs = size_group(candidates[0], load, speed, left, most, index)
        return members, epochs, speed

    def _most(self, before: int | None) -> int:
        """How many candidates may still be proposed."""
        return (self.config.candidates or 1 << 30) - self.state.proposed(before)

    def needed(self) -> set[str]:
        """Networks whose weights a child may yet ask for.

        A proposal by count sees an earlier state of the search: its parents are among the best of
        that, so of every state that one may still see.
        """
        waiting = self.state.waiting()
        out = {str(c.parent) for g in waiting for c in g.candidates if c.inherits}
        if self.config.share_of_children or self.first is not None:
            found, last = self.state.results, len(self.state.groups)
            begin = max(self.first or 0, last - LAG + 1) if self.counted else last
            while self._settled < begin and self._settled in found:
                self._early = self.refiner.lasting([*self._early, *found[self._settled]])
                self._settled += 1
            for end in range(begin, last + 1):
                later = (r for i in range(self._settled, end) for r in found.get(i, ()))
                out |= {r.candidate.id for r in self.refiner.parents([*self._early, *later])}
        return out

    def _bars(self, before: int | None, rungs: Sequence[Rung]) -> Sequence[float]:
        """What `rungs` ask of a candidate, by the groups below `before`; see `Seen.bars`."""
        if all(rung.best >= 1.0 for rung in rungs):  # nobody is compared with earlier groups
            return [math.inf] * len(rungs)
        groups, found = self.state.groups, self.state.results
        earlier = {
            i: r
            for i, r in found.items()
            if (before is None or i < before) and not groups[i].candidates[0].inherits
        }
        return self.seen.bars(groups, earlier, rungs)

    def _before(self, index: int) -> int:
        """The group before which a proposal by count must know all results.

        Candidates that break a bound do not count: those wanted in their place come when all else
        is known, so that no clock decides what is seen.
        """
        before = max(self.first or 0, index - LAG + 1)
        more = self.state.proposed(before) < (self.config.candidates or 0)
        return before if more else index


def fruitless(history: History) -> bool:
    """Whether the last `FRUITLESS` candidates all break a bound."""
    last = history.results[-FRUITLESS:]
    return len(last) == FRUITLESS and all(r.status is Status.INFEASIBLE for r in last)
