"""Jobs in worker processes of this machine; no threads in the parent: pipes are read in `poll`."""

from __future__ import annotations

import itertools
import json
import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from adanet_py.errors import ConfigError, RunError
from adanet_py.executors.jobs import Event, Job, cancelled, known, wind_down
from adanet_py.executors.nursery import Nursery, environment
from adanet_py.worker import FUNCTIONS, Function

_TICK = 0.25  # seconds between looks at processes whose pipe says nothing
_LONGEST_LINE = 64 * 2**20
_GONE = 5.0  # seconds a killed process has to be gone
_TAIL = 4000  # bytes of stderr that go with a crash


class _Worker:
    """A worker process as its parent sees it; `job` is what it works on."""

    def __init__(
        self, nursery: Nursery, args: Sequence[str], preload: Sequence[str], log: Path | None
    ) -> None:
        self.log = log
        stderr = None if log is None else log.open("wb")
        try:
            self.process = nursery.open(
                "adanet_py.worker", args, stdin=True, stderr=stderr, preload=preload
            )
        finally:
            if stderr is not None:
                stderr.close()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        os.set_blocking(self.stdout.fileno(), False)
        self.buffer = bytearray()
        self.ready = False
        self.open = True
        self.job: Job | None = None
        self.started = False
        self.kill_at: float | None = None
        self.reason = ""  # why we killed it, if we did

    def send(self, message: Mapping[str, Any]) -> None:
        rest = memoryview(json.dumps(message).encode() + b"\n")
        try:
            while rest:
                rest = rest[os.write(self.stdin.fileno(), rest) :]
        except BrokenPipeError:
            pass  # it is dead: `poll` finds out how

    @property
    def dead(self) -> bool:
        return not self.open or self.process.poll() is not None

    def read(self) -> list[dict[str, Any]]:
        """Return the whole messages that have arrived."""
        while self.open:
            try:
                chunk = os.read(self.stdout.fileno(), 2**16)
            except BlockingIOError:
                break
            self.open = bool(chunk)
            self.buffer += chunk
            if len(self.buffer) > _LONGEST_LINE:
                self.end("sent a message that is too long")
                break
        *lines, rest = self.buffer.split(b"\n")
        self.buffer = bytearray(rest)
        try:
            return [json.loads(line) for line in lines]
        except ValueError:
            self.end("sent something that is not a message")
            return []

    def end(self, reason: str) -> int:
        """Kill the process group if it is still alive, close the pipes, return the exit code."""
        if not self.open and not self.reason:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=2)  # the pipe ends a moment before the process does
        self.open = False
        if self.process.poll() is None:
            self.reason = self.reason or reason
            self.kill()
        try:
            code = self.process.wait(timeout=_GONE)
        except subprocess.TimeoutExpired:  # the system does not let it go; nothing waits for it
            code = -int(signal.SIGKILL)
        self.process.close()
        return code

    def kill(self) -> None:
        """Send SIGKILL to the process and its children, without waiting."""
        self.process.kill()

    def tail(self) -> str:
        if self.log is None or not self.log.exists():
            return ""
        return self.log.read_bytes()[-_TAIL:].decode(errors="replace")


