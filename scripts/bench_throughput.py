#!/usr/bin/env python3
"""Candidates per second against the loops people write, on the same configurations.

    python scripts/bench_throughput.py [--suite small mixed] [--device cpu] [--cores 1] [--quick]
    python scripts/bench_throughput.py --scaling --device cuda

Three sides train the same seeded configurations (multilayer perceptrons, Adam, float32) for the
same number of steps on batches of the same size and score the same validation rows (accuracy)
equally often; nothing is pruned. The sides, see scripts/peers.py:

    ours  groups of up to `--members` candidates through `groups.train`, as a worker of a search
          trains them, with learning curves and the best weights kept; the search's default
          controller is asked for every group, with the results so far
    a     one candidate at a time: Optuna's TPE asked and told, nn.Sequential, torch.optim.Adam,
          a DataLoader over a TensorDataset
    b     one candidate at a time: tensors indexed on the device, fused Adam, no study

As with TPE's, the controller's proposals are paid for and thrown away: the sides could not train
the same candidates otherwise. Suites: `small`, scikit-learn's digits (1,797 x 64, 10 classes),
width 32-128, depth 1-2, batch 32 and 64; `mixed`, a made-up table of fixed seed (20,000 x 54
numbers and flags, 7 classes), width 32-256, depth 1-4, batch 64, 256 and 1024.

First the equality gate: for the first groups, at a tenth of their learning rates, the losses of 20
steps must be those of plain PyTorch from the same weights on the same batches, to 1e-5, else the
status is 1. Then all sides are warmed
up on every shape, and every round times every group on all three, back to back, in an order that
rotates. Not counted for any side: the start of the process, imports, compilation, reading data,
and files (a search also writes weights, predictions and a journal).

Reported: candidates per second; the ratio of seconds per shape, its geometric mean over shapes,
and the ratio of all seconds; each as the median over rounds (least to greatest). `--scaling` times
one shape of `small` with K = 1, 2, 4 ... members in one program, without controller and study.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benching import (
    command,
    deliver,
    find_device,
    geometric_mean,
    largest_difference,
    machine,
    require_equal,
    settle,
    shown,
    spread,
    table,
)
from peers import Setting, Study, train_plain, train_strong
from suites import SUITES, Bench, deal

from adanet_py.config import SearchConfig
from adanet_py.controllers import CONTROLLERS
from adanet_py.proposing import ask
from adanet_py.records import History, Result, Status
from adanet_py.reward import with_reward
from adanet_py.training import groups
from adanet_py.training.engines import ENGINES
from adanet_py.training.groups import Track

SIDES = ("ours", "a", "b")
EVALUATIONS = 3  # of a candidate
GATE_STEPS, GATE_GROUPS, WARM_STEPS = 20, 4, 3
SCALING = ("small", 64, 2, 32, 300)  # suite, width, depth, batch size, steps


class Round:
    """The three sides of one round; each trains a group and gives its last accuracies."""

    def __init__(self, bench: Bench, settings: Sequence[Setting], seed: int) -> None:
        self.bench = bench
        self.study = Study(settings, seed)
        self.controller = CONTROLLERS[SearchConfig.model_fields["controller"].default]
        self.rng = np.random.default_rng(seed)
        self.results: list[Result] = []
        self.groups = 0

    def ours(self, settings: Sequence[Setting], steps: int) -> list[float]:
        """The controller asked once, all settings as one group."""
        bench = self.bench
        history = History(tuple(self.results))
        ask(self.controller, bench.space, history, len(settings), self.rng, bench.load)
        program, plan = bench.group(settings, steps, max(1, steps // EVALUATIONS), self.groups)
        tracks = groups.train(program, plan)
        self.results += [with_reward(r, bench.metric, bench.constant) for r in map(_result, tracks)]
        self.groups += 1
        return [t.curve[-1].validation for t in tracks]

    def a(self, settings: Sequence[Setting], steps: int) -> list[float]:
        """The study asked and told for each setting."""
        out = []
        for setting in settings:
            trial = self.study.ask()
            scores = train_plain(setting, self.bench.plain, steps, EVALUATIONS, self.bench.device)
            self.study.tell(trial, max(scores))
            out.append(scores[-1])
        return out

    def b(self, settings: Sequence[Setting], steps: int) -> list[float]:
        """One setting after the other."""
        data, device = self.bench.strong, self.bench.device
        return [train_strong(s, data, steps, EVALUATIONS, device)[-1] for s in settings]


def _result(track: Track) -> Result:
    best = max(e.validation for e in track.curve)
    return Result(
        track.candidate,
        track.status or Status.FAILED,
        metrics={"validation": best},
        curve=tuple(track.curve),
        steps=track.steps,
        seconds=track.seconds,
        parameters=sum(v.numel() for v in track.weights.values()),
    )


def gate(bench: Bench, dealt: Sequence[Sequence[Setting]], what: str) -> float:
    """Require the losses of plain PyTorch; see `benching.largest_difference`.

    At a tenth of the rates: at the largest, rounding grows a thousandfold in 20 steps of the widest
    and deepest network.
    """
    slow = ([replace(s, lr=0.1 * s.lr) for s in g[:3]] for g in dealt[:GATE_GROUPS])
    shapes = (bench.group(settings, GATE_STEPS, 1) for settings in slow)
    return require_equal((largest_difference(*each) for each in shapes), what)


def timed(side: Callable[[Sequence[Setting], int], Any], group: Sequence[Setting], n: int) -> float:
    """Seconds of one side for one group; all sides end by reading scores back from the device."""
    begun = time.perf_counter()
    side(group, n)
    return time.perf_counter() - begun


def run_suite(name: str, args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """All figures of one suite."""
    suite = SUITES[name]
    bench = Bench(suite, device, args.engine)
    dealt = deal(suite, args.configurations, args.members)
    difference = gate(bench, dealt, name)
    warm = Round(bench, dealt[0], 0)
    for group in dealt:
        for side in SIDES:
            getattr(warm, side)(group[: None if side == "ours" else 1], WARM_STEPS)
    gc.collect()
    gc.freeze()  # as in a worker: a collection does not look through all that was imported
    everything = [s for group in dealt for s in group]
    steps = [args.steps or suite.steps[group[0].batch] for group in dealt]
    seconds = np.empty((args.rounds, len(dealt), len(SIDES)))
    for r in range(args.rounds):
        sides = Round(bench, everything, r)
        for turn, g in enumerate(np.random.default_rng(r).permutation(len(dealt))):
            for i in np.roll(range(len(SIDES)), -(r + turn)):
                seconds[r, g, i] = timed(getattr(sides, SIDES[i]), dealt[g], steps[g])
        totals = ", ".join(f"{s} {t:.1f} s" for s, t in zip(SIDES, seconds[r].sum(0), strict=True))
        print(f"{name}, round {r + 1} of {args.rounds}: {totals}", file=sys.stderr, flush=True)
    engine = bench.group(dealt[0], 1, 1)[1].group.engine
    about = {"configurations": len(everything), "groups": len(dealt), "engine": engine}
    return about | {"largest_difference": difference, **figures(dealt, steps, seconds)}


def figures(
    dealt: Sequence[Sequence[Setting]], steps: Sequence[int], seconds: np.ndarray
) -> dict[str, Any]:
    """Rates and ratios of seconds [rounds, groups, sides]; groups of one shape count as one."""
    count = sum(map(len, dealt))
    keys = [(g[0].width, g[0].depth, g[0].batch, n) for g, n in zip(dealt, steps, strict=True)]
    shapes = {key: [i for i, k in enumerate(keys) if k == key] for key in sorted(set(keys))}
    of_shape = np.stack([seconds[:, where].sum(1) for where in shapes.values()], 1)
    members = [sum(len(dealt[i]) for i in where) for where in shapes.values()]
    against: dict[str, Any] = {}
    for i, peer in enumerate(SIDES[1:], start=1):
        ratios = of_shape[:, :, i] / of_shape[:, :, 0]
        totals = seconds[:, :, i].sum(1) / seconds[:, :, 0].sum(1)
        against[peer] = {
            "geometric_mean": spread([geometric_mean(r) for r in ratios.tolist()]),
            "total": spread(totals.tolist()),
            "shapes": [spread(r) for r in ratios.T.tolist()],
        }
    return {
        "rates": {
            side: spread((count / seconds[:, :, i].sum(1)).tolist()) for i, side in enumerate(SIDES)
        },
        "against": against,
        "shapes": [
            dict(zip(("width", "depth", "batch", "steps"), key, strict=True))
            | {"configurations": n}
            | {
                f"{s}_per_second": n / float(np.median(of_shape[:, j, i]))
                for i, s in enumerate(SIDES)
            }
            for j, (key, n) in enumerate(zip(shapes, members, strict=True))
        ],
    }


def run_scaling(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Candidates per second against the members of one program, one shape, no controller."""
    name, width, depth, batch, usual = SCALING
    suite = replace(SUITES[name], widths=(width,), depths=(depth,), steps={batch: usual})
    bench = Bench(suite, device, args.engine)
    most = args.most or (64 if device.type == "cpu" else 4096)
    ks = [2**i for i in range(most.bit_length()) if 2**i <= most]
    [drawn] = deal(suite, most, most)
    few = drawn[: min(most, args.members)]
    difference = gate(bench, [few], "scaling")
    steps = args.steps or usual
    sides: list[tuple[str, Callable[[Sequence[Setting], int], Any], list[Setting]]] = [
        ("a", lambda g, n: [train_plain(s, bench.plain, n, EVALUATIONS, device) for s in g], few),
        ("b", lambda g, n: [train_strong(s, bench.strong, n, EVALUATIONS, device) for s in g], few),
    ]

    def ours(settings: Sequence[Setting], n: int) -> None:
        groups.train(*bench.group(settings, n, max(1, n // EVALUATIONS)))

    sides += [(str(k), ours, drawn[:k]) for k in ks]
    for _, side, group in sides:
        side(group, WARM_STEPS)
    rates: dict[str, list[float]] = {name: [] for name, _, _ in sides}
    for r in range(args.rounds):
        for i in np.roll(range(len(sides)), -r):
            name, side, group = sides[i]
            rates[name].append(len(group) / timed(side, group, steps))
        print(f"scaling, round {r + 1} of {args.rounds}", file=sys.stderr, flush=True)
    by_k = [
        {"k": k, "per_second": spread(rates[str(k)])}
        | {p: spread([x / y for x, y in zip(rates[str(k)], rates[p], strict=True)]) for p in "ab"}
        for k in ks
    ]
    peers = {p: spread(rates[p]) for p in "ab"}
    return {"steps": steps, "largest_difference": difference, "peers": peers, "k": by_k}


def describe(report: dict[str, Any]) -> list[str]:
    """The report as Markdown."""
    lines = [f"Made by `{report['command']}`: {report['machine']}.", ""]
    lines += [f"Median of {report['rounds']} rounds (least to greatest).", ""]
    for name, found in report["suites"].items():
        lines += [f"## {name}: {found['configurations']} configurations, engine {found['engine']}"]
        lines += ["", "Candidates per second and ratio of speed, ours to each:", ""]
        rows = []
        for side in SIDES:
            ratio = found["against"].get(side)
            each = [shown(ratio[k]) if ratio else "" for k in ("geometric_mean", "total")]
            rows.append([side, shown(found["rates"][side]), *each])
        lines += table(["side", "candidates/s", "geometric mean over shapes", "in all"], rows)
        peers = [found["against"][p]["shapes"] for p in "ab"]
        rows = [
            [*list(s.values())[:5], f"{s['ours_per_second']:.3g}", shown(a), shown(b)]
            for s, a, b in zip(found["shapes"], *peers, strict=True)
        ]
        head = ["width", "depth", "batch", "steps", "configurations", "ours, candidates/s"]
        lines += ["", *table([*head, "against a", "against b"], rows), ""]
    if (scaling := report.get("scaling")) is not None:
        name, width, depth, batch, _ = SCALING
        shape = f"{name}, width {width}, depth {depth}, batch {batch}, {scaling['steps']} steps"
        lines += [f"## K members in one program ({shape})", ""]
        rows = [[p, shown(scaling["peers"][p]), "", ""] for p in "ab"] + [
            [e["k"], *(shown(e[k]) for k in ("per_second", "a", "b"))] for e in scaling["k"]
        ]
        lines += table(["K", "candidates/s", "against a", "against b"], rows)
    return lines


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", nargs="+", choices=list(SUITES), default=list(SUITES))
    parser.add_argument("--configurations", type=int, default=200, help="of each suite")
    parser.add_argument("--members", type=int, default=8, help="of a group of ours, at most")
    parser.add_argument("--steps", type=int, help="of every candidate, instead of the suite's")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engine", choices=["auto", *ENGINES], default="auto", help="ours")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cores", type=int, help="bound to, and threads (cpu 1, cuda all)")
    parser.add_argument("--scaling", action="store_true", help="K members instead of the suites")
    parser.add_argument("--most", type=int, help="largest K of --scaling (cpu 64, cuda 4096)")
    parser.add_argument(
        "--quick", action="store_true", help="2 rounds, 16 configurations, 30 steps"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--out", type=Path, help="stem of the files to write (--quick: none)")
    args = parser.parse_args(arguments)
    if args.quick:
        args.rounds, args.configurations, args.steps = 2, 16, 30
        args.most = min(args.most or 4, 4)
    args.cores = settle(args.cores, args.device)
    device = find_device(args.device)
    report: dict[str, Any] = {
        "command": command(__file__),
        "machine": machine(device, args.cores),
        "rounds": args.rounds,
        "suites": {},
    }
    if args.scaling:
        report["scaling"] = run_scaling(args, device)
    else:
        report["suites"] = {name: run_suite(name, args, device) for name in args.suite}
    name = "throughput" + ("_scaling" if args.scaling else "")
    name += "" if device.type == "cpu" else f"_{device.type}"
    default = None if args.quick else Path(__file__).parents[1] / "results" / name
    deliver(report, describe(report), args.out or default, args.json)
    return report


if __name__ == "__main__":
    main()
