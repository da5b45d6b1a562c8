#!/usr/bin/env python3
"""Seconds a search takes to reach the best score that a hand-written search reaches in 120 s.

    python scripts/bench_time_to_target.py --data ../shared/data [--seconds 120] [--only adult ...]

Per table and seed, one after the other on the same cores:

    a     `peers.search_tables`: Optuna's TPE with median pruning, nn.Sequential, AdamW, a
          DataLoader, early stopping. To its favour it gets our preprocessed arrays (numbers scaled
          to quantiles, categories one-hot), and its clock starts when they are there.
    ours  `adanet_py.run.search` as a user calls it, on the CSV file, with the default space and
          controller, baselines and all, with `--limit` seconds as its time budget. Its clock starts
          at the call, before the file is read and its workers are started.

Both train on the same rows and are scored on the same validation rows (a hold-out) by the same
code: the table's metric, a temperature fitted where the metric reads probabilities. The target is
the best score of (a). Ours is the time until an evaluation or a result of a network of the search
is as good; what boosting and the other baselines reach does not count.

First the equality gate: on the table's numeric columns the losses of 20 steps must be those of
plain PyTorch, to 1e-5; and afterwards both must have had the same rows; else the status is 1.

Reported per table: seconds of each; `budget ratio`, the seconds that (a) was given over ours, and
`ratio`, the seconds at which (a) reached its best over ours, the stricter one. Where ours never
reaches the target, its time is at least the limit and the ratios are at most what is shown. Over
the tables the geometric means; over seeds (`--rounds`) the median (least to greatest).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_tables import TABLES, split
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
from peers import Data, search_tables

from adanet_py.architectures import ARCHITECTURES
from adanet_py.config import SearchConfig
from adanet_py.data.spec import DataSpec
from adanet_py.data.splits import Split
from adanet_py.own import Own, engine_for
from adanet_py.prepare import Prepared, prepare, read
from adanet_py.records import Candidate, Group
from adanet_py.run import search
from adanet_py.training.batches import BatchOrder
from adanet_py.training.engines.program import Program, Tensors
from adanet_py.training.groups import Plan
from adanet_py.training.scoring import Scorer

CHOSEN = ("adult", "letter", "california_housing", "phoneme", "diamonds")
GATE_STEPS = 20


def arrays(prepared: Prepared) -> Data:
    """What (a) gets: scaled numbers and one-hot categories; codes or standardised values."""
    source, [train], [valid] = prepared.source, prepared.split.train, prepared.split.valid
    codes = np.asarray(source.arrays["category"])
    hot = [
        np.eye(n, dtype=np.float32)[codes[:, i]] for i, n in enumerate(source.spec.cardinalities)
    ]
    x = np.concatenate([np.asarray(source.arrays["quantile"]), *hot], 1)
    kind = np.int64 if prepared.task == "multiclass" else np.float32
    y = np.asarray(source.y).astype(kind)
    parts = [torch.from_numpy(np.ascontiguousarray(v[r])) for r in (train, valid) for v in (x, y)]
    return Data(*parts, source.spec.n_outputs)


def score_of(scorer: Scorer) -> Callable[[np.ndarray], float]:
    """The metric of raw outputs, as an evaluation of a search scores them."""
    temperature = 1.0

    def score(outputs: np.ndarray) -> float:
        nonlocal temperature
        value, temperature = scorer.track(outputs, temperature)
        return value

    return score


def gate(prepared: Prepared, scorer: Scorer, device: torch.device, name: str) -> float:
    """Require the losses of plain PyTorch on the table's numeric columns."""
    numeric = torch.from_numpy(np.array(prepared.source.arrays["quantile"]))
    nothing = torch.zeros(len(numeric), 0, dtype=torch.int32)
    target = torch.from_numpy(np.asarray(prepared.source.y).astype(np.float32))
    candidates = tuple(
        Candidate(
            "mlp",
            {"depth": 2, "width": 64, "batch_size": 128},
            "adam",
            numeric={"lr": lr, "weight_decay": 1e-4, "bias_decay": 1.0},
        )
        for lr in (1e-3, 3e-3)
    )
    own, spec = Own(), prepared.source.spec
    program = Program(
        ARCHITECTURES["mlp"],
        own.optimizer("adam"),
        candidates,
        DataSpec(prepared.task, spec.n_outputs, numeric.shape[1]),
        BatchOrder(prepared.split.train, 128, seed=0),
        GATE_STEPS,
        Tensors(*(t.to(device) for t in (numeric, nothing, target))),
        device,
    )
    engine = engine_for(candidates[0], own)
    group = Group(0, candidates, GATE_STEPS, evaluate_every=1, engine=engine)
    difference = largest_difference(program, Plan(group, prepared.split.valid, scorer))
    return require_equal([difference], name)


def time_ours(path: Path, config: SearchConfig, better: Callable[[float], bool]) -> dict[str, Any]:
    """Search until a network's validation score is as good as asked for, then interrupt.

    Seconds from the call (None: never reached), and the candidates finished by the end.
    """
    reached: list[float] = []
    begun = time.monotonic()

    def listen(event: dict[str, Any]) -> None:
        value = None
        if event["kind"] == "rung":
            value = event["validation"]
        elif event["kind"] == "result":
            value = event["result"].metrics.get("validation")
        if value is not None and better(value) and not reached:
            reached.append(time.monotonic() - begun)
            signal.raise_signal(signal.SIGINT)

    found = search(str(path), config=config, on_event=listen)
    return {
        "ours_seconds": reached[0] if reached else None,
        "ours_best": found.summary["validation"],
        "ours_candidates": found.summary["candidates"],
    }


