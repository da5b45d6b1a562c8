"""Complexities r(h) of members, in units of the pool's mean, so that a lambda means the same there.

The paper takes r(h) for the Rademacher complexity of the family a subnetwork is from, or a bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from adanet_py.ensemble.weights import Floats
from adanet_py.errors import ConfigError
from adanet_py.records import Result

# Of a result and its outputs [n, C]; 0 or more.
Measure = Callable[[Result, Floats], float]


class Complexity(NamedTuple):
    """A measure of r(h)."""

    measure: Measure
    summary: str


def by_depth(result: Result, outputs: Floats) -> float:
    """sqrt(layers)."""
    return math.sqrt(max(1, result.layers))


def by_capacity(result: Result, outputs: Floats) -> float:
    """The bound of lemma 2 of Cortes et al. (2017), in orders of magnitude: log10(1 + bound)."""
    if not math.isfinite(result.capacity):
        return math.nan
    return math.log10(1.0 + 10.0**result.capacity) if result.capacity < 15 else result.capacity


def by_spread(result: Result, outputs: Floats) -> float:
    """Standard deviation of the outputs over the rows, the mean of the columns."""
    return float(outputs.std(axis=0).mean())


def constant(result: Result, outputs: Floats) -> float:
    """1: every member costs the same."""
    return 1.0


COMPLEXITIES: dict[str, Complexity] = {
    "depth": Complexity(by_depth, "sqrt(layers)"),
    "capacity": Complexity(by_capacity, "log10(1 + the bound by the norms of the weights)"),
    "spread": Complexity(by_spread, "standard deviation of the outputs"),
    "constant": Complexity(constant, "the same for all"),
}


def complexities(
    measure: Measure, results: Sequence[Result], outputs: Sequence[Floats]
) -> list[float]:
    """r(h) of every member over their mean; where that is not known, 1.

    Raises ConfigError for a negative number.
    """
    values = [float(measure(r, o)) for r, o in zip(results, outputs, strict=True)]
    for result, value in zip(results, values, strict=True):
        if value < 0:
            raise ConfigError(
                f"Expected a complexity of 0 or more for {result.candidate.id}, found {value:g}."
            )
    known = [v for v in values if math.isfinite(v)]
    mean = float(np.mean(known)) if known else 0.0
    return [v / mean if math.isfinite(v) and mean > 0 else 1.0 for v in values]
