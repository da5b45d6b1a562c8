#!/usr/bin/env python3
"""Speed and memory of every engine, by shape; how near it comes to the machine's matrix products.

    python scripts/bench_engines.py [--device cpu] [--rounds 5] [--only shapes kinds] [--quick]

`shapes`: multilayer perceptrons, width 32 to 256, depth 1 to 4, batches of 64 to 1,024 rows, on 54
numbers and 7 classes. `kinds`: other architectures, layers, columns and optimizers at two sizes
each. Eight members a group, AdamW unless said otherwise, float32.

First the equality gate: from the same weights on the same batches, the losses of 20 steps at a
tenth of the learning rates must agree between all engines to 1e-5 (relative above 1), else the
status is 1. Then every round times every engine on every case, engines back to back in an order
that rotates, cases shuffled: so many steps that it takes about `--seconds`, in one call, as between
two evaluations of a search; not counted are building the group and reading the data.

Reported: microseconds per step of one member; GFLOP/s of the matrix products that a step needs
(forward, gradients of weights and of inputs, none for the table) and their share of the peak, the
fastest product of two large square matrices by torch on the same cores in the same run; how many
times as fast `native` is as the others, each ratio within one round. Median (least to greatest).

Memory: bytes a member needs by count (parameters; gradient and state of the optimizer; values kept
for the backward pass, with `native` the arena, which all members share); and, at depth 2 from 512
rows on, by how much the peak of a forked process grows from building a group and three steps (on a
GPU: what torch allocates).

`paces` are seconds per step whatever the size, and flops per second, as `adanet_py.plan` uses them:
the least squares fit over `shapes`, each residual relative to the time.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benching import (
    command,
    deliver,
    find_device,
    geometric_mean,
    machine,
    require_equal,
    settle,
    shown,
    spread,
    table,
)
from engine_cases import LONGEST, MEMBERS, Bench, Case, kinds, never, shapes

from adanet_py.architectures import ARCHITECTURES
from adanet_py.plan import PACES
from adanet_py.training.engines import ENGINES, UnsuitedError, make_engine
from adanet_py.training.engines.program import Program, row_bytes

GATE_STEPS, GATE_MEMBERS, WARM_STEPS = 20, 2, 3
GATE_RATE = 0.1  # at full rates the steepest are chaotic: rounding grows a thousandfold in 20 steps
LEAST = 4  # steps of one call
GROWN_DEPTH, GROWN_BATCH = 2, 512  # where the growth of a process is measured: depth, least batch


def difference(bench: Bench, case: Case, engines: Sequence[str]) -> float:
    """The largest difference of any loss of the first steps between two engines."""
    found = []
    for name in engines:
        engine = make_engine(name, bench.program(case, GATE_MEMBERS, GATE_STEPS, GATE_RATE))
        each = [engine.advance(s, s + 1, never)[1].double().cpu() for s in range(GATE_STEPS)]
        found.append(torch.stack(each))
    apart = [(f - found[0]).abs() / found[0].abs().clamp(min=1.0) for f in found[1:]]
    largest = max((float(a.max()) for a in apart), default=0.0)
    if not all(bool(f.isfinite().all()) for f in found):
        largest = float("inf")
    print(f"gate, {case.name}: {largest:.2g}", file=sys.stderr, flush=True)
    return largest


# --------------------------------------------------------------------------------- memory


def counted_bytes(program: Program, engine: Any, name: str) -> dict[str, int]:
    """Bytes a member needs, by count."""
    size = engine.parameters * program.dtype.itemsize
    values = engine._space.arena.nbytes if name == "native" else _kept_bytes(program)
    return {
        "parameters": size,
        "state": (len(program.optimizer.slots) + 1) * size,
        "values": values,
    }


def _kept_bytes(program: Program) -> int:
    row = row_bytes(program, program.build(0))
    return row * max(p.stop - p.start for p in program.micro_batches(row))


def grown_bytes(bench: Bench, case: Case, name: str) -> int | None:
    """By how much memory grows at most from building a group and three steps; None: unknown."""
    if bench.device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        make_engine(name, bench.program(case)).advance(0, WARM_STEPS, never)
        return torch.cuda.max_memory_allocated() - before
    if not Path("/proc/self/clear_refs").exists():
        return None
    ours, theirs = os.pipe()
    if (child := os.fork()) == 0:
        with suppress(BaseException):
            os.write(theirs, str(_grown(bench, case, name)).encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return int(said) if said else None


def _grown(bench: Bench, case: Case, name: str) -> int:
    """In a process of its own."""
    # Code and tables are read in by a small group of the same kind.
    small = Case(case.kind, 8, 1, 8, case.architecture, case.optimizer, case.static, case.numeric)
    make_engine(name, bench.program(small, 1)).advance(0, WARM_STEPS, never)
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what the parent left could be used again
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    make_engine(name, bench.program(case)).advance(0, WARM_STEPS, never)
    return _status("VmHWM") - before


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(s for s in lines if s.startswith(key)).split()[1]) * 1024


# --------------------------------------------------------------------------------- figures


def measure(
    bench: Bench, cases: Sequence[Case], engines: Sequence[str], args: argparse.Namespace
) -> dict[str, Any]:
    """All figures of some cases; the peak is the fastest product of any round."""
    apart = require_equal((difference(bench, c, engines) for c in cases), "engines")
    seconds = np.empty((args.rounds, len(cases), len(engines)))  # per step of a member
    peaks = []
    made: list[list[tuple[Any, int]]] = []
    memory: list[dict[str, dict[str, int | None]]] = []
    for case in cases:
        made.append([])
        memory.append({})
        for name in engines:
            program = bench.program(case)
            engine = make_engine(name, program)
            memory[-1][name] = {**counted_bytes(program, engine, name), "grown": None}
            if case.depth == GROWN_DEPTH and case.batch >= GROWN_BATCH:
                memory[-1][name]["grown"] = grown_bytes(bench, case, name)
            bench.timed(engine, WARM_STEPS)
            once = bench.timed(engine, WARM_STEPS) / WARM_STEPS
            made[-1].append((engine, int(np.clip(args.seconds / once, LEAST, LONGEST))))
    print(f"{len(cases)} cases are ready", file=sys.stderr, flush=True)
    for r in range(args.rounds):
        peaks.append(bench.peak())
        for turn, i in enumerate(np.random.default_rng(r).permutation(len(cases))):
            for j in np.roll(range(len(engines)), -(r + turn)):
                engine, steps = made[i][j]
                bench.timed(engine, 1)
                seconds[r, i, j] = bench.timed(engine, steps) / steps / MEMBERS
        print(f"round {r + 1} of {args.rounds}", file=sys.stderr, flush=True)
    peak = max(peaks)
    found = []
    for i, case in enumerate(cases):
        each: dict[str, Any] = {}
        for j, name in enumerate(engines):
            times = seconds[:, i, j]
            rate = case.flops() / float(np.median(times))
            each[name] = {
                "microseconds": spread((times * 1e6).tolist()),
                "gflops": rate / 1e9,
                "of_peak": rate / peak,
                "bytes": memory[i][name],
            }
        about = {"kind": case.kind, "width": case.width, "depth": case.depth, "batch": case.batch}
        ratios = {
            name: spread((seconds[:, i, j] / seconds[:, i, 0]).tolist())
            for j, name in enumerate(engines)
            if j
        }
        found.append(about | {"engines": each, f"{engines[0]}_against": ratios})
    return {"peak_gflops": peak / 1e9, "largest_difference": apart, "cases": found}


def fit_pace(cases: Sequence[Case], times: Sequence[float]) -> tuple[float, float]:
    """(seconds, flops per second) of t = a + flops / b, least squares of the relative residuals.

    `times` are seconds; flops as `plan.step_flops` counts them.
    """
    t = np.asarray(times)
    rows = np.stack([np.ones(len(t)), [6.0 * c.batch * _multiply_adds(c) for c in cases]], 1)
    a, slope = np.linalg.lstsq(rows / t[:, None], np.ones(len(t)), rcond=None)[0]
    return max(0.0, float(a)), 1.0 / float(slope)


def _multiply_adds(case: Case) -> int:
    architecture = ARCHITECTURES[case.architecture]
    assert architecture.multiply_adds is not None
    return architecture.multiply_adds(architecture.complete(case.statics()), case.spec())


def paces(cases: Sequence[Case], found: dict[str, Any], engines: Iterable[str]) -> dict[str, Any]:
    """What `plan.PACES` could say, beside what it says."""
    out = {}
    for name in engines:
        each = [c["engines"][name]["microseconds"]["median"] * 1e-6 for c in found["cases"]]
        a, b = fit_pace(cases, each)
        shared = PACES[name].shared > 0.0
        fitted = {"shared": a * MEMBERS, "each": 0.0} if shared else {"shared": 0.0, "each": a}
        out[name] = {"fitted": fitted | {"flops": b}, "planned": PACES[name]._asdict()}
    return out


def describe(report: dict[str, Any]) -> list[str]:
    """The report as Markdown."""
    engines = report["engines"]
    first, *others = engines
    lines = [f"Made by `{report['command']}`: {report['machine']}.", ""]
    lines += [
        f"{report['members']} members a group; median of {report['rounds']} rounds (least to "
        f"greatest). us: microseconds per step of one member; peak: share of the fastest matrix "
        f"product; MB: growth of the process from a group of {report['members']}.",
        "",
    ]
    for name, found in report["tables"].items():
        lines += [f"## {name}: peak {found['peak_gflops']:.0f} GFLOP/s", ""]
        lines += [f"Losses of {GATE_STEPS} steps differ by {found['largest_difference']:.2g}.", ""]
        head = ["kind", "width", "depth", "batch"]
        for e in engines:
            head += [f"{e}, us", "GFLOP/s", "peak"]
        head += [f"{first} against {e}" for e in others] + [f"{e}, MB" for e in engines]
        rows = []
        for c in found["cases"]:
            row = [c[k] for k in ("kind", "width", "depth", "batch")]
            for e in engines:
                own = c["engines"][e]
                row += [
                    shown(own["microseconds"]),
                    f"{own['gflops']:.3g}",
                    f"{own['of_peak']:.2f}",
                ]
            row += [shown(c[f"{first}_against"][e]) for e in others]
            rows.append(row + [_megabytes(c["engines"][e]["bytes"]["grown"]) for e in engines])
        lines += [*table(head, rows), ""]
        for e in others:
            ratios = [c[f"{first}_against"][e]["median"] for c in found["cases"]]
            slower = sum(r < 1.0 for r in ratios)
            lines.append(
                f"{first} against {e}: geometric mean {geometric_mean(ratios):.2f}, "
                f"{min(ratios):.2f} to {max(ratios):.2f}; slower in {slower} of {len(ratios)}."
            )
        lines += ["", "Bytes per member by count:", ""]
        head = ["kind", "width", "depth", "batch", "parameters", "gradient and state"]
        rows = []
        for c in found["cases"]:
            sizes = [c["engines"][e]["bytes"] for e in engines]
            row = [c[k] for k in ("kind", "width", "depth", "batch")]
            row += [sizes[0]["parameters"], sizes[0]["state"]]
            rows.append(row + [s["values"] for s in sizes])
        lines += [*table([*head, *(f"values, {e}" for e in engines)], rows), ""]
    if report["paces"]:
        lines += ["## Paces", ""]
        head = ["engine", "", "shared, s", "each, s", "GFLOP/s"]
        rows = [
            [e, what, f"{p['shared']:.2g}", f"{p['each']:.2g}", f"{p['flops'] / 1e9:.3g}"]
            for e, both in report["paces"].items()
            for what, p in both.items()
        ]
        lines += table(head, rows)
    return lines


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.1f}"


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=["shapes", "kinds"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.06, help="of one timing, about")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="2 rounds, few shapes, short timings")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--out", type=Path, help="stem of the files to write (--quick: none)")
    args = parser.parse_args(arguments)
    if args.quick:
        args.rounds, args.seconds = min(args.rounds, 2), 0.02
    cores = settle(None, args.device)
    device = find_device(args.device)
    bench = Bench(device)
    engines = usable(bench)
    tables = {"shapes": shapes(args.quick), "kinds": kinds(args.quick)}
    chosen = {n: cases for n, cases in tables.items() if n in (args.only or tables)}
    report: dict[str, Any] = {
        "command": command(__file__),
        "machine": machine(device, cores),
        "rounds": args.rounds,
        "members": MEMBERS,
        "engines": engines,
        "tables": {n: measure(bench, cases, engines, args) for n, cases in chosen.items()},
    }
    found = report["tables"].get("shapes")
    report["paces"] = paces(chosen["shapes"], found, engines) if found else {}
    name = "engines" + ("" if device.type == "cpu" else f"_{device.type}")
    default = None if args.quick else Path(__file__).parents[1] / "results" / name
    deliver(report, describe(report), args.out or default, args.json)
    return report


def usable(bench: Bench) -> list[str]:
    """The engines that can run here, the one the others are compared with first."""
    order = [n for n in ("native", "stacked", "separate") if n in ENGINES]
    order += [n for n in ENGINES if n not in order]
    out = []
    for name in order:
        with suppress(UnsuitedError):
            make_engine(name, bench.program(Case("mlp", 8, 1, 8), 1))
            out.append(name)
    return out


if __name__ == "__main__":
    main()
