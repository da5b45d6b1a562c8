"""Compiling with numba, and keeping what was compiled."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache

from adanet_py.training.engines.native import cache_folder

# Not those that let the compiler assume there is no NaN: a diverged member must be seen.
FAST = {"reassoc", "contract", "nsz", "arcp", "afn"}

# Nothing is allocated: without references counted, the many views of a step cost nothing.
_OPTIONS: Any = {"fastmath": FAST, "error_model": "numpy", "nogil": True, "_nrt": False}

kernel: Any = numba.njit(**_OPTIONS)

# What is called in one place only becomes part of its caller, which saves compiling it twice.
inlined: Any = numba.njit(**_OPTIONS, inline="always")


class _Place:
    """Where numba looks for what it compiled, and what it must be of: the folder's name tells."""

    def get_cache_path(self) -> str:
        return str(cache_folder())

    def get_source_stamp(self) -> str:
        return cache_folder().name

    def ensure_cache_path(self) -> None:
        if not cache_folder().is_absolute():
            raise OSError("There is no home folder.")
        cache_folder().mkdir(parents=True, exist_ok=True)


class _Files(CompileResultCacheImpl):
    """Files that depend on content alone: numba's own belong to a place and time of the source."""

    def __init__(self, function: Any) -> None:
        self._locator, self._filename_base = _Place(), function.__qualname__


class _Cache(FunctionCache):
    """What cannot be read is compiled again; what cannot be written is for this process alone."""

    _impl_class = _Files

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a damaged pickle raises anything
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):
            super().save_overload(sig, data)


def entry(function: Any) -> Any:
    """Compile a function that is called from Python, once per machine."""
    dispatcher = kernel(function)
    dispatcher._cache = _Cache(function)
    return dispatcher
