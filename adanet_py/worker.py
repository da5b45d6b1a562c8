"""A worker process: ``python -m adanet_py.worker``, jobs in and events out as JSON lines.

It is forked or started afresh (executors/nursery.py). The parent (executors/local.py) writes
``{"job": 3, "function": "train_group", "data": {...}}`` or ``{"stop": 3}`` to stdin; the worker
answers with ``{"event": ..., "job": 3, "data": {...}}``, where event is ready, started, progress,
done or failed. Whatever user code prints goes to stderr. The
worker ends when its parent does: by PR_SET_PDEATHSIG on Linux (that of the fork server, which has
it from the parent), and at the end of stdin everywhere.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

Emit = Callable[[dict[str, Any]], None]
Function = Callable[[dict[str, Any], Emit, Callable[[], bool]], dict[str, Any]]

FUNCTIONS: dict[str, str] = {
    "train_group": "adanet_py.training.jobs:run_job",
    "describe_devices": "adanet_py.training.devices:describe",
}

_PR_SET_PDEATHSIG = 1


def main(argv: Sequence[str] | None = None) -> None:
    """Serve jobs until stdin ends; never returns."""
    parser = argparse.ArgumentParser(prog="adanet_py.worker")
    parser.add_argument("--parent", type=int, help="process id to die with, where not forked")
    parser.add_argument("--preload", action="append", default=[], help="module to import at once")
    parser.add_argument(
        "--function",
        action="append",
        default=[],
        help="NAME=MODULE:FUNCTION, beside the built-in ones",
    )
    options = parser.parse_args(argv)
    if options.parent is not None:
        die_with(options.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which decides
    inbox, outbox = _take_over_stdio()
    functions = FUNCTIONS | dict(item.split("=", 1) for item in options.function)
    jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    stops: dict[int, threading.Event] = {}
    writing = threading.Lock()

    def send(event: str, job: int | None = None, data: Mapping[str, Any] | None = None) -> None:
        line = json.dumps({"event": event, "job": job, "data": data or {}}).encode() + b"\n"
        try:
            with writing:
                outbox.write(line)
                outbox.flush()
        except OSError:
            os._exit(0)  # the parent is gone

    threading.Thread(target=_listen, args=(inbox, jobs, stops), daemon=True).start()
    for name in options.preload:
        importlib.import_module(name)
    spare_compiler()
    send("ready")
    while True:
        message = jobs.get()
        number: int = message["job"]
        send("started", number)

        def emit(data: dict[str, Any], number: int = number) -> None:
            send("progress", number, data)

        should_stop = stops[number].is_set
        kind, data = run_one(functions[message["function"]], message["data"], emit, should_stop)
        del stops[number]
        send(kind, number, data)


def run_one(
    function: Function | str, job: dict[str, Any], emit: Emit, should_stop: Callable[[], bool]
) -> tuple[str, dict[str, Any]]:
    """Run one job and return ("done", what it returned) or ("failed", why); never raises.

    `function` is the job function or its "module:function". What it returns must be JSON; it is
    returned as read back from it. ``job["threads"]``, where given, sets torch's threads meanwhile.
    """
    try:
        if isinstance(function, str):
            module, _, name = function.partition(":")
            if not name:
                raise ValueError(f"unknown job function {function!r}")
            call: Function = getattr(importlib.import_module(module), name)
        else:
            call = function
        with _torch_threads(job.get("threads")):
            return "done", json.loads(json.dumps(call(job, emit, should_stop)))
    except BaseException as error:  # SystemExit too: one bad job must not end the worker
        return "failed", {
            "status": "failed",
            "error": type(error).__name__,
            "message": str(error) or repr(error),
            "traceback": traceback.format_exc()[-8000:],
        }


def _listen(
    inbox: BinaryIO, jobs: queue.SimpleQueue[dict[str, Any]], stops: dict[int, threading.Event]
) -> None:
    for line in inbox:
        message = json.loads(line)
        if "stop" in message:
            if (event := stops.get(message["stop"])) is not None:
                event.set()
        else:
            stops[message["job"]] = threading.Event()
            jobs.put(message)
    os._exit(0)  # the parent closed the pipe or died; nothing here is worth a slow farewell


def die_with(parent: int) -> None:
    """Have this process killed when its parent, the process of that id, ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it died before we could ask
        os._exit(0)


def spare_compiler() -> None:
    """Keep torch's compiler, a second and 70 MB, out of a process that compiles nothing.

    Methods that every torch.optim optimizer has, `add_param_group` among them, import it at their
    first call for nothing but to be left out of what it compiles; they then remember themselves,
    wrapped, as `__dynamo_disable`. Here they remember themselves as they are.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return
    for method in vars(torch.optim.Optimizer).values():
        plain = getattr(method, "__wrapped__", None)
        if plain is not None:
            vars(plain).setdefault("__dynamo_disable", plain)


def _take_over_stdio() -> tuple[BinaryIO, BinaryIO]:
    """Keep stdin and stdout for the protocol; users get an empty stdin and write to stderr."""
    inbox, outbox = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return inbox, outbox


@contextmanager
def _torch_threads(count: int | None) -> Iterator[None]:
    torch = sys.modules.get("torch")
    if count is None or torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


if __name__ == "__main__":
    main()
