"""Where processes come from: forked from a server that has torch loaded, or started afresh.

On Linux a `Nursery` keeps one fork server (fork_server.py). A process forked from it shares its
memory until one of them writes, has everything imported, and holds nothing of this process: it
begins at ``main(args)`` of a module as ``python -m`` does. Elsewhere (forking is unsafe after some
frameworks of macOS were loaded, and Windows has none) every process is started afresh.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import IO, Any, Protocol, Self

from adanet_py.training.engines import native

FORKS = sys.platform == "linux"
# Memory a worker frees is kept for its next step: fresh large allocations are the slowest thing in
# small-network training on a CPU.
WORKER_ENV = {"MALLOC_MMAP_THRESHOLD_": "268435456", "MALLOC_TRIM_THRESHOLD_": "67108864"}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
PRELOAD = ("adanet_py.training.jobs",)  # what workers need
COMPILED = ("adanet_py.training.engines.native.loaded",)  # where it is there already
MOST_DEATHS = 3  # of fork servers before processes are started afresh


def make_nursery(workers: int | None = None) -> Nursery:
    """Where a run's processes come from, each with one thread.

    Unless `workers` is 0, what workers need is imported there from now on.
    """
    nursery = Nursery(environment(1) | WORKER_ENV)
    if workers != 0:
        nursery.start((*PRELOAD, *COMPILED) if native.is_ready() else PRELOAD)
    return nursery


def environment(threads: int | None) -> dict[str, str]:
    """Return our environment, with our import path and the number of threads."""
    env = dict(os.environ)
    env.pop("ADANET_FAULT", None)  # it counts our durable steps, not theirs
    env["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(p or os.getcwd() for p in sys.path))
    if threads is not None:
        env |= dict.fromkeys(THREADS, str(threads))
    return env


class Process(Protocol):
    """A process in a group of its own, as `subprocess.Popen` has it."""

    returncode: int | None
    stdin: IO[bytes] | None
    stdout: IO[bytes] | None
    lost: bool  # it died with its fork server

    @property
    def pid(self) -> int:
        """Its process id."""

    def poll(self) -> int | None:
        """Its exit code (negative for a signal) if it has ended."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit code; raises subprocess.TimeoutExpired."""

    def kill(self) -> None:
        """Send SIGKILL to it and its children, without waiting."""

    def close(self) -> None:
        """Close our ends of its pipes."""


