#!/usr/bin/env python3
"""What comes after the search: its ensemble, refinement, and networks of a third of the size.

    python scripts/bench_refine.py --data DIR --core 0 --add              # all, or what is missing
    python scripts/bench_refine.py --data DIR --core 0 --add --pieces 1   # the next piece of it

For each table and seed a search of `--time` with one worker, bound to one core, on 75 % of the rows
(at most 15,000); then copies of that run, each refined for `--refine` seconds: by every move that
is no control (`moves`), by the control alone (`train_on`), by the pruning moves for a
third of the size (`size`).
Scored on the other 25 % of the rows, which nothing has seen, are the best single network of the
search, its ensemble, the uniform mean of the ensemble's members, the model that the search saved,
and the best network (of `size`: the model) of each refined copy; each is compared with the best
single network, row by row. Writes results/refine.csv, a row per model, and .md. `--add` keeps the
rows of the files and leaves out what is there; a piece is one table and seed, and written at once.
`--quick` makes everything small and writes nothing unless --out.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bench_tables import split
from refine_claims import CONTROL, SINGLE, claims

from adanet_py.ensemble.weights import Weights
from adanet_py.export import stored_member
from adanet_py.intervals import standard_errors
from adanet_py.metrics import get_metric, score, to_error
from adanet_py.model import Model, load
from adanet_py.records import Result
from adanet_py.refine import MOVES
from adanet_py.refine.refiner import PRUNING
from adanet_py.state import State, read_state
from adanet_py.tasks import is_regression

TABLES = {  # metrics of which less is better
    "phoneme": "log_loss",
    "credit_g": "log_loss",
    "california_housing": "rmse",
    "sick": "log_loss",
    "abalone": "rmse",
    "letter": "log_loss",
    "adult": "log_loss",
    "covertype_100k": "log_loss",
}
ROWS = 15_000
COLUMNS = {
    "table": "data",
    "seed": "of the search and the refinement",
    "metric": "what it was searched by",
    "model": "single, ensemble, mean, saved, moves, train_on, size; of the last three _parent: the "
    "network of the search that they began with, which need not be the best single one",
    "members": "of the model",
    "parameters": "of the model over those of the best single network",
    "validation": "metric on validation rows: of an ensemble cross-fitted",
    "audit": "the same on audit rows; empty: the table has none",
    "test": "the same on the 25 % of the rows that nothing has seen",
    "worse": "test error above that of the best single network",
    "doubt": "standard error of that difference, paired by row",
    "own": "standard error of the best single network's test error itself",
    "trained": "seconds that children were trained",
    "children": "that came to a usable end",
    "accepted": "of them",
    "gain": "median over parents and moves of the best child's gain, in its standard error",
}


def call(*words: object) -> dict[str, Any]:
    """The JSON object that a command of the program prints last."""
    command = [sys.executable, "-m", "adanet_py", *map(str, words), "--json", "--quiet"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def bench(
    name: str, data: Path, seed: int, seconds: float, more: float, wanted: Sequence[str]
) -> list[dict[str, Any]]:
    """The rows of one table and seed."""
    metric = TABLES[name]
    train, test, target = split(data, name)
    train = train.sample(min(len(train), ROWS), random_state=0)
    key = {"table": name, "seed": seed, "metric": metric}
    with tempfile.TemporaryDirectory() as scratch:
        path, run = Path(scratch) / "train.csv", Path(scratch) / "run"
        train.to_csv(path, index=False)
        told = call(
            "search", path, "--target", target, "--metric", metric, "--time", seconds, "--seed",
            seed, "--workers", 1, "--refine-share", 0, "--out", run,
        )  # fmt: skip
        state = read_state(run)
        models = of_search(run, state)
        rows = [row_of(key, kind, model) for kind, model in models.items()]
        first = state.by_id[told["best"]["id"]]
        rows[0] |= {"validation": first.metrics["validation"], "audit": told["audit"]}
        for row in rows:
            if row["model"] in ("ensemble", "mean"):
                row["validation"] = (state.ensemble or {})["scores"][row["model"]]["validation"]
        for way, moves in ((w, m) for w, m in ways().items() if w in wanted):
            copy = Path(scratch) / way
            shutil.copytree(run, copy)
            options: list[object] = [w for m in moves for w in ("--moves", m)]
            if way == "size":
                options += ["--objective", "size", "--size", "1/3"]
            after = call("refine", copy, *options, "--time", more)
            state = read_state(copy)
            # Where an ensemble is the model, the network told of is its first member.
            best = state.by_id[after["best"]["id"]] if way == "size" else state.best
            assert best is not None
            models[way] = alone(copy, best)
            children = [r for r in state.finished() if r.candidate.inherits and r.status.usable]
            rows.append(row_of(key, way, models[way]) | {
                "validation": best.metrics["validation"], "audit": best.metrics.get("audit"),
                "trained": sum(r.seconds for r in children), "children": len(children),
                "accepted": sum(r.accepted is True for r in children), "gain": gain_of(children),
            })  # fmt: skip
            parent = origin(best, state)
            models[f"{way}_parent"] = alone(run, parent)
            rows.append(
                row_of(key, f"{way}_parent", models[f"{way}_parent"])
                | {"validation": parent.metrics["validation"]}
            )
        found = compared(models, test, target, metric)
    for row in rows:
        row |= found[row["model"]]
        row["parameters"] /= rows[0]["own_parameters"]
        print(json.dumps({k: v for k, v in row.items() if k in COLUMNS}), flush=True)
    return rows


def of_search(run: Path, state: State) -> dict[str, Model]:
    """The best single network, the ensemble and the mean of its members, and what was saved."""
    assert state.best is not None
    out = {SINGLE: alone(run, state.best)}
    if state.ensemble is not None:
        names = state.ensemble["members"]
        weights = Weights.from_json(state.ensemble["weights"])
        members = tuple(stored_member(run, state.by_id[name]) for name in names)
        grown = replace(load(run), members=members, weights=weights, about={
            "parameters": sum(state.by_id[name].parameters for name in names)
        })  # fmt: skip
        even = Weights(np.full(len(names), 1.0 / len(names)), np.zeros_like(weights.bias))
        out |= {"ensemble": grown, "mean": replace(grown, weights=even)}
    return out | {"saved": load(run)}


def alone(run: Path, result: Result) -> Model:
    """The model of one network of a run."""
    about = {"parameters": result.parameters}
    return replace(load(run), members=(stored_member(run, result),), weights=None, about=about)


def origin(result: Result, state: State) -> Result:
    """The network of the search that a chain of children began with."""
    while result.candidate.inherits:
        result = state.by_id[str(result.candidate.parent)]
    return result


def row_of(key: Mapping[str, Any], kind: str, model: Model) -> dict[str, Any]:
    """What is known of a model before it predicts."""
    size = model.about["parameters"]
    return {**key, "model": kind, "members": len(model.members), "parameters": size,
            "own_parameters": size}  # fmt: skip


def compared(
    models: Mapping[str, Model], test: pd.DataFrame, target: str, metric: str
) -> dict[str, dict[str, float]]:
    """Of every model the score on test rows, and how much worse it is than the first; paired."""
    found, first = get_metric(metric), next(iter(models.values()))
    features = test.drop(columns=[target])
    if is_regression(first.task):
        y = test[target].to_numpy(np.float64)
        outputs = [m.predict(features) for m in models.values()]
    else:
        codes = {str(c): i for i, c in enumerate(first.classes)}
        y = test[target].astype(str).map(codes).to_numpy(np.int64)
        outputs = [m.predict_proba(features) for m in models.values()]
    scores = [float(score(found, y, p)) for p in outputs]
    doubts = standard_errors(found, y, outputs)
    errors = [to_error(found, s) for s in scores]
    return {
        name: {
            "test": scores[i], "worse": errors[i] - errors[0],
            "doubt": float(doubts[i]) if i else 0.0, "own": float(doubts[0]),
        }
        for i, name in enumerate(models)
    }  # fmt: skip


def ways() -> dict[str, list[str]]:
    """The moves of each way of refining."""
    pruning = [m for m in MOVES if m.partition(":")[0] in PRUNING]
    found = {
        "moves": [m for m in MOVES if m != CONTROL and m not in pruning],
        CONTROL: [CONTROL],
        "size": pruning,
    }
    return {way: moves for way, moves in found.items() if moves}


def gain_of(children: Sequence[Result]) -> float:
    """Median over parents and moves of the best child's gain, in standard errors."""
    best: dict[tuple[str | None, str | None], float] = {}
    for r in children:
        if r.gain_error > 0.0 and math.isfinite(r.gain):
            key = r.candidate.parent, r.candidate.move
            best[key] = max(best.get(key, -math.inf), r.gain / r.gain_error)
    return statistics.median(best.values()) if best else math.nan


