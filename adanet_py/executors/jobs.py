"""What all executors share: jobs, the events they end in, and the contract."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from adanet_py.errors import ConfigError, check_known


@dataclass(frozen=True)
class Event:
    """What happened to a job.

    kind "progress": `data` is what the job emitted. Every job ends with exactly one other event:
    "done": `data` is what it returned; "failed": it raised, data has error (type name), message and
    traceback; "crash": its process died or overran `kill_after`, data has exitcode, message and the
    end of stderr; "cancelled": the caller stopped the executor or killed the job before it ended.
    """

    job: int
    kind: str
    data: Mapping[str, Any]


class Executor(Protocol):
    """What every executor offers; a context manager that kills what still runs at its end."""

    capacity: int

    @property
    def unfinished(self) -> tuple[int, ...]:
        """The jobs submitted and not ended, in order; more than `capacity` are queued."""

    def start(self) -> None:
        """Start the workers without waiting for them."""

    def submit(
        self,
        job: Mapping[str, Any],
        *,
        function: str = "train_group",
        kill_after: float | None = None,
    ) -> int:
        """Queue a job for the job function of that name; return its number.

        `kill_after`: seconds after its start at which it is held to hang and killed.
        """

    def poll(self, timeout: float) -> list[Event]:
        """Return what happened, waiting up to `timeout` seconds for the first event.

        Returns at once when no job is unfinished. RunError where workers cannot be started.
        """

    def ask_stop(self, job: int | None = None) -> None:
        """Ask a job, or all, to end soon with what it has; its outcome is still "done"."""

    def stop(self, grace: float) -> list[Event]:
        """Ask all to stop, collect events for up to `grace` seconds, cancel the rest and close."""

    def kill(self, job: int | None = None) -> None:
        """End a job now, "cancelled" at the next `poll`; without a number all, and close."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


@dataclass(eq=False)
class Job:
    """A job as an executor keeps it; `starts` counts how often it was begun."""

    number: int
    function: str
    data: Mapping[str, Any]
    kill_after: float | None
    starts: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)
    killed: bool = False


def cancelled(number: int) -> Event:
    """Return the event of a job that the caller ended."""
    return Event(
        number, "cancelled", {"status": "cancelled", "message": "Stopped before it ended."}
    )


def known(function: str, functions: Mapping[str, Any]) -> str:
    """Return the name of a job function if there is one, else raise ConfigError."""
    check_known("job function", function, functions, ConfigError)
    return function


def wind_down(executor: Executor, grace: float) -> list[Event]:
    """Ask all jobs to stop, wait for them up to `grace` seconds, cancel the rest and close."""
    executor.ask_stop()
    events: list[Event] = []
    end = time.monotonic() + grace
    while executor.unfinished and (left := end - time.monotonic()) > 0:
        events += executor.poll(left)
    events += [cancelled(number) for number in executor.unfinished]
    executor.kill()
    return events
