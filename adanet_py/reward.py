"""The reward: the error in units of the constant baseline's and the complexity, weighed.

Higher is better; what could not be scored has the reward minus infinity. What was not trained
because it breaks a bound has one below that of anything better than the constant baseline, lower
the further it is from the bound, so that controllers learn where to look.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from adanet_py.metrics import Metric, to_error
from adanet_py.records import Result, Status

COMPLEXITY_WEIGHT = 0.01  # of the weighted sum
TARGET_WEIGHT = 0.1  # of the distance from a target


def error_in_baseline_units(metric: Metric, value: float, baseline_value: float) -> float:
    """Return the error of a metric's `value` divided by that of the baseline: 1 is as bad as it.

    Values are in the metric's natural sign and unit; the error is the lower-is-better form. A
    baseline that makes no error is no unit: the error then stays in its own. Not finite: infinity.
    """
    error, unit = to_error(metric, value), to_error(metric, baseline_value)
    if not math.isfinite(error):
        return math.inf
    return error / unit if math.isfinite(unit) and unit > 1e-12 else error


# ---------------------------------------------------------------- complexity


def _log(value: float) -> float:
    """0 at 0, 1 at a million."""
    return math.log10(1.0 + value) / 6.0


def _log_of_power(exponent: float) -> float:
    """`_log` of ten to the power of `exponent`, which may be too large for a number."""
    return _log(10.0**exponent) if exponent < 15.0 else exponent / 6.0


class Measure(NamedTuple):
    """A measure of complexity: in its own unit, NaN where it was not taken, and normalised."""

    summary: str
    value: Callable[[Result], float]
    normalised: Callable[[float], float]


MEASURES: Mapping[str, Measure] = {
    "parameters": Measure(
        "log10(1 + parameters) / 6",
        lambda r: float(r.parameters),
        _log,
    ),
    "multiply_adds": Measure(
        "log10(1 + multiply_adds) / 6, of the prediction of one row",
        lambda r: float(r.multiply_adds),
        _log,
    ),
    "latency": Measure(
        "log10(1 + 1000 latency_ms) / 6: microseconds for 1,000 rows",
        lambda r: r.latency_ms,
        lambda ms: _log(1000.0 * ms),
    ),
    "layers": Measure(
        "sqrt(layers) / 4: AdaNet's r(h) by depth",
        lambda r: float(r.layers),
        lambda layers: math.sqrt(layers) / 4.0,
    ),
    "capacity": Measure(
        "log10(1 + 10^capacity) / 6: AdaNet's r(h) by the norms of the weights",
        lambda r: r.capacity,
        _log_of_power,
    ),
}


def complexity(parameters: int) -> float:
    """Return a network's size on a log scale: 0 without parameters, 1 at a million."""
    return _log(parameters)


# ---------------------------------------------------------------- bounds


class Costs(Protocol):
    """What a network costs: a `Result`, or what is measured before training."""

    @property
    def parameters(self) -> int:
        """Number of trained parameters."""

    @property
    def latency_ms(self) -> float:
        """Milliseconds for 1,000 rows."""

    @property
    def size_bytes(self) -> int:
        """Bytes of the model file."""


@dataclass(frozen=True)
class Bounds:
    """What no network may exceed; None: no bound. Baselines are not bounded.

    `latency_ms` is for 1,000 rows, `size_bytes` that of the model file.
    """

    parameters: int | None = None
    latency_ms: float | None = None
    size_bytes: int | None = None

    def __bool__(self) -> bool:
        return (self.parameters, self.latency_ms, self.size_bytes) != (None, None, None)

    def broken(self, cost: Costs) -> list[tuple[str, float, float]]:
        """(option, what was found, the bound) of every bound that `cost` breaks."""
        pairs = (
            ("--max-params", cost.parameters, self.parameters),
            ("--max-latency", cost.latency_ms, self.latency_ms),
            ("--max-size", cost.size_bytes, self.size_bytes),
        )
        return [(name, found, most) for name, found, most in pairs if most and found > most]

    def why_not(self, cost: Costs) -> str:
        """The bounds that `cost` breaks in words; empty where it breaks none."""
        units = {"--max-params": "parameters", "--max-latency": "ms", "--max-size": "bytes"}
        return "; ".join(
            f"{found:,.6g} {units[name]}, more than {name} {most:,.6g}"
            for name, found, most in self.broken(cost)
        )

    def excess(self, cost: Costs) -> float:
        """Orders of magnitude by which the broken bounds are exceeded, added up; 0: none is."""
        return sum(math.log10(found / most) for _, found, most in self.broken(cost))


# ---------------------------------------------------------------- the reward


def reward(error: float, complexity: float, weight: float = COMPLEXITY_WEIGHT) -> float:
    """Return ``-error - weight * complexity``, or minus infinity where either is not finite."""
    if not (math.isfinite(error) and math.isfinite(complexity)):
        return -math.inf
    return -error - weight * complexity


@dataclass(frozen=True)
class RewardRule:
    """How a search weighs error and complexity: reward = -error - weight * complexity.

    Without a `target` complexity is the normalised `measure` (see `MEASURES`): a weighted sum. With
    one, T0 in the measure's own unit, it is |T / T0 - 1|: the absolute reward r = Q + beta
    |T / T0 - 1| of Bender et al. 2020 (Can weight sharing outperform random architecture search?
    TuNAS) with Q = -error and beta = -weight. `weight` None: 0.01, with a target 0.1.
    """

    measure: str = "parameters"
    weight: float | None = None
    target: float | None = None
    bounds: Bounds = field(default_factory=Bounds)

    @property
    def factor(self) -> float:
        """The weight of the complexity."""
        if self.weight is not None:
            return self.weight
        return COMPLEXITY_WEIGHT if self.target is None else TARGET_WEIGHT

    def complexity(self, result: Result) -> float:
        """The complexity of a result as its reward counts it.

        A baseline is only measured by its parameters; in other measures it has none.
        """
        measure = MEASURES[self.measure]
        if result.status is Status.BASELINE and self.measure != "parameters":
            return 0.0
        value = measure.value(result)
        if self.target is not None:
            return abs(value / self.target - 1.0)
        return measure.normalised(value)


def with_reward(
    result: Result, metric: Metric, baseline_value: float, rule: RewardRule | None = None
) -> Result:
    """Return `result` with error, complexity and reward filled in from its validation metric.

    `baseline_value` is the constant baseline's validation metric. A result without one keeps an
    infinite error and the reward minus infinity; one that breaks a bound and so was not trained has
    the reward -1 - x / (1 + x), x being `Bounds.excess`.
    """
    rule = rule or RewardRule()
    value = result.metrics.get("validation", math.nan)
    error = error_in_baseline_units(metric, value, baseline_value)
    size = rule.complexity(result)
    if result.status is Status.INFEASIBLE:
        excess = rule.bounds.excess(result)
        return result.replace(error=error, complexity=size, reward=-1.0 - excess / (1.0 + excess))
    return result.replace(error=error, complexity=size, reward=reward(error, size, rule.factor))
