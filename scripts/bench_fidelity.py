#!/usr/bin/env python3
"""What rungs save: regret of the incumbent by epochs spent, on learning curves that are known.

    python scripts/bench_fidelity.py --data DATA
    python scripts/bench_fidelity.py --data DATA --tables tuned --seeds 2 --only "tpe asha 8"
    python scripts/bench_fidelity.py --data DATA --curves

The tables are those of nas_tables.py with several numbers of epochs: LCBench by its surrogate (1 to
52; smooth and without noise, so that only differences count) and EC-NAS (4 to 108). The references
train `FULL` candidates to the end; the others may spend up to `--budget` of their epochs. Groups of
a number of candidates are proposed as in a search and cut by the functions of adanet_py/fidelity.py
themselves, without doubt, for rows are not known. A controller hears the best signal of a candidate
so far; so is the incumbent chosen, by validation alone.

The defaults of the rungs were chosen on the tasks `TUNED`; the others are reported. Columns: the
normalised test regret (see nas_tables.py), mean over seeds, after shares of the references' epochs,
median over tasks; then the share after which a task has the regret of a reference at its end, the
median over tasks (inf: not within the budget), and how many tasks have it within a fifth. Writes
results/fidelity.md and .csv. `--curves` shows instead what learning-curve extrapolation would add.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from nas_tables import Floats, Table, answer, load_tables

from adanet_py import fidelity as rules
from adanet_py.controllers import CONTROLLERS, Controller
from adanet_py.fidelity import FIDELITIES, Rung
from adanet_py.records import History, Result, Status

FULL = 100  # candidates of a reference; of EC-NAS, which has 91, fewer
FULL_OF_FEW = 25
SHOWN = (0.05, 0.1, 0.2, 0.3, 0.4)  # shares of the references' epochs
FIFTH = 0.2
WEIGHTS = (0.0, 0.25, 0.5, 1.0)  # of the slope of a curve, where it is extrapolated
TUNED = ("7593", "126029", "167104", "167168", "167190", "168330", "189354", "189865", "189906")
REPORTED = (
    "3945", "34539", "126026", "146212", "167149", "167161", "167181", "167185", "167200",
    "168329", "168331", "168868", "168910", "189862", "189866", "189905", "189908",
)  # fmt: skip
Schedule = Callable[[float, int], Sequence[Rung]]


class Method(NamedTuple):
    """Who proposes, how it is cut, and how many candidates make a group."""

    controller: str
    fidelity: str
    group: int

    @property
    def name(self) -> str:
        """As in the table."""
        return f"{self.controller} {self.fidelity} {self.group}"


REFERENCES = (Method("tpe", "none", 1), Method("tpe", "none", 8))
METHODS = (
    Method("tpe", "halving", 8),
    Method("tpe", "hyperband", 8),
    Method("tpe", "asha", 8),
    Method("gp", "asha", 8),
    Method("gp", "asha", 4),
    *((Method("auto", "asha", 8), Method("auto", "asha", 4)) if "auto" in CONTROLLERS else ()),
)


class Curves:
    """A table's answers, each looked up once; signals and scores are higher-is-better."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.known: dict[tuple[str, int], tuple[float, float]] = {}

    def at(self, candidate: Any, epochs: int) -> tuple[float, float]:
        """Signal and score after `epochs`."""
        key = (candidate.experiment, epochs)
        if key not in self.known:
            self.known[key] = self.table.look_up(candidate, epochs)
        return self.known[key]


