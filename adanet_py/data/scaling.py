"""Two scalings of a number for a network, as plain knots and factors (numpy only).

"quantile" maps ranks to normal scores: QuantileTransformer(output_distribution="normal") of
scikit-learn, except that equal values share the middle of their ranks instead of an end of them,
so that a column that is 0 in most rows has 0 near the middle and not at -5.2. "robust" is the
scaling with smooth clipping of RealMLP (Holzmueller et al. 2024, arXiv 2407.04491).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_SCORE = 5.2
MAX_KNOTS = 256
MAX_BINS = 32
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Scale:
    """The two scalings of one number.

    Rising `knots` map to `scores`, with straight lines between; robust is (x - center) * factor.
    """

    knots: tuple[float, ...]
    scores: tuple[float, ...]
    center: float
    factor: float

    @cached_property
    def _line(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return np.asarray(self.knots), np.asarray(self.scores)

    def quantile(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Normal scores [N] in [-5.2, 5.2]; beyond the seen range, the score of its end."""
        return np.interp(values, *self._line)

    def robust(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Median 0, interquartile range 1, then x / sqrt(1 + (x/3)^2), [N] in [-3, 3]."""
        with np.errstate(over="ignore"):
            scaled = np.clip((values - self.center) * self.factor, -1e9, 1e9)
        return scaled / np.hypot(1.0, scaled / 3.0)

    def to_json(self) -> dict[str, Any]:
        """Plain values, every field."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Scale:
        """Inverse of `to_json`."""
        return cls(tuple(value["knots"]), tuple(value["scores"]), value["center"], value["factor"])


def fit_scale(values: NDArray[np.float64]) -> Scale | None:
    """Scalings for the known (finite) values of a column; None when fewer than two differ."""
    known = values[np.isfinite(values)]
    distinct, counts = np.unique(known, return_counts=True)
    if distinct.size < 2:
        return None
    middle = (np.cumsum(counts) - counts / 2) / known.size
    at = _knots(middle)
    scores = [max(-MAX_SCORE, min(MAX_SCORE, _NORMAL.inv_cdf(p))) for p in middle[at].tolist()]
    largest = max(-distinct[0], distinct[-1])
    shrink = 0.25 if largest > 1e300 else 1.0  # differences of huge numbers would overflow
    low, center, high = np.percentile(known * shrink, [25, 50, 75]) / shrink
    with np.errstate(over="ignore", divide="ignore"):
        spread = high - low if high > low else (distinct[-1] - distinct[0]) / 2
        # Spreads near the smallest and the largest float must not make 0 or infinity of it.
        factor = float(np.clip(1.0 / np.float64(spread), 1e-308, 1e308))
    return Scale(tuple(distinct[at].tolist()), tuple(scores), float(center), factor)


def _knots(middle: NDArray[np.float64]) -> NDArray[np.intp]:
    """Which of the distinct values to keep: at most MAX_KNOTS, more of them in the tails."""
    if middle.size <= MAX_KNOTS:
        return np.arange(middle.size)
    # Even steps in probability follow the bulk, even steps in the normal score the tails.
    limit = -_NORMAL.inv_cdf(float(middle[0]))
    tails = [_NORMAL.cdf(z) for z in np.linspace(-limit, limit, MAX_KNOTS // 4)]
    wanted = np.concatenate([np.linspace(0, 1, MAX_KNOTS - len(tails) - 2), tails])
    at = np.searchsorted(middle, wanted).clip(0, middle.size - 1)
    return np.unique(np.concatenate([at, [0, middle.size - 1]]))


def bin_edges(scaled: NDArray[np.float32]) -> tuple[float, ...]:
    """Edges of at most 32 bins of equal counts in one scaled column [N]; strictly increasing.

    Fewer where values repeat; a column with one value gets one bin around it.
    """
    edges = np.unique(np.quantile(scaled, np.linspace(0, 1, MAX_BINS + 1)).astype(np.float32))
    if edges.size < 2:
        return (float(edges[0]) - 0.5, float(edges[0]) + 0.5)
    return tuple(edges.astype(float).tolist())
