"""Compile the engine in float32 (``python -m`` this module), or load what was compiled."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import numpy as np
import torch

from adanet_py.architectures import ARCHITECTURES
from adanet_py.records import Candidate, DataSpec
from adanet_py.training.batches import BatchOrder
from adanet_py.training.engines.native import cache_folder
from adanet_py.training.engines.native.engine import NativeEngine
from adanet_py.training.engines.program import Program, Tensors
from adanet_py.training.optimizers import OPTIMIZERS


def load() -> None:
    """Train a tiny network, which compiles what is not in the cache."""
    spec = DataSpec("binary", n_outputs=1, n_numeric=2, cardinalities=(2,))
    generator = torch.Generator().manual_seed(0)
    data = Tensors(
        torch.randn(8, 2, generator=generator),
        torch.zeros(8, 1, dtype=torch.int32),
        (torch.arange(8) % 2).float(),
    )
    candidate = Candidate("mlp", {"width": 2, "depth": 1, "batch_size": 4}, "adamw")
    order = BatchOrder((np.arange(8),), 4, 0)
    program = Program(ARCHITECTURES["mlp"], OPTIMIZERS["adamw"], (candidate,), spec, order, 3, data)
    engine = NativeEngine(program)
    engine.advance(0, 3, lambda step: False)
    engine.predict([np.arange(8)])


def main(argv: Sequence[str] | None = None) -> None:
    """Compile once; processes that come meanwhile wait for the first."""
    parser = argparse.ArgumentParser(prog="adanet_py.training.engines.native.warm")
    parser.add_argument("--parent", type=int, help="process id to die with")
    options = parser.parse_args(argv)
    if options.parent is not None:
        from adanet_py.worker import die_with

        die_with(options.parent)
    torch.set_num_threads(1)
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a") as lock:
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            os.nice(5)  # a search goes on beside it
            load()
            (folder / "ready").touch()


if __name__ == "__main__":
    main()
