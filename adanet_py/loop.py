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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from adanet_py import forecast
from adanet_py.baseline_thread import BaselineThread, baseline_result
from adanet_py.baselines import Baseline, names
from adanet_py.choosing import make_choice
from adanet_py.config import SearchConfig
from adanet_py.controllers import Controller
from adanet_py.ending import finish, time_an_offer
from adanet_py.errors import AdanetError
from adanet_py.executors import Event, Executor, LocalExecutor, Nursery
from adanet_py.fidelity import Seen
from adanet_py.folder import evict
from adanet_py.grouping import Grouper
from adanet_py.journal import Journal, StorageError
from adanet_py.member_fits import MemberFits
from adanet_py.metrics import get_metric, to_error
from adanet_py.own import Own
from adanet_py.placement import Device, count_cores, make_job
from adanet_py.plan import (
    Workload,
)
from adanet_py.prepare import Prepared
from adanet_py.records import Candidate, Group, Result, Status
from adanet_py.refine.acceptance import doubts, judged
from adanet_py.refine.refiner import Refiner
from adanet_py.reserve import TABLES, Reserve
from adanet_py.reward import with_reward
from adanet_py.saving import Saver
from adanet_py.space import SearchSpace
from adanet_py.space_losses import with_losses
from adanet_py.state import State
from adanet_py.tables import standard_error
from adanet_py.training.engines.native import Readiness
from adanet_py.training.losses import AUTO

KEPT = 20  # candidates whose weights stay on disk
BASELINE_SHARE = 0.12  # of the time budget, for boosting
MOST_BASELINE_SECONDS = 30.0
TREES_SHARE = 0.35  # of it, for more of them where any may be a member
HEAD_START = 10.0  # seconds that a single core is left to the first group, at most ...
HEAD_START_SHARE = 0.15  # ... and of the time budget
CHECKPOINT_SECONDS = 5.0  # between two of a group
HANGS = 3.0  # seconds after its deadline at which a group is held to hang
INTERRUPTED = "interrupted"
INTERRUPT_GRACE = 30.0  # seconds a group in this process has to notice an interrupt

OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Refining:
    """What a session of refinement is: its moves (none: all) and its objective."""

    moves: tuple[str, ...] = ()
    objective: str = "metric"
    size: float | None = None  # share of the parameters to come to; None: as few as come


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
    device: Device
    executor: Executor
    nursery: Nursery
    on_event: OnEvent
    deadline: float  # monotonic; infinite without a time budget
    own: Own = field(default_factory=Own)
    jobs: dict[int, Group] = field(default_factory=dict)
    crashes: dict[int, int] = field(default_factory=dict)
    interrupted: bool = False
    native: Readiness | None = None  # of the engine for a CPU
    looked: tuple[int, ...] = ()  # when and at how many results the saver looked
    heard: bool = False  # something of a group in this session
    settled: int = 0  # groups with results that nothing is left to do about
    began: float = field(default_factory=time.monotonic)
    told: set[str] = field(default_factory=set)  # what notes are given once about
    refining: Refining | None = None  # this session trains children alone

    def __post_init__(self) -> None:
        self.kept = Reserve(self.config.time)
        self.metric = get_metric(self.prepared.metric)
        pinned = self.config.loss != AUTO or self.config.quantile is not None
        losses = self.own.all_losses()
        self.space = with_losses(self.space, self.prepared.source.spec, losses, pinned=pinned)
        named, spec = self.refining or Refining(), self.prepared.source.spec
        wanted = self.config.objective_of_children if self.refining is None else named.objective
        self.refiner = Refiner(named.moves, wanted, self.own, spec, named.size)
        first = None if self.refining is None else int((self.state.refining or {}).get("first", 0))
        self.grouper = Grouper(
            config=self.config,
            state=self.state,
            space=self.space,
            controller=self.controller,
            refiner=self.refiner,
            load=Workload(
                spec=spec,
                rows=self.prepared.rows,
                folds=len(self.prepared.split.train),
                own=self.own,
                seconds=None if self.counted else self.config.time,
                order_seed=self.config.seed,
                own_order=self.config.batch_order == "own",
                fidelity=self.config.fidelity,
                by_rows=self.config.fidelity_by == "rows",
                gpu=self.device.memory,
                wanted=self.config.candidates,
            ),
            seen=Seen(partial(to_error, self.metric)),
            left=self.left,
            dense=self._dense,
            journal=self.record,
            note=self.note,
            first=first,
        )
        self.saver = Saver(
            self.folder,
            self.prepared,
            self.own,
            self.record,
            self.note,
            pause=max(60.0, 0.25 * (self.config.time or 0.0)),
            nursery=self.nursery,
            choice=make_choice(
                self.config.choose,
                self.metric,
                self.config.reward,
                partial(standard_error, self.folder, self.prepared),
                objective=named.objective,
                share=named.size,
            ),
            leader=lambda: self.state.best,
            members=self.config.joining,
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
        if self.config.ensemble == "none":
            return kept
        valid = sum(len(v) for v in self.prepared.split.valid)
        offers = min(KEPT, self.state.proposed())
        if self.config.joining != "networks":
            offers += len(self.config.models)
            offers += len(names(more=True)) - 1 if self.config.joining == "any" else 0
        return kept + self.kept.for_ensemble(valid * self.prepared.source.spec.n_outputs, offers)

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
            baselines.begin()
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
            if self.state.results:
                baselines.begin()
            self._drain(baselines)
            reason = self._reason()
            while reason is None and len(self.executor.unfinished) < self._room(baselines):
                group = self.grouper.next()
                if group is None:
                    break
                self.record("group", group.to_json())
                self._submit(group)
                reason = self._reason()
            self._settle()
            self._save_best()  # beside the training
            if self.interrupted or self.left() <= 0:
                return self._reason() or "the time budget is spent"
            if not self.executor.unfinished:
                reason = self._reason()
                if reason or len(self.state.results) == len(self.state.groups):
                    return reason or "no time is left for another group"
            for event in self.executor.poll(min(0.25, max(0.0, self.left()))):
                self._handle(event)

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
        if not self.device.memory:
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
        self._settle()

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

    # ------------------------------------------------------------------ groups

    def _submit(self, group: Group) -> None:
        left = self.grouper.left_for(group)
        seconds = max(0.01, left) if math.isfinite(self.deadline) else None
        bounds = self.config.reward.bounds
        job = make_job(group, self.folder, self.prepared, self.device.name, self.own, bounds)
        job |= {"deadline_s": seconds, "checkpoint_s": CHECKPOINT_SECONDS}
        kill_after = None if seconds is None else seconds + max(HANGS, self.reserve)
        self.jobs[self.executor.submit(job, kill_after=kill_after)] = group

    # ------------------------------------------------------------------ results

    def _handle(self, event: Event) -> None:
        self.heard = True
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
        results = [
            judged(r, known.get(r.candidate.parent or ""), objective, doubt)
            for r, doubt in zip(results, doubts(results), strict=True)
        ]
        for result in (r for r in results if r.status is Status.INFEASIBLE):
            message = f"Not trained: {result.candidate.architecture} with {result.message}."
            self.note(f"{message} So are others.", once="infeasible")
        self.record("results", {"group": group.index, "results": [r.to_json() for r in results]})
        for result in results:
            self.on_event({"kind": "result", "result": result})

    def _settle(self) -> None:
        """What new results entail that no worker has to wait for."""
        if self.settled == (known := len(self.state.results)):
            return
        self.settled = known
        self.evict()
        self._forecast()
        self._progress()

    def _forecast(self, last: bool = False) -> None:
        """Say early, and record at the end, how much time the search needs."""
        best, began = self.state.best, self.state.began
        if self.refining is not None or best is None or began is None:
            return
        if not last and self.state.forecast is not None:
            return
        done = len(self.state.finished())
        spent = self.journal.elapsed / self.config.time if self.config.time else 0.0
        share = max(spent, done / self.config.candidates if self.config.candidates else 0.0)
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
            self.record("forecast", found.to_json())
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
        more = self.config.joining == "any"
        trees = None if self.config.time is None else TREES_SHARE * self.config.time
        seed, models = self.config.seed, self.config.models
        given = MemberFits(self.folder, models, have, self.nursery, seed) if models else None
        baselines = BaselineThread(
            self.prepared, have, seconds, seed, more, trees, given, self._head_start
        )
        if baselines.first is not None:
            self._add_baseline(baselines.first)
        return baselines

    @property
    def _head_start(self) -> float:
        """Seconds for which the first group need not share a single core with what can wait.

        None where the start itself has taken much of the time, on a busy machine say.
        """
        seconds = min(HEAD_START, HEAD_START_SHARE * (self.config.time or math.inf))
        return seconds if count_cores() == 1 and self.left() > 3.0 * seconds else 0.0

    def _drain(self, baselines: BaselineThread) -> None:
        for baseline in baselines.ready():
            if isinstance(baseline, AdanetError):
                self.note(str(baseline))
            elif isinstance(baseline, Exception):
                self.note(f"A baseline failed: {type(baseline).__name__}: {baseline}")
            else:
                self._add_baseline(baseline)
                self._save_best()

    def _add_baseline(self, baseline: Baseline) -> None:
        unit = None if baseline.name == "constant" else self._constant()
        result = baseline_result(baseline, self.prepared, self.folder, unit, self.config.reward)
        self.record("baseline", result.to_json())
        self.on_event({"kind": "baseline", "result": result})
        time_an_offer(self, baseline.predictions_valid)

    def _save_best(self) -> None:
        """Have the saver look at what there is, if that or the second has changed since."""
        if not self.heard and time.monotonic() - self.began < self._head_start:
            return
        now = (len(self.state.results), len(self.state.baselines), int(time.monotonic()))
        if now == self.looked and not self.saver.checking:
            return
        self.looked = now
        self.saver.step(self.state.finished(), self.state.baselines, late=self.left() < 6.0)

    def evict(self) -> None:
        """Delete the weights of networks that will not be the model."""
        front = self.config.reward if self.config.choose == "simplest" else None
        evict(self.folder, self.state.by_id, KEPT, front, self.grouper.needed())

    def _finish(self, reason: str) -> None:
        """Record what the search needed, then end it; an interrupted one can go on later."""
        self._forecast(last=True)
        finish(self, reason, final=reason != INTERRUPTED)

    # ------------------------------------------------------------------ small things

    def note(self, message: str, once: str = "") -> None:
        """Tell the user something they should know; of each `once` the first only."""
        if once in self.told:
            return
        if once:
            self.told.add(once)
        self.on_event({"kind": "note", "message": message})

    def record(self, kind: str, data: Any) -> None:
        """Append an entry to the journal and bring the state up to it."""
        self.journal.append(kind, data)
        self.state.apply(kind, data, self.journal.elapsed)
        if kind == "model":
            self.on_event({"kind": "model", "candidate": data["candidate"]})

    def _interrupt(self) -> None:
        # Only a flag: a handler may run in the middle of a print or of a write.
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True


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
