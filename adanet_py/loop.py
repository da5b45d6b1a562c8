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
import os
import queue
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import numpy as np

from adanet_py.architectures import ARCHITECTURES, Architecture
from adanet_py.baselines import Baseline, run_baselines
from adanet_py.config import SearchConfig
from adanet_py.controllers import Controller
from adanet_py.executors import EXECUTORS, Event, Executor
from adanet_py.export import Check, accept, start_check
from adanet_py.folder import State, candidate_file, evict
from adanet_py.journal import Journal, write_atomic
from adanet_py.metrics import METRICS, score
from adanet_py.plan import (
    MEMBERS,
    Workload,
    around,
    best_of,
    for_task,
    make_group,
    measured_speed,
    size_group,
)
from adanet_py.prepare import Prepared
from adanet_py.records import Candidate, Group, Result, Status
from adanet_py.reward import with_reward
from adanet_py.space import SearchSpace
from adanet_py.tables import write_tables

KEPT = 20  # candidates whose weights stay on disk
LAG = 4  # with a count of candidates, a proposal sees the groups up to this many before its own
BASELINE_SHARE = 0.12  # of the time budget, for boosting
MOST_BASELINE_SECONDS = 30.0
# Memory a worker frees is kept for its next step: fresh large allocations are the slowest thing in
# small-network training on a CPU.
WORKER_ENV = {"MALLOC_MMAP_THRESHOLD_": "268435456", "MALLOC_TRIM_THRESHOLD_": "268435456"}

