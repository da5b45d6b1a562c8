#!/usr/bin/env python3
"""Groups side by side: candidates per second of two worker processes against one.

    python scripts/bench_cores.py [--cores 2] [--rounds 5] [--quick]

As many processes as cores, each bound to one of them and with one thread, as the workers of a
search are, train the same groups (multilayer perceptrons of three sizes, `--seconds` of each)
through `groups.train`, first one process alone, then all at once, round by round. Beside it the
same with nothing but large matrix products: two cores that are threads of one physical core share
its arithmetic, and no program can have more than these products have. Results are written to
results/cores.md and .json.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
from benching import command, deliver, machine, shown, spread, table

SIZES = ((64, 2, 64), (128, 2, 256), (256, 4, 1024))  # width, depth, batch size
KINDS = (*(f"{w} x {d}, batch {b}" for w, d, b in SIZES), "matrix products")


def work(core: int, kind: int, seconds: float, start: Barrier, out: Any) -> None:
    """One process: units of work per second, counted from the moment all are ready."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    import torch

    torch.set_num_threads(1)
    unit = products(torch) if kind == len(SIZES) else group(kind)
    unit()
    start.wait()
    done, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        unit()
        done += 1
    out.put(done / (time.perf_counter() - begun))


def products(torch: Any) -> Any:
    """A large float32 matrix product."""
    a = torch.randn(1024, 1024)
    return lambda: torch.mm(a, a)


def group(kind: int) -> Any:
    """A group of 8 candidates trained for some steps."""
    import torch
    from suites import SUITES, Bench, Setting

    from adanet_py.training import groups

    width, depth, batch = SIZES[kind]
    bench = Bench(SUITES["mixed"], torch.device("cpu"), "auto")
    settings = [Setting(width, depth, batch, 1e-3, 1e-5, seed) for seed in range(8)]
    steps = max(4, 16_384 // batch)
    return lambda: groups.train(*bench.group(settings, steps, steps))


def rate(cores: Sequence[int], kind: int, seconds: float) -> float:
    """Units per second of one process on each of the cores, all at once."""
    context = multiprocessing.get_context("spawn")
    start, out = context.Barrier(len(cores)), context.Queue()
    args = (kind, seconds, start, out)
    processes = [context.Process(target=work, args=(core, *args)) for core in cores]
    for process in processes:
        process.start()
    total = sum(out.get() for _ in processes)
    for process in processes:
        process.join()
    return float(total)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="of every measurement")
    parser.add_argument("--quick", action="store_true", help="1 round of half a second")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--out", type=Path, help="stem of the files to write (--quick: none)")
    args = parser.parse_args(arguments)
    if args.quick:
        args.rounds, args.seconds = 1, 0.5
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(64))
    if not 2 <= args.cores <= len(mine):
        raise SystemExit(f"--cores: expected 2 to {len(mine)}, found {args.cores}.")
    os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    gains = np.empty((args.rounds, len(KINDS)))
    for r in range(args.rounds):
        for kind in range(len(KINDS)):
            alone = [rate(mine[c : c + 1], kind, args.seconds) for c in range(args.cores)]
            gains[r, kind] = rate(mine[: args.cores], kind, args.seconds) / np.mean(alone)
        print(f"round {r + 1} of {args.rounds}", file=sys.stderr, flush=True)
    import torch

    report: dict[str, Any] = {
        "command": command(__file__),
        "machine": machine(torch.device("cpu"), args.cores),
        "rounds": args.rounds,
        "gain": {name: spread(gains[:, i].tolist()) for i, name in enumerate(KINDS)},
    }
    rows = [[name, shown(found)] for name, found in report["gain"].items()]
    lines = [f"Made by `{report['command']}`: {report['machine']}.", ""]
    lines += [f"Work per second of {args.cores} processes, one a core, in units of one alone:", ""]
    lines += [*table(["8 candidates of", "gain"], rows), ""]
    default = None if args.quick else Path(__file__).parents[1] / "results" / "cores"
    deliver(report, lines, args.out or default, args.json)
    return report


if __name__ == "__main__":
    main()
