"""Importing this module loads the compiled code: for a process from which workers are forked.

numba looks meanwhile whether SciPy has a BLAS, for products that it is never asked for here. That
import takes a third of the time that all takes, so where torch's BLAS is called it finds none.
"""

from __future__ import annotations

import threading
from contextlib import nullcontext

from adanet_py.training.engines.native.blas import library
from adanet_py.training.engines.native.sparing import without
from adanet_py.training.engines.native.warm import load

with without("scipy.linalg") if library() and threading.active_count() == 1 else nullcontext():
    load()
