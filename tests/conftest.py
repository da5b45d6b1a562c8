"""One thread everywhere, since tests share few cores; nothing waits for the disk."""

from __future__ import annotations

import os

import pytest

# Before torch or numpy are imported by a test; worker processes inherit it.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

# Nobody pulls the plug on a test: what a killed process has written is there without it too.
os.fsync = lambda fd: None  # type: ignore[assignment]


@pytest.fixture(scope="session")
def compiled() -> bool:
    """Compile the engine `native`, in float32 and float64: one process does, others wait for it."""
    from adanet_py.training.engines.native import is_installed

    if not is_installed():
        return False
    from adanet_py.training.engines.native.warm import compile_once

    compile_once()
    compile_once(double=True)
    return True


@pytest.fixture(autouse=True)
def _compiled_before_it_is_used(request: pytest.FixtureRequest) -> None:
    callspec = getattr(request.node, "callspec", None)
    values = () if callspec is None else callspec.params.values()
    uses = any(isinstance(value, str) and value == "native" for value in values)
    if uses and not request.getfixturevalue("compiled"):
        pytest.skip("needs numba (the extra native)")


@pytest.fixture
def reloaded_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that are grown anew are checked in this process: each other one takes seconds."""
    from tables import reload_here

    from adanet_py import regrow

    monkeypatch.setattr(regrow, "reload_apart", reload_here)