def run(name: str, seed: int, args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Both sides on one table."""
    metric, _ = TABLES[name]
    train, _, target = split(args.data, name)
    with tempfile.TemporaryDirectory() as scratch:
        path, folder = Path(scratch) / "train.csv", Path(scratch) / "prepared"
        train.to_csv(path, index=False)
        folder.mkdir()
        config = SearchConfig(
            target=target,
            metric=metric,
            time=args.limit,
            folds=1,
            seed=seed,
            device=args.device,
            workers=args.cores if device.type == "cpu" else None,
            out=Path(scratch) / "run",
        )
        prepared = prepare(read(config, str(path)), folder)
        [valid] = prepared.split.valid
        y = np.asarray(prepared.source.y[valid])
        scorer = Scorer.make(metric, prepared.task, y, None, prepared.target_scale)
        higher = scorer.metric.greater_is_better
        difference = gate(prepared, scorer, device, name)
        peer = search_tables(
            arrays(prepared), prepared.task, score_of(scorer), higher, args.seconds, seed, device
        )

        def better(value: float) -> bool:
            return value >= peer.score if higher else value <= peer.score

        row = time_ours(path, config, better)
        mine = Split.load(Path(scratch) / "run" / "split.npz")
        if not np.array_equal(mine.valid[0], valid):
            print(f"{name}: expected the same validation rows for both.", file=sys.stderr)
            raise SystemExit(1)
    seconds = row["ours_seconds"] or args.limit
    return {
        "table": name,
        "seed": seed,
        "metric": metric,
        "rows": len(prepared.split.train[0]),
        "target": peer.score,
        "a_seconds": peer.seconds,
        "a_trials": peer.trials,
        **row,
        "reached": row["ours_seconds"] is not None,
        "budget_ratio": args.seconds / seconds,
        "ratio": peer.seconds / seconds,
        "largest_difference": difference,
    }


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Geometric means over the tables, spread over the seeds."""
    by_seed: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        by_seed.setdefault(row["seed"], []).append(row)
    out: dict[str, Any] = {
        key: spread([geometric_mean(r[key] for r in each) for each in by_seed.values()])
        for key in ("budget_ratio", "ratio")
    }
    return out | {"reached": f"{sum(r['reached'] for r in rows)} of {len(rows)}"}


def describe(report: dict[str, Any]) -> list[str]:
    """The report as Markdown."""
    lines = [f"Made by `{report['command']}`: {report['machine']}.", ""]
    rows = []
    for r in report["runs"]:
        time = f"{r['ours_seconds']:.1f}" if r["reached"] else f"above {report['limit']:g}"
        sign = "" if r["reached"] else "at most "
        ratios = [f"{sign}{r[k]:.3g}" for k in ("budget_ratio", "ratio")]
        known = [r["table"], r["seed"], r["metric"], f"{r['target']:.5g}", f"{r['a_seconds']:.1f}"]
        rows.append([*known, r["a_trials"], time, *ratios])
    head = ["table", "seed", "metric", "target", "a reached it, s", "trials of a", "ours, s"]
    lines += table([*head, "budget ratio", "ratio"], rows)
    found = report["geometric_mean"]
    return [
        *lines,
        "",
        f"Geometric mean over the tables: budget ratio {shown(found['budget_ratio'])}, ratio "
        f"{shown(found['ratio'])}. (a) was given {report['seconds']:g} s, ours at most "
        f"{report['limit']:g} s; the target was reached in {found['reached']} searches.",
    ]


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = Path(os.environ.get("ADANET_SHARED_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--seconds", type=float, default=120.0, help="of (a)")
    parser.add_argument("--limit", type=float, help="time budget of ours (default: as --seconds)")
    parser.add_argument("--rounds", type=int, default=1, help="seeds, from --seed on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=CHOSEN)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cores", type=int, help="bound to, and threads (cpu 1, cuda all)")
    parser.add_argument("--quick", action="store_true", help="one table, 6 s each")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--out", type=Path, help="stem of the files (--quick, --only: none)")
    args = parser.parse_args(arguments)
    if args.quick:
        args.seconds, args.only = 6.0, args.only or ["phoneme"]
    args.limit = args.limit or args.seconds
    args.cores = settle(args.cores, args.device)
    device = find_device(args.device)
    runs = []
    for seed in range(args.seed, args.seed + args.rounds):
        for name in args.only or CHOSEN:
            runs.append(run(name, seed, args, device))
            print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    report = {
        "command": command(__file__),
        "machine": machine(device, args.cores),
        "rounds": args.rounds,
        "seconds": args.seconds,
        "limit": args.limit,
        "runs": runs,
        "geometric_mean": summarise(runs),
    }
    name = "time_to_target" + ("" if device.type == "cpu" else f"_{device.type}")
    default = Path(__file__).parents[1] / "results" / name
    deliver(report, describe(report), args.out or (None if args.only else default), args.json)
    return report


if __name__ == "__main__":
    main()
