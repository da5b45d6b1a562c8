#!/usr/bin/env python3
"""What the refiner earns as an arm of the search: --refine-share auto against 0.

    python scripts/bench_refine_share.py --data ../shared/data

For each table and seed a search of `--time` with one worker for each share, the order in turns, on
at most `--rows` of 75 % of the rows (that a short search has several groups, all of a table but a
part is left out), with a hold-out. Told are scores on validation rows: the best network, and the
ensemble and the network chosen by the same folds, both cross-fitted. The other 25 % of the rows are
not read. Writes results/refine_share.csv and .md; `--add` keeps the other rows of the files.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from bench_refine import TABLES, call
from bench_tables import split

from adanet_py.state import read_state

SHARES = ("0", "auto")
DEFAULT = ("phoneme", "sick", "credit_g", "california_housing")
COLUMNS = {
    "table": "data",
    "seed": "of the search",
    "share": "as of --refine-share",
    "candidates": "trained",
    "groups": "they came in",
    "children": "of the candidates",
    "accepted": "of the children",
    "child": "whether the best network is one of them",
    "validation": "metric of the best network (log loss or RMSE)",
    "alone": "of one network, cross-fitted",
    "ensemble": "of the ensemble, cross-fitted; empty: no time was left to grow one",
}


def bench(
    name: str, data: Path, seed: int, share: str, seconds: float, rows: int
) -> dict[str, Any]:
    """The row of one search."""
    train, _, target = split(data, name)
    train = train.sample(min(len(train), rows), random_state=0)
    with tempfile.TemporaryDirectory() as scratch:
        path, run = Path(scratch) / "train.csv", Path(scratch) / "run"
        train.to_csv(path, index=False)
        call(
            "search", path, "--target", target, "--metric", TABLES[name], "--time", seconds,
            "--seed", seed, "--workers", 1, "--folds", 1, "--refine-share", share, "--out", run,
        )  # fmt: skip
        state = read_state(run)
    finished, best = state.finished(), state.best
    assert best is not None
    children = [r for r in finished if r.candidate.inherits]
    scores = (state.ensemble or {}).get("scores", {})
    return {
        "table": name, "seed": seed, "share": share, "candidates": len(finished),
        "groups": len(state.groups), "children": len(children),
        "accepted": sum(r.accepted is True for r in children), "child": best.candidate.inherits,
        "validation": best.metrics["validation"],
        "alone": scores.get("alone", {}).get("validation"),
        "ensemble": scores.get("ensemble", {}).get("validation"),
    }  # fmt: skip


def summary(frame: pd.DataFrame) -> list[str]:
    """What the rows say, a line each: pairs of one table and seed."""
    out = []
    for part in ("validation", "alone", "ensemble"):
        pairs = frame.pivot(index=["table", "seed"], columns="share", values=part)
        pairs = pairs.reindex(columns=list(SHARES)).dropna()
        if pairs.empty:
            continue
        change = (100.0 * (1.0 - pairs["auto"] / pairs["0"])).tolist()
        won, lost = sum(c > 0 for c in change), sum(c < 0 for c in change)
        out.append(
            f"- {part}: auto better {won}, worse {lost} of {len(change)}, median "
            f"{statistics.median(change):+.2f} %, mean {statistics.mean(change):+.2f} % less error."
        )
    return out


def write(frame: pd.DataFrame, stem: Path, about: str) -> None:
    """Write the rows as CSV and, with what they say, as Markdown."""
    stem.parent.mkdir(exist_ok=True)
    frame.to_csv(stem.with_suffix(".csv"), index=False)
    lines = [f"Made by `scripts/bench_refine_share.py`: {about}.", "", *summary(frame), ""]
    lines += [f"- `{name}`: {text}" for name, text in COLUMNS.items()]
    lines += ["", "| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row in frame[list(COLUMNS)].itertuples(index=False):
        cells = [f"{v:.5g}" if isinstance(v, float) else str(v) for v in row]
        lines.append("| " + " | ".join("" if c in ("nan", "None") else c for c in cells) + " |")
    stem.with_suffix(".md").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Run the benchmark; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = Path(os.environ.get("ADANET_SHARED_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--time", type=float, default=60.0, help="seconds of a search")
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", choices=list(TABLES), default=list(DEFAULT))
    parser.add_argument("--add", action="store_true", help="to the rows that are there")
    default = Path(__file__).parents[1] / "results" / "refine_share"
    parser.add_argument("--out", type=Path, default=default, help="stem of the files to write")
    args = parser.parse_args()
    rows = []
    for seed in args.seeds:
        for place, name in enumerate(args.only):
            for share in SHARES if (seed + place) % 2 == 0 else SHARES[::-1]:
                rows.append(bench(name, args.data, seed, share, args.time, args.rows))
                print(json.dumps(rows[-1]), flush=True)
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    if args.add and args.out.with_suffix(".csv").exists():
        frame = pd.concat([pd.read_csv(args.out.with_suffix(".csv"), dtype={"share": str}), frame])
        frame = frame.drop_duplicates(["table", "seed", "share"], keep="last")
    about = f"searches of {args.time:g} s, one worker, a hold-out, at most {args.rows} rows"
    write(frame, args.out, about)
    print("\n".join(summary(frame)))


if __name__ == "__main__":
    main()
