"""Error against size and error against latency: the fronts of a run, and how they grew."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from adanet_py.frames import make_frame
from adanet_py.pareto import hypervolume, pareto_front
from adanet_py.records import Result, Status

PARETO_COLUMNS: dict[str, str] = {
    "id": "identifier of the candidate",
    "architecture": "its architecture, or the name of the baseline",
    "validation": "metric on validation rows, in its natural sign and unit",
    "error": "validation error in units of the constant baseline's",
    "parameters": "number of trained parameters",
    "latency_ms": "measured time to predict 1,000 rows with the network alone, in milliseconds",
    "front_parameters": "whether nothing else has less error with no more parameters",
    "front_latency": "whether nothing else has less error with no more latency",
    "found_after": "seconds of the search after which its result was there",
}

HYPERVOLUME_COLUMNS: dict[str, str] = {
    "seconds": "of the search so far",
    "candidates": "networks that were scored so far",
    "error": "least validation error so far, in units of the constant baseline's",
    "hypervolume_parameters": "share of the square of error (0 to 1) and log10(1 + parameters) / 9 "
    "(0 to 1) that some network is below in both",
    "hypervolume_latency": "the same with log10(1 + 1000 latency_ms) / 9",
}
_ORDERS = 9.0  # orders of magnitude of the second side: a billion parameters, or 1,000 seconds


def pareto(results: Sequence[Result], when: Mapping[str, float] | None = None) -> pd.DataFrame:
    """Return what no other result beats in error and size, or in error and latency; by error.

    The columns of `PARETO_COLUMNS`; equal points are all kept, results without a score are not.
    `when`: the seconds after which results were there, by id.
    """
    scored = sorted(
        (r for r in results if math.isfinite(r.error) and r.accepted is not False),
        key=lambda r: (-r.reward, r.parameters),
    )
    small = pareto_front([(r.error, r.parameters) for r in scored])
    fast = pareto_front([(r.error, r.latency_ms) for r in scored])
    rows = [
        {
            "id": r.candidate.id,
            "architecture": r.candidate.architecture,
            "validation": r.metrics.get("validation", math.nan),
            "error": r.error,
            "parameters": r.parameters,
            "latency_ms": r.latency_ms,
            "front_parameters": on_small,
            "front_latency": on_fast,
            "found_after": (when or {}).get(r.candidate.id),
        }
        for r, on_small, on_fast in zip(scored, small, fast, strict=True)
        if on_small or on_fast
    ]
    return make_frame(sorted(rows, key=lambda row: row["error"]), list(PARETO_COLUMNS))


def growth(results: Sequence[Result], when: Mapping[str, float]) -> pd.DataFrame:
    """Return the hypervolume of the networks' fronts over time, a row where one of them grew.

    The columns of `HYPERVOLUME_COLUMNS`; `when`: seconds by id, results without are left out.
    """
    known = [
        r
        for r in results
        if r.status is not Status.BASELINE and math.isfinite(r.error) and r.candidate.id in when
    ]
    known.sort(key=lambda r: when[r.candidate.id])
    fronts: tuple[list[tuple[float, float]], ...] = ([], [])
    volumes, least = [0.0, 0.0], math.inf
    rows: list[dict[str, Any]] = []
    for count, result in enumerate(known, start=1):
        grown = False
        for i, front in enumerate(fronts):
            point = _point(result, i)
            if all(v < 1.0 for v in point) and not any(
                f[0] <= point[0] and f[1] <= point[1] for f in front
            ):
                front[:] = [f for f in front if not (point[0] <= f[0] and point[1] <= f[1])]
                front.append(point)
                volumes[i] = hypervolume(front, (1.0, 1.0))
                grown = True
        if grown or result.error < least:
            least = min(least, result.error)
            row = {"seconds": when[result.candidate.id], "candidates": count, "error": least}
            row |= dict(zip(list(HYPERVOLUME_COLUMNS)[3:], volumes, strict=True))
            if rows and rows[-1]["seconds"] == row["seconds"]:  # of one group
                rows.pop()
            rows.append(row)
    return make_frame(rows, list(HYPERVOLUME_COLUMNS))


def _point(result: Result, which: int) -> tuple[float, float]:
    """(error, cost) between 0 and 1, the cost being size or latency on a log scale."""
    cost = 1e3 * result.latency_ms if which else float(result.parameters)
    return (result.error, math.log10(1.0 + cost) / _ORDERS)
