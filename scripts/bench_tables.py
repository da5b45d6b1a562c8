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
    path = next(p for p in (folder / about["file"], folder / "tables" / about["file"]) if p.exists())
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


def run(command: list[str]) -> tuple[dict[str, object], float, float]:
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


def bench(folder: Path, name: str, budget: str, seed: int, options: list[str]) -> dict[str, object]:
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
    row: dict[str, object] = {"table": name, "rows": len(train), "seed": seed, "seconds": round(seconds, 1)}
    row |= {"peak_mb": round(peak), "candidates": summary["candidates"], "best": best.get("architecture")}  # type: ignore[attr-defined]
    row |= {"n_params": best.get("n_params"), "validation": summary["validation"], "metric": metric}  # type: ignore[attr-defined]
    row |= {"predict_1000_ms": round(latency, 1)}
    boosting = board[board["architecture"] == "hist_gradient_boosting"]["validation"]
    row["boosting_validation"] = float(boosting.iloc[0]) if len(boosting) else None
    for i, (m, floor) in enumerate(floors.items(), start=1):
        reached = scores[m] >= floor if m in HIGHER else scores[m] <= floor
        row |= {f"test_{i}": f"{m} {scores[m]:.5g}", f"floor_{i}": f"{floor:g}", f"reached_{i}": bool(reached)}
    return row


def main() -> None:
    """Run the benchmark; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("ADANET_SHARED_DATA", "../shared/data")))
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
    frame = pd.DataFrame(rows)
    out = args.out or (None if args.only else Path(__file__).parents[1] / "results" / "tables")
    if out is not None:
        frame.to_csv(out.with_suffix(".csv"), index=False)
        cores = len(os.sched_getaffinity(0))
        head = f"`{' '.join(['python', *sys.argv])}`, {cores} cores, {platform.machine()}\n\n"
        lines = ["| " + " | ".join(frame.columns) + " |", "|" + "---|" * len(frame.columns)]
        lines += ["| " + " | ".join("" if v is None or v != v else str(v) for v in r) + " |" for r in frame.itertuples(index=False)]
        out.with_suffix(".md").write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
