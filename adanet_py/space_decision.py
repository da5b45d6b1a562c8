"""One thing a search decides: its values, their order, their place in the unit interval."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TypeGuard

import numpy as np

from adanet_py.records import Scalar

_DIGITS = 6  # significant digits of a drawn number: enough, and pleasant to read in a leaderboard
_STEPS = (0.05, 0.4)  # range of the standard deviation of a mutation in the unit interval


def _is_number(value: Scalar) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Decision:
    """One thing a search decides.

    `domain` holds the choices, or the low and high end of a range. `when` lists the conditions:
    decision name and the values of it for which this one is active. `static` decisions choose the
    program a candidate is trained in, the others are numbers in it. `prior` holds the share of each
    choice, all above 0 with sum 1; empty where all have the same.
    """

    name: str
    path: tuple[str, ...]
    kind: str  # "choice", "int" or "float"
    domain: tuple[Scalar, ...]
    log: bool = False
    when: tuple[tuple[str, tuple[Scalar, ...]], ...] = ()
    static: bool = False
    prior: tuple[float, ...] = ()

    @cached_property
    def size(self) -> float:
        """Number of values; infinite for a real range."""
        if self.kind == "choice":
            return len(self.domain)
        low, high = self.ends
        if self.kind == "int":
            return high - low + 1
        return math.inf if high > low else 1

    @cached_property
    def ends(self) -> tuple[float, float]:
        """Low and high end of a range."""
        low, high = self.domain
        return low, high  # type: ignore[return-value]

    @cached_property
    def ordered(self) -> bool:
        """Whether neighbouring values are alike: ranges, and choices that are rising numbers."""
        if self.kind != "choice":
            return True
        numbers = [v for v in self.domain if _is_number(v)]
        return len(numbers) == len(self.domain) and all(a < b for a, b in pairwise(numbers))

    @cached_property
    def _scaled_ends(self) -> tuple[float, float]:
        low, high = self.ends
        if self.kind == "int":  # every integer owns an equally wide part of the interval
            low, high = low - 0.5, high + 0.5
        return (math.log(low), math.log(high)) if self.log else (low, high)

    @cached_property
    def _borders(self) -> list[float]:
        """Where in [0, 1] one choice ends and the next begins: the prior summed up."""
        return list(accumulate(self.prior))[:-1]

    @cached_property
    def _among(self) -> frozenset[tuple[bool, Scalar]]:
        """The choices, of which 1 is not true."""
        return frozenset((isinstance(c, bool), c) for c in self.domain)

    @cached_property
    def freedom(self) -> float:
        """Entropy of the prior over that of equal shares: 1 where nothing is preferred."""
        if not self.prior or len(self.prior) < 2:
            return 1.0
        return -sum(p * math.log(p) for p in self.prior) / math.log(len(self.prior))

    def at(self, u: float) -> Scalar:
        """The value at `u` in [0, 1], of which every choice owns a part as wide as its prior."""
        if self.prior:
            return self.domain[bisect_right(self._borders, u)]
        if self.kind == "choice":
            return self.domain[min(int(u * len(self.domain)), len(self.domain) - 1)]
        low, high = self._scaled_ends
        x = low + u * (high - low)
        x = math.exp(x) if self.log else x
        return self.tidy(x)

    def tidy(self, x: float) -> float:
        """The number of a range at or next to `x`, with few digits."""
        low, high = self.ends
        if self.kind == "int":
            return int(min(max(round(x), low), high))
        return float(min(max(float(f"{x:.{_DIGITS}g}"), low), high))

    def unit(self, value: Scalar) -> float:
        """Inverse of `at`: the middle of the part of [0, 1] that belongs to `value`."""
        if self.prior:
            index = self.domain.index(value)
            low, high = [0.0, *self._borders, 1.0][index : index + 2]
            return (low + high) / 2.0
        if self.kind == "choice":
            return (self.domain.index(value) + 0.5) / len(self.domain)
        low, high = self._scaled_ends
        x: float = math.log(value) if self.log else value  # type: ignore[arg-type,assignment]
        return min(max((x - low) / (high - low), 0.0), 1.0) if high > low else 0.5

    def allows(self, value: Scalar) -> bool:
        """Whether `value` is in the domain."""
        if self.kind == "choice":
            try:
                return (isinstance(value, bool), value) in self._among
            except TypeError:  # a list, say: what no choice is
                return False
        if not _is_number(value):
            return False
        low, high = self.ends
        return low <= value <= high and (self.kind == "float" or float(value).is_integer())

    def closest(self, value: Scalar) -> Scalar:
        """The allowed value nearest to `value`; None where nothing is near (another word)."""
        if self.allows(value):
            return value
        if not _is_number(value) or not self.ordered:
            return None
        if self.kind == "choice":
            return min(self.domain, key=lambda c: abs(c - value))  # type: ignore[operator]
        low, high = self.ends
        clipped = min(max(value, low), high)
        return round(clipped) if self.kind == "int" else clipped


def neighbour(decision: Decision, value: Scalar, rng: np.random.Generator) -> Scalar:
    """Another value of `decision` near `value`; the same only if there is no other.

    Words have no neighbours: any other one is drawn, by the prior.
    """
    if decision.size <= 1:
        return value
    if not decision.ordered:
        others = [c for c in decision.domain if c != value]
        if not decision.prior:
            return others[int(rng.integers(len(others)))]
        ends = list(accumulate(decision.prior[decision.domain.index(c)] for c in others))
        return others[bisect_right(ends[:-1], rng.random() * ends[-1])]
    start = decision.unit(value)
    low, high = _STEPS
    for _ in range(16):
        # Steps of every size: small ones refine, large ones leave a poor start.
        u = abs(start + rng.normal() * low * (high / low) ** rng.random())  # reflected at 0
        moved = decision.at(min(max(2.0 - u if u > 1.0 else u, 0.0), 1.0))
        if moved != value:
            return moved
    # A few values in a wide part each (three choices): the step rarely leaves; take the next one.
    if decision.kind == "choice":
        index, last = decision.domain.index(value), len(decision.domain) - 1
        up = index < last and (index == 0 or rng.random() < 0.5)
        return decision.domain[index + 1 if up else index - 1]
    step = 1.0 / decision.size if math.isfinite(decision.size) else high
    up = start + step <= 1.0 and (start - step < 0.0 or rng.random() < 0.5)
    return decision.at(start + step if up else start - step)
