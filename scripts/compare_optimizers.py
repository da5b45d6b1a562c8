#!/usr/bin/env python3
"""Every optimizer at one architecture: which is best once its learning rate is tuned?

    python scripts/compare_optimizers.py --data ../shared/data

Takes the optimizers, their ranges of learning rates and the architecture from the search space
`optimizers`. On each table every optimizer gets the same number of learning rates, spread evenly
(in the logarithm) over its own range, each trained with the same seeds, batches and cosine schedule
(none for the schedule-free and the second-order ones) for the same number of passes over the data:
a second-order step sees all rows, is charged the gradients it takes, and may take four times as
many passes as the others, without which it would be a step or two. The learning rate is chosen by
the mean of validation over the seeds; the test rows (the outer 25 %) are scored with the seeds of
that learning rate and choose nothing. All settings of an optimizer are one fused group (second
order: one by one). Writes results/optimizers.csv (every training), .md (the table) and .png.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bench_tables import split

# name: (metric, whether greater is better)
TABLES = {"letter": ("accuracy", True), "california_housing": ("rmse", False)}
PART = "part_of_the_comparison"
VALID = 0.15  # of the training rows
SECOND_ORDER = 4  # times the passes of the others, without which they would take a step or two


def prepared_table(folder: Path, name: str, rows: int | None) -> tuple[pd.DataFrame, str]:
    """The table with a column that says train, valid or audit; the test rows are the audit."""
    train, test, target = split(folder, name)
    if rows is not None:
        train = train.iloc[:rows]
    parts = np.random.default_rng(0).permutation(len(train)) < VALID * len(train)
    train = train.assign(**{PART: np.where(parts, "valid", "train")})
    return pd.concat([train, test.assign(**{PART: "audit"})], ignore_index=True), target


def candidates_of(name: str, rates: int, seeds: int) -> list[Any]:
    """Candidates of one optimizer: every learning rate with every seed."""
    from adanet_py.space import assemble, load_space
    from adanet_py.training.optimizers import OPTIMIZERS

    space = load_space("optimizers")
    knob = f"optimizers.{name}.lr"
    grid = [space.by_name[knob].at(u) for u in np.linspace(0.0, 1.0, rates)]
    common = {d.name: d.domain[0] for d in space.decisions if len(d.path) == 1}
    if OPTIMIZERS[name].evaluated is not None or OPTIMIZERS[name].engine:
        common["schedule"] = "constant"  # these are made to do without annealing
    made = [
        assemble(space, {**common, "optimizer": name, knob: lr}, seed)
        for lr in grid
        for seed in range(seeds)
    ]
    if OPTIMIZERS[name].engine == "separate":
        # Curvature of a small batch is noise: these see all rows at every step.
        made = [replace(c, static={**c.static, "sampling": "full_batch"}) for c in made]
    return made


def run(job: tuple[Path, str, str, argparse.Namespace]) -> list[dict[str, Any]]:
    """Train one optimizer's candidates on one table."""
    import torch

    import adanet_py
    from adanet_py.training.optimizers import OPTIMIZERS

    torch.set_num_threads(1)
    folder, table, name, args = job
    metric, _ = TABLES[table]
    frame, target = prepared_table(folder, table, args.rows)
    made = candidates_of(name, args.rates, args.seeds)
    epochs = float(args.epochs)
    if OPTIMIZERS[name].engine == "separate":
        with tempfile.TemporaryDirectory() as scratch:
            one = adanet_py.train(
                [replace(made[0], optimizer="sgd", numeric={})], frame, target=target,
                epochs=1e-9, metric=metric, split=PART, out=scratch,
            )  # fmt: skip
        hp = OPTIMIZERS[name].complete(made[0].numeric)
        epochs /= OPTIMIZERS[name].passes(one[0].parameters, hp)
    results = adanet_py.train(
        made, frame, target=target, epochs=epochs, metric=metric, split=PART, seed=0
    )
    return [
        {
            "table": table,
            "optimizer": name,
            "lr": r.candidate.numeric["lr"],
            "seed": r.candidate.seed,
            "status": r.status.name,
            "validation": r.metrics.get("validation", np.nan),
            "test": r.metrics.get("audit", np.nan),
            "steps": r.steps,
            "parameters": r.parameters,
        }
        for r in results
    ]


