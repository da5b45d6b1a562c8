"""AdaNet against its rivals by the protocol of its paper, and the order of its tutorial.

    python scripts/reproduce_adanet.py --data DIR [--part PART] [--quick] [--json]

DIR/images/fashion_mnist has the four files of Fashion-MNIST, DIR/tables california_housing.csv.gz.

Pairs (Cortes et al. 2017, section 6, there on CIFAR-10): two classes that are hard to tell apart,
histogram and gradient features, ten folds. A fold is the test once and the validation once, the
next one then being the test; each method trains all its settings on the other eight, and the one
with the best mean accuracy over the ten validation folds is scored on the test folds. Its rivals
are logistic regression and a network of one to three layers trained by the same code. All three
have their own random or full grid of settings, in `adanet_protocol.grid`.

AdaNet's subnetworks are trained for themselves there and not connected; the variants are AdaNet as
the paper has it and its variants, with the setting chosen on the first pair.

Tutorial: subnetworks of 64 units, each trained alone, three rounds from a linear model on, of
california_housing with the target log1p(y): weighed the same, by weights learned, and learned with
lambda, which is tuned on validation rows. There on Boston the mean squared errors were 0.0351,
0.0343 and 0.0340 of one run.

What was measured is kept in results/adanet.csv, a row per fold and setting, and results/adanet.md
is made of it; settings of pairs that are there are not run again, of the other parts the rows are
replaced. With --seconds nothing begins after them: the same command then goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from adanet_protocol import (
    METHODS,
    PAIRS,
    PLAIN_NAME,
    QUICK,
    Size,
    grid,
    run_pair,
    run_tutorial,
    run_variant,
)
from benching import command, settle

from adanet_py.subnetworks.options import VARIANTS

RECORD = Path(__file__).parents[1] / "results" / "adanet"


# ------------------------------------------------------------------------------- the report


def chosen(rows: pd.DataFrame) -> pd.DataFrame:
    """Of the rows of a method on one pair those of the setting with the best mean validation."""
    best = rows.groupby("setting")["validation"].mean().idxmax()
    return rows[rows["setting"] == best].sort_values("fold")


def as_many(rows: pd.DataFrame) -> pd.DataFrame:
    """Of one pair, the settings that both methods with networks were run with, by number."""
    sets = [set(r["setting"]) for m, r in rows.groupby("method") if m in METHODS[1:]]
    both = set.intersection(*sets) if sets else set()
    return rows[(rows["method"] == METHODS[0]) | rows["setting"].isin(both)]


def tuned(rows: pd.DataFrame) -> pd.DataFrame:
    """Of the ways with a lambda, for each seed, the one with the least validation error."""
    with_lambda = rows[rows["method"].str.startswith("learned, lambda")]
    best = with_lambda.loc[with_lambda.groupby("fold")["validation"].idxmin()]
    return best.assign(method="learned with lambda").sort_values("fold")


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def report(rows: pd.DataFrame) -> list[str]:
    """The tables, in Markdown."""
    out: list[str] = []
    pairs = rows[rows["part"] == "pairs"]
    if len(pairs):
        out += [
            "## Pairs of Fashion-MNIST", "",
            f"Of each class the training images from {Size().first:,} on; those before them chose "
            "what the settings are drawn from. "
            "Test accuracy in per cent, mean over the folds and its standard error; behind a rival "
            "the difference of AdaNet from it, of the same folds; of AdaNet the mean number of "
            "subnetworks and depth.", "",
            "| pair | rows | folds | " + " | ".join(METHODS) + " | AdaNet - LR | AdaNet - network "
            "| subnetworks | layers | AdaNet ahead of both |",
            "|" + "---|" * 10,
        ]  # fmt: skip
    for pair, own in pairs.groupby("data", sort=False):
        found = {m: chosen(r) for m, r in as_many(own).groupby("method")}
        if set(found) != set(METHODS):
            continue
        score = {m: 100 * found[m]["test"].to_numpy() for m in METHODS}
        cells = [_shown(score[m]) for m in METHODS]
        apart = [score["AdaNet"] - score[m] for m in METHODS[:2]]
        ours = found["AdaNet"]
        ahead = "yes" if all(a.mean() > 0 for a in apart) else "no"
        count = own["rows"].iloc[0]
        out.append(
            f"| {pair} | {count} | {len(ours)} | {' | '.join([*cells, *map(_shown, apart)])} | "
            f"{ours['members'].mean():.1f} | {ours['depth'].mean():.1f} | {ahead} |"
        )
    if len(pairs):
        out += ["", f"AdaNet - network, {_compared(pairs)}"]
    if len(pairs):
        out += ["", "Settings chosen on the validation folds, and seconds of a fold:", ""]
        even = pd.concat([as_many(r) for _, r in pairs.groupby("data", sort=False)])
        for (pair, method), r in even.groupby(["data", "method"], sort=False):
            best = chosen(r).iloc[0]
            count, spent = r["setting"].nunique(), r["seconds"].mean()
            out.append(
                f"- {pair}, {method}: of {count} settings, {best['values']} ({spent:.2g} s each)"
            )
    out += _variants(rows) + _tutorial(rows)
    return out


def _compared(pairs: pd.DataFrame) -> str:
    """AdaNet less the network over all pairs: on the test folds, and on those that chose."""
    apart: dict[str, list[np.ndarray]] = {"test": [], "validation": []}
    for _, own in pairs.groupby("data", sort=False):
        rows = as_many(own)
        network, ours = (chosen(rows[rows["method"] == m]) for m in METHODS[1:])
        for part, found in apart.items():
            found.append(100 * (ours[part].to_numpy() - network[part].to_numpy()))
    shown = {part: _shown(np.concatenate(found)) for part, found in apart.items()}
    return (
        f"all folds of all pairs: {shown['test']} on the test folds; {shown['validation']} on the "
        "validation folds, by which the settings were chosen."
    )


def _variants(rows: pd.DataFrame) -> list[str]:
    found = rows[rows["part"] == "variants"]
    out: list[str] = []
    for pair, own in found.groupby("data", sort=False):
        plain = rows[(rows["part"] == "pairs") & (rows["data"] == pair)]
        plain = plain[(plain["method"] == "AdaNet") & (plain["setting"] == own["setting"].iloc[0])]
        about = (
            "With the setting chosen for AdaNet, not tuned: subnetworks trained on what the"
            " ensemble lacks, connected, one layer deeper allowed, selected by F; and its variants."
        )
        out += ["", f"## As in the paper, {pair}", "", about, ""]
        out += ["| variant | test accuracy | difference from AdaNet | subnetworks | layers |"]
        out += ["|---|---|---|---|---|"]
        base = 100 * plain.sort_values("fold")["test"].to_numpy()
        for name, r in [("AdaNet", plain), *own.groupby("method", sort=False)]:
            score = 100 * r.sort_values("fold")["test"].to_numpy()
            apart = "" if name == "AdaNet" else _shown(score - base)
            means = f"{r['members'].mean():.1f} | {r['depth'].mean():.1f}"
            out.append(f"| {name} | {_shown(score)} | {apart} | {means} |")
    return out


def _tutorial(rows: pd.DataFrame) -> list[str]:
    own = rows[rows["part"] == "tutorial"]
    if not len(own):
        return []
    count = own["rows"].iloc[0]
    out = [
        "", "## Uniform, learned, learned with lambda", "",
        f"california_housing, mean squared error of log1p(y), {count} rows each to train, to "
        f"validate and to test, mean of {own['fold'].nunique()} seeds and its standard error; the "
        "difference from the line above, of the same seeds.", "",
        "| weights | test | difference | subnetworks |", "|---|---|---|---|",
    ]  # fmt: skip
    ways = [
        own[own["method"] == "uniform"], own[own["method"] == "learned"], tuned(own),
        own[own["method"] == "on the ensemble's loss"],
    ]  # fmt: skip
    before: np.ndarray | None = None
    for way in ways:
        score = way.sort_values("fold")["test"].to_numpy()
        apart = "" if before is None else _shown(score - before, 5)
        name = way["method"].iloc[0]
        out.append(f"| {name} | {_shown(score, 5)} | {apart} | {way['members'].mean():.1f} |")
        before = score
    return out


def _shown(values: np.ndarray, digits: int = 2) -> str:
    mean, error = mean_and_error(values)
    return f"{mean:.{digits}f} ± {error:.{digits}f}"


def keep(new: pd.DataFrame, stem: Path) -> pd.DataFrame:
    """The rows of record, those of the same part, data, method and setting replaced."""
    path = stem.with_suffix(".csv")
    if not path.is_file():
        return new
    old = pd.read_csv(path)
    key = ["part", "data", "method", "setting"]
    again = set(map(tuple, new[key].drop_duplicates().to_numpy().tolist()))
    kept = old[[tuple(k) not in again for k in old[key].to_numpy().tolist()]]
    return pd.concat([kept, new], ignore_index=True)


def there(stem: Path, pair: str, method: str, size: Size) -> set[int]:
    """The settings of a method whose rows are of record, by number."""
    path = stem.with_suffix(".csv")
    if not path.is_file():
        return set()
    old = pd.read_csv(path)
    old = old[(old["part"] == "pairs") & (old["data"] == pair) & (old["method"] == method)]
    same = [json.dumps(s) for s in grid(method, size)]
    kept = [
        v == same[k] if k < len(same) else False
        for k, v in zip(old["setting"], old["values"], strict=True)
    ]
    count = old[kept].groupby("setting")["fold"].nunique()
    return set(count[count == size.folds].index)


def main() -> None:
    """Run what is asked for; see the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = Path(os.environ.get("ADANET_SHARED_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--part", choices=("all", "pairs", "variants", "tutorial"), default="all")
    parser.add_argument("--pair", nargs="+", choices=list(PAIRS), default=list(PAIRS))
    parser.add_argument("--method", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seconds", type=float, default=math.inf, help="after which none begins")
    parser.add_argument("--quick", action="store_true", help="very few rows; nothing is written")
    parser.add_argument("--out", type=Path, help="stem of the files to write")
    parser.add_argument("--json", action="store_true", help="last line: the rows as JSON")
    args = parser.parse_args()
    settle(1, "cpu")
    size = QUICK if args.quick else Size()
    stem = args.out or (None if args.quick else RECORD)
    rows, began = pd.DataFrame(), time.monotonic()

    def add(found: list[dict[str, Any]], count: int) -> None:
        nonlocal rows
        new = pd.DataFrame(found).assign(rows=count)
        rows = pd.concat([rows, new], ignore_index=True)
        if stem is not None:
            write(keep(new, stem), stem)

    if args.part in ("all", "pairs"):
        # As many settings of each, whenever it is broken off.
        turns = [(at, m) for at in range(max(size.settings, 9)) for m in args.method]
        for pair in args.pair:
            done = {m: set() if stem is None else there(stem, pair, m, size) for m in METHODS}
            for at, method in turns:
                late = time.monotonic() - began > args.seconds
                if not late and at < len(grid(method, size)) and at not in done[method]:
                    add(run_pair(pair, method, at, args.data, size), size.rows)
    if args.part in ("all", "variants"):
        pair = args.pair[0]
        known = rows if stem is None else pd.read_csv(stem.with_suffix(".csv"))
        of_pair = known[known["data"] == pair]
        best = chosen(as_many(of_pair[of_pair["part"] == "pairs"]).query("method == 'AdaNet'"))
        at, values = int(best["setting"].iloc[0]), best["values"].iloc[0]
        same = of_pair[(of_pair["part"] == "variants") & (of_pair["values"] == values)]
        for name in (PLAIN_NAME, *VARIANTS):
            late = time.monotonic() - began > args.seconds
            if not late and name not in set(same["method"]):
                add(run_variant(pair, name, args.data, size, json.loads(values), at), size.rows)
    if args.part in ("all", "tutorial"):
        add(run_tutorial(args.data, size), size.table_rows)
    if stem is not None:
        rows = pd.read_csv(stem.with_suffix(".csv"))
        write(rows, stem)
    print("\n".join(report(rows)))
    if args.json:
        print(rows.to_json(orient="records"))


def write(rows: pd.DataFrame, stem: Path) -> None:
    """Write the rows and the tables made of them."""
    stem.parent.mkdir(exist_ok=True)
    rows.to_csv(stem.with_suffix(".csv"), index=False)
    about = (
        f"Made in parts (`--part`, `--pair`, `--seconds`), the last by `{command(__file__)}`, on "
        f"one core ({platform.machine()}) that other programs shared. Rows are a part of what "
        "there is, so that it ends."
    )
    text = "\n".join(["# AdaNet against its rivals", "", about, "", *report(rows)])
    stem.with_suffix(".md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