OnEvent = Callable[[dict[str, Any]], None]


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
    on_event: OnEvent
    deadline: float  # monotonic; infinite without a time budget
    architectures: Mapping[str, Architecture] = field(default_factory=dict)
    jobs: dict[int, Group] = field(default_factory=dict)
    crashes: dict[int, int] = field(default_factory=dict)
    check: Check | None = None
    saved: Result | None = None  # what the saved model is
    rejected: set[str] = field(default_factory=set)
    last_check: float = -math.inf
    interrupted: bool = False

    def __post_init__(self) -> None:
        self.metric = METRICS[self.prepared.metric]
        self.space = for_task(self.space, self.prepared.task)
        self.load = Workload(
            spec=self.prepared.source.spec,
            rows=self.prepared.rows,
            folds=len(self.prepared.split.train),
            architectures={**ARCHITECTURES, **self.architectures},
            seconds=None if self.counted else self.config.time,
            order_seed=self.config.seed,
        )

    @property
    def counted(self) -> bool:
        """Whether a number of candidates bounds the search: then no clock enters a decision."""
        return self.config.candidates is not None

    @property
    def reserve(self) -> float:
        """Seconds kept for scoring, saving and checking at the end."""
        return 0.0 if self.config.time is None else min(4.0, 0.3 * self.config.time)

    def left(self) -> float:
        """Seconds until training must end."""
        return self.deadline - self.reserve - time.monotonic()

    # ------------------------------------------------------------------ the loop

    def run(self) -> str:
        """Search until the budget is spent; returns why it ended."""
        with self._baselines() as baselines, _interrupts(self._interrupt):
            for index in sorted(self.state.groups):
                if index not in self.state.results:
                    self._submit(self.state.groups[index])
            reason = self._loop(baselines)
            if self.executor.unfinished:
                grace = max(1.0, self.reserve / 2) if math.isfinite(self.deadline) else 30.0
                for event in self.executor.stop(grace):
                    self._handle(event)
            self._drain(baselines)
        self.finish(reason)
        return reason

    def _loop(self, baselines: queue.SimpleQueue[Baseline | None]) -> str:
        while True:
            self._drain(baselines)
            reason = self._reason()
            while reason is None and len(self.executor.unfinished) < self.executor.capacity:
                group = self._propose()
                if group is None:
                    break
                self._journal("group", group.to_json())
                self._submit(group)
            if self.interrupted or self.left() <= 0:
                return self._reason() or "the time budget is spent"
            if not self.executor.unfinished:
                reason = self._reason()
                if reason or not self._waiting_for_results():
                    return reason or "no time is left for another group"
            for event in self.executor.poll(0.25):
                self._handle(event)
            self._save_best()

    def _reason(self) -> str | None:
        """Why nothing more is proposed, or None."""
        if self.interrupted:
            return "interrupted"
        wanted = self.config.candidates
        if wanted is not None and self.state.proposed >= wanted:
            return f"{wanted} candidates were trained"
        if self.state.exhausted:
            return "the search space is exhausted"
        return "the time budget is spent" if self.left() <= 0 else None

    def _waiting_for_results(self) -> bool:
        return len(self.state.results) < len(self.state.groups)

    # ------------------------------------------------------------------ proposing

    def _propose(self) -> Group | None:
        """The next group, decided by what a replay knows too; None when nothing fits now."""
        index = len(self.state.groups)
        before = None
        if self.counted:
            before = max(0, index - LAG + 1)
            if any(i not in self.state.results for i in range(before)):
                return None
        history = self.state.history(before)
        rng = np.random.default_rng([self.config.seed, index])
        most = (self.config.candidates or 1 << 30) - self.state.proposed
        speed = 1.0 if self.counted else measured_speed(history, self.load)
        left = None if self.counted else self.left()
        start = self.space.start
        if index < len(start):
            members, epochs = size_group(start[index], self.load, speed, left, most)
            seeded = changed(start[index], seed=int(rng.integers(2**31)))
            candidates, names = around(self.space, seeded, members, rng), "start"
        else:
            names = self.config.controller
            candidates = self.controller(self.space, history, min(MEMBERS, most), rng)
            if not candidates:
                self.state.exhausted = True
                self._journal("exhausted", {})
                return None
            members, epochs = size_group(candidates[0], self.load, speed, left, most)
            candidates = candidates[:members]
        known = history.ids
        candidates = [c for c in candidates if c.id not in known]
        if not candidates:
            return None
        engine = "stacked"
        return make_group(index, candidates, [names] * len(candidates), epochs, self.load, engine)

    def _submit(self, group: Group) -> None:
        seconds = self.left() if math.isfinite(self.deadline) else None
        job: dict[str, Any] = {
            "group": group.to_json(),
            "run": str(self.folder.resolve()),
            "metric": self.prepared.metric,
            "target": list(self.prepared.target_scale),
            "class_weight": self.prepared.class_weight,
            "device": self.device,
            "deadline_s": seconds,
        }
        if self.architectures:
            job["architectures"] = dict(self.architectures)
        kill_after = None if seconds is None else seconds + 0.75 * self.reserve
        self.jobs[self.executor.submit(job, kill_after=kill_after)] = group

    # ------------------------------------------------------------------ results

    def _handle(self, event: Event) -> None:
        if event.kind == "progress":
            self._forward(event)
            return
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
            results = [_lost(c, group, i, Status.CRASHED, message) for i, c in enumerate(group.candidates)]
        elif event.kind == "failed":
            message = f"{event.data.get('error')}: {event.data.get('message')}"
            self.note(f"Group {group.index} failed: {message}")
            results = [_lost(c, group, i, Status.FAILED, message) for i, c in enumerate(group.candidates)]
        else:
            results = [Result.from_json(r) for r in event.data["results"]]
        baseline = self._constant()
        results = [with_reward(r, self.metric, baseline) for r in results]
        self._journal("results", {"group": group.index, "results": [r.to_json() for r in results]})
        for result in results:
            self.on_event({"kind": "result", "result": result})
        evict(self.folder, self.state.all_results(), KEPT)
        self._progress()

    def _constant(self) -> float:
        """Validation metric of the constant baseline, the unit of errors."""
        found = [r for r in self.state.baselines if r.candidate.architecture == "constant"]
        return found[0].metrics["validation"]

    def _forward(self, event: Event) -> None:
        if event.data.get("kind") == "note":
            self.note(str(event.data["message"]))
        else:
            self.on_event(dict(event.data))
            self._progress(event.data.get("validation"))

    def _progress(self, running: float | None = None) -> None:
        best = best_of(self.state.finished())
        value = best.metrics["validation"] if best else None
        if running is not None and math.isfinite(running):
            better = max if self.metric.greater_is_better else min
            value = running if value is None else better(value, running)
        self.on_event(
            {
                "kind": "progress",
                "done": sum(len(r) for r in self.state.results.values()),
                "candidates": self.config.candidates,
                "running": sum(len(g.candidates) for g in self.jobs.values()),
                "best": value,
                "metric": self.prepared.metric,
                "seconds": self.journal.elapsed,
                "time_left": None if math.isinf(self.deadline) else max(0.0, self.left()),
            }
        )

    # ------------------------------------------------------------------ baselines

    @contextmanager
    def _baselines(self) -> Iterator[queue.SimpleQueue[Baseline | None]]:
        """Run the baselines in a thread: a queue of them; the constant is there at once."""
        done: queue.SimpleQueue[Baseline | None] = queue.SimpleQueue()
        have = {r.candidate.architecture for r in self.state.baselines}
        if len(have) == 3:
            yield done
            return
        prepared, source = self.prepared, self.prepared.source
        seconds = MOST_BASELINE_SECONDS
        if self.config.time is not None:
            seconds = min(seconds, BASELINE_SHARE * self.config.time)
        found = run_baselines(
            source.arrays,
            np.asarray(source.y),
            source.weight,
            prepared.split,
            prepared.task,
            prepared.metric,
            prepared.target,
            seconds=seconds,
            seed=self.config.seed,
        )
        first = next(found)
        if first.name not in have:
            self._add_baseline(first)

        def work() -> None:
            for baseline in found:
                if baseline.name not in have:
                    done.put(baseline)
            done.put(None)

        thread = threading.Thread(target=work, name="baselines", daemon=True)
        thread.start()
        yield done
        thread.join(None if math.isinf(self.deadline) else max(0.0, self.left()))

    def _drain(self, baselines: queue.SimpleQueue[Baseline | None]) -> None:
        while not baselines.empty():
            baseline = baselines.get()
            if baseline is not None:
                self._add_baseline(baseline)
                self._save_best()

    def _add_baseline(self, baseline: Baseline) -> None:
        from safetensors.numpy import save

        prepared = self.prepared
        candidate = Candidate(baseline.name, optimizer="", schedule="")
        metrics = {"validation": self._score(baseline.predictions_valid, np.concatenate(prepared.split.valid))}
        if len(prepared.split.audit):
            metrics["audit"] = self._score(baseline.predictions_audit, prepared.split.audit)
        arrays = {"predictions/validation": np.ascontiguousarray(baseline.predictions_valid)}
        arrays |= {f"member/{n}": np.ascontiguousarray(v) for n, v in (baseline.member or {}).items()}
        (self.folder / "candidates").mkdir(exist_ok=True)
        write_atomic(candidate_file(self.folder, candidate.id), save(arrays))
        result = Result(
            candidate,
            Status.BASELINE,
            metrics=metrics,
            seconds=baseline.seconds,
            parameters=baseline.parameters,
            controller="baseline",
            message="; ".join(filter(None, (Status.BASELINE.value, baseline.message))),
        )
        unit = metrics["validation"] if baseline.name == "constant" else self._constant()
        result = with_reward(result, self.metric, unit)
        self._journal("baseline", result.to_json())
        self.on_event({"kind": "baseline", "result": result})

    def _score(self, predictions: np.ndarray, rows: np.ndarray) -> float:
        """The metric of probabilities or values on `rows`."""
        source, target = self.prepared.source, self.prepared.target
        y = np.asarray(source.y[rows])
        if self.prepared.task == "regression":
            y = y.astype(np.float64) * target.scale + target.mean
        weight = None if source.weight is None else np.asarray(source.weight[rows])
        return score(self.metric, y, predictions, weight)

    # ------------------------------------------------------------------ the saved model

    def candidate_to_save(self) -> Result | None:
        """The best network, or before there is one the best baseline that can be saved."""
        networks = [r for r in self.state.finished() if r.candidate.id not in self.rejected]
        best = best_of(networks)
        if best is not None:
            return best
        linear = [r for r in self.state.baselines if r.candidate.architecture in ("constant", "linear")]
        return max(linear, key=lambda r: r.reward, default=None)

    def _save_best(self) -> None:
        """Keep a checked model of the best on disk, without stopping for it."""
        if self.check is not None:
            if not self.check.done():
                return
            self._take(self.check)
        best = self.candidate_to_save()
        if best is None or self._is_saved(best):
            return
        first = self.saved is None or self.saved.status is Status.BASELINE
        pause = 0.0 if first else max(10.0, 0.25 * (self.config.time or 240.0))
        late = self.left() < 6.0 and self.saved is not None  # the last one comes at the end
        if time.monotonic() - self.last_check >= pause and not late:
            self._start_check(best)

    def _is_saved(self, result: Result) -> bool:
        return self.saved is not None and self.saved.candidate.id == result.candidate.id

    def _start_check(self, result: Result) -> None:
        self.last_check = time.monotonic()
        self.check = start_check(self.folder, self.prepared, result, self.architectures)

    def _take(self, check: Check) -> None:
        """Put a checked model in place, or say why not."""
        self.check = None
        if check.good:
            self._journal("model", accept(check))
            self.saved = check.result
            self.on_event({"kind": "model", "candidate": check.result.candidate.id})
            return
        check.cancel()
        self.rejected.add(check.result.candidate.id)
        found = check.message or f"its predictions differ by {check.difference:.2g}"
        self.note(f"Candidate {check.result.candidate.id} was not saved: reloaded, {found}.")

    def finish(self, reason: str) -> None:
        """Save the best, write the tables, close the journal."""
        if self.check is not None:
            wanted = self.candidate_to_save()
            if wanted is not None and wanted.candidate.id != self.check.result.candidate.id:
                self.check.cancel()
                self.check = None
        while True:
            best = self.candidate_to_save()
            if best is None or self._is_saved(best):
                break
            if self.check is None:
                self._start_check(best)
            assert self.check is not None
            self.check.done(None)
            self._take(self.check)
        write_tables(self.folder, self.prepared, self.state)
        if not self.interrupted:
            self._journal("stop", {"reason": reason})
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
            shutil.rmtree(self.folder / "cache", ignore_errors=True)

    # ------------------------------------------------------------------ small things

    def note(self, message: str) -> None:
        """Tell the user something they should know."""
        self.on_event({"kind": "note", "message": message})

    def _journal(self, kind: str, data: Any) -> None:
        self.journal.append(kind, data)
        self.state.apply(kind, data)

    def _interrupt(self) -> None:
        if self.interrupted:
            self.executor.kill()
            raise KeyboardInterrupt
        self.interrupted = True
        self.note("Interrupted: finishing with the best so far; again to stop at once.")


def _lost(candidate: Candidate, group: Group, position: int, status: Status, message: str) -> Result:
    controller = group.controllers[position] if group.controllers else ""
    return Result(candidate, status, controller=controller, group=group.index, engine=group.engine, message=message)


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


def make_executor(workers: int | None, device: str, folder: Path, live: bool) -> Executor:
    """Worker processes, or this process where objects given by the user must be used."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if live or workers == 0:
        return EXECUTORS["serial"](1, threads=cores)
    count = workers or (1 if device.startswith("cuda") else cores)
    threads = max(1, cores // count)
    return EXECUTORS["local"](
        count,
        threads=threads,
        preload=["adanet_py.training.jobs"],
        log=folder / "logs",
        env=WORKER_ENV,
    )