def main() -> None:
    """Run the benchmark; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = Path(os.environ.get("ADANET_SHARED_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--time", type=float, default=120.0, help="seconds of the search")
    parser.add_argument("--refine", type=float, default=40.0, help="seconds of each refinement")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--only", nargs="+", choices=list(TABLES))
    parser.add_argument("--ways", nargs="*", choices=list(ways()), default=list(ways()))
    parser.add_argument("--core", type=int, help="the core that all of it is bound to")
    parser.add_argument("--add", action="store_true", help="to the rows that are there")
    parser.add_argument("--pieces", type=int, default=1 << 30, help="tables and seeds at most")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=None, help="stem of the files to write")
    parser.add_argument("--about", default="", help="a sentence on the machine for the record")
    args = parser.parse_args()
    if args.core is not None:
        os.sched_setaffinity(0, {args.core})
    if args.quick:
        args.time, args.refine, args.only = 12.0, 8.0, (args.only or list(TABLES))[:1]
        args.seeds = args.seeds[:1]
    default = None if args.quick else Path(__file__).parents[1] / "results" / "refine"
    stem = args.out or default
    frame = pd.DataFrame(columns=list(COLUMNS))
    if args.add and stem is not None and stem.with_suffix(".csv").exists():
        frame = pd.read_csv(stem.with_suffix(".csv"))
        if list(frame) != list(COLUMNS):
            parser.error(f"--add: {stem}.csv has rows of another protocol. Leave --add out once.")
    there = set(zip(frame["table"], frame["seed"], strict=True))
    pieces = [(n, s) for s in args.seeds for n in args.only or TABLES if (n, s) not in there]
    for name, seed in pieces[: args.pieces]:
        rows = bench(name, args.data, seed, args.time, args.refine, args.ways)
        new = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
        frame = new if frame.empty else pd.concat([frame, new], ignore_index=True)
        if stem is not None:
            bound = "" if args.core is None else ", bound to one core"
            about = f"searches of {args.time:g} s and refinements of {args.refine:g} s, one worker"
            write(frame, stem, f"{about}{bound}. {args.about}".strip())
    print("\n".join(claims(frame)))


def write(frame: pd.DataFrame, stem: Path, about: str) -> None:
    """Write the rows as CSV and, with what they say, as Markdown."""
    stem.parent.mkdir(exist_ok=True)
    frame.to_csv(stem.with_suffix(".csv"), index=False)
    lines = [f"Made by `scripts/bench_refine.py`: {about}", "", *claims(frame), ""]
    lines += [f"- `{name}`: {text}" for name, text in COLUMNS.items()]
    lines += ["", "| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row in frame[list(COLUMNS)].itertuples(index=False):
        cells = [f"{v:.5g}" if isinstance(v, float) else str(v) for v in row]
        lines.append("| " + " | ".join("" if c in ("nan", "None") else c for c in cells) + " |")
    stem.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
