"""Compiling with numba, and keeping what was compiled."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any, TypeVar

import numba

from adanet_py.training.engines.native import cache_folder

F = TypeVar("F", bound=Callable[..., Any])

# Not those that let the compiler assume there is no NaN: a diverged member must be seen.
FAST = {"reassoc", "contract", "nsz", "arcp", "afn"}

kernel: Callable[[F], F] = numba.njit(fastmath=FAST, error_model="numpy", nogil=True)

# What is called in one place only becomes part of its caller, which saves compiling it twice.
inlined: Callable[[F], F] = numba.njit(
    fastmath=FAST, error_model="numpy", nogil=True, inline="always"
)


def entry(function: F) -> F:
    """Compile a function that is called from Python, once per machine."""
    folder = cache_folder()
    try:
        if not folder.exists():
            for old in folder.parent.glob("native-*"):
                shutil.rmtree(old, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return kernel(function)  # compiled in every process
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder)
    try:
        return numba.njit(fastmath=FAST, error_model="numpy", nogil=True, cache=True)(function)
    finally:
        numba.config.CACHE_DIR = before
