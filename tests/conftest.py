"""One thread everywhere: tests share few cores, and the numbers must not depend on how many."""

from __future__ import annotations

import os

import pytest

# Before torch or numpy are imported by a test; worker processes inherit it.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"


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
