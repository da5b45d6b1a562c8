"""The search loop: propose groups, train them, journal the results, keep the best model saved.

    while there is budget:
        group   = controller(space, history)         (plan.py: how many, how long)
        results = evaluator(group)                   (executors/: worker processes)
        journal <- results with their reward         (reward.py)
        model   <- the best so far, checked          (export.py)
    leaderboard <- journal                           (leaderboard.py)

All state is in the journal: a killed run reads it back and goes on, inside interrupted groups too.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from adanet_py import forecast
from adanet_py.baseline_thread import BaselineThread, baseline_result
from adanet_py.baselines import Baseline
from adanet_py.choosing import make_choice
from adanet_py.config import SearchConfig
from adanet_py.controllers import Controller, name_of
from adanet_py.ensembling import (
    HeldOut,
    Options,
    grow_ensemble,
    is_better,
    why_none,
    write_table,
)
from adanet_py.executors import Event, Executor, LocalExecutor, Nursery
from adanet_py.fidelity import Rung, Seen
from adanet_py.folder import State, evict, keep_probe, tidy
from adanet_py.journal import Journal, StorageError
from adanet_py.metrics import get_metric, to_error
from adanet_py.own import Own, engine_for
from adanet_py.placement import count_cores, make_job
from adanet_py.plan import (
    MEMBERS,
    Workload,
    make_group,
    measured_speed,
    size_group,
    too_costly,
)
from adanet_py.prepare import Prepared
from adanet_py.proposing import ask, with_failures
from adanet_py.records import Candidate, Group, History, Result, Status
from adanet_py.refine.acceptance import judged
from adanet_py.refine.refiner import Refiner
from adanet_py.reserve import TABLES, Reserve
from adanet_py.reward import with_reward
from adanet_py.saving import Saver
from adanet_py.space import SearchSpace
from adanet_py.space_losses import with_losses
from adanet_py.tables import standard_error, write_tables
from adanet_py.training.engines.native import Readiness
from adanet_py.training.losses import AUTO

KEPT = 20  # candidates whose weights stay on disk
PROPOSALS = 8  # that may be too costly for the time left before none is made
FRUITLESS = 400  # candidates in a row that break a bound, after which a count is given up
LAG = 4  # with a count of candidates, a proposal sees the groups up to this many before its own
BASELINE_SHARE = 0.12  # of the time budget, for boosting
MOST_BASELINE_SECONDS = 30.0
TREES_SHARE = 0.35  # of it, for more of them where any may be a member
CHECKPOINT_SECONDS = 5.0  # between two of a group
ENSEMBLE_SHARE = 0.035  # of the time budget, to grow the ensemble and to check it
ENSEMBLE_SECONDS = 4.0  # at most, but where there are many outputs:
ENSEMBLE_CELL = 3e-4  # seconds for each validation row and output
ENSEMBLE_MOST = 0.15  # of the time budget
HANGS = 3.0  # seconds after its deadline at which a group is held to hang
INTERRUPTED = "interrupted"
INTERRUPT_GRACE = 30.0  # seconds a group in this process has to notice an interrupt

OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Refining:
    """What a session of refinement is: its moves (none: all) and its objective."""

    moves: tuple[str, ...] = ()
    objective: str = "metric"


@dataclass
class Search:
    """One session of a run, from where the journal stands to its end."""

    folder: Path
    config: SearchConfig
    prepared: Prepared
    space: SearchSpace
    controller: Controller
    journal: Journal
    state: State
    device: str
    executor: Executor
    nursery: Nursery
    on_event: OnEvent
    deadline: float  # monotonic; infinite without a time budget
    own: Own = field(default_factory=Own)
    jobs: dict[int, Group] = field(default_factory=dict)
    crashes: dict[int, int] = field(default_factory=dict)
    interrupted: bool = False
    warned: bool = False  # that the controller mixes families
    native: Readiness | None = None  # of the engine for a CPU
    refused: tuple[Candidate, ...] = ()  # proposed, but too costly for the time left
    late: bool = False  # that nothing proposed fits into the time left
    looked: tuple[int, ...] = ()  # when and at how many results the saver looked
    told: set[str] = field(default_factory=set)  # what notes are given once about
    refining: Refining | None = None  # this session trains children alone

    def __post_init__(self) -> None:
        self.kept = Reserve(self.config.time)
        self.metric = get_metric(self.prepared.metric)
        pinned = self.config.loss != AUTO or self.config.quantile is not None
        losses = self.own.all_losses()
        self.space = with_losses(self.space, self.prepared.source.spec, losses, pinned=pinned)
        self.seen = Seen(partial(to_error, self.metric))
        named = self.refining or Refining()
        self.refiner = Refiner(named.moves, named.objective, self.own, self.prepared.source.spec)
        self.load = Workload(
            spec=self.prepared.source.spec,
            rows=self.prepared.rows,
            folds=len(self.prepared.split.train),
            own=self.own,
            seconds=None if self.counted else self.config.time,
            order_seed=self.config.seed,
            fidelity=self.config.fidelity,
        )
        self.saver = Saver(
            self.folder,
            self.prepared,
            self.own,
            self._journal,
            self.note,
            pause=max(60.0, 0.25 * (self.config.time or 0.0)),
            nursery=self.nursery,
            choice=make_choice(
                self.config.choose,
                self.metric,
                self.config.reward,
                partial(standard_error, self.folder, self.prepared),
                objective=named.objective,
            ),
            leader=lambda: self.state.best,
            any_member=self.config.members == "any",
        )
        if self.refining is not None and self.state.model is not None:
            # What was saved stays the model until something better is accepted.
            model = self.state.model
            name = model.get("network", model["candidate"])
            self.saver.saved = self.state.by_id.get(name)

    @property
    def counted(self) -> bool:
        """Whether a number of candidates bounds the search: then no clock enters a decision."""
        return self.config.candidates is not None

    @property
    def timeless(self) -> bool:
        """Whether no clock may leave a trace in the results."""
        return self.config.time is None

    @property
    def reserve(self) -> float:
        """Seconds kept for scoring, saving, checking and combining at the end."""
        kept = self.kept.seconds(self.saver.seconds)
        if self.config.time is None or self.config.ensemble == "none":
            return kept
        valid = sum(len(v) for v in self.prepared.split.valid)
        cells = valid * self.prepared.source.spec.n_outputs
        grown = min(ENSEMBLE_SECONDS, ENSEMBLE_SHARE * self.config.time)
        return kept + max(grown, min(ENSEMBLE_CELL * cells, ENSEMBLE_MOST * self.config.time))

    @property
    def _first(self) -> int:
        """The first group of this refinement, 0 in a search: what was before is known to all."""
        return 0 if self.refining is None else int((self.state.refining or {}).get("first", 0))

    def left(self) -> float:
        """Seconds until training must end."""
        return self.deadline - self.reserve - time.monotonic()

    # ------------------------------------------------------------------ the loop

    def run(self) -> str:
        """Search until the budget is spent or the user interrupts; returns why it ended.

        SIGINT or SIGTERM once: what is finished is saved and the run can go on later; twice:
        KeyboardInterrupt, at once.
        """
        with _interrupts(self._interrupt), self._compiled():
            baselines = self._start_baselines()
            for index in sorted(self.state.groups):
                if index not in self.state.results and self.left() > 0:
                    self._submit(self.state.groups[index])
            reason = self._loop(baselines)
            self._end_jobs()
            while not (self.interrupted or self.left() <= 0 or baselines.wait(0.1)):
                self._drain(baselines)
                self._save_best()
            baselines.end()
            self._drain(baselines)
            reason = INTERRUPTED if self.interrupted else reason
            self._finish(reason)
        return reason

    def _loop(self, baselines: BaselineThread) -> str:
        while True:
            self._drain(baselines)
            reason = self._reason()
            while reason is None and len(self.executor.unfinished) < self._room(baselines):
                group = self._propose()
                if group is None:
                    break
                self._journal("group", group.to_json())
                self._submit(group)
                reason = self._reason()
            if self.interrupted or self.left() <= 0:
                return self._reason() or "the time budget is spent"
            if not self.executor.unfinished:
                reason = self._reason()
                if reason or len(self.state.results) == len(self.state.groups):
                    return reason or "no time is left for another group"
            for event in self.executor.poll(min(0.25, max(0.0, self.left()))):
                self._handle(event)
            self._save_best()

    def _room(self, baselines: BaselineThread) -> int:
        """How many groups may train now, beside the fitting of baselines and a compilation."""
        workers = self.executor.capacity
        if workers == 1 or workers < count_cores():
            return workers
        compiling = self.native is not None and self.native.busy
        return max(1, workers - (not baselines.wait(0.0)) - compiling)

    @contextmanager
    def _compiled(self) -> Iterator[None]:
        """Have the fast engine ready, or on its way, before a group is planned."""
        if self.device == "cpu":
            wait = self.counted or self.timeless
            self.native = Readiness(self.nursery, wait, self.note, lambda: self.interrupted)
        try:
            yield
        finally:
            if self.native is not None:
                self.native.close()

    def _dense(self) -> str:
        """The engine of dense networks."""
        return "stacked" if self.native is None else self.native.engine

    def _end_jobs(self) -> None:
        """End what still runs: at the deadline with what it has, at an interrupt without a trace.

        Interrupted groups of a run without a time budget are not recorded as they are: resumed,
        they go on from their checkpoints, to what they would have been.
        """
        if self.interrupted:
            self.note("Interrupted: finishing with the best so far; again to stop at once.")
        if not self.executor.unfinished:
            self.executor.kill()  # idle workers would only take memory from the last check
            return
        grace = INTERRUPT_GRACE
        if math.isfinite(self.deadline):
            last = TABLES + self.saver.seconds
            grace = max(1.0, self.deadline - last - time.monotonic())
        if self.timeless and isinstance(self.executor, LocalExecutor):
            grace = 0.0
        for event in self.executor.stop(grace):
            self._handle(event)

    def _reason(self) -> str | None:
        """Why nothing more is proposed, or None."""
        if self.interrupted:
            return INTERRUPTED
        wanted = self.config.candidates
        if wanted is not None and self.state.proposed() >= wanted:
            return f"{wanted} candidates were trained"
        if self.state.exhausted:
            return "the search space is exhausted"
        return "the time budget is spent" if self.left() <= 0 else None

    # ------------------------------------------------------------------ proposing

    def _propose(self) -> Group | None:
        """The next group, decided by what a replay knows too; None when nothing fits now."""
        if self.late:
            return None
        index = len(self.state.groups)
        before = self._seen(index) if self.counted else None
        if any(i not in self.state.results for i in range(before or 0)):
            return None
        history = self.state.history(before)
        if self.timeless and fruitless(history):
            self.note(f"The last {FRUITLESS} candidates break a bound: the search ends here.")
            self._journal("exhausted", {})
            return None
        rng = np.random.default_rng([self.config.seed, index])
        self.load = replace(self.load, dense=self._dense())
        refined = self._propose_children(index, before, rng)
        if refined is not None or self.refining is not None:
            return refined
        most = (self.config.candidates or 1 << 30) - self.state.proposed(before)
        left = None if self.counted else self.left()
        for _ in range(PROPOSALS):
            refused = [c for c in self.refused if not c.inherits]
            seen = with_failures(history, refused)
            asked = ask(self.controller, self.space, seen, min(MEMBERS, most), rng, self.load)
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
                    self._journal("exhausted", {})
                return None
            speed = 1.0
            if not self.counted:
                speed = measured_speed(history, self.load, candidates[0])
            members, epochs = size_group(candidates[0], self.load, speed, left, most, index)
            denied = too_costly(candidates[0], self.load, speed, members, epochs)
            if denied:
                self.note(denied, once=candidates[0].family)
            if members:
                engine = engine_for(candidates[0], self.own, dense=self.load.dense)
                group = candidates[:members]
                names = [c.by or name_of(self.controller) for c in group]
                bars = partial(self._bars, before)
                return make_group(index, group, names, epochs, self.load, engine, bars)
            self.refused += tuple(candidates)  # a cheaper one may still fit
        self.late = True
        return None

    def _propose_children(
        self, index: int, before: int | None, rng: np.random.Generator
    ) -> Group | None:
        """A group of children, if it is time for them and there is any; never cut by others."""
        config, share = self.config, 1.0 if self.refining else self.config.refine_share
        if self.counted:
            due = self.state.proposed(before) >= (1.0 - share) * (config.candidates or 0)
        else:
            due = self.left() <= share * (config.time or 0.0)
        if not share or not due:
            return None
        # A group may take as large a part of the time for children as others of that for all.
        seconds = None if self.load.seconds is None else share * self.load.seconds
        load, history = replace(self.load, seconds=seconds), self.state.history(before)
        most = min(MEMBERS, (config.candidates or 1 << 30) - self.state.proposed(before))
        for _ in range(PROPOSALS):
            seen = with_failures(history, self.refused)
            asked = ask(self.refiner, self.space, seen, most, rng, load)
            candidates = asked.candidates
            if not candidates:
                if self.refining is not None and not self.refused:
                    self.note("No move is left to try: the refinement ends here.")
                    self._journal("exhausted", {})
                return None
            left = None if self.counted else self.left()
            speed = 1.0 if self.counted else measured_speed(history, load, candidates[0])
            members, epochs = size_group(candidates[0], load, speed, left, most, index)
            if members:
                engine = engine_for(candidates[0], self.own, dense=load.dense)
                group = candidates[:members]
                names = [c.by for c in group]
                return make_group(index, group, names, epochs, load, engine)
            self.refused += tuple(candidates)
        self.late = self.refining is not None
        return None

    def _needed(self) -> set[str]:
        """Networks whose weights a child may yet ask for.

        A proposal by count sees an earlier state of the search: its parents are among the best of
        that, so of every state that one may still see.
        """
        waiting = [g for i, g in self.state.groups.items() if i not in self.state.results]
        out = {str(c.parent) for g in waiting for c in g.candidates if c.inherits}
        if self.config.refine_share or self.refining is not None:
            last = len(self.state.groups)
            for before in (
                range(max(self._first, last - LAG + 1), last + 1) if self.counted else (None,)
            ):
                history = History(tuple(self.state.finished(before)))
                out |= {r.candidate.id for r in self.refiner.parents(history)}
        return out

    def _bars(self, before: int | None, rungs: Sequence[Rung]) -> Sequence[float]:
        """What `rungs` ask of a candidate, by the groups below `before`; see `Seen.bars`."""
        if not rungs:
            return ()
        groups, found = self.state.groups, self.state.results
        earlier = {
            i: r
            for i, r in found.items()
            if (before is None or i < before) and not groups[i].candidates[0].inherits
        }
        return self.seen.bars(groups, earlier, rungs)

    def _seen(self, index: int) -> int:
        """The group before which a proposal by count must know all results.

        Candidates that break a bound do not count: those wanted in their place come when all else
        is known, so that no clock decides what is seen.
        """
        before = max(self._first, index - LAG + 1)
        more = self.state.proposed(before) < (self.config.candidates or 0)
        return before if more else index

    def _submit(self, group: Group) -> None:
        seconds = max(0.01, self.left()) if math.isfinite(self.deadline) else None
        bounds = self.config.reward.bounds
        job = make_job(group, self.folder, self.prepared, self.device, self.own, bounds)
        job |= {"deadline_s": seconds, "checkpoint_s": CHECKPOINT_SECONDS}
        kill_after = None if seconds is None else seconds + max(HANGS, self.reserve)
        self.jobs[self.executor.submit(job, kill_after=kill_after)] = group

    # ------------------------------------------------------------------ results

    def _handle(self, event: Event) -> None:
        if event.kind == "progress":
            self.kept.heard(event.job)
            self._forward(event)
            return
        self.kept.ended(event.job)
        group = self.jobs.pop(event.job)
        if event.kind == "cancelled":
            return  # its checkpoint stays: a resumed run goes on from there
        if event.kind == "crash":
            self.crashes[group.index] = self.crashes.get(group.index, 0) + 1
            message = str(event.data.get("message", "its process died"))
            if self.crashes[group.index] == 1 and self.left() > 0:
                self.note(f"Group {group.index}: {message} It is tried once more.")
                self._submit(group)
                return
            results = [
                _lost(c, group, i, Status.CRASHED, message) for i, c in enumerate(group.candidates)
            ]
        elif event.kind == "failed":
            if event.data.get("error") == StorageError.__name__:
                raise StorageError(str(event.data.get("message")))
            if self._drop_checkpoint(group):
                self._submit(group)
                return
            message = f"{event.data.get('error')}: {event.data.get('message')}"
            self.note(f"Group {group.index} failed: {message}")
            results = [
                _lost(c, group, i, Status.FAILED, message) for i, c in enumerate(group.candidates)
            ]
        else:
            results = [Result.from_json(r) for r in event.data["results"]]
            if self.timeless and any(r.status is Status.DEADLINE for r in results):
                return  # interrupted in this process: it is trained again when resumed
        baseline = self._constant()
        results = [with_reward(r, self.metric, baseline, self.config.reward) for r in results]
        known, objective = self.state.by_id, self.refiner.objective
        results = [judged(r, known.get(r.candidate.parent or ""), objective) for r in results]
        for result in (r for r in results if r.status is Status.INFEASIBLE):
            message = f"Not trained: {result.candidate.architecture} with {result.message}."
            self.note(f"{message} So are others.", once="infeasible")
        self._journal("results", {"group": group.index, "results": [r.to_json() for r in results]})
        for result in results:
            self.on_event({"kind": "result", "result": result})
        self._evict()
        self._forecast()
        self._progress()

    def _forecast(self, last: bool = False) -> None:
        """Say early, and record at the end, how much time the search needs."""
        if self.refining is not None:
            return
        done = sum(len(r) for r in self.state.results.values())
        spent = self.journal.elapsed / self.config.time if self.config.time else 0.0
        share = max(spent, done / self.config.candidates if self.config.candidates else 0.0)
        best, began = self.state.best, self.state.began
        if best is None or began is None or not (last or self.state.forecast is None):
            return
        if share < forecast.SHARE or done < forecast.FEWEST:
            return
        errors = [
            to_error(self.metric, r.metrics["validation"]) if r.status.usable else math.inf
            for results in self.state.results.values()
            for r in results
            if r.status is not Status.INFEASIBLE and not r.candidate.inherits
        ]
        doubt = standard_error(self.folder, self.prepared, best)
        found = forecast.forecast(errors, doubt, self.journal.elapsed, began)
        if found is not None:
            self._journal("forecast", found.to_json())
            if not last:
                self.note(found.words)

    def _drop_checkpoint(self, group: Group) -> bool:
        """Whether a failed group had a checkpoint, which may be what is wrong; it is deleted."""
        found = list((self.folder / "checkpoints").glob(f"{group.index}-*"))
        for path in found:
            path.unlink(missing_ok=True)
        if found:
            self.note(f"Group {group.index} failed after its checkpoint; it is begun afresh.")
        return bool(found)

    def _constant(self) -> float:
        """Validation metric of the constant baseline, the unit of errors."""
        found = [r for r in self.state.baselines if r.candidate.architecture == "constant"]
        return found[0].metrics["validation"]

    def _forward(self, event: Event) -> None:
        if event.data.get("kind") == "note":
            self.note(str(event.data["message"]), once=str(event.data.get("once", "")))
        else:
            self.on_event(dict(event.data))
            self._progress(event.data.get("validation"))

    def _progress(self, running: float | None = None) -> None:
        best = self.state.best
        value = best.metrics["validation"] if best else None
        if running is not None and math.isfinite(running):
            better = max if self.metric.greater_is_better else min
            value = running if value is None else better(value, running)
        self.on_event(
            {
                "kind": "progress",
                "done": len(self.state.finished()) - sum(self.state.infeasible.values()),
                "candidates": self.config.candidates,
                "running": sum(len(g.candidates) for g in self.jobs.values()),
                "best": value,
                "metric": self.prepared.metric,
                "seconds": self.journal.elapsed,
                "time_left": None if math.isinf(self.deadline) else max(0.0, self.left()),
            }
        )

    # ------------------------------------------------------------------ baselines and the model

    def _start_baselines(self) -> BaselineThread:
        seconds = None
        if self.config.time is not None:
            seconds = min(MOST_BASELINE_SECONDS, BASELINE_SHARE * self.config.time)
        have = {r.candidate.architecture for r in self.state.baselines}
        more = self.config.members == "any"
        trees = None if self.config.time is None else TREES_SHARE * self.config.time
        baselines = BaselineThread(self.prepared, have, seconds, self.config.seed, more, trees)
        if baselines.first is not None:
            self._add_baseline(baselines.first)
        return baselines

    def _drain(self, baselines: BaselineThread) -> None:
        for baseline in baselines.ready():
            if isinstance(baseline, Exception):
                self.note(f"A baseline failed: {type(baseline).__name__}: {baseline}")
            else:
                self._add_baseline(baseline)
                self._save_best()

    def _add_baseline(self, baseline: Baseline) -> None:
        unit = None if baseline.name == "constant" else self._constant()
        result = baseline_result(baseline, self.prepared, self.folder, unit, self.config.reward)
        self._journal("baseline", result.to_json())
        self.on_event({"kind": "baseline", "result": result})

    def _save_best(self) -> None:
        """Have the saver look at what there is, if that or the second has changed since."""
        now = (len(self.state.results), len(self.state.baselines), int(time.monotonic()))
        if now == self.looked and not self.saver.checking:
            return
        self.looked = now
        self.saver.step(self.state.finished(), self.state.baselines, late=self.left() < 6.0)

    def _evict(self) -> None:
        """Delete the weights of networks that will not be the model."""
        front = self.config.reward if self.config.choose == "simplest" else None
        evict(self.folder, self.state.by_id, KEPT, front, self._needed())

    def _finish(self, reason: str) -> None:
        """Save the best, write the tables, close the journal."""

        networks, baselines = self.state.finished(), self.state.baselines
        told: list[Result | None] = []

        def tables() -> None:
            self._evict()
            told.append(self.saver.choose(networks, baselines, last=True))
            write_tables(self.folder, self.prepared, self.state, space=self.space, chosen=told[-1])

        self._forecast(last=True)
        self.saver.finish(networks, baselines, meanwhile=tables)
        if told[-1:] != [
            self.saver.choose(networks, baselines, last=True)
        ]:  # the last check has failed
            tables()
        self._compare_with_baselines()
        if reason != INTERRUPTED:
            self._grow_ensemble()
            self._journal("stop", {"reason": reason})
            tidy(self.folder)

    def _grow_ensemble(self) -> None:
        """Grow an ensemble from the best networks; it is the model where it is better than each."""
        held = HeldOut.of(self.prepared)
        held.save(self.folder)
        keep_probe(self.folder)
        any_member = self.config.members == "any"
        if self.config.ensemble == "none" or (self.state.best is None and not any_member):
            return
        if self.refining is not None and not self._has_new():
            return
        if self.refining is not None and self.refining.objective != "metric":
            self.note("No ensemble: a smaller or quicker network was asked for, which is one.")
            return
        rule = self.config.reward
        if rule.bounds or rule.target is not None or self.config.choose != "best":
            self.note("No ensemble: bounds, targets and simplicity are asked of one network.")
            return
        if why := why_none(held):
            self.note(why)
            return
        kept = list(self.state.by_id.values())
        kept.sort(key=lambda r: (-r.reward, r.parameters, r.candidate.id))
        latest = self.deadline - TABLES - 2.0 * self.saver.seconds
        config = self.config
        options = Options(
            config.ensemble, config.adanet_lambda, config.adanet_beta, members=config.members
        )

        def left() -> float:
            return latest - time.monotonic()

        grown = None if left() <= 0 else grow_ensemble(self.folder, kept, held, options, left)
        if grown is None:
            if left() <= 0:
                self.note("No time was left to grow an ensemble; `ensemble RUN` does it.")
            return
        write_table(grown, self.folder / "ensemble.csv")
        self._journal("ensemble", grown.to_json())
        if is_better(grown, self.prepared.metric):
            self.saver.save_ensemble(grown)

    def _has_new(self) -> bool:
        """Whether this refinement has accepted anything."""
        new = (r for i, rs in self.state.results.items() if i >= self._first for r in rs)
        return any(r.accepted for r in new)

    def _compare_with_baselines(self) -> None:
        """Say so when a baseline did better than every network, which is what is saved."""
        saved = self.saver.saved
        best = saved if saved is not None and saved.stands else self.state.best
        ahead = max(self.state.baselines, key=lambda r: r.reward, default=None)
        if best is None and self.config.reward.bounds and self.state.infeasible:
            self.note(
                "No network within the bounds was trained: the model saved is a baseline, which "
                "has none. Widen them, or give a space with smaller networks."
            )
        if saved is not None and saved.status is Status.BASELINE and best is not None:
            self.note(f"The model saved is the baseline {saved.candidate.architecture}.")
        elif best is not None and ahead is not None and ahead.reward > best.reward:
            self.note(
                f"The baseline {ahead.candidate.architecture} did better "
                f"({ahead.metrics['validation']:.6g}) than the best network "
                f"({best.metrics['validation']:.6g}), which is the model saved. Give more time."
            )

    # ------------------------------------------------------------------ small things

    def note(self, message: str, once: str = "") -> None:
        """Tell the user something they should know; of each `once` the first only."""
        if once in self.told:
            return
        if once:
            self.told.add(once)
        self.on_event({"kind": "note", "message": message})

    def _journal(self, kind: str, data: Any) -> None:
        self.journal.append(kind, data)
        self.state.apply(kind, data, self.journal.elapsed)
        if kind == "model":
            self.on_event({"kind": "model", "candidate": data["candidate"]})

    def _interrupt(self) -> None:
        # Only a flag: a handler may run in the middle of a print or of a write.
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True


def fruitless(history: History) -> bool:
    """Whether the last `FRUITLESS` candidates all break a bound."""
    last = history.results[-FRUITLESS:]
    return len(last) == FRUITLESS and all(r.status is Status.INFEASIBLE for r in last)


def _lost(
    candidate: Candidate, group: Group, position: int, status: Status, message: str
) -> Result:
    controller = group.controllers[position] if group.controllers else ""
    return Result(
        candidate,
        status,
        controller=controller,
        group=group.index,
        engine=group.engine,
        message=message,
    )


@contextmanager
def _interrupts(action: Callable[[], None]) -> Iterator[None]:
    """Have SIGINT and SIGTERM call `action` in the main thread, while inside."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(s, lambda *_: action()) for s in signals]
    try:
        yield
    finally:
        for s, handler in zip(signals, before, strict=True):
            signal.signal(s, handler)
