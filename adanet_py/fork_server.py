"""The fork server: imports once what many processes need, then forks each within milliseconds.

``python -m adanet_py.fork_server --parent PID --socket FD`` is started by a `Nursery`
(executors/nursery.py). A request is one packet ``{"module": ..., "args": [...], "preload": [...]}``
with four descriptors: stdin, stdout and stderr of the new process, and a pipe on which its process
id is answered at once and its exit code when it has ended (negative for a signal), a line each.
The new process calls ``main(args)`` of the module.

What is forked dies with the server and the server with its parent (PR_SET_PDEATHSIG), also by
SIGKILL. Here are no threads and no jobs: threads, of OpenMP say, do not survive a fork, so modules
are imported and nothing of them is called.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from adanet_py.worker import die_with

LONGEST_REQUEST = 2**16
DESCRIPTORS = 4  # stdin, stdout, stderr, status


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Serve until the parent closes the socket or dies."""
    parser = argparse.ArgumentParser(prog="adanet_py.fork_server")
    parser.add_argument("--parent", type=int, required=True, help="process id to die with")
    parser.add_argument("--socket", type=int, required=True, help="descriptor to be asked on")
    options = parser.parse_args(argv)
    die_with(options.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which decides
    gc.disable()  # imports make much that stays; a collection would only look through it
    requests = socket.socket(fileno=options.socket)
    children: dict[int, int] = {}  # process id -> where its exit code is told

    def reap(signum: int, frame: FrameType | None) -> None:
        # The exit code is told before the process id may be used again, so that nobody kills the
        # next process of that id. In a handler: an import here must not delay it.
        #
        # Not interrupted by itself: both would wait for the same process.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        try:
            for pid, status in list(children.items()):
                found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if found is not None:
                    ended = found.si_code == os.CLD_EXITED
                    _tell(status, found.si_status if ended else -found.si_status)
                    os.waitpid(pid, 0)
                    os.close(children.pop(pid))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    signal.signal(signal.SIGCHLD, reap)
    # A signal that comes between the interpreter's last look for one and the system call would
    # leave its handler waiting for the next request: so it also ends the wait, by a pipe.
    ended, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    waiting = select.poll()
    waiting.register(requests, select.POLLIN)
    waiting.register(ended, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in waiting.poll()]
        if ended in ready:
            os.read(ended, LONGEST_REQUEST)
        if requests.fileno() not in ready:
            continue
        packet, descriptors, _, _ = socket.recv_fds(requests, LONGEST_REQUEST, DESCRIPTORS)
        if not packet:
            os._exit(0)
        request = json.loads(packet)
        if preload(request["preload"]):
            gc.collect()
            gc.freeze()  # a collection in a child would copy every page that it looks at
        if not descriptors:
            continue
        *stdio, status = descriptors
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        server, pid = os.getpid(), os.fork()
        if pid == 0:
            requests.close()
            signal.set_wakeup_fd(-1)
            for other in (status, ended, wakeup, *children.values()):
                os.close(other)
            _become(request["module"], request["args"], stdio, server)
        children[pid] = status
        with suppress(OSError):  # it has done the same, or has ended
            os.setpgid(pid, pid)
        for descriptor in stdio:
            os.close(descriptor)
        if not _tell(status, pid):  # nobody waits for it any more
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


def preload(names: Sequence[str]) -> bool:
    """Import modules, whether any was new; what cannot be imported is left to who needs it."""
    new = [name for name in names if name not in sys.modules]
    for name in new:
        with suppress(Exception):
            importlib.import_module(name)
    return bool(new)


def _tell(descriptor: int, number: int) -> bool:
    try:
        os.write(descriptor, b"%d\n" % number)
    except OSError:
        return False
    return True


def _become(module: str, args: list[str], stdio: list[int], server: int) -> NoReturn:
    """In the fork: be a fresh process that runs `main(args)` of the module."""
    code: Any = 1
    try:
        with suppress(OSError):
            os.setpgid(0, 0)  # Ctrl-C in the terminal is for the parent alone
        die_with(server)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        for target, descriptor in enumerate(stdio):
            os.dup2(descriptor, target)
            os.close(descriptor)
        gc.enable()
        importlib.import_module(module).main(args)
        code = 0
    except SystemExit as end:
        code = end.code
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code or 0)


if __name__ == "__main__":
    main()
