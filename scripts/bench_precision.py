"""Seconds of a training step in float32 over those in bfloat16, the two taking turns.

    python scripts/bench_precision.py [--device cpu] [--threads 1] [--seconds 4] [--out FILE]

Prints a table (Markdown): one line per network, the median ratio over turns; above 1 bfloat16 is
the faster one. Random data; what is learned plays no part.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adanet_py.architectures import ARCHITECTURES
from adanet_py.data.spec import DataSpec
from adanet_py.records import Candidate
from adanet_py.training.batches import BatchOrder
from adanet_py.training.engines.program import Program, Tensors
from adanet_py.training.engines.stacked import StackedEngine
from adanet_py.training.optimizers import OPTIMIZERS

COLUMNS, ROWS, STEPS = 32, 8192, 3
NETWORKS: list[tuple[str, int, dict[str, Any]]] = [
    ("mlp", 8, {"depth": 2, "width": 128, "batch_size": 256}),
    ("mlp", 8, {"depth": 3, "width": 384, "batch_size": 1024, "norm": "layer"}),
    ("resnet", 8, {"depth": 4, "width": 256, "batch_size": 512}),
    ("tabm", 8, {"depth": 3, "width": 256, "members": 16, "batch_size": 256}),
    ("mlp", 1, {"depth": 3, "width": 2048, "batch_size": 2048}),
]


def engine(name: str, members: int, static: dict[str, Any], device: str) -> StackedEngine:
    """A group on random data."""
    generator = torch.Generator().manual_seed(0)
    data = Tensors(
        torch.randn(ROWS, COLUMNS, generator=generator).to(device),
        torch.zeros(ROWS, 0, dtype=torch.int32, device=device),
        torch.randint(0, 2, (ROWS,), generator=generator).float().to(device),
    )
    candidates = tuple(Candidate(name, static, "adamw", seed=k) for k in range(members))
    order = BatchOrder((np.arange(ROWS),), static["batch_size"], seed=0)
    spec = DataSpec("binary", 1, COLUMNS, (), {})
    return StackedEngine(
        Program(
            ARCHITECTURES[name], OPTIMIZERS["adamw"], candidates, spec, order, 10**6, data,
            torch.device(device),
        )
    )  # fmt: skip


def turn(group: StackedEngine, at: int, device: str) -> float:
    """Seconds of a few steps."""
    begun = time.perf_counter()
    group.advance(at, at + STEPS, lambda step: False)
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each network")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    what = platform.processor() or platform.machine()
    if options.device != "cpu":
        what = torch.cuda.get_device_name()
    lines = [
        f"{what}, torch {torch.__version__}, {options.threads} thread(s); see "
        "scripts/bench_precision.py.",
        "",
        "| network | members | float32, ms per step | bfloat16 | float32 / bfloat16 |",
        "|---|---|---|---|---|",
    ]
    for name, members, static in NETWORKS:
        groups = [
            engine(name, members, static | {"precision": p}, options.device)
            for p in ("float32", "bfloat16")
        ]
        for group in groups:
            turn(group, 0, options.device)
        times: list[tuple[float, ...]] = []
        end = time.perf_counter() + options.seconds
        while time.perf_counter() < end or len(times) < 3:
            at = STEPS * (len(times) + 1)
            times.append(tuple(turn(group, at, options.device) for group in groups))
        slow, fast = (statistics.median(t[i] for t in times) / STEPS * 1e3 for i in (0, 1))
        ratio = statistics.median(t[0] / t[1] for t in times)
        size = ", ".join(f"{k} {v}" for k, v in static.items())
        lines.append(f"| {name}: {size} | {members} | {slow:.1f} | {fast:.1f} | {ratio:.2f} |")
        print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
