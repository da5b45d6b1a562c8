"""Where jobs run: in this process, or in worker processes that may die without harm to the others.

An executor takes jobs, `submit`, and hands back what happened, `poll`; the caller never waits for a
job but for events. A new executor is one file here and one line in `EXECUTORS`.
"""

from __future__ import annotations

from collections.abc import Callable

from adanet_py.executors.jobs import Event, Executor
from adanet_py.executors.local import LocalExecutor
from adanet_py.executors.nursery import Nursery, make_nursery
from adanet_py.executors.serial import SerialExecutor

__all__ = [
    "EXECUTORS",
    "Event",
    "Executor",
    "LocalExecutor",
    "Nursery",
    "SerialExecutor",
    "make_nursery",
]

EXECUTORS: dict[str, Callable[..., Executor]] = {
    "serial": SerialExecutor,
    "local": LocalExecutor,
}
