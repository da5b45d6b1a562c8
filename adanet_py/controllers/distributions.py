"""Decisions as distributions of Optuna, and values between the two.

Optuna has no weighted choices, so a prior is put into what the sampler draws from: rising numbers
become their parts of the unit interval, words as many equal slots as their weight asks for. What a
sampler draws evenly (its start, its exploration, a mutation) then follows the prior, while what it
learns is its own. A past value lies in the middle of its part, or in one slot of its word, chosen
by the candidate's identity so that results spread over them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from adanet_py.records import Candidate, Scalar
from adanet_py.space import Decision, SearchSpace

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_SLOTS = 64  # of a weighted choice between words, if whole multiples of the least need no fewer

_KEPT: WeakKeyDictionary[SearchSpace, Mapping[str, BaseDistribution]] = WeakKeyDictionary()


def distributions_of(space: SearchSpace) -> Mapping[str, BaseDistribution]:
    """What a trial draws each open decision of a space from, made once."""
    if space not in _KEPT:
        open_ones = [d for d in space.decisions if d.size > 1]
        _KEPT[space] = {d.name: _distribution(d) for d in open_ones}
    return _KEPT[space]


def _distribution(d: Decision) -> BaseDistribution:
    """What a trial draws a decision from."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if d.prior:
        slots = range(len(_slots(d)))
        return FloatDistribution(0.0, 1.0) if d.ordered else CategoricalDistribution(slots)
    if d.kind == "choice":
        # By position: words have none, rising numbers have neighbours.
        last = len(d.domain) - 1
        return IntDistribution(0, last) if d.ordered else CategoricalDistribution(range(last + 1))
    low, high = d.ends
    if d.kind == "int":
        return IntDistribution(int(low), int(high), log=d.log)
    return FloatDistribution(low, high, log=d.log)


def drawn_evenly(kind: Any, rng: np.random.Generator) -> Any:
    """A value drawn evenly from a distribution, on its scale; a tenth of the time Optuna takes."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(kind, CategoricalDistribution):
        return kind.choices[int(rng.integers(len(kind.choices)))]
    whole = isinstance(kind, IntDistribution)
    low, high = (kind.low - 0.5, kind.high + 0.5) if whole else (kind.low, kind.high)
    value = rng.uniform(low, high)
    if kind.log:
        value = math.exp(rng.uniform(math.log(low), math.log(high)))
    value = min(max(value, kind.low), kind.high)
    return round(value) if whole else float(value)


def _slots(d: Decision) -> list[int]:
    """The position of the choice that owns each slot: slots in proportion to the prior."""
    counts = [round(share / min(d.prior)) for share in d.prior]
    if sum(counts) > _SLOTS:
        counts = [max(1, round(share * _SLOTS)) for share in d.prior]
    return [i for i, count in enumerate(counts) for _ in range(count)]


def outward(d: Decision, drawn: Any) -> Scalar:
    """The value of a decision for what was drawn from its distribution."""
    if d.prior and d.ordered:
        return d.at(drawn)
    if d.kind == "choice":
        return d.domain[_slots(d)[drawn] if d.prior else drawn]
    return int(drawn) if d.kind == "int" else d.tidy(drawn)


def inward(d: Decision, value: Scalar, candidate: Candidate) -> Any:
    """The value a trial holds for `value` of a candidate."""
    if d.prior and d.ordered:
        return d.unit(value)
    if d.prior:
        mine = [s for s, i in enumerate(_slots(d)) if d.domain[i] == value]
        return mine[int(candidate.id, 16) % len(mine)]
    return d.domain.index(value) if d.kind == "choice" else value