def play(
    controller: Controller, curves: Curves, rungs: Schedule, budget: float, batch: int, seed: int
) -> tuple[Floats, Floats]:
    """(epochs spent, test score of the incumbent) after each group, until `budget` is spent."""
    table = curves.table
    last = table.epochs[-1]
    results: tuple[Result, ...] = ()
    seen: dict[int, list[float]] = {}
    spent, best, score = 0.0, -math.inf, math.nan
    out = []
    for index in range(1_000_000):
        group = controller(
            table.space, History(results), batch, np.random.default_rng([seed, index])
        )
        if not group or spent >= budget:
            break
        signals = [-math.inf] * len(group)
        ended = [last] * len(group)
        alive = list(range(len(group)))
        stops = {nearest(table, r.share * last): r for r in reversed(rungs(last, index))}
        for epochs in sorted({*stops, last}):
            for i in alive:
                signal, test = curves.at(group[i], epochs)
                if not signal <= signals[i]:  # NaN: there is no such network
                    signals[i] = signal
                if signal > best:
                    best, score = signal, test
            if epochs == last or epochs not in stops:
                continue
            rung = stops[epochs]
            errors = [-signals[i] for i in alive]
            limit = rules.bar(seen.get(epochs, []), rung.best)
            keep = max(1, math.ceil(len(group) * rung.stay - 1e-9))
            names = [group[i].id for i in alive]
            stay = rules.staying(errors, names, keep, limit, 0.0)
            seen.setdefault(epochs, []).extend(errors)
            for place, i in enumerate(alive):
                if place not in stay:
                    ended[i] = epochs
            alive = [i for place, i in enumerate(alive) if place in stay]
        spent += sum(ended)
        out.append((spent, score))
        for candidate, signal, epochs in zip(group, signals, ended, strict=True):
            result = answer(candidate, signal)
            pruned = result.status is Status.COMPLETE and epochs < last
            results += (result.replace(status=Status.PRUNED) if pruned else result,)
    found = np.array(out)
    return found[:, 0], found[:, 1]


def nearest(table: Table, epochs: float) -> int:
    """The number of epochs of the table nearest to `epochs`, by ratio."""
    return min(table.epochs, key=lambda e: abs(math.log(e / epochs)))


def regret_at(curves: Curves, spent: Floats, score: Floats, budgets: Floats) -> Floats:
    """Regret of the incumbent when so many epochs were spent; 1, the median's, before any."""
    places = np.searchsorted(spent, budgets, side="right") - 1
    regrets = curves.table.regret(score)
    regrets = np.where(np.isnan(regrets), 1.0, regrets)
    return np.where(places < 0, 1.0, regrets[np.maximum(places, 0)])


def measure(
    method: Method, curves: Curves, budget: float, seeds: int, known: Known | None = None
) -> Floats:
    """Regret, mean over seeds, after 1 %, 2 % ... 100 % of the references' epochs."""
    whole = full(curves.table) * curves.table.epochs[-1]
    grid = np.arange(1, 101) / 100 * whole
    known = Known(None) if known is None else known
    found = []
    for seed in range(seeds):
        key = f"{curves.table.name} {method.name} {budget:g} {seed}"
        if key not in known.regrets:
            controller, rungs = CONTROLLERS[method.controller], FIDELITIES[method.fidelity].rungs
            spent, score = play(controller, curves, rungs, budget * whole, method.group, seed)
            known.add(key, regret_at(curves, spent, score, grid).tolist())
        found.append(known.regrets[key])
    return np.asarray(np.mean(found, axis=0))


class Known:
    """Regrets by table, method, budget and seed, kept in a file of JSON lines if there is one."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.regrets: dict[str, list[float]] = {}
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                self.regrets |= json.loads(line)

    def add(self, key: str, regrets: list[float]) -> None:
        """Keep what was measured."""
        self.regrets[key] = regrets
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps({key: [round(r, 5) for r in regrets]}) + "\n")


def full(table: Table) -> int:
    """How many candidates a reference trains."""
    return FULL if table.rows is None or len(table.rows[0]) > 200 else FULL_OF_FEW


def reached(regrets: Floats, wanted: float, budget: float) -> float:
    """The share of the references' epochs after which the regret is at most `wanted`."""
    within = regrets[: round(100 * budget)]
    places = np.flatnonzero(within <= wanted)
    return float(places[0] + 1) / 100 if len(places) else math.inf


def summary(found: dict[str, list[Floats]], budget: float) -> pd.DataFrame:
    """A row per method, from its regrets [100] on every task."""
    rows = []
    for name, regrets in found.items():
        row: dict[str, Any] = {"method": name}
        limit = 1.0 if name in [r.name for r in REFERENCES] else budget
        for share in (*SHOWN, 1.0):
            values = [r[round(100 * share) - 1] for r in regrets]
            row[f"{share:g}"] = f"{np.median(values):.3f}" if share <= limit else ""
        for reference in REFERENCES:
            ends = [r[-1] for r in found[reference.name]]
            shares = [reached(r, e, limit) for r, e in zip(regrets, ends, strict=True)]
            row[f"as {reference.name}"] = f"{np.median(shares):.2f}"
            within = sum(s <= FIFTH for s in shares)
            row["within a fifth, of " + reference.name] = f"{within} of {len(shares)}"
        rows.append(row)
    return pd.DataFrame(rows)


