"""Hyperparameters of architectures, optimizers and schedules."""

from __future__ import annotations

import math
from dataclasses import dataclass

from adanet_py.records import Scalar


@dataclass(frozen=True)
class Knob:
    """One hyperparameter: its default and what values are legal, wherever a space may set it.

    Either one of `choices`, or a number from `low` to `high`, both included (None: no bound), which
    is an integer where `default` is one. `log`: such numbers are drawn on a logarithmic scale.
    """

    default: Scalar
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Scalar, ...] | None = None
    doc: str = ""

    def allows(self, value: Scalar) -> bool:
        """Whether `value` lies in the legal domain."""
        if self.choices is not None:
            same = (c for c in self.choices if isinstance(value, bool) == isinstance(c, bool))
            return any(value == c for c in same)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if isinstance(self.default, int) and not float(value).is_integer():
            return False
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return low <= value <= high
