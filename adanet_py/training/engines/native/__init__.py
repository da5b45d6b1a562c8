"""The native engine: dense networks on a CPU, one member after the other, in compiled code.

Importing this package loads neither numba nor torch. Code is compiled once on a machine, which
takes most of a minute, and kept in the user's cache; `is_ready` tells whether that was done.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from adanet_py import __version__

if TYPE_CHECKING:
    from adanet_py.executors import Nursery
    from adanet_py.executors.nursery import Process

COMPILER = "adanet_py.training.engines.native.warm"
NOT_COMPILED = frozenset(
    {"__init__.py", "engine.py", "loaded.py", "sparing.py", "storage.py", "translate.py", "warm.py"}
)
SLOWER = "networks train on the engine 'stacked', several times slower on a CPU"
MISSING = f"numba is not installed, so {SLOWER}: pip install 'adanet_py[native]'."
COMPILING = (
    f"Compiling the native engine, once on this machine, most of a minute; until then {SLOWER}."
)
WAITING = "Compiling the native engine, once on this machine; this takes most of a minute."
UNKEPT = (
    "The compiled code of the native engine cannot be kept ({why}), so {slower}. Let "
    "XDG_CACHE_HOME name a folder that can be written."
)
FAILED = "Compiling the native engine failed (exit code {code}), so {slower}."


def is_installed() -> bool:
    """Whether numba, which compiles the engine, can be imported."""
    return importlib.util.find_spec("numba") is not None


def caches() -> Path:
    """The folder for what programs of this user keep; relative if there is no home folder."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(given):
        return Path(given)
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    return home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache"


@functools.cache
def _key() -> str:
    """Tells apart what compiled code depends on: its files, release, numba, Python, processor.

    A home folder on a network serves machines with several kinds of processors.
    """
    about_us = f"{__version__} {sys.version} {platform.machine()}"
    digest = hashlib.sha256(about_us.encode())
    with suppress(PackageNotFoundError):
        digest.update(version("numba").encode())
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
        about = (b"model name", b"flags", b"Features", b"CPU part")
        digest.update(b"".join(sorted({line for line in lines if line.startswith(about)})))
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.name not in NOT_COMPILED:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def cache_folder() -> Path:
    """Where compiled code of this version of the package lies, wherever the package itself does."""
    return caches() / "adanet_py" / f"native-{_key()}"


def obstacle() -> str:
    """Why nothing can be kept; empty if it can."""
    folder = cache_folder()
    if not folder.is_absolute():
        return "there is no home folder"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f"{folder}: {error.strerror}"


def _sums(folder: Path) -> dict[str, int]:
    return {path.name: zlib.crc32(path.read_bytes()) for path in sorted(folder.glob("*.nbc"))}


def _mark(double: bool) -> Path:
    return cache_folder() / ("ready-double" if double else "ready")


def is_marked(double: bool = False) -> bool:
    """Whether everything was compiled once, though it may be damaged now."""
    return _mark(double).exists()


def mark_ready(double: bool = False) -> None:
    """Write down that everything is compiled, with checksums."""
    path = _mark(double)
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(_sums(path.parent)))
    os.replace(part, path)


def is_ready(double: bool = False) -> bool:
    """Whether the engine can start at once: what was compiled is there and whole."""
    path = _mark(double)
    if not (is_installed() and path.is_absolute()):
        return False
    try:
        kept, found = json.loads(path.read_text()), _sums(path.parent)
    except (OSError, ValueError):
        return False
    return bool(kept) and all(found.get(name) == crc for name, crc in kept.items())


def dense_engine(device: str) -> str:
    """The engine of dense networks on a device, as things are."""
    return "native" if device == "cpu" and is_ready() else "stacked"


class Readiness:
    """Whether networks may train on the engine; has it compiled meanwhile where it is not yet.

    wait: return only when it is compiled (or `stopped` says so), so that no clock decides between
    engines. `note` is told what is going on, and once if compiling has failed.
    """

    def __init__(
        self,
        nursery: Nursery,
        wait: bool,
        note: Callable[[str], None],
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._note = note
        self._process: Process | None = None
        self._ready = is_ready()
        if self._ready:
            return
        if not is_installed():
            note(MISSING)
        elif why := obstacle():
            note(UNKEPT.format(why=why, slower=SLOWER))
        else:
            note(WAITING if wait else COMPILING)
            self._process = nursery.open(COMPILER, [])
            while wait and not stopped():
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(0.2)
                    break

    @property
    def busy(self) -> bool:
        """Whether a core is compiling."""
        return self._process is not None and self._process.poll() is None

    @property
    def engine(self) -> str:
        """The engine of dense networks on a CPU now."""
        if self._process is not None and not self.busy:
            self._ready, code = is_ready(), self._process.returncode
            if not self._ready:
                self._note(FAILED.format(code=code, slower=SLOWER))
            self._process.close()
            self._process = None
        return "native" if self._ready else "stacked"

    def close(self) -> None:
        """End a compilation that is not done; the next run begins it anew."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            self._process.close()
            self._process = None