def summarise(runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """One row per table and optimizer, best first: the tuned learning rate and its seeds."""
    for table, (metric, higher) in TABLES.items():
        rows = []
        for name, own in runs[runs["table"] == table].groupby("optimizer"):
            # A learning rate at which any seed diverged is no choice.
            means = own.groupby("lr")["validation"].apply(lambda v: v.mean(skipna=False)).dropna()
            row = {"table": table, "metric": metric, "optimizer": name}
            lost = int((own["status"] == "DIVERGED").sum())
            row["diverged"] = f"{lost} of {len(own)}"
            if len(means):
                lr = means.idxmax() if higher else means.idxmin()
                best = own[own["lr"] == lr]
                edge = lr in (own["lr"].min(), own["lr"].max())
                row |= {
                    "lr": f"{lr:.3g}{' (end of its range)' if edge else ''}",
                    "validation": best["validation"].mean(),
                    "validation sd": best["validation"].std(),
                    "test": best["test"].mean(),
                    "test sd": best["test"].std(),
                }
            rows.append(row)
        sign = -1 if higher else 1
        yield from sorted(rows, key=lambda r: sign * r.get("validation", -sign * np.inf))


def draw(runs: pd.DataFrame, summary: pd.DataFrame, path: Path) -> None:
    """Per table: test score of each seed at the tuned learning rate, best optimizer on top."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(TABLES), figsize=(6.5 * len(TABLES), 8), squeeze=False)
    for axis, (table, (metric, higher)) in zip(axes[0], TABLES.items(), strict=True):
        shown = summary[(summary["table"] == table) & summary["test"].notna()]
        for y, row in enumerate(shown.itertuples()):
            own = runs[(runs["table"] == table) & (runs["optimizer"] == row.optimizer)]
            chosen = own[np.isclose(own["lr"], float(row.lr.split()[0]), rtol=1e-2)]
            means = own.groupby("lr")["test"].mean().dropna()
            axis.plot(means, np.full(len(means), y), "|", color="0.6", ms=9, zorder=1)
            axis.plot(chosen["test"], np.full(len(chosen), y), "o", color="C0", ms=5, zorder=2)
        axis.set_yticks(range(len(shown)), shown["optimizer"])
        axis.invert_yaxis()
        best = shown["test"].max() if higher else shown["test"].min()
        if metric == "accuracy":
            axis.set_xlim(max(0.0, best - 0.25), min(1.0, best + 0.02))
        else:
            axis.set_xlim(best * 0.95, best * 1.6)
        axis.set_xlabel(f"test {metric} ({'higher' if higher else 'lower'} is better)")
        axis.set_title(table)
        axis.grid(axis="x", alpha=0.3)
    figure.suptitle(
        "dots: seeds at the learning rate chosen by validation; ticks: mean of every learning "
        "rate; what is worse lies outside"
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def write(runs: pd.DataFrame, stem: Path) -> None:
    """Write all trainings, the table and the picture."""
    summary = pd.DataFrame(list(summarise(runs)))
    stem.parent.mkdir(exist_ok=True)
    runs.to_csv(stem.with_suffix(".csv"), index=False, float_format="%.6g")
    draw(runs, summary, stem.with_suffix(".png"))
    cores = len(os.sched_getaffinity(0))
    command = " ".join(["python", "scripts/compare_optimizers.py", *sys.argv[1:]])
    rates = runs.groupby(["table", "optimizer"])["lr"].nunique().max()
    lines = [f"Made by `{command}` on {cores} cores ({platform.machine()}), no GPU.", ""]
    lines += [
        f"Mean ± standard deviation of {runs['seed'].nunique()} seeds at the best of {rates} "
        "learning rates by validation; diverged: of all trainings.",
        "",
    ]
    for table, own in summary.groupby("table", sort=False):
        metric = own["metric"].iloc[0]
        lines += [f"## {table}, {metric}", ""]
        lines += ["| optimizer | learning rate | validation | test | diverged |", "|" + "---|" * 5]
        for r in own.to_dict("records"):
            scores = [
                f"{r[k]:.5g} ± {r[f'{k} sd']:.2g}" if pd.notna(r.get(k)) else "-"
                for k in ("validation", "test")
            ]
            rate = r["lr"] if pd.notna(r.get("lr")) else "-"
            cells = [r["optimizer"], rate, *scores, r["diverged"]]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    stem.with_suffix(".md").write_text("\n".join(lines))


def main() -> None:
    """Run the comparison; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = Path(os.environ.get("ADANET_SHARED_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--rates", type=int, default=6, help="learning rates per optimizer")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15, help="passes over the training rows")
    parser.add_argument("--rows", type=int, default=None, help="training rows at most")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", nargs="+", help="some optimizers; writes only where --out says")
    parser.add_argument("--out", type=Path, default=None, help="stem of the files to write")
    args = parser.parse_args()

    from adanet_py.space import load_space

    offered = [str(n) for n in load_space("optimizers").by_name["optimizer"].domain]
    unknown = set(args.only or ()) - set(offered)
    if unknown:
        parser.error(f"--only: expected some of {', '.join(offered)}, found {sorted(unknown)}")
    jobs = [(args.data, t, n, args) for t in TABLES for n in args.only or offered]
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(args.processes, mp_context=get_context("spawn")) as pool:
        for job, found in zip(jobs, pool.map(run, jobs), strict=True):
            rows += found
            print(job[1], job[2], f"{len(found)} networks", flush=True)
    stem = args.out or (None if args.only else Path(__file__).parents[1] / "results" / "optimizers")
    runs = pd.DataFrame(rows)
    if stem is None:
        print(pd.DataFrame(list(summarise(runs))).to_string())
    else:
        write(runs, stem)


if __name__ == "__main__":
    main()
