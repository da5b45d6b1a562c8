"""The native engine: dense networks on a CPU, one member after the other, in compiled code.

Importing this package loads neither numba nor torch. Code is compiled once on a machine, which
takes most of a minute, and kept in the user's cache; `is_ready` tells whether that was done.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adanet_py.executors import Nursery
    from adanet_py.executors.nursery import Process

COMPILER = "adanet_py.training.engines.native.warm"
NOT_COMPILED = frozenset({"__init__.py", "engine.py", "loaded.py", "translate.py", "warm.py"})
MISSING = (
    "numba is not installed, so networks train on the engine 'stacked', several times slower on a "
    "CPU: pip install 'adanet_py[native]'."
)
COMPILING = (
    "Compiling the native engine, once on this machine, most of a minute; until then networks "
    "train on the engine 'stacked', several times slower."
)
WAITING = "Compiling the native engine, once on this machine; this takes most of a minute."


def is_installed() -> bool:
    """Whether numba, which compiles the engine, can be imported."""
    return importlib.util.find_spec("numba") is not None


@functools.cache
def cache_folder() -> Path:
    """Where compiled code of this version of the package lies.

    The cache of numba looks at the file of a function alone; a change of what it calls would go
    unnoticed. So the folder is named after the content of all compiled files, numba and Python.
    """
    digest = hashlib.sha256(sys.version.encode())
    with suppress(PackageNotFoundError):
        digest.update(version("numba").encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.name not in NOT_COMPILED:
            digest.update(path.read_bytes())
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "adanet_py" / f"native-{digest.hexdigest()[:16]}"


def is_ready() -> bool:
    """Whether the engine can start at once."""
    return is_installed() and (cache_folder() / "ready").exists()


def dense_engine(device: str) -> str:
    """The engine of dense networks on a device, as things are."""
    return "native" if device == "cpu" and is_ready() else "stacked"


class Readiness:
    """Whether networks may train on the engine; has it compiled meanwhile where it is not yet.

    wait: return only when it is compiled, so that no clock decides between engines.
    """

    def __init__(self, nursery: Nursery, wait: bool, note: Callable[[str], None]) -> None:
        self._process: Process | None = None
        if not is_installed():
            note(MISSING)
        elif not is_ready():
            note(WAITING if wait else COMPILING)
            self._process = nursery.open(COMPILER, [])
            if wait:
                self._process.wait()

    @property
    def busy(self) -> bool:
        """Whether a core is compiling."""
        return self._process is not None and self._process.poll() is None

    @property
    def engine(self) -> str:
        """The engine of dense networks on a CPU now."""
        return "native" if not self.busy and is_ready() else "stacked"

    def close(self) -> None:
        """End a compilation that is not done; the next run begins it anew."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            self._process.close()
