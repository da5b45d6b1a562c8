#!/usr/bin/env python3
"""What refinement gains: against the parents, and against training on for as long.

    python scripts/bench_refine.py --data ../shared/data

For each table and seed a search of `--time` with one worker, no ensemble, on 75 % of the rows (at
most 15,000); then three copies of that run, each refined for `--refine`: by every move that is no
control, by the control alone (`train_on`), and for size by the pruning moves. Told are the scores
of the best network before and after on validation rows, on audit rows and on the other 25 % of the
rows, which nothing has seen; the median gain of children over their parents; and whether a network
with at most a third of the parameters is worse than the first by no more than a standard error.
Writes results/refine.csv and .md. `--only NAME ...` and `--ways NAME ...` run a part; `--add` keeps
the other rows of the files; `--quick` makes everything small and writes nothing unless --out.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from bench_tables import split

from adanet_py.metrics import get_metric, to_error
from adanet_py.records import Result
from adanet_py.refine import MOVES
from adanet_py.refine.refiner import CONTROLS, PRUNING
from adanet_py.state import State, read_state

TABLES = {  # metrics of which less is better
    "abalone": "rmse",
    "adult": "log_loss",
    "california_housing": "rmse",
    "credit_g": "log_loss",
    "phoneme": "log_loss",
    "sick": "log_loss",
}
ROWS = 15_000
THIRD = 1 / 3
COLUMNS = {
    "table": "data",
    "seed": "of the search and the refinement",
    "metric": "what it was searched by",
    "way": "how the run was refined: moves, train_on, or size",
    "budget": "seconds of the refinement, reading the data and saving included",
    "trained": "seconds that its children were trained",
    "children": "that came to a usable end",
    "accepted": "of them",
    "gain": "median over parents and moves of the best child's gain, in its standard error",
    "validation": "metric of the best network before",
    "validation_after": "the same after",
    "audit": "on audit rows, before",
    "audit_after": "the same after",
    "test": "on the 25 % of the rows that nothing has seen, before",
    "test_after": "the same after",
    "size": "parameters of the best network after over those before",
    "third": "whether some child has a third of the first network's parameters or fewer and is "
    "worse than it by at most a standard error; empty where none is so small",
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
    import adanet_py

    metric = TABLES[name]
    train, test, target = split(data, name)
    train = train.sample(min(len(train), ROWS), random_state=0)

    def scored(run: Path) -> float:
        return float(adanet_py.load(str(run)).evaluate(test)[metric])

    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        path, run = Path(scratch) / "train.csv", Path(scratch) / "run"
        train.to_csv(path, index=False)
        before = call(
            "search", path, "--target", target, "--metric", metric, "--time", seconds, "--seed",
            seed, "--workers", 1, "--ensemble", "none", "--refine-share", 0, "--out", run,
        )  # fmt: skip
        first = read_state(run).by_id[before["best"]["id"]]
        test_before = scored(run)
        for way, moves in ((w, m) for w, m in ways().items() if w in wanted):
            copy = Path(scratch) / way
            shutil.copytree(run, copy)
            options: list[object] = [w for m in moves for w in ("--moves", m)]
            objective = "size" if way == "size" else "metric"
            after = call(
                "refine", copy, *options, "--objective", objective, "--time", more
            )  # fmt: skip
            state = read_state(copy)
            children = [r for r in state.finished() if r.candidate.inherits and r.status.usable]
            row = {
                "table": name, "seed": seed, "metric": metric, "way": way,
                "budget": more, "trained": sum(r.seconds for r in children),
                "children": len(children), "accepted": sum(r.accepted is True for r in children),
                "gain": gain_of(children),
                "validation": before["validation"], "validation_after": after["validation"],
                "audit": before["audit"], "audit_after": after["audit"],
                "test": test_before, "test_after": scored(copy),
                "size": after["best"]["n_params"] / before["best"]["n_params"],
                "third": third_of(first, state, children, metric) if way == "size" else None,
            }  # fmt: skip
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def ways() -> dict[str, list[str]]:
    """The moves of each way of refining."""
    pruning = [m for m in MOVES if m.partition(":")[0] in PRUNING]
    found = {
        "moves": [m for m in MOVES if m != CONTROLS and m not in pruning],
        CONTROLS: [CONTROLS],
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


def third_of(first: Result, state: State, children: Sequence[Result], metric: str) -> bool | None:
    """Whether a third of the size costs at most a standard error; None: nothing is so small.

    Of a chain the standard errors of the gains are added as independent ones are; the cost is that
    against the first network.
    """
    found = get_metric(metric)
    small = [r for r in children if r.parameters <= THIRD * first.parameters]
    if not small:
        return None
    return any(
        to_error(found, r.metrics["validation"]) - to_error(found, first.metrics["validation"])
        <= _doubt(r, state)
        for r in small
        if _root(r, state) == first.candidate.id
    )


def _chain(result: Result, state: State) -> list[Result]:
    out = [result]
    while out[-1].candidate.inherits:
        out.append(state.by_id[str(out[-1].candidate.parent)])
    return out


def _root(result: Result, state: State) -> str:
    return _chain(result, state)[-1].candidate.id


def _doubt(result: Result, state: State) -> float:
    return math.hypot(*(r.gain_error for r in _chain(result, state)[:-1]))


def summary(frame: pd.DataFrame) -> list[str]:
    """What the rows say, a line each."""
    out = []
    for part in ("validation", "audit", "test"):
        better: dict[tuple[str, int], dict[str, float]] = {}
        known = frame[frame[f"{part}_after"].notna()]  # small tables have no audit rows
        for row in known.to_dict("records"):
            errors = better.setdefault((row["table"], row["seed"]), {})
            errors |= {row["way"]: row[f"{part}_after"], "before": row[part]}
        both = [b for b in better.values() if {"moves", CONTROLS} <= b.keys()]
        for other in ("before", CONTROLS):
            won = sum(b["moves"] < b[other] for b in both)
            lost = sum(b["moves"] > b[other] for b in both)
            change = [100.0 * (1.0 - b["moves"] / b[other]) for b in both]
            if change:
                out.append(
                    f"- {part}: refined by moves against {other}: better {won}, worse {lost} of "
                    f"{len(both)}, median {statistics.median(change):+.2f} % less error."
                )
    size = frame[frame["way"] == "size"]
    told = size["third"].dropna()
    if len(size):
        out.append(
            f"- a third of the size for at most a standard error: {int(told.astype(bool).sum())} "
            f"of {len(size)} runs ({len(size) - len(told)} had nothing so small)."
        )
    return out


def main() -> None:
    """Run the benchmark; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = Path(os.environ.get("ADANET_SHARED_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--time", type=float, default=40.0, help="seconds of the search")
    parser.add_argument("--refine", type=float, default=20.0, help="seconds of each refinement")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=list(TABLES))
    parser.add_argument("--ways", nargs="+", choices=list(ways()), default=list(ways()))
    parser.add_argument("--add", action="store_true", help="to the rows that are there")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=None, help="stem of the files to write")
    args = parser.parse_args()
    if args.quick:
        args.time, args.refine, args.only = 12.0, 8.0, (args.only or list(TABLES))[:1]
    default = None if args.quick else Path(__file__).parents[1] / "results" / "refine"
    stem = args.out or default
    rows: list[dict[str, Any]] = []
    for name in args.only or TABLES:
        for seed in args.seeds:
            rows += bench(name, args.data, seed, args.time, args.refine, args.ways)
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    if stem is not None:
        if args.add and stem.with_suffix(".csv").exists():
            frame = pd.concat([pd.read_csv(stem.with_suffix(".csv")), frame])
            frame = frame.drop_duplicates(["table", "seed", "way"], keep="last")
        write(frame, stem, args.time)
    print("\n".join(summary(frame)))


def write(frame: pd.DataFrame, stem: Path, seconds: float) -> None:
    """Write the rows as CSV and, with what they say, as Markdown."""
    stem.parent.mkdir(exist_ok=True)
    frame.to_csv(stem.with_suffix(".csv"), index=False)
    about = f"searches of {seconds:g} s, one worker"
    lines = [f"Made by `scripts/bench_refine.py`: {about}.", "", *summary(frame), ""]
    lines += [f"- `{name}`: {text}" for name, text in COLUMNS.items()]
    lines += ["", "| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row in frame[list(COLUMNS)].itertuples(index=False):
        cells = [f"{v:.5g}" if isinstance(v, float) else str(v) for v in row]
        lines.append("| " + " | ".join("" if c in ("nan", "None") else c for c in cells) + " |")
    stem.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
