"""The reward: the error in units of the constant baseline's and the complexity, weighed.

Higher is better; what could not be scored has the reward minus infinity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from adanet_py.metrics import Metric, to_error
from adanet_py.records import Result

COMPLEXITY_WEIGHT = 0.01


def error_in_baseline_units(metric: Metric, value: float, baseline_value: float) -> float:
    """Return the error of a metric's `value` divided by that of the baseline: 1 is as bad as it.

    Values are in the metric's natural sign and unit; the error is the lower-is-better form. A
    baseline that makes no error is no unit: the error then stays in its own. Not finite: infinity.
    """
    error, unit = to_error(metric, value), to_error(metric, baseline_value)
    if not math.isfinite(error):
        return math.inf
    return error / unit if math.isfinite(unit) and unit > 1e-12 else error


def complexity(parameters: int) -> float:
    """Return a network's size on a log scale: 0 without parameters, 1 at a million."""
    return math.log10(1 + parameters) / 6


def reward(error: float, complexity: float, weight: float = COMPLEXITY_WEIGHT) -> float:
    """Return ``-error - weight * complexity``, or minus infinity where either is not finite."""
    if not (math.isfinite(error) and math.isfinite(complexity)):
        return -math.inf
    return -error - weight * complexity


def with_reward(
    result: Result, metric: Metric, baseline_value: float, weight: float = COMPLEXITY_WEIGHT
) -> Result:
    """Return `result` with error, complexity and reward filled in from its validation metric.

    `baseline_value` is the constant baseline's validation metric. A result without one keeps an
    infinite error and the reward minus infinity.
    """
    value = result.metrics.get("validation", math.nan)
    error = error_in_baseline_units(metric, value, baseline_value)
    size = complexity(result.parameters)
    return result.replace(error=error, complexity=size, reward=reward(error, size, weight))


def pareto_front(points: Sequence[Sequence[float]]) -> list[bool]:
    """Return for each point whether no other is at least as low everywhere and lower somewhere.

    Lower is better in every coordinate. Equal points are all on the front; one with a NaN never is.
    """
    front: list[Sequence[float]] = []
    on = [False] * len(points)
    order = [i for i, p in enumerate(points) if not any(math.isnan(v) for v in p)]
    # Sorted by coordinates, what dominates a point comes before it, and a front member always does.
    for i in sorted(order, key=lambda i: tuple(points[i])):
        point = tuple(points[i])
        if not any(
            tuple(f) != point and all(a <= b for a, b in zip(f, point, strict=True)) for f in front
        ):
            front.append(point)
            on[i] = True
    return on