class LocalExecutor:
    """Runs jobs in `workers` processes of this machine, one job each at a time.

    threads: OpenMP and BLAS threads of a worker; a job's own "threads" is set in torch besides.
    preload: modules that workers import at once, before the first job arrives.
    functions: more job functions, name -> "module:function" (importable as in this process).
    log: a folder for ``worker-<n>.log`` with what workers print; None: they share our stderr.
    env: more environment variables for the workers.
    nursery: where the workers come from, with its own environment; None: one of this executor's.

    Use it from one thread that lives as long as it: Linux ends the workers with their thread. A
    worker that dies takes its own job with it, and a fresh one replaces it.
    """

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
        if workers < 1:
            raise ConfigError(f"workers is {workers}; expected at least 1.")
        if nursery is not None and (threads is not None or env is not None):
            raise ConfigError("threads and env belong to the nursery; expected none beside it.")
        self.capacity = workers
        self._functions: dict[str, str] = dict(FUNCTIONS)
        self._preload = tuple(preload)
        self._args = [word for name in preload for word in ("--preload", name)]
        for name, spec in (functions or {}).items():
            if not isinstance(spec, str):
                raise ConfigError(
                    f"Job function {name!r} is an object of this process; workers expect "
                    '"module:function". Use the serial executor for it.'
                )
            self._functions[name] = spec
            self._args += ["--function", f"{name}={spec}"]
        self._own = nursery is None  # then it ends with us
        self._nursery = nursery or Nursery(environment(threads) | dict(env or {}))
        self._log = log
        self._jobs: dict[int, Job] = {}
        self._queue: deque[Job] = deque()
        self._numbers = itertools.count()
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._late: list[Event] = []  # cancelled before they began
        self._births = 0
        self._stillborn = 0

    @property
    def unfinished(self) -> tuple[int, ...]:
        """See `Executor`."""
        return tuple(self._jobs)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [w.process.pid for w in self._workers]

    def start(self) -> None:
        """See `Executor`."""
        if self._log is not None:
            self._log.mkdir(parents=True, exist_ok=True)
        while len(self._workers) < self.capacity:
            log = None if self._log is None else self._log / f"worker-{self._births}.log"
            worker = _Worker(self._nursery, self._args, self._preload, log)
            self._births += 1
            self._workers.append(worker)
            self._selector.register(worker.stdout, selectors.EVENT_READ, worker)

    def submit(
        self,
        job: Mapping[str, Any],
        *,
        function: str = "train_group",
        kill_after: float | None = None,
    ) -> int:
        """See `Executor`; `job` must be JSON."""
        entry = Job(
            next(self._numbers),
            known(function, self._functions),
            json.loads(json.dumps(dict(job))),
            kill_after,
        )
        self._jobs[entry.number] = entry
        self._queue.append(entry)
        self._assign()
        return entry.number

    def poll(self, timeout: float) -> list[Event]:
        """See `Executor`."""
        events: list[Event] = []
        end = time.monotonic() + timeout
        while self._jobs and not events:
            self._assign()
            now = time.monotonic()
            kills = [w.kill_at - now for w in self._workers if w.kill_at is not None]
            wait = 0.0 if self._late else min([_TICK, end - now, *kills])
            for key, _ in self._selector.select(max(0.0, wait)):
                events += self._receive(key.data)
            for worker in list(self._workers):
                events += self._look_after(worker)
            events += self._late
            self._late.clear()
            if time.monotonic() >= end:
                break
        if self._jobs:
            self._assign()  # the next job must not wait for the next poll
        return events

    def ask_stop(self, job: int | None = None) -> None:
        """See `Executor`."""
        for number, entry in self._jobs.items():
            if job in (None, number):
                entry.stopping.set()
        for worker in self._workers:
            if worker.job is not None and job in (None, worker.job.number):
                worker.send({"stop": worker.job.number})

    def stop(self, grace: float) -> list[Event]:
        """See `Executor`."""
        for entry in self._queue:
            entry.killed = True
        return wind_down(self, grace)

    def kill(self, job: int | None = None) -> None:
        """See `Executor`."""
        if job is not None:
            if job in self._jobs:
                self._jobs[job].killed = True
            for worker in self._workers:
                if worker.job is not None and worker.job.number == job:
                    worker.kill_at = -1.0
            return
        workers, self._workers = self._workers, []
        for worker in workers:  # all at once, then the slower wait for each
            worker.kill()
        for worker in workers:
            self._selector.unregister(worker.stdout)
            worker.end("the executor was closed")
        if self._own:
            self._nursery.close()
        self._queue.clear()
        self._jobs.clear()
        self._late.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def _assign(self) -> None:
        """Hand queued jobs to idle workers, those that have finished starting first."""
        self.start()
        idle = sorted(
            (w for w in self._workers if not (w.job or w.dead)), key=lambda w: not w.ready
        )
        while self._queue and (idle or self._queue[0].killed):
            job = self._queue.popleft()
            if job.killed:
                self._jobs.pop(job.number)
                self._late.append(cancelled(job.number))
                continue
            worker = idle.pop(0)
            worker.job, worker.started = job, False
            worker.send({"job": job.number, "function": job.function, "data": job.data})
            if job.stopping.is_set():
                worker.send({"stop": job.number})

    def _receive(self, worker: _Worker) -> list[Event]:
        events = []
        for message in worker.read():
            kind, job = message["event"], worker.job
            if kind == "ready":
                worker.ready, self._stillborn = True, 0
            elif job is not None and kind == "started":
                worker.started = True
                if job.kill_after is not None and not job.killed:
                    worker.kill_at = time.monotonic() + job.kill_after
            elif job is not None and kind == "progress":
                events.append(Event(job.number, kind, message["data"]))
            elif job is not None:
                worker.job, worker.kill_at = None, None
                self._jobs.pop(job.number)
                events.append(
                    cancelled(job.number)
                    if job.killed
                    else Event(job.number, kind, message["data"])
                )
        return events

    def _look_after(self, worker: _Worker) -> list[Event]:
        """Replace a worker that died or has to; return what that did to its job."""
        job, events = worker.job, []
        if job is not None and worker.kill_at is not None and time.monotonic() >= worker.kill_at:
            worker.reason = f"did not end within {job.kill_after} s and was killed"
        elif not worker.dead:
            return []
        else:
            events += self._receive(worker)  # what it said before it died
            job = worker.job
        self._workers.remove(worker)
        self._selector.unregister(worker.stdout)
        code = worker.end("closed its pipe and was killed")
        why = worker.reason or _obituary(code, worker.process.lost)
        if job is not None and job.killed:
            self._jobs.pop(job.number)
            events.append(cancelled(job.number))
        elif job is not None and not worker.started and (not worker.ready or job.starts == 0):
            job.starts += worker.ready  # not the job's fault, but no third time
            self._queue.appendleft(job)
        elif job is not None:
            self._jobs.pop(job.number)
            data = {
                "status": "crash",
                "exitcode": code,
                "message": f"The worker process {why}.",
                "stderr": worker.tail(),
            }
            events.append(Event(job.number, "crash", data))
        if not (worker.ready or worker.process.lost or (job is not None and job.killed)):
            self._stillborn += 1
            if self._stillborn >= 3:
                raise RunError(
                    f"Worker processes cannot start: the last {why}. {worker.tail()}".strip()
                )
        self.start()
        return events


def _obituary(code: int, lost: bool) -> str:
    if lost:
        return "died with the process that it was forked from"
    if code == -signal.SIGKILL:
        return "was killed (SIGKILL; most often by the system for want of memory)"
    if code < 0:
        return f"died of signal {-code} ({signal.strsignal(-code)})"
    return f"exited with code {code} in the middle of a job"
