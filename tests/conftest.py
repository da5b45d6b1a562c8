"""One thread everywhere: tests share few cores, and the numbers must not depend on how many."""

from __future__ import annotations

import os

# Before torch or numpy are imported by a test; worker processes inherit it.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"
