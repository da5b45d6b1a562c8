"""How much time a search needs, told early from what it has seen. Pure functions, no clock.

Necessary is the time in which `TRIED` candidates are trained: with 95 % probability one of so many
random ones is among the best 5 % (Bergstra & Bengio 2012, section 5). Sufficient is the time after
which twice as many candidates would gain less than the standard error of the best one's score:
what is better than that can no longer be told (the stopping rule of Makarova et al. 2022).

What more candidates gain follows from the expected error of the best of n,
    V(n) = sum_i e_(i) C(N - i, n - 1) / C(N, n)
over the N errors seen, ascending (Dodge et al. 2019, in the unbiased form, of draws without
replacement, of Tang et al. 2020). The gains of doubling n from N/4 and from N/2
are seen; those of later doublings are taken to go on falling by the same ratio, as they do where
V(n) approaches its limit like a power of n. Candidates count as if they had come in any order, so a
controller that learns does better than this says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

TRIED = math.ceil(math.log(0.05) / math.log(0.95))  # 59
FEWEST = 16  # candidates with a score before anything is said
SHARE = 0.1  # of the budget after which it is said
SLOWEST = 0.9  # ratio of gains above which no end can be seen
DOUBLINGS = 10  # likewise


class Forecast(NamedTuple):
    """Times are seconds from the start of the search, counts are of candidates.

    `sufficient` and `enough` are NaN where no end can be seen yet. `doubt` is the standard error.
    """

    seconds: float  # when it was made
    candidates: int
    doubt: float
    necessary: float
    enough: float
    sufficient: float

    def to_json(self) -> dict[str, float | None]:
        """Plain values; what is not known is None."""
        return {k: None if math.isnan(v) else v for k, v in self._asdict().items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Forecast:
        """Inverse of `to_json`."""
        known: dict[str, Any] = {k: math.nan if v is None else v for k, v in value.items()}
        return cls(**known)

    @property
    def words(self) -> str:
        """One sentence each for what is needed, and why."""
        need = (
            f"Estimated after {self.candidates} candidates: necessary {self.necessary:.0f} s (for "
            f"{TRIED}, of which one is among the best 5 % with 95 % probability)"
        )
        if math.isnan(self.enough):
            return f"{need}; what is sufficient cannot be told yet: every doubling gains as much."
        return (
            f"{need}; sufficient {self.sufficient:.0f} s ({self.enough:.0f} candidates: twice as "
            f"many would gain less than the standard error of the best, {self.doubt:.2g})."
        )


def forecast(
    errors: Sequence[float], doubt: float, seconds: float, began: float
) -> Forecast | None:
    """What to expect of a search that trained candidates of these errors since second `began`.

    Errors are lower-is-better, infinite or NaN for failures; `doubt` is the standard error of the
    best, in their unit. None before there are `FEWEST` finite ones.
    """
    known = np.sort([e for e in errors if math.isfinite(e)])
    if len(known) < FEWEST:
        return None
    each = (seconds - began) / len(errors)
    enough = enough_candidates(known, doubt)
    return Forecast(
        seconds=seconds,
        candidates=len(errors),
        doubt=doubt,
        necessary=began + each * TRIED,
        enough=enough * len(errors) / len(known),
        sufficient=began + each * enough * len(errors) / len(known),
    )


def enough_candidates(known: np.ndarray, doubt: float) -> float:
    """The least number of candidates of which twice as many gain less than `doubt`.

    To a factor of two. `known` [N] are the errors seen, ascending; 2 or more. NaN where no end can
    be seen.
    """
    sizes = [len(known) >> k for k in range(len(known).bit_length())]  # all, half of them ...
    best = [expected_best(known, n) for n in sizes]
    gains = [few - many for many, few in pairwise(best)]
    if gains[0] < doubt:
        needed = [n for n, gain in zip(sizes, gains, strict=False) if gain >= doubt]
        return float(max(needed, default=1))
    ratio = gains[0] / gains[1] if len(gains) > 1 and gains[1] > 0.0 else math.inf
    if ratio > SLOWEST or not doubt > 0.0:
        return math.nan
    doublings = math.floor(math.log(doubt / gains[0]) / math.log(ratio))  # that still gain enough
    return len(known) * 2.0**doublings if doublings <= DOUBLINGS else math.nan


def expected_best(known: np.ndarray, n: int) -> float:
    """Expected least of `n` errors drawn from `known` [N], ascending: V(n) of the module."""
    others = np.arange(len(known) - 1, 0, -1)  # above each but the last
    shares = np.concatenate([[n / len(known)], np.maximum(others - n + 1, 0) / others])
    return float(known @ np.cumprod(shares))
