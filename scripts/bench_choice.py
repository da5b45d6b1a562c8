#!/usr/bin/env python3
"""How small a network is about as good as the best: the choices of a search, on test rows.

    python scripts/bench_choice.py --data ../shared/data --budget 60s

On every table one search on 75 % of the rows; of what it trained three networks are compared: that
of the least validation error, that of the highest reward (`--choose best`), and the simplest within
one standard error of the least (`--choose simplest`). The first is a choice of no option, so it is
rebuilt from the run. The search runs with `--choose simplest`, which keeps all three. Test rows are
read when the search has ended. Writes results/choice.csv and results/choice.md; `--append` adds to
what is there, for tables can be measured one by one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))

from bench_tables import split

TABLES = {
    "phoneme": "accuracy", "credit_g": "log_loss", "letter": "accuracy", "diamonds": "r2",
    "california_housing": "rmse",
}  # fmt: skip


def compare(
    folder: Path, name: str, budget: str, seed: int, weight: float | None
) -> list[dict[str, Any]]:
    """One search, of a time ("60s") or a number of candidates ("64"); a row for each choice.

    `weight` is that of the complexity in the reward; None: the default.
    """
    from adanet_py import ending
    from adanet_py.config import SearchConfig
    from adanet_py.export import make_model
    from adanet_py.metrics import get_metric, to_error
    from adanet_py.own import Own
    from adanet_py.plan import best_of
    from adanet_py.prepare import load_prepared
    from adanet_py.run import search
    from adanet_py.tables import standard_error

    ending.tidy = lambda folder: None  # prepared data are needed once more
    train, test, target = split(folder, name)
    metric = get_metric(TABLES[name])
    with tempfile.TemporaryDirectory(prefix="bench-choice-") as scratch:
        run = Path(scratch) / "run"
        config = SearchConfig(
            target=target, metric=metric.name, seed=seed, out=run, choose="simplest",
            complexity_weight=weight,
            **{"candidates" if budget.isdigit() else "time": budget},
        )  # fmt: skip
        found = search(train, config=config)
        prepared = load_prepared(run)
        networks = [r for r in found.state.finished() if r.status.usable]
        error = {r.candidate.id: to_error(metric, r.metrics["validation"]) for r in networks}
        least = min(networks, key=lambda r: error[r.candidate.id])
        doubt = standard_error(run, prepared, least)
        chosen = {"least error": least, "best": best_of(networks), "simplest": found.best}
        rows = []
        for choice, result in chosen.items():
            assert result is not None
            model = make_model(run, prepared, result, Own())
            rows.append({
                "table": name, "metric": metric.name, "choice": choice,
                "validation": result.metrics["validation"],
                "test": model.evaluate(test, target, metric=metric.name)[metric.name],
                "errors_above": (error[result.candidate.id] - error[least.candidate.id]) / doubt,
                "parameters": result.parameters, "share": result.parameters / least.parameters,
                "latency_ms": result.latency_ms, "candidates": len(networks), "budget": budget,
                "seed": seed, "weight": weight,
            })  # fmt: skip
    return rows


def write(frame: pd.DataFrame, stem: Path) -> None:
    """The rows as CSV, and as a table for people."""
    frame.to_csv(stem.with_suffix(".csv"), index=False)
    lines = [
        "# How small a network is about as good as the best",
        "",
        "Written by `scripts/bench_choice.py`. `errors above`: validation error above the least,",
        "in its standard errors; `share`: parameters over those of the network with the least.",
        "",
        "| table | seed | choice | metric | validation | test | errors above | parameters "
        "| share |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.table} | {r.seed} | {r.choice} | {r.metric} | {r.validation:.5g} | {r.test:.5g} | "
        f"{r.errors_above:.2f} | {r.parameters:,} | {r.share:.3f} |"
        for r in frame.itertuples()
    ]
    small = frame[frame["choice"] == "simplest"]
    lines += [
        "",
        f"The simplest has at most a third of the parameters in "
        f"{(small['share'] <= 1 / 3).sum()} of {len(small)} searches of "
        f"{', '.join(sorted(set(frame['budget'].astype(str))))}, at a median of "
        f"{small['share'].median():.3f}.",
        "",
    ]
    stem.with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")


def main() -> None:
    """Run the searches, write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with datasets.json")
    parser.add_argument("--budget", default="60s", help="a time, or a number of candidates")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weight", type=float, help="of the complexity in the reward")
    parser.add_argument("--only", nargs="*", choices=TABLES, default=list(TABLES))
    parser.add_argument("--out", type=Path, default=Path("results/choice"))
    parser.add_argument("--append", action="store_true", help="keep the rows that are there")
    options = parser.parse_args()
    path = options.out.with_suffix(".csv")
    frame = pd.read_csv(path) if options.append and path.exists() else pd.DataFrame()
    for name in options.only:
        rows = compare(options.data, name, options.budget, options.seed, options.weight)
        frame = pd.concat([frame, pd.DataFrame(rows)], ignore_index=True)
        print(pd.DataFrame(rows).to_string(index=False), flush=True)
        write(frame, options.out)


if __name__ == "__main__":
    main()
