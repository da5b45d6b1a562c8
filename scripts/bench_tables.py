#!/usr/bin/env python3
"""Quality of a search on real tables: search on 75 % of the rows, score on the other 25 %.

    python scripts/bench_tables.py --data ../shared/data --time 60s --seed 0

Each search is a process of its own, run as a user would run it; the test rows are read only after
it has ended. Writes results/tables.csv and results/tables.md, one row per table, with the floors
this project holds itself to. `--only NAME ...` runs some tables (and writes nothing unless --out).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd

# name: metric searched on, {metric: floor on the test rows}
TABLES = {
    "adult": ("log_loss", {"log_loss": 0.312, "roc_auc": 0.910}),
    "letter": ("accuracy", {"accuracy": 0.955}),
    "california_housing": ("rmse", {"rmse": 53_000}),
    "credit_g": ("log_loss", {"log_loss": 0.475}),
    "phoneme": ("accuracy", {"accuracy": 0.870}),
    "diamonds": ("r2", {"r2": 0.975}),
}
HIGHER = {"roc_auc", "accuracy", "r2"}


def split(folder: Path, name: str) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Training rows, test rows and target of a table (the outer split of the data's README)."""
    from sklearn.model_selection import train_test_split

    listed = json.loads((folder / "datasets.json").read_text())
    entries = listed["datasets"] if isinstance(listed, dict) and "datasets" in listed else listed
    about = next(e for e in entries if e["name"] == name)
    places = (folder / about["file"], folder / "tables" / about["file"])
    path = next(p for p in places if p.exists())
    frame = pd.read_csv(path, keep_default_na=False, na_values=[""])
    frame = frame.drop(columns=about.get("drop_columns") or [])
    labels = None if about["task"] == "regression" else frame[about["target"]]
    train, test = train_test_split(frame, test_size=0.25, random_state=0, stratify=labels)
    return train, test, about["target"]


def tree_memory(root: int) -> float:
    """Proportional memory of a process and its descendants, MB (0 where /proc does not tell)."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    total, stack = 0, [root]
    while stack:
        pid = stack.pop()
        stack += children.get(pid, [])
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def run(command: list[str]) -> tuple[dict[str, Any], float, float]:
    """The JSON object a search prints last, its wall seconds, and its peak memory in MB."""
    start, peak, done = time.monotonic(), [0.0], threading.Event()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def watch() -> None:
        while not done.wait(0.5):
            peak[0] = max(peak[0], tree_memory(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, _ = process.communicate()
    seconds = time.monotonic() - start
    done.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return json.loads(out.strip().splitlines()[-1]), seconds, peak[0]


def bench(folder: Path, name: str, budget: str, seed: int, options: list[str]) -> dict[str, Any]:
    """One row of the table of record."""
    import adanet_py
    from adanet_py.run import leaderboard

    metric, floors = TABLES[name]
    train, test, target = split(folder, name)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "train.csv"
        train.to_csv(path, index=False)
        command = [sys.executable, "-m", "adanet_py", "search", str(path), "--target", target]
        command += ["--metric", metric, "--time", budget, "--seed", str(seed), "--json", "--quiet"]
        summary, seconds, peak = run([*command, "--out", str(Path(scratch) / "run"), *options])
        model = adanet_py.load(str(summary["model"]))
        scores = model.evaluate(test)
        features = test.drop(columns=[target]).iloc[:1000]
        model.predict(features)
        start = time.perf_counter()
        model.predict(features)
        latency = (time.perf_counter() - start) * 1e3
        board = leaderboard(Path(scratch) / "run")
    best = summary["best"] or {}
    boosting = board.loc[board["architecture"] == "hist_gradient_boosting", "validation"]
    row = {
        "table": name,
        "rows": len(train),
        "seed": seed,
        "seconds": round(seconds, 1),
        "peak_mb": round(peak),
        "predict_1000_ms": round(latency, 1),
        "candidates": summary["candidates"],
        "best": best.get("architecture"),
        "n_params": best.get("n_params"),
        "metric": metric,
        "validation": f"{summary['validation']:.5g}" if best else None,
        "audit": f"{summary['audit']:.5g}" if best and summary["audit"] is not None else None,
        "boosting_validation": f"{boosting.iloc[0]:.5g}" if len(boosting) else None,
    }
    for m, floor in floors.items():
        reached = scores[m] >= floor if m in HIGHER else scores[m] <= floor
        row[f"test {m}"] = (
            f"{scores[m]:.5g} ({'at least' if m in HIGHER else 'at most'} {floor:g}: "
        )
        row[f"test {m}"] += "reached)" if reached else "MISSED)"
    row["test"] = "; ".join(f"{k[5:]} {row.pop(k)}" for k in list(row) if k.startswith("test "))
    return row


def main() -> None:
    """Run the benchmark; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = Path(os.environ.get("ADANET_SHARED_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--time", default="60s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(TABLES))
    parser.add_argument("--out", type=Path, default=None, help="stem of the files to write")
    parser.add_argument("options", nargs="*", help="more options of search, after --")
    args = parser.parse_args()
    rows = []
    for name in args.only or TABLES:
        rows.append(bench(args.data, name, args.time, args.seed, args.options))
        print(json.dumps(rows[-1]), flush=True)
    default = None if args.only else Path(__file__).parents[1] / "results" / "tables"
    write(pd.DataFrame(rows), args.out or default)


def write(frame: pd.DataFrame, stem: Path | None) -> None:
    """Write the table as CSV and Markdown, with the command and the machine."""
    if stem is None:
        return
    stem.parent.mkdir(exist_ok=True)
    frame.to_csv(stem.with_suffix(".csv"), index=False)
    cores = len(os.sched_getaffinity(0))
    from benching import command  # with torch, whose pages the searches would have shared

    made = command(__file__)
    lines = [f"Made by `{made}` on {cores} cores ({platform.machine()}), no GPU.", ""]
    lines += ["| " + " | ".join(frame.columns) + " |", "|" + "---|" * len(frame.columns)]
    for row in frame.itertuples(index=False):
        lines.append("| " + " | ".join("" if pd.isna(v) else str(v) for v in row) + " |")
    stem.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
