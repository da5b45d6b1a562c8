"""The state of a run, put together from the events of its journal, of one or of all.

A search applies every event as it writes it; a later call, `resume` or a report, replays the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from adanet_py.journal import Event, read
from adanet_py.plan import best_of
from adanet_py.records import Group, History, Result, Status

JOURNAL = "journal.jsonl"


@dataclass
class State:
    """What the journal says so far: groups, results, baselines, the saved model, how it ended.

    `groups` and `results` are by the index of the group.
    """

    groups: dict[int, Group] = field(default_factory=dict)
    results: dict[int, list[Result]] = field(default_factory=dict)  # of the finished groups
    baselines: list[Result] = field(default_factory=list)
    elapsed: float = 0.0  # seconds the run has taken
    stopped: str | None = None  # why the search ended, if it did
    model: Mapping[str, Any] | None = None  # the last one saved
    ensemble: Mapping[str, Any] | None = None  # what was grown at the end
    exhausted: bool = False  # the space holds no candidate that was not proposed
    refining: Mapping[str, Any] | None = None  # the last refinement of a search that had ended
    device: str = "cpu"  # of the last session
    began: float | None = None  # when the first group was proposed
    forecast: Mapping[str, Any] | None = None  # the last one made, see forecast.py
    costs: dict[str, Any] = field(default_factory=dict)  # of using models saved, by candidate
    by_id: dict[str, Result] = field(default_factory=dict)  # baselines and networks
    when: dict[str, float] = field(default_factory=dict)  # seconds until a result, by id
    best: Result | None = None  # the network that stands with the highest reward
    infeasible: dict[int, int] = field(default_factory=dict)  # how many broke a bound, by group
    _finished: Sequence[Result] | None = field(default=None, init=False, repr=False, compare=False)
    _last: int = field(default=-1, init=False, repr=False, compare=False)  # group with results
    _proposed: set[str] = field(default_factory=set, init=False, repr=False, compare=False)
    _children: bool = field(default=False, init=False, repr=False, compare=False)
    _open: set[int] = field(default_factory=set, init=False, repr=False, compare=False)
    _count: int = field(default=0, init=False, repr=False, compare=False)  # see `proposed`

    @classmethod
    def replayed(cls, events: Iterable[Event]) -> State:
        """The state after `events`."""
        state = cls()
        for event in events:
            state.apply(event.kind, event.data, event.time)
            state.elapsed = max(state.elapsed, event.time)
        return state

    def apply(self, kind: str, data: Any, time: float = 0.0) -> None:
        """Take in one event; `data` is what the journal holds of it.

        `time` is how many seconds the run had taken by then, over all its sessions.
        """
        if kind == "group":
            group = Group.from_json(data)
            self.groups[group.index] = group
            self._open.add(group.index)
            self._count += len(group.candidates)
            self.began = time if self.began is None else self.began
            self._proposed.update(c.experiment for c in group.candidates)
            self._children = self._children or any(c.inherits for c in group.candidates)
        elif kind == "results":
            results = [Result.from_json(r) for r in data["results"]]
            self.results[data["group"]] = results
            self.by_id.update({r.candidate.id: r for r in results})
            self.when.update({r.candidate.id: time for r in results})
            self._open.discard(data["group"])
            broken = sum(r.status is Status.INFEASIBLE for r in results)
            self._count += self.infeasible.pop(data["group"], 0) - broken
            if broken:
                self.infeasible[data["group"]] = broken
            self._add_finished(data["group"], results)
            self.best = best_of([*results, self.best] if self.best else results)
        elif kind == "baseline":
            baseline = Result.from_json(data)
            self.baselines.append(baseline)
            self.by_id[baseline.candidate.id] = baseline
            self.when[baseline.candidate.id] = time
        elif kind == "model":
            self.model = data
            self.costs.update(data.get("costs", {}))
        elif kind == "ensemble":
            self.ensemble = data
        elif kind == "forecast":
            self.forecast = data
        elif kind == "stop":
            self.stopped = data["reason"]
        elif kind in ("start", "resume"):
            self.device = data["device"]
        elif kind == "exhausted":
            self.exhausted = True
        elif kind == "refine":
            self.refining, self.stopped, self.exhausted = data, None, False

    def _add_finished(self, group: int, results: Sequence[Result]) -> None:
        """Append a group's results to those in order.

        Where a later group was quicker, all are put in order anew the next time they are asked for.
        """
        found, self._finished = self._finished, None
        if group > self._last and found is not None:
            self._finished = [*found, *results]
        self._last = max(self._last, group)

    def proposed(self, before: int | None = None) -> int:
        """How many candidates were proposed so far, those that broke a bound not counted.

        With `before`, those of that group and later ones count even so: what is proposed for it
        must not depend on results that may or may not be there yet.
        """
        return self._count + sum(self.infeasible.get(i, 0) for i in self._from(before))

    def finished(self, before: int | None = None) -> Sequence[Result]:
        """The networks' results in the order of their groups; of groups below `before`."""
        if self._finished is None:
            self._finished = [r for i in sorted(self.results) for r in self.results[i]]
        later = sum(len(self.results.get(i, ())) for i in self._from(before))
        return self._finished[: len(self._finished) - later] if later else self._finished

    def _from(self, before: int | None) -> list[int]:
        """The groups from `before` on, the last first: they are begun in their order."""
        if before is None:
            return []
        return list(takewhile(lambda i: i >= before, reversed(self.groups)))

    def waiting(self) -> list[Group]:
        """The groups that have no results yet."""
        return [self.groups[i] for i in sorted(self._open)]

    def history(self, before: int | None = None) -> History:
        """What a controller may see: results of groups below `before`, the rest pending.

        Baselines are left out: they come when they are ready, and a proposal must not depend on
        what a clock decides.
        """
        waiting = sorted(self._open.union(self._from(before)))
        pending = (c for i in waiting for c in self.groups[i].candidates)
        return History(tuple(self.finished(before)), tuple(pending), self._proposed, self._children)

    def all_results(self) -> list[Result]:
        """The baselines' results, then the networks'."""
        return [*self.baselines, *self.finished()]


def read_state(folder: Path) -> State:
    """The state of the run in a folder, by its journal; without one that of a run not begun."""
    path = folder / JOURNAL
    return State.replayed(read(path)) if path.is_file() else State()