class Nursery:
    """Starts processes with the environment `env`; a context manager that ends its fork server.

    fork: whether to fork them from a server; None: where that is safe.
    note: told when the fork server died and what is done instead; by default stderr is.

    Linux ends the server, and what it forked, with the thread that started it.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        *,
        fork: bool | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.env = dict(env)
        self.note = note or _print
        self._fork = FORKS if fork is None else fork
        self._server: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._deaths = 0

    @property
    def server(self) -> int | None:
        """Process id of the fork server, if there is one."""
        return None if self._server is None else self._server.pid

    def start(self, preload: Sequence[str] = ()) -> None:
        """Have the fork server import modules, without waiting for it."""
        if self._fork:
            self._ask({"preload": list(preload)}, [])

    def open(
        self,
        module: str,
        args: Sequence[str],
        *,
        stdin: bool = False,
        stderr: IO[bytes] | None = None,
        preload: Sequence[str] = (),
    ) -> Process:
        """Start ``python -m module args`` with a pipe from its stdout.

        A process started afresh is also given ``--parent PID``, whom it has to die with.
        stdin: whether there is a pipe to its stdin; else it is empty.
        stderr: a file for it; None: ours.
        preload: modules that the fork server imports before, and so does not for the next.
        """
        if not self._fork:
            return Fresh(
                [sys.executable, "-P", "-m", module, *args, "--parent", str(os.getpid())],
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
                env=self.env,
                process_group=0,  # Ctrl-C in the terminal is for us alone
            )
        theirs, ours = os.pipe() if stdin else (os.open(os.devnull, os.O_RDONLY), None)
        out, their_out = os.pipe()
        status, their_status = os.pipe()
        sent = [theirs, their_out, 2 if stderr is None else stderr.fileno(), their_status]
        process = Forked(status, ours, out)
        try:
            if self._ask({"module": module, "args": list(args), "preload": list(preload)}, sent):
                return process
        finally:
            for descriptor in (theirs, their_out, their_status):
                os.close(descriptor)
        process.close()
        return self.open(module, args, stdin=stdin, stderr=stderr, preload=preload)

    def close(self) -> None:
        """End the fork server and what it forked."""
        if self._socket is not None:
            self._socket.close()
        if self._server is not None:
            self._server.kill()
            self._server.wait()
        self._socket = self._server = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, request: Mapping[str, Any], descriptors: Sequence[int]) -> bool:
        """Send a request to a living server; whether there is one."""
        while True:
            if self._server is not None and self._server.poll() is not None:
                self._bury(self._server.returncode)
            if not self._fork:
                return False
            if self._socket is None:
                self._begin()
            assert self._socket is not None
            try:
                socket.send_fds(self._socket, [json.dumps(request).encode()], list(descriptors))
            except OSError:  # it died a moment ago
                assert self._server is not None
                self._server.kill()
                self._server.wait()
                continue
            return True

    def _begin(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-P", "-m", "adanet_py.fork_server"]
            command += ["--parent", str(os.getpid()), "--socket", str(theirs.fileno())]
            self._server = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                env=self.env,
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        self._socket = ours

    def _bury(self, code: int | None) -> None:
        assert self._socket is not None
        self._socket.close()
        self._socket = self._server = None
        self._deaths += 1
        self._fork = self._deaths < MOST_DEATHS
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        then = "another one takes its place" if self._fork else "processes are started without one"
        self.note(f"The process that workers are forked from died ({how}); {then}.")


class Fresh(subprocess.Popen[bytes]):
    """A process started afresh; see `Process`."""

    lost = False

    def kill(self) -> None:
        """See `Process`."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """See `Process`."""
        _close(self.stdin, self.stdout)


class Forked:
    """A process of a fork server; see `Process`.

    `status`: the pipe with its process id and exit code; `stdin`, `stdout`: our ends of its pipes.
    """

    def __init__(self, status: int, stdin: int | None, stdout: int) -> None:
        self.returncode: int | None = None
        self.lost = False
        self.stdin: IO[bytes] | None = None if stdin is None else open(stdin, "wb", buffering=0)
        self.stdout: IO[bytes] | None = open(stdout, "rb", buffering=0)
        self._status = status
        self._said = b""

    @property
    def pid(self) -> int:
        """See `Process`; waits until it has been forked. 0 if it never was."""
        while not self._number(0) and self.returncode is None:
            self._listen(None)
        return self._number(0) or 0

    def poll(self) -> int | None:
        """See `Process`."""
        while self.returncode is None and self._listen(0.0):
            pass
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """See `Process`."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            left = None if end is None else end - time.monotonic()
            if not self._listen(left if left is None else max(0.0, left)):
                raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
        return self.returncode

    def kill(self) -> None:
        """See `Process`; one that is not forked yet never will be."""
        if self.poll() is not None:
            return
        pid = self._number(0)
        if pid is None:
            self._end(-int(signal.SIGKILL))
            return
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)

    def close(self) -> None:
        """See `Process`."""
        _close(self.stdin, self.stdout)

    def __del__(self) -> None:
        self._end(None)

    def _number(self, line: int) -> int | None:
        lines = self._said.split(b"\n")
        return int(lines[line]) if len(lines) > line + 1 else None

    def _listen(self, timeout: float | None) -> bool:
        """Read what the server says, waiting for it; whether there was anything."""
        wait = select.poll()  # unlike select.select, it takes descriptors of any number
        wait.register(self._status, select.POLLIN)
        if not wait.poll(None if timeout is None else 1e3 * timeout):
            return False
        said = os.read(self._status, 64)
        self._said += said
        code = self._number(1)
        if code is None and not said:
            self.lost, code = True, -int(signal.SIGKILL)
        if code is not None:
            self._end(code)
        return True

    def _end(self, code: int | None) -> None:
        self.returncode = code
        if self._status >= 0:
            os.close(self._status)
            self._status = -1


def _close(*files: IO[bytes] | None) -> None:
    for file in files:
        if file is not None:
            file.close()


def _print(message: str) -> None:
    print(message, file=sys.stderr)
