#!/usr/bin/env python3
"""What controllers find in tables of known results: regret by queries, rank and time of each.

    python scripts/bench_controllers.py --data DATA
    python scripts/bench_controllers.py --data DATA --controllers auto gp --tables nasbench_macro
    python scripts/bench_controllers.py --data DATA --quick --json

`DATA` holds the tables of nas_tables.py, which says what each is. A controller proposes `--batches`
candidates at a time until 200 queries are answered; it hears the validation signal alone. The
incumbent is the first with the highest signal, and what is reported is its normalised test regret,
(best - incumbent) / (best - median), best and median being those of the table: the median over the
seeds, then the mean over the tables; and the mean over tables of the rank among all.

On the nine tables of listed networks `ref_random` has a regret of about .33, .30, .28 after 50,
100, 200 queries, as rows of the tables drawn evenly without repetition have. These and the
`lcbench_*` tables, a smooth surrogate, are reported together and apart. References
(reference_controllers.py): random search, regularised evolution (20, 5), local search, a plain
factorised REINFORCE, Optuna's TPE, a Gaussian process with expected improvement on the one-hot
encoding.

What ranks can and cannot tell: equal medians share the mean of their ranks, and after 200 queries
nearly all have the same one on `nasbench201_*` and `nasbench_macro`. On the graphs the test score
tells the best rows by validation hardly apart: the very best by validation has a test regret of .66
(pubmed, where the median of random search is .48), .51 (cora), .15 (photo), .14 (cs), .09
(citeseer), the next two .36 and .72, .11 and .52, .29 and .29, .17 and .06, .42 and .45. There a
controller that finds more of them can rank lower. On pubmed all that search well do.

Writes results/controllers_nas.md, .csv and .png; the .csv after every row. With `--add` what it has
of other controllers, tables and batches is kept, so that the record can be made in parts;
`--summary` plays nothing and writes the other two anew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from nas_tables import CELLS, GRAPHS, Table, load_tables, play
from reference_controllers import REFERENCES

from adanet_py.controllers import CONTROLLERS

LISTED = (
    *(f"nasbench201_{d}" for d in CELLS),
    "nasbench_macro",
    *(f"nasbench_graph_{d}" for d in GRAPHS),
)
CURVES = ("lcbench_146212", "lcbench_167149", "lcbench_167181")
QUICK = ("nasbench201_cifar10", "nasbench_macro")
QUERIES = (25, 50, 100, 200)
RESULTS = Path(__file__).parents[1] / "results" / "controllers_nas"
KEY = ["controller", "table", "batch"]
Row = dict[str, Any]

_TABLES: dict[str, Table] = {}  # of this process


def games(data: str, name: str, where: str, batch: int, seeds: Iterable[int]) -> list[Any]:
    """`game` of every seed."""
    if where not in _TABLES:
        _TABLES[where] = load_tables(data, [where])[0]
    return [game(_TABLES[where], name, batch, seed) for seed in seeds]


def game(table: Table, name: str, batch: int, seed: int) -> tuple[list[float], float]:
    """Test regret at `QUERIES`, and seconds per proposal."""
    controller = REFERENCES[name](table.space) if name in REFERENCES else CONTROLLERS[name]
    found = play(controller, table, QUERIES[-1], batch, seed)
    regrets = table.regret(found.test[np.array(QUERIES) - 1])
    return regrets.tolist(), float(found.seconds.sum()) / QUERIES[-1]


def measure(args: argparse.Namespace) -> Iterator[Row]:
    """A row for every controller, table and batch, as they are ready."""
    chunk = 5  # seeds of one task of a worker
    with ProcessPoolExecutor(args.workers) as workers:
        tasks = {}
        for batch in args.batches:
            for where in args.tables:
                for name in args.controllers:
                    parts = [
                        range(first, min(first + chunk, args.seeds))
                        for first in range(0, args.seeds, chunk)
                    ]
                    tasks[name, where, batch] = [
                        workers.submit(games, args.data, name, where, batch, part) for part in parts
                    ]
        for (name, where, batch), futures in tasks.items():
            found = [g for future in futures for g in future.result()]
            regrets = np.array([g[0] for g in found])
            row: Row = {"controller": name, "table": where, "batch": batch, "seeds": args.seeds}
            for i, queries in enumerate(QUERIES):
                low, middle, high = np.nanquantile(regrets[:, i], (0.25, 0.5, 0.75))
                row[f"regret_{queries}"] = round(float(middle), 4)
                row[f"low_{queries}"], row[f"high_{queries}"] = round(low, 4), round(high, 4)
            row["ms"] = round(1e3 * float(np.median([g[1] for g in found])), 3)
            yield row


def summary(rows: Sequence[Row], tables: Sequence[str], whole: bool = False) -> list[Row]:
    """By batch and controller: mean over tables of regret, of rank, and of time.

    Over those of `tables` that all have which have half of them; the others are left out. `whole`:
    over all of `tables`, of the controllers that were played on all of them.
    """
    import pandas as pd

    out = []
    frame = pd.DataFrame([r for r in rows if r["table"] in tables])
    for batch, part in frame.groupby("batch"):
        counts = part.controller.value_counts()
        enough = counts == len(tables) if whole else 2 * counts >= counts.max()
        part = part[part.controller.isin(counts[enough].index)]
        had = part.table.value_counts()
        part = part[part.table.isin(had[had == part.controller.nunique()].index)]
        if part.empty:
            continue
        wide = {
            q: part.pivot_table(index="controller", columns="table", values=f"regret_{q}")
            for q in QUERIES
        }
        ranks = {q: wide[q].rank(axis=0) for q in QUERIES}
        for name in wide[QUERIES[-1]].index:
            row: Row = {"batch": batch, "controller": name}
            row["tables"] = int(wide[QUERIES[-1]].loc[name].notna().sum())
            row["seeds"] = int(part[part.controller == name]["seeds"].min())
            row |= {f"regret_{q}": round(float(wide[q].loc[name].mean()), 3) for q in QUERIES}
            row |= {f"rank_{q}": round(float(ranks[q].loc[name].mean()), 2) for q in QUERIES}
            row["ms"] = round(float(part[part.controller == name]["ms"].mean()), 2)
            out.append(row)
    return sorted(out, key=lambda r: (r["batch"], r[f"rank_{QUERIES[-1]}"]))


def save(rows: list[Row]) -> None:
    """Write the rows of the record."""
    import pandas as pd

    RESULTS.parent.mkdir(exist_ok=True)
    rows = sorted(rows, key=lambda r: (r["batch"], r["table"], r["controller"]))
    pd.DataFrame(rows).to_csv(RESULTS.with_suffix(".csv"), index=False)


def write(rows: list[Row]) -> None:
    """The table and the picture of record."""
    seeds = sorted({r["seeds"] for r in rows})
    command = " ".join(["python", "scripts/bench_controllers.py", *_without_paths(sys.argv[1:])])
    lines = [
        f"Last part made by `{command}` on {os.cpu_count()} threads ({platform.machine()}); "
        f"{' or '.join(map(str, seeds))} seeds. Normalised test regret of "
        "the incumbent after 25 to 200 queries, lower is better: median over the seeds, mean over "
        "the tables; mean rank; milliseconds per proposal. The tables are those that all "
        "controllers of a batch size were played on (column tables: how many); under All they are "
        "those that were played on every table. "
        "Every table: controllers_nas.csv.",
    ]
    every = (*LISTED, *CURVES)
    parts = (("All", every), ("Listed networks", LISTED), ("Surrogate of LCBench", CURVES))
    for title, tables in parts:
        some = any(r["table"] in tables for r in rows)
        found = summary(rows, tables, tables == every) if some else []
        if found:
            lines += ["", f"## {title}: {', '.join(tables)}", ""]
            lines += ["| " + " | ".join(found[0]) + " |", "|" + "---|" * len(found[0])]
            lines += ["| " + " | ".join(map(str, r.values())) + " |" for r in found]
    RESULTS.with_suffix(".md").write_text("\n".join(lines) + "\n")
    draw(summary(rows, LISTED))


def draw(found: Sequence[Row]) -> None:
    """Regret by queries, a panel for each batch; nothing where matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("No picture: matplotlib is not installed.", file=sys.stderr)
        return
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    batches = sorted({r["batch"] for r in found})
    figure, axes = plt.subplots(
        1, len(batches), figsize=(6.5 * len(batches), 5.5), sharey=True, squeeze=False
    )
    colours = plt.get_cmap("tab20").colors
    names = sorted({r["controller"] for r in found})
    for panel, batch in zip(axes[0], batches, strict=True):
        for row in (r for r in found if r["batch"] == batch):
            name = row["controller"]
            style = "--" if name in REFERENCES else "-"
            values = [row[f"regret_{q}"] for q in QUERIES]
            colour = colours[names.index(name) % len(colours)]
            panel.plot(QUERIES, values, style, color=colour, label=name, marker="o", markersize=3)
        panel.set(title=f"batch {batch}", xlabel="queries", xscale="log")
        panel.set_xticks(QUERIES, [str(q) for q in QUERIES])
        panel.grid(alpha=0.3)
    axes[0][0].set_ylabel("normalised test regret of the incumbent")
    axes[0][-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(RESULTS.with_suffix(".png"), dpi=110, bbox_inches="tight")
    plt.close(figure)


def _without_paths(words: Sequence[str]) -> list[str]:
    return [
        "DATA" if before == "--data" else word
        for before, word in zip(["", *words], words, strict=False)
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the comparison; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*CONTROLLERS, *REFERENCES]
    parser.add_argument("--data", required=True, help="folder with the tables")
    parser.add_argument("--controllers", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--tables", nargs="+", default=[*LISTED, *CURVES], metavar="NAME")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--add", action="store_true", help="keep the other rows of the record")
    parser.add_argument("--summary", action="store_true", help="of the record as it is")
    parser.add_argument("--quick", action="store_true", help="5 seeds, 2 tables, no files")
    parser.add_argument("--json", action="store_true", help="rows as JSON lines")
    args = parser.parse_args(argv)
    if args.quick:
        args.seeds, args.tables = min(args.seeds, 5), list(QUICK)
    kept = record() if args.add or args.summary else []
    for row in [] if args.summary else measure(args):
        line = json.dumps(row) if args.json else "  ".join(f"{k} {v}" for k, v in row.items())
        print(line, flush=True)
        # Read anew where it is added to: another part may have been made meanwhile.
        kept = record() if args.add and not args.quick else kept
        kept = [r for r in kept if any(r[k] != row[k] for k in KEY)] + [row]
        if not args.quick:
            save(kept)
    if kept and not args.quick:
        write(kept)


def record() -> list[Row]:
    """The rows of the record, if there is one."""
    import pandas as pd

    path = RESULTS.with_suffix(".csv")
    return pd.read_csv(path).to_dict("records") if path.exists() else []


if __name__ == "__main__":
    main()
