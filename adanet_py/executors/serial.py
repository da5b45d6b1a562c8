"""Jobs in a thread of this process, for what cannot travel to another."""

from __future__ import annotations

import itertools
import json
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from adanet_py.executors.jobs import Event, Job, cancelled, known, wind_down
from adanet_py.executors.nursery import Nursery
from adanet_py.worker import FUNCTIONS, Function, run_one

_TICK = 0.25  # seconds between looks at the clock of a job


class SerialExecutor:
    """Runs jobs one after another in a thread of this process.

    For objects that cannot travel to another process: jobs and `functions` may hold any. A job that
    overruns `kill_after`, or is killed, is only asked to stop: a thread cannot be ended. `threads`
    applies to jobs that do not say; the other options of `LocalExecutor` have no meaning here.
    """

    capacity = 1

    def __init__(
        self,
        workers: int = 1,
        *,
        threads: int | None = None,
        preload: Sequence[str] = (),
        functions: Mapping[str, Function | str] | None = None,
        log: Path | None = None,
        env: Mapping[str, str] | None = None,
        nursery: Nursery | None = None,
    ) -> None:
        self._threads = threads
        self._functions: dict[str, Function | str] = {**FUNCTIONS, **(functions or {})}
        self._jobs: dict[int, Job] = {}
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._deadline: float | None = None

    @property
    def unfinished(self) -> tuple[int, ...]:
        """See `Executor`."""
        return tuple(self._jobs)

    def start(self) -> None:
        """See `Executor`."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._serve, args=(self._inbox, self._events), daemon=True
            )
            self._thread.start()

    def submit(
        self,
        job: Mapping[str, Any],
        *,
        function: str = "train_group",
        kill_after: float | None = None,
    ) -> int:
        """See `Executor`."""
        self.start()
        data = {"threads": self._threads, **job}
        entry = Job(next(self._numbers), known(function, self._functions), data, kill_after)
        self._jobs[entry.number] = entry
        self._inbox.put(entry)
        return entry.number

    def poll(self, timeout: float) -> list[Event]:
        """See `Executor`."""
        events: list[Event] = []
        end = time.monotonic() + timeout
        while self._jobs and not events:
            try:
                event = self._events.get(timeout=min(_TICK, max(0.0, end - time.monotonic())))
            except queue.Empty:
                if self._deadline is not None and time.monotonic() >= self._deadline:
                    self.ask_stop(next(iter(self._jobs)))
                if time.monotonic() >= end:
                    break
                continue
            events.append(event)
            while not self._events.empty():
                events.append(self._events.get())
        for event in events:
            if event.kind != "progress":
                self._jobs.pop(event.job, None)
        return events

    def ask_stop(self, job: int | None = None) -> None:
        """See `Executor`."""
        for number, entry in self._jobs.items():
            if job in (None, number):
                entry.stopping.set()

    def stop(self, grace: float) -> list[Event]:
        """See `Executor`."""
        for entry in self._jobs.values():
            entry.killed = entry.killed or not entry.starts
        return wind_down(self, grace)

    def kill(self, job: int | None = None) -> None:
        """See `Executor`."""
        for number, entry in self._jobs.items():
            if job in (None, number):
                entry.killed = True
                entry.stopping.set()
        if job is None:
            self._inbox.put(None)
            self._thread, self._jobs = None, {}
            self._inbox, self._events = queue.SimpleQueue(), queue.SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def _serve(
        self, inbox: queue.SimpleQueue[Job | None], events: queue.SimpleQueue[Event]
    ) -> None:
        while (job := inbox.get()) is not None:
            if not job.killed:
                job.starts = 1

                def emit(data: dict[str, Any], number: int = job.number) -> None:
                    events.put(Event(number, "progress", json.loads(json.dumps(data))))

                self._deadline = job.kill_after and time.monotonic() + job.kill_after
                function = self._functions[job.function]
                kind, data = run_one(function, dict(job.data), emit, job.stopping.is_set)
                self._deadline = None
            events.put(cancelled(job.number) if job.killed else Event(job.number, kind, data))
