#!/usr/bin/env python3
"""Whole searches of real tables, `--controller auto` against each single controller.

    python scripts/compare_searches.py --data ../shared/data                    # all, hours
    python scripts/compare_searches.py --data ../shared/data --seeds 0 --missing

Each search is a process of its own on one core, as a user would run it: 75 % of the rows (at most
20,000 are sampled), `--time 60s --workers 1`, no ensemble, so that the score is that of the best
network found; the test rows are the other 25 % and are read after it has ended. `auto` begins with
the portfolio that ships, which is its first part; the others propose alone (`--prior none`), but
for `prior+random`, random search after the same portfolio: what the portfolio does without the
rest of `auto`. Controllers take turns within a table and seed, so that what else the machine does
meets them all alike.

Writes results/searches.csv, a row per search, and results/searches.md: the mean rank over tables
and seeds (one is best, equal scores share the mean of their ranks), its standard error over the
tables, and per table the median over the seeds. Only tables and seeds that every controller shown
has finished are ranked.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from compare_tables import split

TABLES = ("adult", "letter", "california_housing", "phoneme", "credit_g")
CONTROLLERS = (
    "auto",
    "prior+random",
    "random",
    "quasi_random",
    "tpe",
    "evolution",
    "gp",
    "surrogate",
    "reinforce",
    "ppo",
    "local_search",
    "cmaes",
    "nsga2",
)
KEYS = ["table", "controller", "seed", "time"]


def run(args: argparse.Namespace, name: str, controller: str, seed: int) -> dict[str, Any]:
    """One search and the score of its best network: a row of the record."""
    import adanet_py

    train, test, target, metric = split(args.data, name, 0)
    with tempfile.TemporaryDirectory() as scratch:
        path, out = Path(scratch) / "train.csv", Path(scratch) / "run"
        train.to_csv(path, index=False)
        command = [sys.executable, "-m", "adanet_py", "search", str(path), "--target", target]
        command += ["--metric", metric, "--time", args.time, "--seed", str(seed), "--workers", "1"]
        prior, _, alone = controller.rpartition("+")
        prior = "default" if prior or alone == "auto" else "none"
        command += ["--controller", alone, "--prior", prior, "--ensemble", "none"]
        command += ["--out", str(out)]
        done = subprocess.run([*command, "--json", "--quiet"], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
        summary = json.loads(done.stdout.strip().splitlines()[-1])
        score = adanet_py.load(str(summary["model"])).evaluate(test)[metric]
    best = summary["best"] or {}
    return {
        "table": name,
        "controller": controller,
        "seed": seed,
        "time": args.time,
        "metric": metric,
        "test": float(f"{score:.6g}"),
        "validation": summary["validation"],  # none where no network came to an end in time
        "candidates": summary["candidates"],
        "best": best.get("architecture"),
        "n_params": best.get("n_params"),
    }


def ranks(frame: pd.DataFrame) -> pd.DataFrame:
    """Rank of each controller in each table and seed that all of them have finished."""
    wide = frame.pivot_table(index=["table", "seed"], columns="controller", values="test")
    return wide.dropna().rank(axis=1)


def write(rows: list[dict[str, Any]], stem: Path) -> None:
    """The searches as CSV and, as Markdown, the mean ranks and the medians."""
    from benching import command, table

    stem.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(rows).sort_values(KEYS, kind="stable")
    frame.to_csv(stem.with_suffix(".csv"), index=False)
    found = ranks(frame)
    tables = [t for t in TABLES if t in set(frame.table)]
    medians = frame.pivot_table("test", "controller", "table", aggfunc="median")
    lines = []
    for controller, mean in found.mean().sort_values().items():
        apart = found[controller].groupby("table").mean()
        error = f" +- {apart.std() / len(apart) ** 0.5:.2f}" if len(apart) > 1 else ""
        line = [f"{medians.loc[controller, t]:.5g}" for t in tables]
        lines.append([controller, f"{mean:.2f}{error}", *line])
    text = [
        f"Made by `{command(__file__)}` and calls like it: one core, --time "
        f"{', '.join(sorted(set(frame.time)))}, --workers 1, --ensemble none. Log loss, or the "
        "root mean squared error of numbers, of the best network on the test rows; at most 20,000 "
        "rows sampled and split 75/25. Only `auto` and `prior+random` begin with the portfolio. "
        "Rank 1 is best; +- is the standard error over the tables.",
        "",
        f"Ranked over {len(found)} pairs of a table and a seed that every controller has finished.",
        "",
        *table(["controller", "mean rank", *(f"{t}, median" for t in tables)], lines),
    ]
    stem.with_suffix(".md").write_text("\n".join(text) + "\n")


def main() -> None:
    """Run the comparison; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = Path(os.environ.get("ADANET_SHARED_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--time", default="60s")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--controllers", nargs="+", default=list(CONTROLLERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--missing", action="store_true", help="keep rows, run what is not there")
    parser.add_argument("--core", type=int, default=None, help="the core to use, by number")
    results = Path(__file__).parents[1] / "results" / "searches"
    parser.add_argument("--out", type=Path, default=results, help="stem of the files to write")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        core = sorted(os.sched_getaffinity(0))[0] if args.core is None else args.core
        os.sched_setaffinity(0, {core})
    rows: list[dict[str, Any]] = []
    if args.missing and args.out.with_suffix(".csv").exists():
        rows = pd.read_csv(args.out.with_suffix(".csv")).to_dict("records")  # type: ignore[assignment]
    done = {tuple(row[k] for k in KEYS) for row in rows}
    for seed in args.seeds:
        for name in args.only:
            for controller in args.controllers:
                if (name, controller, seed, args.time) in done:
                    continue
                rows.append(run(args, name, controller, seed))
                print(json.dumps(rows[-1]), flush=True)
                write(rows, args.out)


if __name__ == "__main__":
    main()
