"""What makes a run survive: the append-only journal, the lock, atomic files and fault points.

The journal is a text file of JSON lines, each with a checksum over its own bytes:
``{"kind":"results","time":12.5,"data":{...},"crc":"89abcdef"}``. A line counts once it was fsynced;
everything else in a run folder is derived from it or replaced atomically.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import shutil
import signal
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from adanet_py.errors import ConfigError, RunError

_SUFFIX = len(b',"crc":"01234567"}')
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StorageError(RunError):
    """The disk refused a write (full, quota, I/O error); what was written before is intact."""

    exit_code = 74


@dataclass(frozen=True)
class Event:
    """One line of the journal; `time`: seconds the run has taken, pauses left out."""

    kind: str
    time: float
    data: Any


class Journal:
    """The journal of one run, opened for appending by the holder of the run's `Lock`.

    Opening reads and checks every line (`events`), cuts a torn last line off the file (`repaired`
    then says so, else it is empty), and lets the run's clock go on from the last event.

    Raises:
        RunError: a line other than the last is damaged, or the file cannot be opened for writing.
        StorageError: on a failed append; the file is cut back to its last whole line.
    """

    def __init__(self, path: str | Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = Path(path)
        self._clock = clock
        try:
            created = not self.path.exists()
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise refused(self.path, error) from error
        try:
            if created:
                _sync_folder(self.path.parent)
            raw = self.path.read_bytes()
            self.events, good = _parse(raw, self.path)
            self.repaired = ""
            if good < len(raw):
                self.repaired = (
                    f"{self.path}: cut {len(raw) - good} bytes of an unfinished last line."
                )
            self._size = good
            self._truncate()
            if good and raw[good - 1 : good] != b"\n":  # whole, but the newline did not make it
                self._write(b"\n")
        except OSError as error:
            os.close(self._fd)
            raise refused(self.path, error) from error
        except BaseException:
            os.close(self._fd)
            raise
        self._offset = (self.events[-1].time if self.events else 0.0) - self._clock()

    @property
    def elapsed(self) -> float:
        """Seconds the run has taken so far, over all its resumes, by a monotonic clock."""
        return self._offset + self._clock()

    def append(self, kind: str, data: Any) -> Event:
        """Write one event and return it; it is on the disk when this returns.

        `data` is strict JSON (no NaN, no infinity): ValueError or TypeError otherwise, with nothing
        written.
        """
        event = Event(kind, round(self.elapsed, 4), data)
        line = _line(event)
        try:
            faultpoint("journal: before append")
            self._write(line)
            faultpoint("journal: after append")
        except OSError as error:
            raise refused(self.path, error) from error
        self.events.append(event)
        return event

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, line: bytes) -> None:
        try:
            os.lseek(self._fd, self._size, os.SEEK_SET)
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            os.fsync(self._fd)
        except OSError:
            self._truncate()
            raise
        self._size += len(line)

    def _truncate(self) -> None:
        if os.fstat(self._fd).st_size != self._size:
            os.ftruncate(self._fd, self._size)
            os.fsync(self._fd)


def read(path: str | Path) -> list[Event]:
    """Return the events of a journal without touching it; an unfinished last line is left out.

    Safe while another process appends. Raises RunError where the file is missing or damaged.
    """
    try:
        raw = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise RunError(f"{path} not found: expected the journal of a run folder.") from error
    except OSError as error:
        raise RunError(f"Cannot read {path}: {error.strerror}.") from error
    return _parse(raw, Path(path))[0]


class Lock:
    """The right to change a run folder: one process at a time, freed by the kernel at its death.

    A context manager around an exclusive `flock` on ``folder/lock``. The file stays behind
    (removing it would race with the next taker) and names the last holder. RunError when someone
    else holds it or the folder cannot be written to.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "lock"
        self._fd = -1

    def __enter__(self) -> Lock:
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise refused(self.path, error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            holder = {"pid": os.getpid(), "host": platform.node()}
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(holder).encode() + b"\n", 0)
            os.fsync(fd)
        except BlockingIOError as error:
            os.close(fd)
            raise RunError(
                f"{self.path.parent} is in use by {_holder(self.path)}. Wait until it has ended, "
                "stop it, or use another folder (--out)."
            ) from error
        except OSError as error:
            os.close(fd)
            raise refused(self.path, error) from error
        self._fd = fd
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)
        self._fd = -1


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Replace a file so that a reader, or a crash, sees the old content or the new, never a mix.

    The new content goes to ``<path>.tmp`` beside it, is fsynced and renamed; text is UTF-8. At most
    one process may write a path at a time (the run's `Lock`). Raises StorageError or RunError.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    data = content.encode() if isinstance(content, str) else content
    try:
        faultpoint(f"write: before {path.name}")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        faultpoint(f"write: before renaming {path.name}")
        os.replace(temporary, path)
        _sync_folder(path.parent)
        faultpoint(f"write: after {path.name}")
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise refused(path, error) from error


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Delete the ``*.tmp`` files a killed run left under `folder`; call it with the lock held."""
    leftovers = sorted(p for p in Path(folder).rglob("*.tmp") if p.is_file())
    for path in leftovers:
        path.unlink()
    return leftovers


def refused(path: Path, error: OSError) -> RunError:
    """Return the error for people where writing `path` failed: StorageError if it is the disk."""
    if error.errno in _FULL:
        try:
            free = f"{shutil.disk_usage(path.parent).free / 1e6:,.1f} MB are free there"
        except OSError:
            free = "its free space is unknown"
        return StorageError(
            f"Cannot write {path}: {error.strerror} ({free}). What was written before is intact: "
            "make room, then run the same command again to go on."
        )
    if error.errno == errno.EIO:
        return StorageError(f"Cannot write {path}: {error.strerror}. Check the disk.")
    return RunError(
        f"Cannot write {path}: {error.strerror or error}. Expected a folder this user may write "
        "to; choose another one (--out)."
    )


_counts: dict[str, int] = {}


def faultpoint(name: str) -> None:
    """Mark a durable step; does nothing unless the environment asks for a fault, for tests.

    ``ADANET_FAULT=kill9@7`` kills this process at its seventh such step; ``sigterm@7`` and
    ``sigint@7`` send it that signal, ``enospc@7`` and ``eio@7`` raise that OSError. `name` says
    where.
    """
    spec = os.environ.get("ADANET_FAULT")
    if not spec:
        return
    what, _, number = spec.partition("@")
    if what not in _FAULTS or not number.isdigit():
        raise ConfigError(f"ADANET_FAULT is {spec!r}; expected one of {', '.join(_FAULTS)} and @N.")
    _counts[spec] = _counts.get(spec, 0) + 1
    if _counts[spec] != int(number):
        return
    fault = _FAULTS[what]
    if isinstance(fault, signal.Signals):
        os.kill(os.getpid(), fault)
    else:
        raise OSError(fault, f"{os.strerror(fault)} (injected, {name})")


_FAULTS: dict[str, signal.Signals | int] = {
    "kill9": signal.SIGKILL,
    "sigterm": signal.SIGTERM,
    "sigint": signal.SIGINT,
    "enospc": errno.ENOSPC,
    "eio": errno.EIO,
}


def _line(event: Event) -> bytes:
    body = {"kind": event.kind, "time": event.time, "data": event.data}
    raw = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
    return raw[:-1] + b',"crc":"%08x"}\n' % zlib.crc32(raw)


def _event(line: bytes) -> Event | None:
    body = line[:-_SUFFIX] + b"}"
    if line[-_SUFFIX:] != b',"crc":"%08x"}' % zlib.crc32(body):
        return None
    value = json.loads(body)
    return Event(value["kind"], value["time"], value["data"])


def _parse(raw: bytes, path: Path) -> tuple[list[Event], int]:
    """Return the events and how many bytes hold them; only the last line may be unfinished."""
    events: list[Event] = []
    good = 0
    lines = raw.split(b"\n")
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, start=1):
        event = _event(line)
        if event is None:
            if number < len(lines):
                raise RunError(
                    f"{path}, line {number} of {len(lines)} is damaged: its checksum does not "
                    "match. Expected a journal changed by nothing but adanet_py: restore it from "
                    "a copy, or start a new run."
                )
            break
        events.append(event)
        good = min(good + len(line) + 1, len(raw))
    return events, good


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        return f"process {int(holder['pid'])} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
