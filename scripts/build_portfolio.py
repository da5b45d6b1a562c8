#!/usr/bin/env python3
"""Build the portfolio that comes with the package, on tables that are not of record.

    python scripts/build_portfolio.py --data FOLDER --work FOLDER
    python scripts/build_portfolio.py --data FOLDER --work FOLDER --stage train --tables sick

`train`: a pool of configurations, the starts of the space and random ones, each on (at most
`--rows` of) the training rows of every table, to its end; `build`: the portfolio from these runs,
by adanet_py/portfolio.py. What `--work` holds already is not done again, so that it can be done in
pieces; a configuration that `--time` leaves out on a table is estimated there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import adanet_py
from adanet_py.folder import is_run
from adanet_py.portfolio import KINDS, Entry, Portfolio, build_portfolio, write_portfolio
from adanet_py.records import Candidate, History
from adanet_py.space import SearchSpace, load_space, sample
from adanet_py.state import read_state

TABLES = (
    "abalone", "titanic", "sick", "telco_churn", "bank_marketing", "bike_sharing_hour", "spambase",
    "jasmine", "electricity", "covertype_100k",
)  # fmt: skip
SIZE = 8  # configurations that are kept of each kind of task
OUT = Path(__file__).parents[1] / "search_spaces" / "portfolio.json"
STAGES = ("train", "build")


def draw_pool(space: SearchSpace, count: int) -> Portfolio:
    """The starts of the space, then random candidates of it, `count` together, for every task.

    The small ones come first, so that a table's time is not spent on a few large ones.
    """
    rngs = [np.random.default_rng([0, i]) for i in range(count - len(space.start))]
    drawn = [*space.start, *sorted((sample(space, rng) for rng in rngs), key=_size)][:count]
    return Portfolio({kind: tuple(Entry(c, "drawn") for c in drawn) for kind in KINDS})


def _size(candidate: Candidate) -> float:
    s = candidate.static
    numbers = [s.get(k, 1) for k in ("width", "width", "depth", "expansion", "members")]
    return float(np.prod([v for v in numbers if isinstance(v, int | float)]))


def listed(
    space: SearchSpace, history: History, n: int, rng: np.random.Generator
) -> list[Candidate]:
    """A controller that proposes the starts of the space, program by program, and nothing else."""
    waiting = history.new(space.start)
    return [c for c in waiting if c.family == waiting[0].family][:n]


def is_done(folder: Path) -> bool:
    """Whether a search has ended here."""
    return is_run(folder) and read_state(folder).stopped is not None


def train(given: argparse.Namespace, name: str, pool: Path) -> None:
    """Train the pool on a table, unless it was done."""
    from bench_tables import split

    out = given.work / name
    if is_done(out):
        return
    frame, _, target = split(given.data, name)
    frame = frame.sample(min(len(frame), given.rows), random_state=0)
    found = adanet_py.search(
        frame, target=target, out=out, space=given.space, controller=listed, prior=str(pool),
        time=given.time, candidates=given.configurations, fidelity="none", folds=1, workers=0,
        seed=0, on_note=lambda note: None,
    )  # fmt: skip
    print(f"{name}: {len(found.state.finished())} networks, {found.state.stopped}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with datasets.json")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--stage", choices=STAGES, nargs="+", default=STAGES)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES, metavar="NAME")
    parser.add_argument("--configurations", type=int, default=24, metavar="N", help="of the pool")
    parser.add_argument("--rows", type=int, default=1000, help="of a table, at most")
    parser.add_argument("--time", default="10m", help="for a table, at most")
    parser.add_argument("--space", default="table")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(arguments)
    if "train" in given.stage:
        given.work.mkdir(parents=True, exist_ok=True)
        pool = given.work / "pool.json"
        write_portfolio(draw_pool(load_space(given.space), given.configurations), pool)
        for name in given.tables:
            train(given, name, pool)
    if "build" in given.stage:
        found = build_portfolio([p for p in sorted(given.work.glob("*")) if is_done(p)], SIZE)
        write_portfolio(found, given.out)
        for kind, entries in found.entries.items():
            names = [f"{e.candidate.architecture} ({e.source})" for e in entries]
            print(f"{kind}: {', '.join(names)}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
