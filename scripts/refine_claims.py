"""What the rows of bench_refine.py say about its three claims; each a line or two.

A standard error is that of a difference to the best single network on the test rows, paired by row.
Of a table it is that of the mean over seeds: the seeds share their test rows, so the mean of the
seeds' standard errors is taken, as if they were the same networks, which is an upper bound.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import pandas as pd

SINGLE, CONTROL = "single", "train_on"
THIRD = 1 / 3
RANKED = (SINGLE, "ensemble", "mean")


def claims(frame: pd.DataFrame) -> list[str]:
    """The lines, of what there are rows for."""
    return [*_ensembles(frame), *_refined(frame), *_small(frame)]


def _pivot(frame: pd.DataFrame, value: str, models: Sequence[str]) -> pd.DataFrame:
    """Rows (table, seed) that have all of the models, a column for each."""
    pairs = frame.pivot(index=["table", "seed"], columns="model", values=value)
    return pairs.reindex(columns=list(models)).dropna().astype(float)


def _ensembles(frame: pd.DataFrame) -> list[str]:
    errors = _pivot(frame, "test", RANKED)
    out = []
    if len(errors):
        ranks = errors.rank(axis=1).mean()
        told = ", ".join(f"{name} {ranks[name]:.2f}" for name in RANKED)
        won = int((errors["ensemble"] < errors[SINGLE]).sum())
        out.append(
            f"- Ensemble: mean rank on test rows {told}; better than the best single network in "
            f"{won} of {len(errors)} searches."
        )
    for name in ("ensemble", "saved"):
        part = frame[frame["model"] == name]
        if len(part):
            over = int((part["worse"] > part["doubt"]).sum())
            means = part.groupby("table")[["worse", "doubt"]].mean()
            tables = int((means["worse"] > means["doubt"]).sum())
            what = "ensemble" if name == "ensemble" else "model that the search saved"
            out.append(
                f"- Ensemble: the {what} is worse than the best single network by more than a "
                f"standard error in {over} of {len(part)} searches, in the mean over seeds on "
                f"{tables} of {len(means)} tables."
            )
    return out


def _refined(frame: pd.DataFrame) -> list[str]:
    out = []
    for part in ("validation", "test"):
        for other, words in (("moves_parent", "their parents"), (CONTROL, "training on")):
            pairs = _pivot(frame, part, ("moves", other))
            if pairs.empty:
                continue
            change = 100.0 * (1.0 - pairs["moves"] / pairs[other])
            tables = change.groupby("table").median()
            out.append(
                f"- Refined networks against {words}, {part} rows: better {(change > 0).sum()}, "
                f"equal {(change == 0).sum()}, worse {(change < 0).sum()} of {len(change)}; median "
                f"{change.median():+.2f} %, mean {change.mean():+.2f} % less error; median over "
                f"seeds above 0 on {(tables > 0).sum()} of {len(tables)} tables."
            )
    seconds = _pivot(frame, "trained", ("moves", CONTROL)).sum()
    if seconds["moves"] or seconds[CONTROL]:
        out.append(
            f"- Children were trained for {seconds['moves']:.0f} s by moves and "
            f"{seconds[CONTROL]:.0f} s by training on."
        )
    return out


def _small(frame: pd.DataFrame) -> list[str]:
    part = frame[frame["model"] == "size"]
    if part.empty:
        return []
    small = part["parameters"] <= THIRD
    within = small & (part["worse"] <= part["doubt"])
    near = small & (part["worse"] <= part["own"])
    means = part.groupby("table")[["worse", "doubt", "parameters"]].mean()
    largest = part.groupby("table")["parameters"].max()
    tables = (largest <= THIRD) & (means["worse"] <= means["doubt"])
    return [
        f"- A third of the size: reached in {small.sum()} of {len(part)} runs (median share "
        f"{statistics.median(part['parameters']):.3f}); with a cost of at most a standard error in "
        f"{within.sum()}, of the best network's own standard error, unpaired, in {near.sum()}; in "
        f"the mean over seeds, a third for each, on {tables.sum()} of {len(tables)} tables."
    ]
