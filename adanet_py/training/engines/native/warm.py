"""Compile the engine (``python -m`` this module), or load what was compiled."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch

from adanet_py.architectures import ARCHITECTURES
from adanet_py.data.spec import DataSpec
from adanet_py.records import Candidate
from adanet_py.training.batches import BatchOrder
from adanet_py.training.engines.native import cache_folder, is_marked, is_ready, mark_ready
from adanet_py.training.engines.native.engine import NativeEngine
from adanet_py.training.engines.program import Program, Tensors
from adanet_py.training.optimizers import OPTIMIZERS

KEPT_SECONDS = 90 * 86_400  # what has not been compiled since is removed


def load(dtype: torch.dtype = torch.float32) -> None:
    """Train a tiny network, which compiles what is not in the cache."""
    spec = DataSpec("binary", n_outputs=1, n_numeric=2, cardinalities=(2,))
    generator = torch.Generator().manual_seed(0)
    data = Tensors(
        torch.randn(8, 2, generator=generator, dtype=dtype),
        torch.zeros(8, 1, dtype=torch.int32),
        (torch.arange(8) % 2).to(dtype),
    )
    candidate = Candidate("mlp", {"width": 2, "depth": 1, "batch_size": 4}, "adamw")
    order = BatchOrder((np.arange(8),), 4, 0)
    family = ARCHITECTURES["mlp"], OPTIMIZERS["adamw"], (candidate,)
    program = Program(*family, spec, order, 3, data, dtype=dtype)
    engine = NativeEngine(program)
    engine.advance(0, 3, lambda step: False)
    engine.predict([np.arange(8)])


def compile_once(double: bool = False) -> bool:
    """Compile for float32 (or float64) unless it is done; whether it was not.

    Processes that come meanwhile wait for the first. Raises OSError if nothing can be kept.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a") as lock:
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        if is_ready(double):
            return False
        if is_marked(double):  # but damaged
            for path in folder.glob("*.nb?"):
                path.unlink()
        load(torch.float64 if double else torch.float32)
        mark_ready(double)
        if not is_ready(double):
            raise OSError(f"What was compiled could not be written to {folder}.")
    for other in folder.parent.glob("native-*"):  # of other versions, or environments
        if time.time() - other.stat().st_mtime > KEPT_SECONDS:
            shutil.rmtree(other, ignore_errors=True)
    return True


def main(argv: Sequence[str] | None = None) -> None:
    """Compile beside a search."""
    parser = argparse.ArgumentParser(prog="adanet_py.training.engines.native.warm")
    parser.add_argument("--parent", type=int, help="process id to die with")
    options = parser.parse_args(argv)
    if options.parent is not None:
        from adanet_py.worker import die_with

        die_with(options.parent)
    torch.set_num_threads(1)
    if hasattr(os, "nice"):
        os.nice(5)
    compile_once()


if __name__ == "__main__":
    main()
