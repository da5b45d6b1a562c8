#!/usr/bin/env python3
"""What controllers find, on made-up objectives that cost nothing: regret by candidates proposed.

    python scripts/compare_controllers.py
    python scripts/compare_controllers.py --quick --controllers tpe random

An objective gives a candidate a regret, 0 at best: a bowl in every range and a table of losses for
every choice, drawn with the seed, with weights such that few of them matter (exponential, squared);
what a controller hears has noise of standard deviation 0.02. Spaces: `table`, as shipped; `small`,
a few knobs with conditions; `ranges`, ten plain ranges. Groups of 8 are proposed as the search does
it with two workers, one group always pending. Writes results/controllers.md and .csv: mean over the
seeds of the regret of the best candidate, and of the best tenth, with the standard error of the
difference to `random`, the same objectives taken in pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from adanet_py.controllers import CONTROLLERS
from adanet_py.records import Candidate, History, Result, Status
from adanet_py.space import SearchSpace, load_space, project

NOISE = 0.02
GROUP = 8
SPACES: dict[str, Any] = {
    "table": "table",
    "small": {
        "name": "small",
        "architectures": {
            "mlp": {
                "depth": {"int": [1, 8]},
                "width": {"choice": [32, 64, 128, 256]},
                "norm": {"choice": ["none", "batch", "layer"]},
                "dropout": {"float": [0.0, 0.5]},
                "embedding": {"choice": ["none", "piecewise_linear", "periodic"]},
                "frequency": {
                    "float": [0.01, 10.0],
                    "log": True,
                    "when": {"embedding": "periodic"},
                },
            },
            "resnet": {"depth": {"int": [1, 8]}, "dropout": {"float": [0.0, 0.5]}},
        },
        "optimizers": {
            "sgd": {"lr": {"float": [1e-3, 1.0], "log": True}},
            "adamw": {
                "lr": {"float": [1e-4, 1e-1], "log": True},
                "beta1": {"float": [0.5, 0.99]},
            },
        },
        "general": {"clip_norm": {"float": [0.0, 5.0]}},
    },
    "ranges": {
        "name": "ranges",
        "architectures": {"mlp": {"dropout": {"float": [0.0, 0.9]}}},
        "optimizers": {
            "adamw": {
                "lr": {"float": [1e-4, 1e-1], "log": True},
                "weight_decay": {"float": [1e-6, 1.0], "log": True},
                "beta1": {"float": [0.5, 0.99]},
                "beta2": {"float": [0.9, 0.999]},
            }
        },
        "schedules": {
            "inverse_power": {
                "power": {"float": [0.25, 1.0]},
                "decay_steps": {"float": [1.0, 1000.0], "log": True},
            }
        },
        "general": {
            "clip_norm": {"float": [0.0, 5.0]},
            "label_smoothing": {"float": [0.0, 0.3]},
            "input_noise": {"float": [0.0, 0.5]},
        },
    },
}


def objective(space: SearchSpace, seed: int) -> Callable[[Candidate], float]:
    """The regret of a candidate."""
    rng = np.random.default_rng([seed, 7])
    best, weights, losses = {}, {}, {}
    for d in space.decisions:
        weights[d.name] = rng.exponential() ** 2
        best[d.name] = rng.uniform(0.1, 0.9)
        table = rng.uniform(size=len(d.domain)) ** 2
        losses[d.name] = dict(zip(d.domain, table - table.min(), strict=True))

    def regret(candidate: Candidate) -> float:
        assignment = project(space, candidate)
        assert assignment is not None
        total = 0.0
        for name, value in assignment.items():
            d = space.by_name[name]
            if d.kind == "choice" and not d.ordered:
                total += 0.3 * weights[name] * losses[name][value]
            else:
                total += weights[name] * (d.unit(value) - best[name]) ** 2
        return total

    return regret


def play(name: str, space: SearchSpace, seed: int, counts: list[int]) -> list[tuple[float, float]]:
    """(regret of the best, mean of the best tenth) after each of `counts` candidates."""
    regret = objective(space, seed)
    results: tuple[Result, ...] = ()
    pending: tuple[Candidate, ...] = ()
    found: list[float] = []
    out = []
    for group in range(counts[-1] // GROUP):
        rng = np.random.default_rng([seed, group])
        proposed = CONTROLLERS[name](space, History(results, pending), GROUP, rng)
        found += [regret(c) for c in proposed]
        results += tuple(
            Result(
                c, Status.COMPLETE, reward=-regret(c) + NOISE * _noise(c), controller=c.by or name
            )
            for c in pending
        )
        pending = tuple(proposed)
        if len(found) in counts:
            ranked = sorted(found)
            out.append((ranked[0], float(np.mean(ranked[: len(ranked) // 10]))))
    return out


def _noise(candidate: Candidate) -> float:
    return float(np.random.default_rng(int(candidate.id, 16)).normal())


def main() -> None:
    """Run the comparison; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--controllers", nargs="+", choices=list(CONTROLLERS), default=None)
    parser.add_argument("--spaces", nargs="+", choices=list(SPACES), default=list(SPACES))
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--candidates", type=int, nargs="+", default=[104, 400])
    parser.add_argument("--quick", action="store_true", help="6 seeds, 104 candidates, no files")
    parser.add_argument("--json", action="store_true", help="rows as JSON lines")
    args = parser.parse_args()
    seeds, counts = (6, [104]) if args.quick else (args.seeds, sorted(args.candidates))
    names = list(dict.fromkeys(["random", *(args.controllers or CONTROLLERS)]))
    rows: list[dict[str, Any]] = []
    for where in args.spaces:
        space = load_space(SPACES[where])
        all_found = {}
        for name in names:
            found = np.array([play(name, space, seed, counts) for seed in range(seeds)])
            all_found[name] = found  # [seeds, counts, best or tenth]
            gains = all_found["random"] - found
            for i, count in enumerate(counts):
                error = gains[:, i].std(axis=0, ddof=1) / seeds**0.5
                rows.append(
                    {
                        "space": where,
                        "candidates": count,
                        "controller": name,
                        "best": round(float(found[:, i, 0].mean()), 4),
                        "best_tenth": round(float(found[:, i, 1].mean()), 4),
                        "gain_best": f"{gains[:, i, 0].mean():.3f} ± {error[0]:.3f}",
                        "gain_tenth": f"{gains[:, i, 1].mean():.3f} ± {error[1]:.3f}",
                    }
                )
                print(json.dumps(rows[-1], ensure_ascii=False) if args.json else _line(rows[-1]))
                sys.stdout.flush()
    if not args.quick:
        write(rows, seeds)


def _line(row: dict[str, Any]) -> str:
    return "  ".join(f"{k} {v}" for k, v in row.items())


def write(rows: list[dict[str, Any]], seeds: int) -> None:
    """Write the table as CSV and Markdown, with the command and the machine."""
    import pandas as pd

    stem = Path(__file__).parents[1] / "results" / "controllers"
    stem.parent.mkdir(exist_ok=True)
    frame = pd.DataFrame(rows)
    frame.to_csv(stem.with_suffix(".csv"), index=False)
    cores = len(os.sched_getaffinity(0))
    command = " ".join(["python", "scripts/compare_controllers.py", *sys.argv[1:]])
    lines = [
        f"Made by `{command}` on {cores} cores ({platform.machine()}), {seeds} seeds. Regret, lower"
        " is better; gains are over `random`, ± one standard error.",
        "",
        "| " + " | ".join(frame.columns) + " |",
        "|" + "---|" * len(frame.columns),
    ]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in frame.itertuples(index=False)]
    stem.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
