#!/usr/bin/env python3
"""What other rungs would have made of searches that are there: epochs saved, best networks lost.

    python scripts/recut_runs.py RUN...

Every group of a run is cut again, by the functions of adanet_py/fidelity.py, along the curves it
has; what the run itself cut ends where it ended, so rungs can only be seen to cut more. Per way to
cut: the epochs that are left of the run's, and by how much the best validation error rises, both
the mean over the runs. What the epochs saved would have found is not counted, nor doubt (`--doubt`
adds some, as a share of the best error). No test or audit row is looked at.
"""

from __future__ import annotations

import argparse
import json
import math
from functools import partial
from pathlib import Path

import numpy as np

from adanet_py import fidelity
from adanet_py.fidelity import FIDELITIES, Rung
from adanet_py.metrics import get_metric, to_error
from adanet_py.plan import kept
from adanet_py.records import Result
from adanet_py.state import State, read_state

LATE = (Rung(1 / 8, 1 / 2), Rung(1 / 3, 1 / 4, 1 / 3))
WAYS = {name: entry.rungs for name, entry in FIDELITIES.items() if name != "hyperband"} | {
    "halving, bars at every rung": lambda epochs, index: (
        Rung(1 / 8, 1 / 2, 1 / 3),
        Rung(1 / 3, 1 / 4, 1 / 3),
    ),
    "halving, a bar at a third": lambda epochs, index: LATE,
}


def recut(state: State, error: fidelity.Error, way: str, doubt: float) -> tuple[float, float]:
    """(share of the epochs that is left, relative rise of the best error) of a run."""
    before = after = 0.0
    seen: dict[float, list[float]] = {}
    best_before = best_after = math.inf

    def best(result: Result, steps: int) -> float:
        values = [error(e.validation) for e in result.curve if e.step <= steps]
        return min(values, default=math.inf) if result.status.usable else math.inf

    tolerance = doubt * min(best(r, r.steps) for r in state.finished())
    for index in sorted(state.results):
        group = state.groups[index]
        results = [r for r in state.results[index] if r.curve]
        if not results:
            continue
        per_step = results[0].curve[-1].epoch / results[0].curve[-1].step
        ends = [r.steps for r in results]
        alive = [i for i, r in enumerate(results) if r.status.usable]
        for rung in WAYS[way](per_step * group.steps, index):
            step = fidelity.step_of(rung.share, group.steps, group.evaluate_every)
            errors = [best(results[i], step) for i in alive]
            limit = fidelity.bar(seen.get(rung.share, []), rung.best)
            came = fidelity.errors_at(rung.share, group, [results[i] for i in alive], error)
            seen.setdefault(rung.share, []).extend(came)
            names = [results[i].candidate.id for i in alive]
            stay = fidelity.staying(errors, names, kept(len(results), rung), limit, tolerance)
            for place, i in enumerate(alive):
                if place not in stay:
                    ends[i] = min(ends[i], step)
            alive = [i for place, i in enumerate(alive) if place in stay]
        before += per_step * sum(r.steps for r in results)
        after += per_step * sum(ends)
        best_before = min([best_before, *(best(r, r.steps) for r in results)])
        best_after = min([best_after, *map(best, results, ends)])
    return after / before, best_after / best_before - 1.0


def main() -> None:
    """Cut the runs again; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--doubt", type=float, default=0.0)
    args = parser.parse_args()
    for way in WAYS:
        found = []
        for run in args.runs:
            metric = get_metric(json.loads((run / "prepared.json").read_text())["metric"])
            found.append(recut(read_state(run), partial(to_error, metric), way, args.doubt))
        left, rise = np.mean(found, axis=0)
        lost = sum(r > 0.0 for _, r in found)
        print(
            f"{way}: {left:.2f} of the epochs, best error {rise:+.2%}, lost in {lost} of "
            f"{len(found)} runs"
        )


if __name__ == "__main__":
    main()
