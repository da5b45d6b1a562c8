"""Compiling with numba, and keeping what was compiled."""

from __future__ import annotations

import shutil
import time
from typing import Any

import numba

from adanet_py.training.engines.native import cache_folder

KEPT_SECONDS = 90 * 86_400  # what has not been compiled since is removed

# Not those that let the compiler assume there is no NaN: a diverged member must be seen.
FAST = {"reassoc", "contract", "nsz", "arcp", "afn"}

kernel: Any = numba.njit(fastmath=FAST, error_model="numpy", nogil=True)

# What is called in one place only becomes part of its caller, which saves compiling it twice.
inlined: Any = numba.njit(fastmath=FAST, error_model="numpy", nogil=True, inline="always")


def entry(function: Any) -> Any:
    """Compile a function that is called from Python, once per machine."""
    folder = cache_folder()
    try:
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
            for other in folder.parent.glob("native-*"):  # of other versions, or environments
                if time.time() - other.stat().st_mtime > KEPT_SECONDS:
                    shutil.rmtree(other, ignore_errors=True)
    except OSError:
        return kernel(function)  # compiled in every process
    settings: Any = numba.config
    before = settings.CACHE_DIR
    settings.CACHE_DIR = str(folder)
    try:
        return numba.njit(fastmath=FAST, error_model="numpy", nogil=True, cache=True)(function)
    finally:
        settings.CACHE_DIR = before