def extrapolation(curves: Curves, settings: int = 200) -> list[list[float]]:
    """Rank correlation with the end, by rung and by `WEIGHTS`, of random candidates.

    What is ranked is s(e) + w (s(e) - s(e / 2)), the last signal at epoch e and w times what the
    last doubling of the epochs brought.
    """
    table = curves.table
    rng = np.random.default_rng(0)
    drawn = CONTROLLERS["random"](table.space, History(), settings, rng)
    last = table.epochs[-1]
    end = [curves.at(c, last)[0] for c in drawn]
    out = []
    for share in rules.ladder(last, rules.HALF)[1:]:
        late, early = (
            np.array([curves.at(c, nearest(table, share * last / k))[0] for c in drawn])
            for k in (1, 2)
        )
        out.append([rank_correlation(late + w * (late - early), end) for w in WEIGHTS])
    return out


def rank_correlation(a: Sequence[float] | Floats, b: Sequence[float] | Floats) -> float:
    """Spearman's, where no two are equal."""
    ranks = [np.argsort(np.argsort(x)).astype(float) for x in (a, b)]
    return float(np.corrcoef(ranks)[0, 1])


def main() -> None:
    """Run the comparison; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    sets = {"tuned": TUNED, "reported": REPORTED}
    every = [*sets, *TUNED, *REPORTED, "ecnas"]
    parser.add_argument("--tables", nargs="+", choices=every, default=["reported"])
    parser.add_argument("--only", nargs="+", choices=[m.name for m in METHODS])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=float, default=0.4)
    parser.add_argument("--curves", action="store_true", help="only what extrapolation tells")
    parser.add_argument("--known", type=Path, help="file of what is measured, to go on with")
    parser.add_argument("--out", type=Path, help="stem of the files to write")
    args = parser.parse_args()
    tasks = [t for name in args.tables for t in sets.get(name, (name,))]
    names = [t if t == "ecnas" else f"lcbench_{t}" for t in tasks]
    chosen = [m for m in METHODS if args.only is None or m.name in args.only]
    if args.curves:
        told = [extrapolation(Curves(load_tables(args.data, [name])[0])) for name in names]
        for at, by_weight in enumerate(np.median(told, axis=0)):
            print(f"rung {at + 1}", dict(zip(WEIGHTS, by_weight.round(3).tolist(), strict=True)))
        return
    known = Known(args.known)
    found: dict[str, list[Floats]] = {m.name: [] for m in (*REFERENCES, *chosen)}
    for name in names:
        curves = Curves(load_tables(args.data, [name])[0])
        for method in REFERENCES:
            found[method.name].append(measure(method, curves, 1.0, args.seeds, known))
        for method in chosen:
            found[method.name].append(measure(method, curves, args.budget, args.seeds, known))
        ends = {m: f"{r[-1][round(100 * args.budget) - 1]:.3f}" for m, r in found.items()}
        print(name, ends, flush=True)
    frame = summary(found, args.budget)
    print(frame.to_string(index=False))
    if args.out is not None:
        write(frame, args)


def write(frame: pd.DataFrame, args: argparse.Namespace) -> None:
    """Write the table as CSV and Markdown, with the command and the machine."""
    args.out.parent.mkdir(exist_ok=True)
    frame.to_csv(args.out.with_suffix(".csv"), index=False)
    cores = len(os.sched_getaffinity(0))
    command = " ".join(["python", "scripts/bench_fidelity.py", *sys.argv[1:]])
    command = command.replace(str(args.data), "DATA").replace(str(args.out), args.out.stem)
    command = command.replace(f" --known {args.known}", "")
    lines = [f"Made by `{command}` on {cores} cores ({platform.machine()}).", ""]
    lines += ["| " + " | ".join(frame.columns) + " |", "|" + "---|" * len(frame.columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in frame.itertuples(index=False)]
    args.out.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
