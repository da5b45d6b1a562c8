"""Compiling with numba, and where compiled code is kept.

The cache of numba looks at the file of a function alone; a change of what it calls would go
unnoticed. So the folder is named after the content of all files of this package, and after numba.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])

# Not those that let the compiler assume there is no NaN: a diverged member must be seen.
FAST = {"reassoc", "contract", "nsz", "arcp", "afn"}

kernel: Callable[[F], F] = numba.njit(fastmath=FAST, error_model="numpy", nogil=True)

# What is called in one place only becomes part of its caller, which saves compiling it twice.
inlined: Callable[[F], F] = numba.njit(
    fastmath=FAST, error_model="numpy", nogil=True, inline="always"
)


@functools.cache
def cache_folder() -> Path:
    """Where compiled code of this version of the package lies."""
    digest = hashlib.sha256(f"{numba.__version__} {sys.version}".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "adanet_py" / f"native-{digest.hexdigest()[:16]}"


def entry(function: F) -> F:
    """Compile a function that is called from Python, once per machine."""
    folder = cache_folder()
    try:
        if not folder.exists():
            for old in folder.parent.glob("native-*"):
                shutil.rmtree(old, ignore_errors=True)
            folder.mkdir(parents=True)
    except OSError:
        return kernel(function)  # compiled in every process
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder)
    try:
        return numba.njit(fastmath=FAST, error_model="numpy", nogil=True, cache=True)(function)
    finally:
        numba.config.CACHE_DIR = before
